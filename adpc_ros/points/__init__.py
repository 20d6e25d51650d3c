"""Masks onto point clouds: camera models, projection, pairing by stamp; without ROS."""
