# SPDX-License-Identifier: Apache-2.0
"""Names of message types, as recordings and topics have them."""

RAW_TYPE = 'sensor_msgs/msg/Image'
COMPRESSED_TYPE = 'sensor_msgs/msg/CompressedImage'
CAMERA_INFO_TYPE = 'sensor_msgs/msg/CameraInfo'
LABEL_INFO_TYPE = 'vision_msgs/msg/LabelInfo'
STATUS_TYPE = 'adpc_ros/msg/SegmentationStatus'
URGENCY_TYPE = 'adpc_ros/msg/Urgency'
BOOL_TYPE = 'std_msgs/msg/Bool'
