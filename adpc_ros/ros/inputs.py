# SPDX-License-Identifier: Apache-2.0
"""What the node listens to: camera images, calibration and urgency; callbacks store or signal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from builtin_interfaces.msg import Duration
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Bool

from adpc_ros.msg import Urgency
from adpc_ros.ros.age import age_of, is_simulated
from adpc_ros.ros.decoding import (
    TURNED,
    InvalidImage,
    admitted,
    compressed_to_rgb,
    is_turned,
    raw_to_rgb,
)
from adpc_ros.ros.outputs import Outputs
from adpc_ros.ros.warn_once import WarnOnce
from adpc_ros.runtime.deferred import Deferred
from adpc_ros.runtime.engine import Engine
from adpc_ros.runtime.memory import Budget
from adpc_ros.runtime.scheduler import Level
from adpc_ros.runtime.trace import Trace

FAR_OFF_S = 10.0  # a stamp this far from the clock was made by another clock


class Inputs:
    """The subscriptions of an active node."""

    def __init__(
        self,
        node: LifecycleNode,
        engine: Engine,
        outputs: Outputs,
        budget: Budget,
        warn_once: WarnOnce,
        trace: Trace | None = None,
    ) -> None:
        """
        Subscribe.

        :param engine: where frames and urgency go.
        :param outputs: where the calibration goes, and whose parameters are in force.
        :param budget: of a frame.
        :param trace: keeps how long callbacks took; None keeps nothing.
        :raises RuntimeError: for a quality of service that does not exist.
        """
        self._node, self._engine, self._outputs = node, engine, outputs
        self._budget, self._warn_once = budget, warn_once
        self._trace = trace
        self._submit = engine.submit if trace is None else trace.timed('submit', engine.submit)
        self._subscriptions: list[Subscription] = []
        self._first = True  # no compressed image has come yet
        chosen = outputs.parameters
        newest: dict[str, Any] = {'depth': 5, 'reliability': ReliabilityPolicy.BEST_EFFORT}
        try:
            if chosen.urgency_type == 'bool':
                self._subscribe(Bool, '~/input/urgency', self._on_bool, depth=10)
            else:
                self._subscribe(Urgency, '~/input/urgency', self._on_urgency, depth=10)
            self._subscribe(CameraInfo, '~/input/camera_info', self._on_camera_info, **newest)
            if chosen.compressed_input:
                self._subscribe(CompressedImage, '~/input/image', self._on_compressed, **newest)
            else:
                self._subscribe(Image, '~/input/image', self._on_image, **newest)
        except Exception:
            self.close()
            raise

    def close(self) -> None:
        """Unsubscribe, and forget the calibration: the next camera may be another."""
        self._outputs.camera_info = None
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []

    def cameras(self) -> int:
        """Count who publishes images, as far as they have been found."""
        return self._node.count_publishers(self._node.resolve_topic_name('~/input/image'))

    def _subscribe(
        self, kind: type, topic: str, callback: Callable[[Any], None], **quality: Any
    ) -> None:
        def guarded(message: Any) -> None:
            """Keep whatever a message provokes from ending the node."""
            try:
                callback(message)
            except Exception as error:
                self._warn_once(f'{topic} {error}', f'{topic}: message ignored: {error!r}')

        if self._trace is not None:
            guarded = self._trace.timed(topic.replace('~/', 'callback '), guarded)
        self._subscriptions.append(
            self._node.create_subscription(
                kind,
                topic,
                guarded,
                QoSProfile(**quality),
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )
        )

    # Images

    def _on_image(self, message: Image) -> None:
        self._take(message, raw_to_rgb)

    def _on_compressed(self, message: CompressedImage) -> None:
        if self._first and is_turned(message):
            self._warn_once('orientation', TURNED)
        self._first = False
        self._take(message, compressed_to_rgb)

    def _take(self, message: Any, convert: Callable[[Any], Any]) -> None:
        try:
            image = admitted(convert(message), self._budget)
        except InvalidImage as error:
            self._engine.reject()
            self._say_invalid(error)
            return
        if isinstance(image, Deferred):
            image = self._reported(image)
        self._submit(image, message.header, self._age_s(message.header.stamp))

    def _reported(self, image: Deferred) -> Deferred:
        """Say what is wrong if the worker cannot decode it."""

        def decode() -> Any:
            try:
                return image.decode()
            except InvalidImage as error:
                self._say_invalid(error)
                raise

        return Deferred(image.size, decode)

    def _say_invalid(self, error: InvalidImage) -> None:
        self._warn_once(error.kind, f'image dropped: {error}')

    def _age_s(self, stamp: Any) -> float:
        """Give the time since a stamp, in seconds, and warn of what makes no sense."""
        clock = self._node.get_clock()
        age_s = age_of(stamp, clock)
        if age_s is None:
            return 0.0
        max_age_s = self._outputs.parameters.max_age_s
        if abs(age_s) > FAR_OFF_S:
            why = (
                'do they and /clock come from the same source'
                if is_simulated(clock)
                else ('is use_sim_time missing')
            )
            self._warn_once('stamp', f'image stamps are {age_s:.1f} s off the clock: {why}?')
        elif max_age_s and age_s > max_age_s:
            self._warn_once('age', f'image dropped: {age_s:.3f} s old, max_age_s is {max_age_s}')
        return age_s

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._outputs.camera_info = message

    # Urgency

    def _on_bool(self, message: Bool) -> None:
        # it has no stamp of its own: that of its arrival says which one stopped a frame
        stamp_ns = self._node.get_clock().now().nanoseconds
        self._engine.urgency(Level.CRITICAL if message.data else Level.ROUTINE, stamp=stamp_ns)

    def _on_urgency(self, message: Urgency) -> None:
        try:
            level = Level(message.level)
        except ValueError:
            expected = ', '.join(f'{level.value} {level.name}' for level in Level)
            self._warn_once(
                f'level {message.level}',
                f'urgency ignored: expected level {expected}, got {message.level}',
            )
            return
        deadline_s, hold_s = _seconds(message.deadline), _seconds(message.hold)
        if deadline_s < 0 or hold_s < 0:  # the level counts all the same
            self._warn_once(
                'negative urgency',
                f'expected deadline and hold >= 0 s, got {deadline_s}, {hold_s}: taken as 0',
            )
            deadline_s, hold_s = max(deadline_s, 0.0), max(hold_s, 0.0)
        self._engine.urgency(level, deadline_s, hold_s, nanoseconds(message.header.stamp))


def nanoseconds(time: Any) -> int:
    """Give a Time or Duration message in nanoseconds."""
    return int(time.sec) * 10**9 + int(time.nanosec)


def _seconds(duration: Duration) -> float:
    return nanoseconds(duration) / 1e9
