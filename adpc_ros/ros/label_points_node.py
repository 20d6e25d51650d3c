#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
The node that labels point clouds, in a process separate from the segmentation.

Each cloud waits for the mask nearest in stamp, and leaves with class and confidence as fields.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from adpc_ros.ros.interrupts import Interrupts, end_at_once

if __name__ == '__main__':
    end_at_once()  # loading takes a while

# The matrix products here are tiny; threads that spin would take cores from the segmentation.
# Read when numpy is loaded.
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')

import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from adpc_ros.points.camera import Camera
from adpc_ros.points.pairing import Pair, Pairing
from adpc_ros.points.projection import UNLABELLED, Labels, label_points
from adpc_ros.ros.allocator import keep_freed_memory
from adpc_ros.ros.cloud_conversions import (
    Cloud,
    InvalidCameraInfo,
    InvalidCloud,
    camera_of,
    image_to_confidence,
    image_to_mask,
    label_cloud,
    read_cloud,
)
from adpc_ros.ros.decoding import InvalidImage
from adpc_ros.ros.extrinsics import (
    Extrinsics,
    StatedExtrinsics,
    Tf2Extrinsics,
    TransformUnavailable,
)
from adpc_ros.ros.label_points_parameters import LabelPointsParameters
from adpc_ros.ros.node_parameters import ParameterNode
from adpc_ros.ros.starting import parameter_files, run, spin

WARN_EVERY_S = 10.0  # of each kind
_MAX_KINDS = 100  # garbage can differ without end
_TICK_S = 0.01  # how exactly a waiting cloud's time is kept
_OVERRIDABLE = (
    QoSPolicyKind.HISTORY,
    QoSPolicyKind.DEPTH,
    QoSPolicyKind.RELIABILITY,
    QoSPolicyKind.DURABILITY,
)


class _Received(NamedTuple):
    message: PointCloud2
    cloud: Cloud


class _Plane(NamedTuple):
    frame_id: str
    values: NDArray[Any]


class _Unlabelled(Exception):
    """Why a cloud gets no labels; ``kind`` groups clouds of the same cause."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class LabelPointsNode(ParameterNode):
    """
    Clouds, masks, confidence and camera_info in; clouds with two fields more out.

    :raises ValueError: for invalid parameters.
    :raises RuntimeError: if neither the extrinsics are given nor tf2 is installed, and for invalid
        QoS overrides.
    """

    kind = LabelPointsParameters

    def __init__(self) -> None:
        """Declare parameters, advertise and subscribe."""
        super().__init__('label_points')
        self.declare_described(read_only=True)
        self._values: LabelPointsParameters = self.read_described()
        stated = self._values.transform()
        self._extrinsics: Extrinsics = (
            Tf2Extrinsics(self) if stated is None else StatedExtrinsics(stated)
        )
        self._pairing: Pairing[_Received, _Plane] = Pairing(
            self._values.max_stamp_difference_s, self._values.max_wait_s
        )
        self._camera_info: CameraInfo | None = None
        self._camera: Camera | None = None
        self._counts: Counter[str] = Counter()
        self._warned_s: dict[str, float] = {}
        overridable = QoSOverridingOptions(_OVERRIDABLE)
        # both reliable and best-effort subscribers hear a reliable publisher
        self._output = self.create_publisher(
            PointCloud2, '~/output/points', QoSProfile(depth=5), qos_overriding_options=overridable
        )
        # A steady clock: simulated time may stand still. It runs only while clouds wait.
        self._timer = self.create_timer(
            _TICK_S, self._guarded(self._settle), clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        self._timer.cancel()
        for kind, topic, callback in (
            (CameraInfo, 'camera_info', self._on_camera_info),
            (Image, 'mask', self._on_mask),
            (Image, 'confidence', self._on_confidence),
            (PointCloud2, 'points', self._on_points),
        ):
            # best effort: what is not taken in time is lost, and no publisher has to send it again
            qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
            self.create_subscription(
                kind,
                f'~/input/{topic}',
                self._guarded(callback),
                qos,
                qos_overriding_options=overridable,
            )

    def _guarded(self, callback: Callable[..., None]) -> Callable[..., None]:
        """Catch every error that a message causes, so that the node goes on."""

        def guarded(*messages: Any) -> None:
            try:
                callback(*messages)
            except (InvalidImage, InvalidCloud) as error:
                self._warn(f'{callback.__name__} {error.kind}', f'message ignored: {error}')
            except Exception as error:
                self._warn(callback.__name__, f'message ignored: {error!r}')

        return guarded

    # Inputs

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._camera_info = message
        self._settle()

    def _on_mask(self, message: Image) -> None:
        plane = _Plane(message.header.frame_id, image_to_mask(message))
        self._pairing.add_mask(_nanoseconds(message.header.stamp), plane)
        self._settle()

    def _on_confidence(self, message: Image) -> None:
        plane = _Plane(message.header.frame_id, image_to_confidence(message))
        self._pairing.add_confidence(_nanoseconds(message.header.stamp), plane)
        self._settle()

    def _on_points(self, message: PointCloud2) -> None:
        received = _Received(message, read_cloud(message))
        stamp_ns = _nanoseconds(message.header.stamp)
        self._pairing.add_cloud(stamp_ns, received, time.monotonic())
        self._settle()

    # Outputs

    def _settle(self) -> None:
        """Publish the clouds whose waiting is over."""
        for received, pair, reason in self._pairing.settle(time.monotonic(), self._can_label):
            try:
                self._publish(received, pair, reason)
            except InvalidCloud as error:
                self._warn(f'cloud {error.kind}', f'cloud dropped: {error}')
        if not self._pairing.waiting_count:
            self._timer.cancel()
        elif self._timer.is_canceled():
            self._timer.reset()

    def _publish(self, received: _Received, pair: Pair[_Plane] | None, reason: str) -> None:
        self._counts['clouds'] += 1
        count = len(received.cloud.records)
        labels = Labels(np.full(count, UNLABELLED, np.uint8), np.zeros(count, np.float32))
        try:
            if count:  # else nothing is left unlabelled
                labels = self._labels(received, pair, reason)
        except _Unlabelled as error:
            self._counts['unlabelled'] += 1
            what = 'left unlabelled' if self._values.publish_unlabelled else 'dropped'
            self._warn(
                error.kind,
                f'cloud {what}: {error} '
                f'({self._counts["unlabelled"]} of {self._counts["clouds"]} clouds so far)',
            )
            if not self._values.publish_unlabelled:
                return
        names = self._values.label_field, self._values.confidence_field
        self._output.publish(label_cloud(received.message, received.cloud, labels, *names))

    def _labels(self, received: _Received, pair: Pair[_Plane] | None, reason: str) -> Labels:
        if pair is None:
            raise _Unlabelled('mask', reason)
        info = self._camera_info
        if info is None:
            raise _Unlabelled('no camera_info', 'no camera_info has come')
        frames = {pair.mask.frame_id, pair.confidence.frame_id, info.header.frame_id} - {''}
        if len(frames) > 1:
            raise _Unlabelled(
                'frame',
                'expected mask, confidence and camera_info of one frame_id, '
                f'got {", ".join(sorted(frames))}',
            )
        try:
            camera = camera_of(info)
        except InvalidCameraInfo as error:
            raise _Unlabelled('camera_info', f'camera_info: {error}') from None
        if camera != self._camera:  # an equal one has its limit worked out already
            self._camera = camera
        header = received.message.header
        try:
            transform = self._extrinsics.at(max(frames, default=''), header.frame_id, header.stamp)
        except TransformUnavailable as error:
            raise _Unlabelled('transform', f'no transform: {error}') from None
        try:
            return label_points(
                received.cloud.coordinates,
                transform,
                self._camera,
                pair.mask.values,
                pair.confidence.values,
            )
        except ValueError as error:
            raise _Unlabelled('size', str(error)) from None

    def _can_label(self, received: _Received) -> bool:
        """Tell whether camera_info and transform are there; they are worth waiting for."""
        info, header = self._camera_info, received.message.header
        if info is None:
            return False
        if not info.header.frame_id:
            return True  # the mask's frame counts, and there is nothing to wait for
        try:
            self._extrinsics.at(info.header.frame_id, header.frame_id, header.stamp)
        except TransformUnavailable:
            return False
        return True

    def _warn(self, kind: str, text: str) -> None:
        """Say something of a kind, and not again for a while."""
        if kind not in self._warned_s and len(self._warned_s) >= _MAX_KINDS:
            kind = 'others'
        now_s = time.monotonic()
        if now_s - self._warned_s.get(kind, -WARN_EVERY_S) >= WARN_EVERY_S:
            self._warned_s[kind] = now_s
            self.get_logger().warning(f'{text} (said every {WARN_EVERY_S:g} s at most)')


def _nanoseconds(stamp: Time) -> int:
    """Give a stamp as one number; rclpy's Time takes no negative seconds."""
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)


def _work(node: LabelPointsNode, interrupts: Interrupts, args: list[str] | None) -> int:
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        for text in (*node.complaints(parameter_files(args)), *node.unknown_qos()):
            node.get_logger().warning(text)
        spin(executor, interrupts)
    finally:
        executor.shutdown()
    return 0


def main(args: list[str] | None = None) -> int:
    """Run the node until it is interrupted; returns the exit status."""
    keep_freed_memory()
    return run('label_points', LabelPointsNode, partial(_work, args=args), args)


if __name__ == '__main__':
    sys.exit(main())
