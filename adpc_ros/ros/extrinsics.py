# SPDX-License-Identifier: Apache-2.0
"""Where the camera is, seen from the cloud: stated once, or looked up with tf2."""

from __future__ import annotations

from typing import Protocol

from builtin_interfaces.msg import Time as Stamp
from rclpy.node import Node

from adpc_ros.points.projection import Transform, transform_of


class TransformUnavailable(Exception):
    """There is no transform, or not yet; the text says why."""


class Extrinsics(Protocol):
    """Gives the transform from a cloud's frame to the camera's optical frame."""

    def at(self, camera_frame: str, cloud_frame: str, stamp: Stamp) -> Transform:
        """
        Give the transform; never waits.

        :param camera_frame: of mask and camera_info.
        :param cloud_frame: of the cloud.
        :param stamp: the cloud's.
        :raises TransformUnavailable: if there is none.
        """


class StatedExtrinsics:
    """One transform for all times and all frame ids."""

    def __init__(self, transform: Transform) -> None:
        """Keep it."""
        self._transform = transform

    def at(self, camera_frame: str, cloud_frame: str, stamp: Stamp) -> Transform:
        """Give it."""
        return self._transform


class Tf2Extrinsics:
    """
    Transforms from /tf and /tf_static.

    :param node: subscribes; its executor has to run.
    :raises RuntimeError: where tf2_ros is not installed.
    """

    def __init__(self, node: Node) -> None:
        """Begin to listen."""
        try:
            import tf2_ros
        except ImportError as error:
            raise RuntimeError(
                'extrinsics are not stated and tf2_ros cannot be imported: state the parameter '
                f'extrinsics, or install ros-jazzy-tf2-ros-py ({error})'
            ) from None
        self._error: type[Exception] = tf2_ros.TransformException
        self._buffer = tf2_ros.Buffer()
        self._listener = tf2_ros.TransformListener(self._buffer, node)

    def at(self, camera_frame: str, cloud_frame: str, stamp: Stamp) -> Transform:
        """Look it up at the cloud's stamp."""
        from rclpy.time import Time

        try:
            found = self._buffer.lookup_transform(
                camera_frame, cloud_frame, Time.from_msg(stamp)
            ).transform
            at, turned = found.translation, found.rotation
            return transform_of((at.x, at.y, at.z), (turned.x, turned.y, turned.z, turned.w))
        except (self._error, ValueError) as error:  # ValueError: no rotation, a negative stamp
            raise TransformUnavailable(str(error)) from None
