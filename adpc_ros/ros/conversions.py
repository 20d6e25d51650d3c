# SPDX-License-Identifier: Apache-2.0
"""What is published as messages: arrays become images, fields messages."""

from __future__ import annotations

import array
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration, Time
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image, RegionOfInterest
from std_msgs.msg import Header

from adpc_ros.msg import SegmentationStatus
from adpc_ros.ros.publication import Fields, Span, Stamp, encoding_of

MESSAGES: dict[str, type] = {
    'adpc_ros/msg/SegmentationStatus': SegmentationStatus,
    'sensor_msgs/msg/CameraInfo': CameraInfo,
    'sensor_msgs/msg/Image': Image,
    'sensor_msgs/msg/RegionOfInterest': RegionOfInterest,
}
try:
    from vision_msgs.msg import LabelInfo, VisionClass

    MESSAGES |= {
        'vision_msgs/msg/LabelInfo': LabelInfo,
        'vision_msgs/msg/VisionClass': VisionClass,
    }
except ImportError:  # not part of every installation; the parameter class_names says the same
    pass


def to_message(value: NDArray[Any] | Fields, header: Header) -> Any:
    """
    Give the message of a topic's value.

    :param value: of :mod:`adpc_ros.ros.publication`.
    :param header: set as it is.
    """
    if isinstance(value, Fields):
        return _message(value, header=header)
    return array_to_image(value, header)


def _message(fields: Fields, **more: Any) -> Any:
    return MESSAGES[fields.kind](**more, **{n: _value(v) for n, v in fields.values.items()})


def _value(value: Any) -> Any:
    if isinstance(value, (Span, Stamp)):
        seconds, rest = divmod(value.nanoseconds, 10**9)
        kind = Duration if isinstance(value, Span) else Time
        return kind(sec=seconds, nanosec=rest)
    if isinstance(value, Fields):
        return _message(value)
    if isinstance(value, list):
        return [_value(part) for part in value]
    return value


def array_to_image(values: NDArray[Any], header: Header) -> Image:
    """
    Give a mono8, rgb8 or 32FC1 image message.

    :param values: (H, W) uint8 or float32 or, for RGB, (H, W, 3) uint8.
    :param header: set as it is.
    """
    message = Image()
    message.header = header
    message.height, message.width = values.shape[:2]
    message.encoding = encoding_of(values)
    message.step = values[0].nbytes
    data = array.array('B')
    data.frombytes(np.ascontiguousarray(values).data.cast('B'))  # an ndarray is far slower
    message.data = data
    return message
