# SPDX-License-Identifier: Apache-2.0
"""Camera frames from a rosbag2 recording, without ROS."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from adpc_ros.frame import DriveFrame
from adpc_ros.labels import ClassSet
from adpc_ros.recording.reader import Recording, Topic
from adpc_ros.ros.decoding import ENCODINGS, TURNED, decoded, is_turned, to_rgb
from adpc_ros.ros.message_types import COMPRESSED_TYPE, RAW_TYPE

_LOG = logging.getLogger(__name__)


class BagDrive:
    """
    One image topic of a rosbag2 recording (mcap or sqlite3), read without ROS.

    Understands what the node does: sensor_msgs/Image, and CompressedImage of JPEG or PNG. With no
    topic given it takes colour before grey before what it cannot read, then the first by name,
    and logs the choice if there was one.

    :param path: the recording's folder, or a single .mcap or .db3 file.
    :param topic: name of the topic, or None.
    :raises FileNotFoundError: if there is nothing at ``path``.
    :raises ImportError: if a package is missing that reads recordings.
    :raises ValueError: if the bag cannot be read, has no such topic, or no image on it; while
        iterating, if a message is no image of the kinds above.
    """

    def __init__(self, path: str | Path, topic: str | None = None) -> None:
        """Choose the topic and take its rate from its first messages."""
        self._recording = Recording(path)
        self._topics = self._choose(topic)
        self.topic = self._topics[0].name
        self._recording.prepare(self._topics)
        stamps = [time_ns for _, time_ns, _ in islice(self._messages(), 60)]
        if not stamps:
            raise ValueError(f'{path}: expected images on {self.topic}, found no message')
        interval_ns = float(np.median(np.diff(stamps))) if len(stamps) > 1 else 0.0
        self.name = f'{path}:{self.topic}'
        self.rate_hz = 1e9 / interval_ns if interval_ns > 0 else 15.0
        self.classes: ClassSet | None = None

    def __len__(self) -> int:
        """Count the messages on the topic."""
        return self._recording.count(self._topics)

    def __iter__(self) -> Iterator[DriveFrame]:
        """Read the messages one after the other, in order of receipt."""
        for number, (topic, stamp_ns, data) in enumerate(self._messages()):
            try:
                message = self._recording.decode(topic, data)
                if number == 0 and is_turned(message, topic.kind):
                    _LOG.warning(TURNED)
                image = decoded(to_rgb(message, topic.kind))
            except Exception as error:
                raise ValueError(
                    f'{self.name}: message recorded at {stamp_ns} ns: {error}'
                ) from error
            yield DriveFrame(stamp_ns, image, None)

    def _messages(self) -> Iterator[tuple[Topic, int, bytes]]:
        return self._recording.messages(self._topics)

    def _choose(self, name: str | None) -> list[Topic]:
        topics = image_topics(self._recording, name)
        names = sorted({topic.name for topic in topics})
        if len(names) > 1:
            chosen = min(topics, key=lambda topic: (_rank(self._recording, topic), topic)).name
            _LOG.warning(
                '%s: taking topic %s of: %s', self._recording.path, chosen, ', '.join(names)
            )
            topics = [topic for topic in topics if topic.name == chosen]
        return topics


def image_topics(recording: Recording, name: str | None) -> list[Topic]:
    """
    Give the topics of images that can be decoded, by name; those of one name if it is given.

    :raises ValueError: if there is none.
    """
    images = [t for t in recording.topics if t.kind in (RAW_TYPE, COMPRESSED_TYPE)]
    if name is not None:
        if chosen := [topic for topic in images if topic.name == name]:
            return _in_cdr(chosen)
        types = [str(topic) for topic in recording.topics if topic.name == name]
        found = f'is {", ".join(t.partition(" ")[2][1:-1] for t in types)}'
        known = ', '.join(sorted({topic.name for topic in images})) or 'none'
        raise ValueError(
            f'{recording.path}: topic {name} {found if types else "is not in the bag"}; '
            f'image topics: {known}'
        )
    if not images:
        others = ', '.join(map(str, recording.topics)) or 'none'
        raise ValueError(f'{recording.path}: expected an image topic; topics: {others}')
    return _in_cdr(images)


def _in_cdr(topics: list[Topic]) -> list[Topic]:
    """Leave out those in other encodings, if there is one in cdr."""
    return [topic for topic in topics if topic.encoding == 'cdr'] or topics


def _rank(recording: Recording, topic: Topic) -> int:
    """Say how likely a topic is the camera: 0 colour, 1 grey (or a mask), 2 not to be read."""
    for _, _, data in recording.messages([topic]):
        try:
            message = recording.decode(topic, data)
        except Exception:  # rosbags raises several kinds
            return 2
        if topic.kind == COMPRESSED_TYPE:
            return 2 if 'compressedDepth' in message.format else int('mono' in message.format)
        return int(message.encoding.startswith('mono')) if message.encoding in ENCODINGS else 2
    return 3
