"""
The demo's two processes beside the node: a camera that replays a drive, and a planner.

``python -m adpc_ros.demo_graph camera DRIVE.npz OUT.json ACT_S URGENCIES`` and
``python -m adpc_ros.demo_graph planner OUT.npz``.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from numpy.typing import NDArray
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Empty, Header
from tqdm import tqdm

from adpc_ros.msg import SegmentationStatus, Urgency
from adpc_ros.ros.allocator import keep_freed_memory
from adpc_ros.ros.conversions import array_to_image

LISTENING = '/demo/listening'  # advertised by who records, once the node has found it
POLL_S = 0.05  # a change of the graph wakes no executor
BEST_EFFORT = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)


def nanoseconds(stamp: Any) -> int:
    """Give a stamp message in nanoseconds."""
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)


def seconds(duration: Any) -> float:
    """Give a duration message in seconds."""
    return nanoseconds(duration) / 1e9


def when_met(node: Node, act: Callable[[], Any]) -> None:
    """
    Do something once the segmentation node has found this one; results before that are not heard.

    To be called when all topics of the node are there: whoever hears its diagnostics, which come
    once a second, has been found with everything that was there before.
    """
    heard: list[DiagnosticArray] = []

    def on_diagnostics(array: DiagnosticArray) -> None:
        if not heard:
            heard.append(array)
            act()

    node.create_subscription(DiagnosticArray, '/diagnostics', on_diagnostics, 10)


def say_when_met(node: Node) -> None:
    """Let cameras know in the graph when what they cause will be heard."""
    when_met(node, lambda: node.create_publisher(Empty, LISTENING, 1))


class Camera(Node):
    """Publishes the drive in three acts, and urgency in the last."""

    def __init__(
        self, images: list[NDArray[np.uint8]], rate_hz: float, act_s: float, urgencies: int
    ) -> None:
        """
        Advertise, and listen to what the node says.

        :param images: of the drive, played again and again.
        :param rate_hz: of the drive.
        :param act_s: length of each of the first two acts, in seconds.
        :param urgencies: number of CRITICAL messages in the third.
        """
        super().__init__('camera')
        self._images, self._rate_hz = images, rate_hz
        self._act_s, self._urgencies = act_s, urgencies
        self._image = self.create_publisher(Image, '/adpc/input/image', BEST_EFFORT)
        self._urgency = self.create_publisher(Urgency, '/adpc/input/urgency', 10)
        self.create_subscription(SegmentationStatus, '/adpc/output/status', self._on_status, 10)
        self._met = False
        when_met(self, self._on_met)
        self.status: SegmentationStatus | None = None
        self.frames: list[dict[str, Any]] = []
        self.urgencies: list[dict[str, Any]] = []
        self._progress_ns = 0  # stamp of the latest frame that has an exit
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)

    def _on_met(self) -> None:
        self._met = True

    def _on_status(self, status: SegmentationStatus) -> None:
        self.status = status

    def _on_progress(self, mask: Image) -> None:
        self._progress_ns = nanoseconds(mask.header.stamp)

    def _wait(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        end_s = time.monotonic() + timeout_s
        while not condition():
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                return False
            self._executor.spin_once(timeout_sec=min(left_s, POLL_S))
        return True

    def _sleep_until(self, end_s: float) -> None:
        self._wait(lambda: False, end_s - time.monotonic())

    def _publish(self, act: str) -> int:
        index = len(self.frames) % len(self._images)
        header = Header(stamp=self.get_clock().now().to_msg(), frame_id='camera')
        self._image.publish(array_to_image(self._images[index], header))
        stamp_ns = nanoseconds(header.stamp)
        self.frames.append({'stamp_ns': stamp_ns, 'image': index, 'act': act})
        return stamp_ns

    def _send(self, level: int) -> int:
        message = Urgency(level=level)
        message.header.stamp = self.get_clock().now().to_msg()
        self._urgency.publish(message)
        return nanoseconds(message.header.stamp)

    def _done(self, stamp_ns: int) -> bool:
        return self.status is not None and nanoseconds(self.status.header.stamp) == stamp_ns

    def run(self) -> None:
        """Play all acts and wait until the node has dealt with the last frame."""
        self._find_node()
        whole_s = self._measure()
        # the last exit can follow, with a third of the time to spare
        self._stream('camera rate', min(self._rate_hz, 0.65 / whole_s))
        self._stream('faster', max(self._rate_hz, 2.0 / whole_s))
        self._urgent(whole_s)
        self._wait(self._settled, 10)

    def _find_node(self) -> None:
        found = self._wait(
            lambda: (
                self._image.get_subscription_count() > 0
                and self._urgency.get_subscription_count() > 0
                and self._met
                and self.count_publishers(LISTENING) > 0
            ),
            60,
        )
        if not found:
            raise RuntimeError('the node was not found within 60 s')

    def _settled(self) -> bool:
        return self._done(self.frames[-1]['stamp_ns'])

    def _measure(self) -> float:
        """Let the node finish some frames; gives the time of a whole one, in seconds."""
        times_s = []
        for _ in range(10):
            self._publish_and_wait('warm-up')
            assert self.status is not None
            times_s.append(seconds(self.status.latency))
        return float(np.median(times_s[5:]))  # the first ones are slow

    def _publish_and_wait(self, act: str) -> None:
        stamp_ns = self._publish(act)
        if not self._wait(lambda: self._done(stamp_ns), 20):
            raise RuntimeError('the node gave no mask within 20 s')

    def _stream(self, act: str, rate_hz: float) -> None:
        next_s = time.monotonic()
        for _ in tqdm(range(max(1, int(self._act_s * rate_hz))), f'{act}, {rate_hz:.1f} Hz'):
            self._sleep_until(next_s)
            self._publish(act)
            next_s += 1 / rate_hz
        self._wait(self._settled, 10)

    def _urgent(self, whole_s: float) -> None:
        """Send CRITICAL at random instants of a frame's computation."""
        self.create_subscription(Image, '/adpc/progress/mask', self._on_progress, BEST_EFFORT)
        self._sleep_until(time.monotonic() + 0.5)
        instants = random.Random(0)
        for _ in tqdm(range(self._urgencies), 'urgency'):
            stamp_ns = self._publish('urgency')
            self._sleep_until(time.monotonic() + instants.uniform(0.1, 1.0) * whole_s)
            self.urgencies.append(
                {
                    'frame_ns': stamp_ns,
                    'exit_ready': self._progress_ns == stamp_ns and not self._done(stamp_ns),
                    'stamp_ns': self._send(Urgency.CRITICAL),
                }
            )
            self._wait(lambda stamp_ns=stamp_ns: self._done(stamp_ns), 10)  # type: ignore[misc]
            self._send(Urgency.ROUTINE)
            self._sleep_until(time.monotonic() + 0.03)


class Planner(Node):
    """Pairs mask, confidence and status by stamp, and records when they came."""

    def __init__(self) -> None:
        """Subscribe."""
        super().__init__('planner')
        self.masks: dict[int, tuple[int, NDArray[np.uint8]]] = {}
        self.confidences: dict[int, NDArray[np.uint8]] = {}
        self.statuses: list[dict[str, Any]] = []
        reliable = QoSProfile(depth=50)  # it records: nothing may be lost while it is slow
        self.create_subscription(Image, '/adpc/output/mask', self._on_mask, reliable)
        self.create_subscription(Image, '/adpc/output/confidence', self._on_confidence, reliable)
        self.create_subscription(
            SegmentationStatus, '/adpc/output/status', self._on_status, reliable
        )
        say_when_met(self)

    def _on_mask(self, message: Image) -> None:
        received_ns = self.get_clock().now().nanoseconds
        values = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width)
        self.masks[nanoseconds(message.header.stamp)] = (received_ns, values)

    def _on_confidence(self, message: Image) -> None:
        values = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width)
        self.confidences[nanoseconds(message.header.stamp)] = values

    def _on_status(self, status: SegmentationStatus) -> None:
        self.statuses.append(
            {
                'stamp_ns': nanoseconds(status.header.stamp),
                'exit_index': status.exit_index,
                'exit_count': status.exit_count,
                'stop_reason': status.stop_reason,
                'urgency_stamp_ns': nanoseconds(status.urgency_stamp),
                'mean_confidence': status.mean_confidence,
                'gimac': status.gimac,
                'latency_s': seconds(status.latency),
                'compute_s': seconds(status.compute_time),
                'preempt_s': seconds(status.preempt_time),
                'frames_received': status.frames_received,
                'frames_segmented': status.frames_segmented,
                'frames_dropped': status.frames_dropped,
            }
        )

    def save(self, path: Path) -> None:
        """Write what came: arrays by stamp, and the statuses as JSON."""
        arrays: dict[str, Any] = {'statuses': np.array(json.dumps(self.statuses))}
        for stamp_ns, (received_ns, values) in self.masks.items():
            if stamp_ns in self.confidences:
                arrays[f'{stamp_ns}/received_ns'] = np.array(received_ns)
                arrays[f'{stamp_ns}/mask'] = values
                arrays[f'{stamp_ns}/confidence'] = self.confidences[stamp_ns]
        np.savez(path, **arrays)


def run_camera(drive: Path, out: Path, act_s: float, urgencies: int) -> None:
    """Play the images of ``drive`` (npz) and write what was sent to ``out`` (JSON)."""
    with np.load(drive) as archive:
        rate_hz = float(archive['rate_hz'])
        images = [archive[f'image_{i}'] for i in range(len(archive.files) - 1)]
    camera = Camera(images, rate_hz, act_s, urgencies)
    camera.run()
    out.write_text(json.dumps({'frames': camera.frames, 'urgencies': camera.urgencies}))


def run_planner(out: Path) -> None:
    """Record until interrupted, then write ``out`` (npz)."""
    planner = Planner()
    try:
        rclpy.spin(planner)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    planner.save(out)


if __name__ == '__main__':
    keep_freed_memory()
    rclpy.init()
    if sys.argv[1] == 'camera':
        run_camera(Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]))
    else:
        run_planner(Path(sys.argv[2]))
    rclpy.try_shutdown()
