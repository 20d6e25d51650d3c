# SPDX-License-Identifier: Apache-2.0
"""Masks onto point clouds: camera models, projection, pairing by stamp; without ROS."""
