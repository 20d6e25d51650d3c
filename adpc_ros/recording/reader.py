# SPDX-License-Identifier: Apache-2.0
"""A recording as a whole: its topics, and their messages in order of the time of receipt."""

from __future__ import annotations

import logging
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from adpc_ros.recording.files import files_of
from adpc_ros.recording.storage import Channel, Storage, merged
from adpc_ros.recording.types import typestore_of

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore

log = logging.getLogger(__name__)

NEEDED = ('lz4', 'mcap', 'rosbags', 'zstandard')
_ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'
_ROS1_MAGIC = b'#ROSBAG V'


class Topic(NamedTuple):
    """Messages of one type on one topic, in all files; ``encoding`` is that of the messages."""

    name: str
    kind: str
    encoding: str

    def __str__(self) -> str:
        """Give name, type and encoding for people."""
        encoding = '' if self.encoding == 'cdr' else f', {self.encoding or "no encoding"}'
        return f'{self.name} ({self.kind}{encoding})'


class Recording:
    """
    A rosbag2 recording: MCAP or SQLite, in one file or several, compressed or not.

    Only the messages that are asked for are read, and only their types' definitions. What the
    files hold counts; metadata.yaml says no more than which they are.

    :param path: its folder, or a single file.
    :raises FileNotFoundError: if there is nothing at ``path``.
    :raises ImportError: if a package is missing that reads recordings.
    :raises ValueError: if it is no recording, or a broken one.
    """

    def __init__(self, path: str | Path) -> None:
        """Find the topics."""
        self.path = Path(path)
        for name in NEEDED:
            try:
                import_module(name)
            except ImportError as error:
                raise ImportError(
                    f'reading {path} needs the package {name}: pip install {name}'
                ) from error
        files = files_of(self.path)
        self._folder: Path | None = None  # of what was compressed as a whole
        self._files = [self._open(file, file) for file in files]
        self._channels: dict[Topic, list[tuple[int, Channel]]] = {}  # with number of the file
        for i, storage in enumerate(self._files):
            for channel in storage.channels:
                topic = Topic(channel.topic, channel.kind, channel.encoding)
                self._channels.setdefault(topic, []).append((i, channel))
        self.topics = sorted(self._channels)
        self._stores: dict[Topic, Typestore] = {}

    def count(self, topics: Sequence[Topic]) -> int:
        """Count the messages of topics."""
        return sum(
            channel.message_count for topic in topics for _, channel in self._channels[topic]
        )

    def prepare(self, topics: Sequence[Topic]) -> None:
        """
        Look at the types of topics, so that their messages can be decoded.

        :raises ValueError: if one is not encoded as cdr.
        """
        for topic in topics:
            if topic not in self._stores:
                channels = [channel for _, channel in self._channels[topic]]
                defined = next((c for c in channels if c.definition.strip()), channels[0])
                self._stores[topic] = typestore_of(defined, self.path)

    def messages(self, topics: Sequence[Topic]) -> Iterator[tuple[Topic, int, bytes]]:
        """
        Read messages in order of receipt.

        :return: topic, time of receipt in nanoseconds, and bytes of each.
        :raises ValueError: if the recording turns out to be broken.
        """
        places = {(i, c.number): t for t in topics for i, c in self._channels[t]}
        streams, files = [], []
        for i, storage in enumerate(self._files):
            of_file = storage.streams(frozenset(n for j, n in places if j == i))
            streams += of_file
            files += [i] * len(of_file)
        for number, stored in merged(streams):
            data = stored.data
            if data[:4] == _ZSTD_MAGIC:  # a message never begins like this
                data = self._decompressed(data)
            yield places[files[number], stored.channel], stored.time_ns, data

    def decode(self, topic: Topic, data: bytes) -> Any:
        """
        Give a message as ``rosbags`` makes them.

        :raises Exception: if it is none of its type; ``rosbags`` raises several kinds.
        """
        self.prepare([topic])
        return self._stores[topic].deserialize_cdr(data, topic.kind)

    def _open(self, path: Path, shown: Path) -> Storage:
        from adpc_ros.recording import db3_file, mcap_file, mcap_records

        with path.open('rb') as file:
            head = file.read(16)
        if head.startswith(mcap_records.MAGIC):
            return mcap_file.McapFile(path, shown)
        if head.startswith(db3_file.MAGIC):
            return db3_file.Db3File(path, shown)
        if head.startswith(_ZSTD_MAGIC) and path == shown:
            return self._open(self._unpacked(path), shown)
        got = 'an empty file' if not head else 'neither MCAP nor SQLite'
        if head.startswith(_ROS1_MAGIC):
            got = 'a bag of ROS 1: rosbags-convert makes one of ROS 2 of it'
        raise ValueError(
            f'{shown}: expected a rosbag2 recording (folder with metadata.yaml, .mcap or .db3 '
            f'file), got {got}'
        )

    def _unpacked(self, path: Path) -> Path:
        import zstandard

        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix='adpc_ros.'))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        unpacked = self._folder / path.name
        frame = zstandard.ZstdDecompressor().decompressobj()
        try:
            with path.open('rb') as source, unpacked.open('wb') as target:
                while not frame.eof and (block := source.read(2**20)):
                    target.write(frame.decompress(block))
        except zstandard.ZstdError as error:
            raise ValueError(f'{path}: broken recording: {error}') from error
        if not frame.eof:
            log.warning('%s: the compressed file is cut off: what is whole is read', path)
        return unpacked

    def _decompressed(self, data: bytes) -> bytes:
        import zstandard

        try:
            return zstandard.ZstdDecompressor().decompressobj().decompress(data)
        except zstandard.ZstdError as error:
            raise ValueError(f'{self.path}: broken recording: {error}') from error
