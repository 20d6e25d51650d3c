"""What the node says: mask, confidence and status of each frame, and what goes with them."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
from builtin_interfaces.msg import Duration, Time
from numpy.typing import NDArray
from rclpy._rclpy_pybind11 import RCLError
from rclpy.lifecycle import LifecycleNode, Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from adpc_ros.labels import ClassSet
from adpc_ros.msg import SegmentationStatus
from adpc_ros.pictures import overlay
from adpc_ros.ros.camera_info import camera_info_of_mask
from adpc_ros.ros.conversions import array_to_image
from adpc_ros.ros.parameters import Parameters
from adpc_ros.ros.warn_once import WarnOnce
from adpc_ros.runtime.deferred import Deferred
from adpc_ros.runtime.engine import Frame, RenderedExit, Result
from adpc_ros.runtime.images import Rendered
from adpc_ros.runtime.scheduler import Publish

try:
    from vision_msgs.msg import LabelInfo, VisionClass
except ImportError:  # not part of every installation; the parameter class_names says the same
    LabelInfo = None

_PROBABILITY = (np.arange(256) / 255).astype(np.float32)  # of a confidence of 8 bits
_LONGEST_S = 2**31 - 1  # what a message can say


class Network(NamedTuple):
    """
    What is said of the network.

    ``identity`` names the weights; ``threshold`` (0 to 1) is from where a pixel is confident;
    ``advised_exit`` is the first that sees vulnerable road users.
    """

    identity: str
    classes: ClassSet
    exit_count: int
    threshold: float
    advised_exit: int


class Outputs:
    """The publishers of a configured node. ``publish`` is called by one thread at a time."""

    def __init__(
        self, node: LifecycleNode, network: Network, parameters: Parameters, warn_once: WarnOnce
    ) -> None:
        """
        Advertise.

        :raises RuntimeError: for a quality of service that does not exist.
        """
        self._node, self.network, self._warn_once = node, network, warn_once
        self.parameters = parameters  # those in force; replaced as a whole
        self.camera_info: CameraInfo | None = None  # the latest one
        self._publishers: list[Publisher] = []
        loose: dict[str, Any] = {'reliability': ReliabilityPolicy.BEST_EFFORT}
        kept: dict[str, Any] = {'durability': DurabilityPolicy.TRANSIENT_LOCAL}
        try:
            self._mask = self._advertise(Image, '~/output/mask', 5)
            self._confidence = self._advertise(Image, '~/output/confidence', 5)
            self._status = self._advertise(SegmentationStatus, '~/output/status', 10)
            self._camera_info = self._advertise(CameraInfo, '~/output/camera_info', 5)
            self._progress_mask = self._advertise(Image, '~/progress/mask', 5, **loose)
            self._progress_confidence = self._advertise(Image, '~/progress/confidence', 5, **loose)
            self._overlay = self._advertise(Image, '~/debug/overlay', 1, **loose)
            if LabelInfo is not None:
                self._label_info = self._advertise(LabelInfo, '~/output/label_info', 1, **kept)
        except Exception:
            self.close()
            raise

    def _advertise(self, kind: type, topic: str, depth: int, **quality: Any) -> Publisher:
        publisher: Publisher = self._node.create_lifecycle_publisher(
            kind,
            topic,
            QoSProfile(depth=depth, **quality),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        self._publishers.append(publisher)
        return publisher

    def close(self) -> None:
        """Withdraw all topics."""
        for publisher in self._publishers:
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers = []

    def publish_label_info(self) -> None:
        """Publish the class names once; whoever subscribes later gets them, too."""
        if LabelInfo is None:
            return
        message = LabelInfo(threshold=self.network.threshold)
        message.header.stamp = self._node.get_clock().now().to_msg()
        message.class_map = [
            VisionClass(class_id=class_id, class_name=name)
            for class_id, name in enumerate(self.network.classes.names)
        ]
        self._label_info.publish(message)

    def publish(self, result: Result) -> SegmentationStatus:
        """Publish what belongs to a frame, and give its status; called in frame order."""
        header, parameters = result.frame.tag, self.parameters
        if result.exit is not None:
            mask, confidence = _images(result.exit.rendered, parameters, header)
            self._mask.publish(mask)
            self._confidence.publish(confidence)
        elif result.error is not None:
            self._node.get_logger().error(f'frame failed: {result.error}')
        status = self._status_of(result)
        self._status.publish(status)
        if result.exit is not None:  # what nobody brakes for comes last
            self._publish_camera_info(result, parameters.output_scale)
            self._publish_overlay(result, parameters.output_scale)
        return status

    def publish_progress(self, frame: Frame, done: RenderedExit) -> None:
        """Publish an exit as it completes, to whoever has subscribed."""
        publishers = (self._progress_mask, self._progress_confidence)
        if any(map(_is_heard, publishers)):
            images = _images(done.rendered, self.parameters, frame.tag)
            for publisher, image in zip(publishers, images):
                publisher.publish(image)

    def _publish_camera_info(self, result: Result, scale: int) -> None:
        info = self.camera_info
        assert result.exit is not None
        if info is None:
            return
        height, width = result.exit.rendered.class_ids.shape
        try:
            scaled = camera_info_of_mask(info, result.frame.tag, (height, width), scale)
        except ValueError as error:
            self._warn_once('camera_info', f'no camera_info is published: {error}')
            return
        self._camera_info.publish(scaled)

    def _publish_overlay(self, result: Result, scale: int) -> None:
        image = result.frame.image
        if not _is_heard(self._overlay) or isinstance(image, Deferred):
            return
        assert result.exit is not None
        ids = result.exit.rendered.class_ids[::scale, ::scale]
        blend = overlay(image[::scale, ::scale], ids, self.network.classes)
        self._overlay.publish(array_to_image(blend, result.frame.tag))

    def _status_of(self, result: Result) -> SegmentationStatus:
        now_s = time.monotonic()
        status = SegmentationStatus()
        status.header = result.frame.tag
        status.exit_count = self.network.exit_count
        status.stop_reason = int(result.reason)
        status.urgency = int(result.level)
        decision, done = result.decision, result.exit
        if isinstance(decision, Publish):
            status.urgency_stamp = decision.urgency_stamp or Time()
            status.deadline_missed = now_s > decision.deadline_s
            if decision.event_s is not None:
                status.preempt_time = _duration(now_s - decision.event_s)
        if done is not None:
            status.exit_index = done.exit_index
            status.mean_confidence = done.mean_confidence
            status.confident_share = done.confident_share
            status.gimac = done.gimac
            status.compute_time = _duration(done.time_s - result.started_s)
        status.latency = _duration(now_s - result.frame.captured_s)
        status.frames_received = result.counters.received
        status.frames_segmented = result.counters.segmented
        status.frames_dropped = result.counters.dropped
        status.network = self.network.identity
        return status


def _images(rendered: Rendered, parameters: Parameters, header: Header) -> tuple[Image, Image]:
    """Give mask and confidence of the same pixels."""
    scale = parameters.output_scale
    confidence: NDArray[Any] = rendered.confidence[::scale, ::scale]
    if parameters.confidence_encoding == '32FC1':
        confidence = _PROBABILITY[confidence]
    ids = rendered.class_ids[::scale, ::scale]
    return array_to_image(ids, header), array_to_image(confidence, header)


def _is_heard(publisher: Publisher) -> bool:
    try:
        return bool(publisher.get_subscription_count())
    except RCLError:  # interrupted in mid-frame: publish itself bears that, this does not
        return False


def _duration(seconds: float) -> Duration:
    bounded_s = min(max(seconds, -_LONGEST_S), _LONGEST_S)  # a stamp of another clock's
    nanoseconds = round(bounded_s * 1e9)
    return Duration(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)
