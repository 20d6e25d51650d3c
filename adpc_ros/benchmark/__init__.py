# SPDX-License-Identifier: Apache-2.0
"""What masks save, how fast a frame stops, and what ROS adds: measured, not asserted."""
