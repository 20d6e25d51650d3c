# SPDX-License-Identifier: Apache-2.0
"""
The output bag: masks, confidence and status in one .mcap file, and what is read back from one.

The file holds nothing but what was given: no name, no time of writing. The same results make the
same bytes.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from adpc_ros.recording.reader import Recording
from adpc_ros.recording.types import typestore
from adpc_ros.replay.source import time_parts
from adpc_ros.ros.message_types import RAW_TYPE
from adpc_ros.ros.publication import PROGRESS, TOPICS, Fields, Span, Stamp, Topic, encoding_of

NAMESPACE = '/adpc'
#: What the node publishes whether anybody listens or not.
OUTPUTS = tuple(topic for topic in TOPICS if topic not in PROGRESS)
_FOREVER = QosTime(9223372036, 854775807)


class Messages:
    """Makes the node's messages without ROS."""

    def __init__(self) -> None:
        """Look up the types."""
        self.store = typestore()
        self._types = self.store.types

    def header(self, stamp_ns: int, frame_id: str) -> Any:
        """Give a header."""
        return self._types['std_msgs/msg/Header'](
            stamp=self._value(Stamp(stamp_ns)), frame_id=frame_id
        )

    def message(self, value: NDArray[Any] | Fields, header: Any) -> Any:
        """
        Give the message of a topic's value.

        :param value: of :mod:`adpc_ros.ros.publication`.
        """
        if isinstance(value, Fields):
            return self._filled(value, header=header)
        height, width = value.shape[:2]
        return self._types[RAW_TYPE](
            header=header,
            height=height,
            width=width,
            encoding=encoding_of(value),
            is_bigendian=0,
            step=value[0].nbytes,
            data=np.ascontiguousarray(value).reshape(-1).view(np.uint8),
        )

    def _value(self, value: Any) -> Any:
        if isinstance(value, (Span, Stamp)):
            seconds, rest = time_parts(value.nanoseconds)
            kind = 'Duration' if isinstance(value, Span) else 'Time'
            return self._types[f'builtin_interfaces/msg/{kind}'](sec=seconds, nanosec=rest)
        if isinstance(value, Fields):
            return self._filled(value)
        if isinstance(value, list):
            if all(isinstance(part, float) for part in value):
                return np.array(value, np.float64)
            return [self._value(part) for part in value]
        return value

    def _filled(self, fields: Fields, **more: Any) -> Any:
        given = {name: self._value(value) for name, value in fields.values.items()}
        return self._types[fields.kind](**more, **given)


class OutputBag:
    """
    Writes the output topics into one .mcap file, which is there once all is written.

    :param path: of the file; one that exists is replaced.
    :param namespace: the node's name, with which the topics begin.
    :param topics: those that may be written, of :data:`TOPICS`.
    :raises ValueError: if ``path`` is not to end in .mcap, or is a folder; if the namespace is no
        absolute name.
    """

    def __init__(
        self,
        path: str | Path,
        namespace: str = NAMESPACE,
        topics: Sequence[str] = OUTPUTS,
    ) -> None:
        """Check the names; nothing is written yet."""
        self.path = Path(path)
        if self.path.suffix != '.mcap' or self.path.is_dir():
            raise ValueError(f'expected the output to be a file NAME.mcap, got {self.path}')
        self.namespace, self.topics = checked(namespace), tuple(topics)
        self.messages = Messages()

    def __enter__(self) -> OutputBag:
        """Open a writer in a folder of its own beside the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix=f'.{self.path.stem}.', dir=self.path.parent))
        # the writer puts this name into the file, so it is always the same one
        self._writer = Writer(
            self._folder / 'replay', version=9, storage_plugin=StoragePlugin.MCAP
        )
        self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        self._writer.open()
        self._connections = {
            topic: self._writer.add_connection(
                f'{self.namespace}/{topic}',
                TOPICS[topic].kind,
                typestore=self.messages.store,
                offered_qos_profiles=[_quality(TOPICS[topic])],
            )
            for topic in self.topics
        }
        return self

    def write(self, topic: str, time_ns: int, message: Any) -> None:
        """
        Write one message.

        :param topic: one of :data:`TOPICS`.
        :param time_ns: of publication.
        :param message: as ``rosbags`` makes them, or its bytes.
        """
        if not isinstance(message, bytes):
            message = self.messages.store.serialize_cdr(message, TOPICS[topic].kind)
        logged = time_ns % 2**64  # MCAP has no sign, rosbag2 takes the highest bit as one
        self._writer.write(self._connections[topic], logged, message)

    def publish(
        self,
        topic: str,
        time_ns: int,
        value: NDArray[Any] | Fields,
        stamp_ns: int,
        frame_id: str = '',
    ) -> Any:
        """
        Write what is published.

        :param topic: as in :meth:`write`, and likewise ``time_ns``.
        :param value: of :mod:`adpc_ros.ros.publication`.
        :param stamp_ns: of the header, and likewise ``frame_id``.
        :return: the message.
        """
        message = self.messages.message(value, self.messages.header(stamp_ns, frame_id))
        self.write(topic, time_ns, message)
        return message

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Put the file in its place, or remove what was written of it."""
        try:
            self._writer.__exit__(kind, error, trace)
            if error is None:
                (self._folder / 'replay' / 'replay.mcap').replace(self.path)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)


def _quality(topic: Topic) -> Qos:
    return Qos(
        QosHistory.KEEP_LAST,
        topic.depth,
        QosReliability.BEST_EFFORT if topic.loose else QosReliability.RELIABLE,
        QosDurability.TRANSIENT_LOCAL if topic.kept else QosDurability.VOLATILE,
        _FOREVER,
        _FOREVER,
        QosLiveliness.AUTOMATIC,
        _FOREVER,
        False,
    )


def checked(namespace: str) -> str:
    """
    Give a node's name as topics begin with it.

    :raises ValueError: if it is not an absolute name, as /adpc.
    """
    if not all(part.isidentifier() for part in namespace.split('/')[1:]) or namespace[:1] != '/':
        raise ValueError(f'expected an absolute name, as /adpc, got {namespace!r}')
    return namespace


def read_output(
    path: str | Path, topic: str, namespace: str = NAMESPACE
) -> Iterator[tuple[int, Any]]:
    """
    Read one topic of an output bag, in order of publication.

    :param topic: one of :data:`TOPICS`.
    :return: time of publication in nanoseconds, and the message.
    :raises FileNotFoundError: if there is nothing at ``path``.
    :raises ValueError: if it is no bag or lacks the topic.
    """
    name, kind = f'{namespace}/{topic}', TOPICS[topic].kind
    recording = Recording(path)
    wanted = [t for t in recording.topics if (t.name, t.kind) == (name, kind)]
    if not wanted:
        known = ', '.join(sorted({t.name for t in recording.topics})) or 'none'
        raise ValueError(f'{path}: expected {name} ({kind}); topics: {known}')
    recording.prepare(wanted)
    for where, time_ns, data in recording.messages(wanted):
        yield time_ns, recording.decode(where, data)


def values_of(message: Any) -> NDArray[Any]:
    """Give a mono8 or 32FC1 image message as (H, W) uint8 or float32."""
    dtype = np.float32 if message.encoding == '32FC1' else np.uint8
    rows = np.asarray(message.data, np.uint8)[: message.height * message.step]
    return rows.reshape(message.height, message.step).view(dtype)[:, : message.width]
