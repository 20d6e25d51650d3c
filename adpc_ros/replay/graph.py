"""
The processes of a live replay beside the node: a player of the bag, and a recorder.

``python -m adpc_ros.replay.graph player SOURCE.json SENT.json`` and
``python -m adpc_ros.replay.graph recorder OUT.mcap NAMESPACE``.
"""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import rclpy
from builtin_interfaces.msg import Duration, Time
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from tqdm import tqdm

from adpc_ros.demo_graph import Camera, say_when_met
from adpc_ros.msg import SegmentationStatus, Urgency
from adpc_ros.recording.types import RAW_TYPE
from adpc_ros.replay.output import NAMESPACE, TOPICS, OutputBag
from adpc_ros.replay.source import (
    FrameArrival,
    PlannedUrgency,
    Source,
    UrgencyArrival,
    time_parts,
)
from adpc_ros.ros.conversions import array_to_image
from adpc_ros.runtime.scheduler import Level

_TICK_S = 0.01  # from one message on /clock to the next, at most
_LEAD_S = 1.0  # of clock alone, so that all have found it
_END_S = 10.0  # for the node to deal with the last frame


def _message(kind: type, time_ns: int) -> Any:
    seconds, rest = time_parts(time_ns)
    return kind(sec=seconds, nanosec=rest)


class Player(Camera):
    """Publishes what a bag holds when it was received, and the bag's time on /clock."""

    def __init__(self, source: Source) -> None:
        """Advertise."""
        super().__init__([], 1.0, 0.0, 0)
        self._source = source
        self._bag_time = self.create_publisher(Clock, '/clock', 10)
        self.sent: list[tuple[int, int]] = []  # when received and stamp, in nanoseconds
        self.received: list[tuple[int, str]] = []  # urgency: when, and level

    def run(self) -> None:
        """Play the bag once and wait until the node has dealt with the last frame."""
        self._find_node()
        start_s = time.monotonic() + _LEAD_S
        start_ns = self._source.start_ns
        with tqdm(total=self._source.count, desc='live', disable=None) as progress:
            for arrival in self._source:
                self._play_until(start_s, arrival.time_ns)
                if isinstance(arrival, UrgencyArrival):
                    self._send_urgency(arrival)
                    continue
                self._send_frame(arrival)
                progress.update()
        end_s, last_ns = time.monotonic() + _END_S, self.sent[-1][1]
        while not self._done(last_ns) and time.monotonic() < end_s:
            self._play_until(start_s, start_ns + round(1e9 * (time.monotonic() - start_s)))
            self._sleep_until(time.monotonic() + _TICK_S)

    def _play_until(self, start_s: float, time_ns: int) -> None:
        """Let the bag's time pass; the first frame is due at ``start_s``."""
        start_ns = self._source.start_ns
        due_s = start_s + (time_ns - start_ns) / 1e9
        while (left_s := due_s - time.monotonic()) > 0:
            now_ns = time_ns - round(1e9 * left_s)
            self._bag_time.publish(Clock(clock=_message(Time, now_ns)))
            self._sleep_until(time.monotonic() + min(left_s, _TICK_S))
        self._bag_time.publish(Clock(clock=_message(Time, time_ns)))

    def _send_frame(self, frame: FrameArrival) -> None:
        self.sent.append((frame.time_ns, frame.stamp_ns))
        if frame.kind == RAW_TYPE:
            self._image.publish(frame.data)  # as it was recorded, bytes and all
            return
        stamp = _message(Time, frame.stamp_ns)
        try:
            image = frame.image()
        except ValueError as error:  # sent all the same: it is for the node to reject
            self.get_logger().warning(f'frame {frame.number}: {error}')
            self._image.publish(Image(header=Header(stamp=stamp, frame_id=frame.frame_id)))
            return
        self._image.publish(array_to_image(image, Header(stamp=stamp, frame_id=frame.frame_id)))

    def _send_urgency(self, arrival: UrgencyArrival) -> None:
        self.received.append((arrival.time_ns, arrival.level.name))
        message = Urgency(level=int(arrival.level))
        message.header.stamp = _message(Time, arrival.stamp_ns)
        message.deadline = _message(Duration, round(1e9 * arrival.deadline_s))
        message.hold = _message(Duration, round(1e9 * arrival.hold_s))
        self._urgency.publish(message)


class Recorder(Node):
    """Writes what the node publishes into an output bag, at the bag's time."""

    def __init__(self, out: OutputBag) -> None:
        """Subscribe."""
        on_clock = [Parameter('use_sim_time', value=True)]
        super().__init__('recorder', parameter_overrides=on_clock)
        self._out, self._latest_ns = out, 0
        for topic, (kind, _) in TOPICS.items():
            self.create_subscription(
                Image if kind == RAW_TYPE else SegmentationStatus,
                f'{NAMESPACE}/{topic}',
                partial(self._on_message, topic),
                QoSProfile(depth=20),
                raw=True,
            )
        say_when_met(self)

    def _on_message(self, topic: str, data: bytes) -> None:
        # the clock moves in steps, and topics overtake each other: no message before the last
        self._latest_ns = max(self._latest_ns, self.get_clock().now().nanoseconds)
        self._out.write(topic, self._latest_ns, data)


def run_player(described: Path, sent: Path) -> None:
    """Play the source that a file describes, and write what was sent (JSON)."""
    values = json.loads(described.read_text())
    planned = [PlannedUrgency(at_s, Level(n), hold_s) for at_s, n, hold_s in values['planned']]
    player = Player(Source(values['path'], values['topic'], planned, values['recorded']))
    player.run()
    sent.write_text(json.dumps({'frames': player.sent, 'urgencies': player.received}))


def run_recorder(path: Path, namespace: str) -> None:
    """Record until interrupted."""
    with OutputBag(path, namespace) as out:
        try:
            rclpy.spin(Recorder(out))
        except (KeyboardInterrupt, ExternalShutdownException):
            pass


if __name__ == '__main__':
    rclpy.init()
    if sys.argv[1] == 'player':
        run_player(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        run_recorder(Path(sys.argv[2]), sys.argv[3])
    rclpy.try_shutdown()
