# SPDX-License-Identifier: Apache-2.0
"""Anytime semantic segmentation for ROS 2 that can be preempted at any time."""

from pkgutil import extend_path

# Beside a checkout, the generated messages (adpc_ros.msg) lie in the install space: this package
# is then two directories on the path, and both must be searched.
__path__ = extend_path(__path__, __name__)
