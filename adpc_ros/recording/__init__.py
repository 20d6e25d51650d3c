"""rosbag2 recordings (MCAP or SQLite), read without ROS; only what is asked for is opened."""
