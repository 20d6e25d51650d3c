# SPDX-License-Identifier: Apache-2.0
"""
A camera that publishes frames and urgency on a schedule.

``python -m adpc_ros.graph adpc_ros.graph.camera ACTS.json IMAGES.npz SENT.json`` is one in a
process of its own; beside it a recorder is expected.
"""

from __future__ import annotations

import json
import statistics
import struct
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.qos import QoSProfile
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from adpc_ros.graph.peer import BEST_EFFORT, Peer, joined
from adpc_ros.graph.recording import nanoseconds, seconds
from adpc_ros.graph.schedule import (
    Act,
    Answer,
    Calibration,
    Event,
    Frame,
    Pace,
    Progress,
    Urgent,
    read_acts,
)
from adpc_ros.msg import SegmentationStatus, Urgency
from adpc_ros.progress import ProgressBar
from adpc_ros.ros.conversions import array_to_image

TICK_S = 0.01  # from one tick to the next, at most
_FIND_S = 60.0
_WARM_UP = Act('warm-up', Pace.ONE_BY_ONE, count=10)
_SLOW = 5  # of these, the first ones
_STAMP_AT = 4  # bytes before the stamp in a serialised message with a header


class Camera:
    """
    Publishes images and urgency, and hears how the node gets on.

    :param images: each (H, W, 3) uint8 RGB, or a message, sent again and again. They are
        serialised beforehand, as a driver in C++ takes little of the processor.
    :param image_type: of the messages on input/image.
    :param urgency_type: likewise, on input/urgency.
    :param quality: of service of input/image.
    """

    def __init__(
        self,
        peer: Peer,
        images: Iterable[NDArray[np.uint8] | Any] = (),
        image_type: type = Image,
        urgency_type: type = Urgency,
        quality: QoSProfile = BEST_EFFORT,
    ) -> None:
        """Advertise, and subscribe to the node's status."""
        self._peer, self._node = peer, peer.node
        self.image = self._node.create_publisher(image_type, f'/{peer.of}/input/image', quality)
        self.camera_info = self._node.create_publisher(
            CameraInfo, f'/{peer.of}/input/camera_info', BEST_EFFORT
        )
        self.urgency = self._node.create_publisher(urgency_type, f'/{peer.of}/input/urgency', 10)
        self._statuses = self._node.create_subscription(
            SegmentationStatus, f'/{peer.of}/output/status', self._on_status, 10
        )
        header = Header(frame_id='camera')
        self._images = [
            bytearray(
                serialize_message(
                    array_to_image(image, header) if isinstance(image, np.ndarray) else image
                )
            )
            for image in images
        ]
        self.status: SegmentationStatus | None = None  # the latest
        self.frames: list[dict[str, Any]] = []  # that were sent
        self.urgencies: list[dict[str, Any]] = []  # likewise, CRITICAL ones
        self._latest_ns = -1  # stamp of the latest frame that was sent
        self._progress_ns = 0  # stamp of the latest one that has an exit

    def close(self) -> None:
        """Withdraw the topics; not to be used any more."""
        for publisher in (self.image, self.camera_info, self.urgency):
            self._node.destroy_publisher(publisher)
        self._node.destroy_subscription(self._statuses)

    def _on_status(self, status: SegmentationStatus) -> None:
        self.status = status

    def _on_progress(self, mask: Image) -> None:
        self._progress_ns = nanoseconds(mask.header.stamp)

    def find_node(self, recorder: bool) -> None:
        """
        Wait until the node is there and has found this camera; no topic may be added meanwhile.

        :param recorder: wait for one, too.
        :raises TimeoutError: if that takes a minute.
        """
        found = self._peer.handshake((self.image, self.urgency), recorder=recorder)
        if not self._peer.wait(found, _FIND_S):
            raise TimeoutError(f'the node was not found within {_FIND_S:.0f} s')

    def measure(self) -> float:
        """
        Let the node finish some frames; gives the time of a whole one, in seconds.

        :raises TimeoutError: if a frame gets no answer.
        """
        times_s = []
        for event in _WARM_UP.events(0.0):
            self.play([event])
            if isinstance(event, Answer):
                assert self.status is not None
                times_s.append(seconds(self.status.latency))
        return statistics.median(times_s[_SLOW:])

    def perform(self, acts: Iterable[Act], whole_s: float) -> None:
        """
        Play acts.

        :param whole_s: seconds that the node takes for a whole frame.
        :raises TimeoutError: if a frame gets no answer that is needed.
        """
        for act in acts:
            steady = act.pace is Pace.STEADY
            title = f'{act.name}, {act.rate(whole_s):.1f} Hz' if steady else act.name
            with ProgressBar(total=act.frames(whole_s), desc=title) as progress:
                # in a stream nothing has to be heard before its end
                self.play(act.events(whole_s), progress, time.sleep if steady else None)

    def play(
        self,
        events: Iterable[Event],
        progress: Any = None,
        rest: Callable[[float], None] | None = None,
        tick: Callable[[float], None] | None = None,
    ) -> None:
        """
        Do what a schedule says, when it says so.

        :param progress: told of each frame.
        :param rest: passes some seconds; None to handle what comes meanwhile.
        :param tick: called with the schedule's time in seconds, before each message and at least
            every :data:`TICK_S` in between.
        :raises TimeoutError: if a frame gets no answer that is needed.
        """
        start_s = time.monotonic()
        for event in events:
            if isinstance(event, Progress):
                self._node.create_subscription(
                    Image, f'/{self._peer.of}/progress/mask', self._on_progress, BEST_EFFORT
                )
                start_s = time.monotonic()
            elif isinstance(event, Answer):
                self._wait_for_answer(event, start_s, tick)
                start_s = time.monotonic()
            else:
                self._pass(start_s, event.at_s, rest or self._peer.spin, tick)
                if isinstance(event, Urgent):
                    self._send_urgency(event)
                    continue
                if isinstance(event, Calibration):
                    self.camera_info.publish(event.message)
                    continue
                self._send_frame(event)
                if progress is not None:
                    progress.update()

    def _pass(
        self,
        start_s: float,
        until_s: float,
        rest: Callable[[float], None],
        tick: Callable[[float], None] | None,
    ) -> None:
        while (left_s := start_s + until_s - time.monotonic()) > 0:
            if tick is None:
                rest(left_s)
            else:
                tick(until_s - left_s)
                rest(min(left_s, TICK_S))
        if tick is not None:
            tick(until_s)

    def _wait_for_answer(
        self, answer: Answer, start_s: float, tick: Callable[[float], None] | None
    ) -> None:
        stamp_ns, end_s = self._latest_ns, time.monotonic() + answer.timeout_s
        while not self._peer.wait(
            lambda: self.answered(stamp_ns),
            answer.timeout_s if tick is None else TICK_S,
        ):
            if tick is not None:
                tick(time.monotonic() - start_s)
            if time.monotonic() < end_s:
                continue
            if answer.needed:
                raise TimeoutError(f'the node gave no mask within {answer.timeout_s:.0f} s')
            return

    def _send_frame(self, frame: Frame) -> None:
        if frame.message is not None:
            self.image.publish(frame.message)
            self._latest_ns = frame.stamp_ns
            return
        index = len(self.frames) % len(self._images) if frame.image is None else frame.image
        stamp_ns = self._latest_ns = self._node.get_clock().now().nanoseconds
        struct.pack_into('<iI', self._images[index], _STAMP_AT, *divmod(stamp_ns, 10**9))
        self.image.publish(bytes(self._images[index]))
        self.frames.append({'stamp_ns': stamp_ns, 'image': index, 'act': frame.act})

    def _send_urgency(self, urgent: Urgent) -> None:
        if urgent.message is not None:
            self.urgency.publish(urgent.message)
            return
        message = Urgency(level=int(urgent.level))
        frame_ns = self._latest_ns
        ready = self._progress_ns == frame_ns and not self.answered(frame_ns)
        message.header.stamp = self._node.get_clock().now().to_msg()
        self.urgency.publish(message)
        if urgent.level == Urgency.CRITICAL:
            stamp_ns = nanoseconds(message.header.stamp)
            said = {'frame_ns': frame_ns, 'exit_ready': ready, 'stamp_ns': stamp_ns}
            self.urgencies.append(said)

    def answered(self, stamp_ns: int) -> bool:
        """Whether the latest status is that of a frame."""
        return self.status is not None and nanoseconds(self.status.header.stamp) == stamp_ns


def main() -> int:
    """Play acts, and write what was sent; gives the exit status."""
    described, images, sent = map(Path, sys.argv[1:])
    with joined('camera') as peer, np.load(images) as archive:
        camera = Camera(peer, (archive[name] for name in archive.files))
        camera.find_node(recorder=True)
        acts = read_acts(described)
        whole_s = camera.measure() if any(act.measured for act in acts) else 0.0
        camera.perform(acts, whole_s)
        sent.write_text(json.dumps({'frames': camera.frames, 'urgencies': camera.urgencies}))
    return 0
