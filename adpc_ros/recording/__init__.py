# SPDX-License-Identifier: Apache-2.0
"""rosbag2 recordings (MCAP or SQLite), read without ROS; only what is asked for is opened."""
