# SPDX-License-Identifier: Apache-2.0
"""Between ROS 2 and the runtime: messages to arrays and back, parameters, the node."""
