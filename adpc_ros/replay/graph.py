# SPDX-License-Identifier: Apache-2.0
"""
The processes of a live replay beside the node: a player of the bag, and a recorder.

``python -m adpc_ros.graph adpc_ros.replay.graph player SOURCE.json SENT.json`` and
``python -m adpc_ros.graph adpc_ros.replay.graph recorder OUT.mcap NAMESPACE TOPIC...``.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from builtin_interfaces.msg import Duration, Time
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from adpc_ros.graph.camera import Camera
from adpc_ros.graph.peer import Peer, joined
from adpc_ros.graph.recorder import listen
from adpc_ros.graph.schedule import Answer, Calibration, Event, Frame, Urgent
from adpc_ros.msg import Urgency
from adpc_ros.progress import ProgressBar
from adpc_ros.replay.output import OutputBag
from adpc_ros.replay.source import (
    CalibrationArrival,
    FrameArrival,
    PlannedUrgency,
    Source,
    UrgencyArrival,
    time_parts,
)
from adpc_ros.ros.conversions import array_to_image
from adpc_ros.ros.decoding import decoded
from adpc_ros.ros.message_types import RAW_TYPE
from adpc_ros.runtime.scheduler import Level

_LEAD_S = 1.0  # of clock alone, so that all have found it
_END_S = 10.0  # for the node to deal with the last frame


def _message(kind: type, time_ns: int) -> Any:
    seconds, rest = time_parts(time_ns)
    return kind(sec=seconds, nanosec=rest)


class Player:
    """Has a camera publish what a bag holds when it was received, and the bag's time on /clock."""

    def __init__(self, peer: Peer, source: Source) -> None:
        """Advertise."""
        self._source, self._log = source, peer.node.get_logger()
        self._bag_time = peer.node.create_publisher(Clock, '/clock', 10)
        self._camera = Camera(peer)
        self.sent: list[tuple[int, int]] = []  # when received and stamp, in nanoseconds
        self.received: list[tuple[int, str]] = []  # urgency: when, and level

    def run(self) -> None:
        """Play the bag once and wait until the node has dealt with the last frame."""
        self._camera.find_node(recorder=True)
        with ProgressBar(desc='live', total=self._source.count) as progress:
            self._camera.play(self._events(), progress, tick=self._tick)

    def _tick(self, at_s: float) -> None:
        """Say what time it is in the bag; the first frame is due after the lead."""
        time_ns = self._source.start_ns + round(1e9 * (at_s - _LEAD_S))
        self._bag_time.publish(Clock(clock=_message(Time, time_ns)))

    def _events(self) -> Iterator[Event]:
        for arrival in self._source:
            at_s = _LEAD_S + (arrival.time_ns - self._source.start_ns) / 1e9
            if isinstance(arrival, UrgencyArrival):
                self.received.append((arrival.time_ns, arrival.level.name))
                yield Urgent(at_s, arrival.level, self._urgency(arrival))
            elif isinstance(arrival, CalibrationArrival):
                yield Calibration(at_s, arrival.data)
            else:
                self.sent.append((arrival.time_ns, arrival.stamp_ns))
                yield Frame(at_s, 'live', self._image(arrival), arrival.stamp_ns)
        yield Answer(_END_S, needed=False)

    def _image(self, frame: FrameArrival) -> Image | bytes:
        if frame.kind == RAW_TYPE:
            return frame.data  # as it was recorded, bytes and all
        header = Header(stamp=_message(Time, frame.stamp_ns), frame_id=frame.frame_id)
        try:
            return array_to_image(decoded(frame.image()), header)
        except ValueError as error:  # sent all the same: it is for the node to reject
            self._log.warning(f'frame {frame.number}: {error}')
            return Image(header=header)

    def _urgency(self, arrival: UrgencyArrival) -> Urgency:
        message = Urgency(level=int(arrival.level))
        message.header.stamp = _message(Time, arrival.stamp_ns)
        message.deadline = _message(Duration, round(1e9 * arrival.deadline_s))
        message.hold = _message(Duration, round(1e9 * arrival.hold_s))
        return message


def play(described: Path, sent: Path) -> None:
    """Play the source that a file describes, and write what was sent (JSON)."""
    values = json.loads(described.read_text())
    planned = [PlannedUrgency(at_s, Level(n), hold_s) for at_s, n, hold_s in values['planned']]
    source = Source(
        *(values['path'], values['topic'], planned, values['recorded'], values['urgency_topic'])
    )
    with joined('camera') as peer:
        player = Player(peer, source)
        player.run()
        sent.write_text(json.dumps({'frames': player.sent, 'urgencies': player.received}))


def record(path: Path, namespace: str, topics: Sequence[str]) -> None:
    """Write what the node publishes into an output bag, at the bag's time, until interrupted."""
    on_clock = [Parameter('use_sim_time', value=True)]
    latest_ns = 0

    def take(topic: str, data: bytes, received_ns: int) -> None:
        nonlocal latest_ns  # the clock moves in steps, and topics overtake each other
        latest_ns = max(latest_ns, received_ns)
        out.write(topic, latest_ns, data)

    with (
        OutputBag(path, namespace, topics) as out,
        contextlib.suppress(KeyboardInterrupt),
        joined('recorder', parameter_overrides=on_clock) as peer,
    ):
        listen(peer, take, out.topics, raw=True)
        peer.announce()
        peer.run()


def main() -> int:
    """Play or record; gives the exit status."""
    if sys.argv[1] == 'player':
        play(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        record(Path(sys.argv[2]), sys.argv[3], sys.argv[4:])
    return 0
