# SPDX-License-Identifier: Apache-2.0
"""What the node says: mask, confidence and status of each frame, and what goes with them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.lifecycle import LifecycleNode, Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from adpc_ros.pictures import overlay
from adpc_ros.ros import publication
from adpc_ros.ros.age import age_of
from adpc_ros.ros.conversions import MESSAGES, to_message
from adpc_ros.ros.message_types import RAW_TYPE
from adpc_ros.ros.parameters import Parameters
from adpc_ros.ros.publication import TOPICS, Fields, Network, Topic, scaled
from adpc_ros.ros.warn_once import WarnOnce
from adpc_ros.runtime.deferred import Deferred
from adpc_ros.runtime.ledger import Frame, Result
from adpc_ros.runtime.trace import Trace

_OVERLAY = 'debug/overlay'


class Outputs:
    """
    The publishers of a configured node.

    ``publish`` is called by one thread at a time; another may call the other methods meanwhile.
    """

    def __init__(
        self,
        node: LifecycleNode,
        network: Network,
        parameters: Parameters,
        warn_once: WarnOnce,
        trace: Trace | None = None,
    ) -> None:
        """
        Advertise.

        :param trace: keeps when each topic was published; None keeps nothing.
        :raises RuntimeError: for a quality of service that does not exist.
        """
        self._node, self.network, self._warn_once = node, network, warn_once
        self.parameters = parameters  # those in force; replaced as a whole
        self.camera_info: CameraInfo | None = None  # the latest one
        self._publishers: dict[str, Publisher] = {}
        self._send: Callable[[str, Any, Header], None] = self._publish
        if trace is not None:
            self._send = trace.timed(lambda topic, *_: f'publish {topic}', self._publish)
        try:
            for name, topic in {**TOPICS, _OVERLAY: Topic(RAW_TYPE, 1, loose=True)}.items():
                if topic.kind in MESSAGES:
                    self._publishers[name] = self._advertise(name, topic)
        except Exception:
            self.close()
            raise

    def _advertise(self, name: str, topic: Topic) -> Publisher:
        quality: dict[str, Any] = {}
        if topic.loose:
            quality['reliability'] = ReliabilityPolicy.BEST_EFFORT
        if topic.kept:
            quality['durability'] = DurabilityPolicy.TRANSIENT_LOCAL
        publisher: Publisher = self._node.create_lifecycle_publisher(
            MESSAGES[topic.kind],
            f'~/{name}',
            QoSProfile(depth=topic.depth, **quality),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        return publisher

    def close(self) -> None:
        """Withdraw all topics."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers = {}

    def subscriber_counts(self) -> dict[str, int]:
        """Count who has subscribed to what goes out of every frame, by topic."""
        return {
            topic: self._publishers[topic].get_subscription_count()
            for topic in ('output/mask', 'output/confidence', 'output/status')
        }

    def publish_label_info(self) -> None:
        """Publish the class names once; whoever subscribes later gets them, too."""
        if 'output/label_info' in self._publishers:
            stamp = self._node.get_clock().now().to_msg()
            fields = publication.label_info_fields(self.network)
            self._send('output/label_info', fields, Header(stamp=stamp))

    def publish(self, result: Result) -> Fields:
        """Publish what belongs to a frame, and give its status; called in frame order."""
        if result.error is not None:
            self._node.get_logger().error(f'frame failed: {result.error}')
        given = publication.results(
            result, time.monotonic, self.network, self.parameters, self.camera_info, self._age_s
        )
        values: dict[str, Any] = {}
        try:
            for topic, value in given:
                values[topic] = value
                self._send(topic, value, result.frame.tag)
        except publication.OtherCamera as error:
            self._warn_once('camera_info', f'no camera_info is published: {error}')
        status: Fields = values['output/status']
        return status

    def publish_overlay(self, result: Result) -> None:
        """Publish the mask's colours on its frame, to whoever has subscribed."""
        image, done, scale = result.frame.image, result.exit, self.parameters.output_scale
        if done is not None and self._is_heard(_OVERLAY) and not isinstance(image, Deferred):
            mask = scaled(done.computed.rendered.class_ids, scale)
            painted = overlay(scaled(image, scale), mask, self.network.classes)
            self._send(_OVERLAY, painted, result.frame.tag)

    def publish_progress(self, done: Result) -> None:
        """Publish an exit as it completes, to whoever has subscribed."""
        heard = {topic for topic in publication.PROGRESS if self._is_heard(topic)}
        if heard:
            given = publication.progress(
                done, time.monotonic, self.network, self.parameters, self._age_s
            )
            for topic, value in given:
                if topic in heard:
                    self._send(topic, value, done.frame.tag)

    def _age_s(self, frame: Frame) -> float | None:
        return age_of(frame.tag.stamp, self._node.get_clock())

    def _publish(self, topic: str, value: Any, header: Header) -> None:
        self._publishers[topic].publish(to_message(value, header))

    def _is_heard(self, topic: str) -> bool:
        try:
            return bool(self._publishers[topic].get_subscription_count())
        except RuntimeError:  # interrupted in mid-frame: publish itself bears that, this does not
            return False
