# SPDX-License-Identifier: Apache-2.0
"""What comes to the node in a replay, in the order in which it came."""

from __future__ import annotations

import heapq
import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from adpc_ros.bag import image_topics
from adpc_ros.recording.reader import Recording, Topic
from adpc_ros.ros.decoding import TURNED, is_turned, to_rgb
from adpc_ros.ros.message_types import BOOL_TYPE, CAMERA_INFO_TYPE, URGENCY_TYPE
from adpc_ros.runtime.deferred import Deferred
from adpc_ros.runtime.scheduler import Level

log = logging.getLogger(__name__)

FAR_OFF_S = 10.0  # a stamp this far from the time of receipt was made by another clock


class FrameArrival(NamedTuple):
    """
    A frame as it was received.

    ``number`` counts from 0 in order of receipt; ``time_ns`` is when it was received, ``stamp_ns``
    and ``frame_id`` are its header's. ``message`` is as ``rosbags`` reads it, of type ``kind``;
    ``data`` are its bytes.
    """

    number: int
    time_ns: int
    stamp_ns: int
    frame_id: str
    kind: str
    message: Any
    data: bytes

    @property
    def captured_ns(self) -> int:
        """When it was taken: its stamp, or its receipt if another clock made the stamp."""
        far_off = abs(self.time_ns - self.stamp_ns) > FAR_OFF_S * 1e9
        return self.time_ns if far_off else self.stamp_ns

    def image(self) -> NDArray[np.uint8] | Deferred:
        """
        View it, as the node does.

        :return: (H, W, 3) uint8 RGB; deferred if it is to be decoded.
        :raises ValueError: if it is not an image that can be segmented.
        """
        return to_rgb(self.message, self.kind)


class UrgencyArrival(NamedTuple):
    """An urgency message; ``time_ns`` is when it was received, ``stamp_ns`` its header's."""

    time_ns: int
    level: Level
    deadline_s: float
    hold_s: float
    stamp_ns: int


class CalibrationArrival(NamedTuple):
    """A camera_info message: when it was received, as ``rosbags`` reads it, and its bytes."""

    time_ns: int
    message: Any
    data: bytes


class PlannedUrgency(NamedTuple):
    """An urgency message to be added: ``at_s`` counts from the receipt of the first frame."""

    at_s: float
    level: Level
    hold_s: float


Arrival = FrameArrival | UrgencyArrival | CalibrationArrival


def nanoseconds(time: Any) -> int:
    """Give a Time or Duration message in nanoseconds."""
    return int(time.sec) * 10**9 + int(time.nanosec)


def time_parts(time_ns: int) -> tuple[int, int]:
    """
    Give seconds and nanoseconds as Time and Duration messages have them.

    What is beyond their seconds stays in the nanoseconds, as far as these go.
    """
    seconds, rest = divmod(time_ns, 10**9)
    beyond = max(0, seconds - (2**31 - 1))
    return seconds - beyond, min(rest + beyond * 10**9, 2**32 - 1)


def stamp_text(stamp_ns: int) -> str:
    """Give a stamp as files have it: seconds, a point and nine digits, as -1.500000000."""
    seconds, rest = divmod(abs(stamp_ns), 10**9)
    return f'{"-" if stamp_ns < 0 else ""}{seconds}.{rest:09}'


def stamp_of(text: str) -> int:
    """
    Read what :func:`stamp_text` gives, in nanoseconds.

    :raises ValueError: if it is none.
    """
    match = re.fullmatch(r'(-?)([0-9]+)\.([0-9]{9})', text)
    if match is None:
        raise ValueError(f"stamp: expected '12.050000000', nine decimals in quotes, got {text!r}")
    stamp_ns = int(match[2]) * 10**9 + int(match[3])
    return -stamp_ns if match[1] else stamp_ns


class Source:
    """
    The frames of one topic of a bag, their camera_info and all urgency; nothing read is kept.

    The camera_info is that beside the images, as image_transport names it: of /front/image_raw,
    compressed or not, /front/camera_info.

    ``passed_over`` names the other topics, with their types.

    :param path: a rosbag2 recording.
    :param topic: of the camera; None if there is only one image topic.
    :param planned: urgency beside the recorded one.
    :param recorded: False leaves recorded urgency out.
    :param urgency_topic: of std_msgs/Bool, which is then urgency, too; empty for none.
    :raises FileNotFoundError: if there is nothing at ``path``.
    :raises ValueError: if the bag cannot be read, there is no such topic, several to choose from,
        or no frame on it.
    """

    def __init__(
        self,
        path: str | Path,
        topic: str | None = None,
        planned: Iterable[PlannedUrgency] = (),
        recorded: bool = True,
        urgency_topic: str = '',
    ) -> None:
        """Look for the topics and the first frame."""
        self.path = Path(path)
        self._planned = sorted(planned)
        self._recorded, self._urgency_topic = recorded, urgency_topic
        self._recording = Recording(path)
        self._images = image_topics(self._recording, topic)
        if len(names := sorted({image.name for image in self._images})) > 1:
            raise ValueError(
                f'{self.path}: several image topics, choose with --topic: {", ".join(names)}'
            )
        self.topic = self._images[0].name
        cdr = [topic for topic in self._recording.topics if topic.encoding == 'cdr']
        for other in self._recording.topics:
            if other not in cdr and other.kind in (URGENCY_TYPE, CAMERA_INFO_TYPE):
                log.warning('%s: passed over, as it is not encoded as cdr: %s', self.path, other)
        urgencies = [t for t in cdr if t.kind == URGENCY_TYPE or self._is_bool(t)]
        if recorded and urgency_topic and not any(map(self._is_bool, cdr)):
            log.warning('%s: no %s on %s', self.path, BOOL_TYPE, urgency_topic)
        self._calibrations = [
            t for t in cdr if t.kind == CAMERA_INFO_TYPE and t.name == camera_info_of(self.topic)
        ]
        self._wanted = [*self._images, *self._calibrations, *(urgencies if recorded else [])]
        self._recording.prepare(self._wanted)
        self.passed_over = [str(t) for t in self._recording.topics if t not in self._wanted]
        self.count = self._recording.count(self._images)
        first = next(self._recording.messages(self._images), None)
        if first is None:
            raise ValueError(f'{self.path}: expected images on {self.topic}, found no message')
        self.start_ns: int = first[1]

    def described(self) -> dict[str, Any]:
        """Give what makes another source like this one, as values for JSON."""
        return {
            'path': str(self.path.resolve()),
            'topic': self.topic,
            'planned': self._planned,
            'recorded': self._recorded,
            'urgency_topic': self._urgency_topic,
        }

    def _is_bool(self, topic: Topic) -> bool:
        return (topic.name, topic.kind) == (self._urgency_topic, BOOL_TYPE)

    def __iter__(self) -> Iterator[Arrival]:
        """Read the bag, in order of receipt; what was planned comes after what came at once."""
        planned = (
            UrgencyArrival(time_ns, urgency.level, 0.0, urgency.hold_s, time_ns)
            for urgency in self._planned
            for time_ns in [self.start_ns + round(urgency.at_s * 1e9)]
        )
        return heapq.merge(self._bag(), planned, key=lambda arrival: arrival.time_ns)

    def _bag(self) -> Iterator[Arrival]:
        number = 0
        broken: set[Topic] = set()
        for topic, time_ns, data in self._recording.messages(self._wanted):
            try:
                message = self._recording.decode(topic, data)
            except Exception as error:  # rosbags raises several kinds
                problem = f'{self.path}: topic {topic}: message recorded at {time_ns} ns: {error}'
                if topic in self._images:
                    raise ValueError(problem) from error
                if topic not in broken:
                    log.warning('message ignored: %s (said once)', problem)
                broken.add(topic)
                continue
            if topic in self._images:
                if number == 0 and is_turned(message, topic.kind):
                    log.warning(TURNED)
                stamp_ns, frame_id = nanoseconds(message.header.stamp), message.header.frame_id
                yield FrameArrival(number, time_ns, stamp_ns, frame_id, topic.kind, message, data)
                number += 1
            elif topic in self._calibrations:
                yield CalibrationArrival(time_ns, message, data)
            elif topic.kind == BOOL_TYPE:
                level = Level.CRITICAL if message.data else Level.ROUTINE
                yield UrgencyArrival(time_ns, level, 0.0, 0.0, time_ns)
            elif (urgency := _urgency(message, time_ns)) is not None:
                yield urgency


def camera_info_of(topic: str) -> str:
    """Name the camera_info topic that belongs to an image topic."""
    base = topic.removesuffix('/compressed')
    return f'{base.rpartition("/")[0]}/camera_info'


def _urgency(message: Any, time_ns: int) -> UrgencyArrival | None:
    """Read an urgency message as the node does: an unknown level is ignored, times are >= 0."""
    try:
        level = Level(message.level)
    except ValueError:
        log.warning('urgency ignored: expected level 0, 1 or 2, got %s', message.level)
        return None
    deadline_s, hold_s = (
        max(nanoseconds(duration) / 1e9, 0.0) for duration in (message.deadline, message.hold)
    )
    return UrgencyArrival(time_ns, level, deadline_s, hold_s, nanoseconds(message.header.stamp))
