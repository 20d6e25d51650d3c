"""Camera frames from a rosbag2 recording, without ROS."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adpc_ros.frame import DriveFrame
from adpc_ros.labels import ClassSet
from adpc_ros.ros.decoding import COMPRESSED_TYPE, ENCODINGS, RAW_TYPE, decoded, to_rgb
from adpc_ros.ros.packaged import packaged

if TYPE_CHECKING:
    from rosbags.highlevel import AnyReader
    from rosbags.interfaces import Connection
    from rosbags.typesys.store import Typestore

_LOG = logging.getLogger(__name__)

URGENCY_TYPE = 'adpc_ros/msg/Urgency'
STATUS_TYPE = 'adpc_ros/msg/SegmentationStatus'


class BagDrive:
    """
    One image topic of a rosbag2 recording (mcap or sqlite3), read without ROS.

    Understands what the node does: sensor_msgs/Image, and CompressedImage of JPEG or PNG. With no
    topic given it takes colour before grey before what it cannot read, then the first by name,
    and logs the choice if there was one.

    :param path: the recording's folder, or a single .mcap or .db3 file.
    :param topic: name of the topic, or None.
    :raises FileNotFoundError: if there is nothing at ``path``.
    :raises ImportError: if the package ``rosbags`` is missing.
    :raises ValueError: if the bag cannot be read, has no such topic, or no image on it; while
        iterating, if a message is no image of the kinds above.
    """

    def __init__(self, path: str | Path, topic: str | None = None) -> None:
        """Choose the topic and take its rate from its first messages."""
        self._path = Path(path)
        with open_bag(self._path) as reader:
            self.topic = self._choose(reader, topic)
            connections = [c for c in reader.connections if c.topic == self.topic]
            self._count = sum(connection.msgcount for connection in connections)
            stamps = []
            for _, stamp_ns, _ in reader.messages(connections):
                stamps.append(stamp_ns)
                if len(stamps) == 60:
                    break
        if not stamps:
            raise ValueError(f'{self._path}: expected images on {self.topic}, found no message')
        interval_ns = float(np.median(np.diff(stamps))) if len(stamps) > 1 else 0.0
        self.name = f'{self._path}:{self.topic}'
        self.rate_hz = 1e9 / interval_ns if interval_ns > 0 else 15.0
        self.classes: ClassSet | None = None

    def __len__(self) -> int:
        """Count the messages on the topic."""
        return self._count

    def __iter__(self) -> Iterator[DriveFrame]:
        """Read the messages one after the other, in order of recording."""
        with open_bag(self._path) as reader:
            connections = [c for c in reader.connections if c.topic == self.topic]
            for connection, stamp_ns, data in reader.messages(connections):
                try:
                    message = reader.deserialize(data, connection.msgtype)
                    image = decoded(to_rgb(message, connection.msgtype))
                except Exception as error:
                    raise ValueError(
                        f'{self.name}: message recorded at {stamp_ns} ns: {error}'
                    ) from error
                yield DriveFrame(stamp_ns, image, None)

    def _choose(self, reader: AnyReader, topic: str | None) -> str:
        names = image_topics(reader, self._path, topic)
        if len(names) == 1:
            return names[0]
        images = [c for c in reader.connections if c.topic in names]
        chosen = min(images, key=lambda c: (_rank(reader, c), c.topic)).topic
        _LOG.warning('%s: taking topic %s of: %s', self._path, chosen, ', '.join(names))
        return chosen


@contextmanager
def open_bag(path: Path) -> Iterator[AnyReader]:
    """
    Open a rosbag2 recording; the package's own messages are known, too.

    :param path: the recording's folder, or a single .mcap or .db3 file.
    :raises FileNotFoundError: if there is nothing at ``path``.
    :raises ImportError: if the package ``rosbags`` is missing.
    :raises ValueError: if it is no recording, or a broken one.
    """
    if not path.exists():
        raise FileNotFoundError(
            f'expected a bag (folder, .mcap or .db3 file) at {path}, found nothing'
        )
    try:
        from rosbags.highlevel import AnyReader
    except ImportError as error:
        raise ImportError(
            f'reading {path} needs the package rosbags: pip install rosbags'
        ) from error
    try:
        reader = AnyReader([path], default_typestore=typestore())
        reader.open()
    except Exception as error:  # each storage raises its own kinds for a broken file
        raise ValueError(
            f'{path}: expected a rosbag2 recording (folder with metadata.yaml, .mcap '
            f'or .db3 file): {error}'
        ) from error
    try:
        yield reader
    finally:
        reader.close()


def typestore() -> Typestore:
    """Give the messages of ROS 2 Jazzy and of this package, as ``rosbags`` knows them."""
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    for kind in (URGENCY_TYPE, STATUS_TYPE):
        definition = packaged(f'msg/{kind.rpartition("/")[2]}.msg').read_text()
        store.register(get_types_from_msg(definition, kind))
    return store


def image_topics(reader: AnyReader, path: Path, topic: str | None) -> list[str]:
    """
    Give the image topics of a recording, by name; ``topic`` alone if that is given.

    :param path: of the recording, for messages.
    :raises ValueError: if there is none, or ``topic`` is none.
    """
    names = sorted(
        {c.topic for c in reader.connections if c.msgtype in (RAW_TYPE, COMPRESSED_TYPE)}
    )
    known = ', '.join(names) if names else 'none'
    if topic is not None:
        if topic in names:
            return [topic]
        types = sorted({c.msgtype for c in reader.connections if c.topic == topic})
        found = f'is {", ".join(types)}' if types else 'is not in the bag'
        raise ValueError(f'{path}: topic {topic} {found}; image topics: {known}')
    if not names:
        others = ', '.join(sorted({c.topic for c in reader.connections})) or 'none'
        raise ValueError(f'{path}: expected an image topic; topics: {others}')
    return names


def _rank(reader: AnyReader, connection: Connection) -> int:
    """Say how likely a topic is the camera: 0 colour, 1 grey (or a mask), 2 not to be read."""
    for _, _, data in reader.messages([connection]):
        message: Any = reader.deserialize(data, connection.msgtype)
        if connection.msgtype == COMPRESSED_TYPE:
            return 2 if 'compressedDepth' in message.format else int('mono' in message.format)
        return int(message.encoding.startswith('mono')) if message.encoding in ENCODINGS else 2
    return 3
