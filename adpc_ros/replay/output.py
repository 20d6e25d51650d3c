"""
The output bag: masks, confidence and status in one .mcap file, and what is read back from one.

The file holds nothing but what was given: no name, no time of writing. The same results make the
same bytes.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterator
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
from adpc_ros.recording.types import RAW_TYPE, STATUS_TYPE, typestore
from adpc_ros.replay.source import FrameArrival, time_parts
from adpc_ros.runtime.engine import Result
from adpc_ros.runtime.scheduler import Publish

NAMESPACE = '/adpc'
#: What is recorded, below the node's name: type and depth of the queue, all reliable.
TOPICS = {
    'output/mask': (RAW_TYPE, 5),
    'output/confidence': (RAW_TYPE, 5),
    'output/status': (STATUS_TYPE, 10),
}
_FOREVER = QosTime(9223372036, 854775807)


class Messages:
    """Makes the node's messages without ROS."""

    def __init__(self) -> None:
        """Look up the types."""
        self.store = typestore()
        self._types = self.store.types

    def _pair(self, kind: str, nanoseconds: int) -> Any:
        seconds, rest = time_parts(nanoseconds)
        return self._types[f'builtin_interfaces/msg/{kind}'](sec=seconds, nanosec=rest)

    def _duration(self, seconds: float) -> Any:
        return self._pair('Duration', round(seconds * 1e9))

    def header(self, frame: FrameArrival) -> Any:
        """Give a frame's header."""
        return self._types['std_msgs/msg/Header'](
            stamp=self._pair('Time', frame.stamp_ns), frame_id=frame.frame_id
        )

    def image(self, values: NDArray[np.uint8], header: Any) -> Any:
        """
        Give a mono8 image message.

        :param values: (H, W) uint8.
        """
        height, width = values.shape
        return self._types[RAW_TYPE](
            header=header,
            height=height,
            width=width,
            encoding='mono8',
            is_bigendian=0,
            step=width,
            data=np.ascontiguousarray(values).reshape(-1),
        )

    def status(self, result: Result, now_s: float, exit_count: int, network: str) -> Any:
        """
        Give the status message of a result, as the node fills it.

        :param result: of a frame whose tag is its :class:`FrameArrival`.
        :param now_s: time of publication on the clock of the result.
        :param exit_count: of the network.
        :param network: identity of the weights.
        """
        decision, done = result.decision, result.exit
        event_s, stamp_ns, deadline_s = None, 0, math.inf
        if isinstance(decision, Publish):
            event_s, stamp_ns = decision.event_s, decision.urgency_stamp or 0
            deadline_s = decision.deadline_s
        return self._types[STATUS_TYPE](
            header=self.header(result.frame.tag),
            exit_index=done.exit_index if done else 0,
            exit_count=exit_count,
            stop_reason=int(result.reason),
            urgency=int(result.level),
            urgency_stamp=self._pair('Time', stamp_ns),
            deadline_missed=now_s > deadline_s,
            mean_confidence=done.mean_confidence if done else 0.0,
            confident_share=done.confident_share if done else 0.0,
            gimac=done.gimac if done else 0.0,
            latency=self._duration(now_s - result.frame.captured_s),
            compute_time=self._duration(done.time_s - result.started_s if done else 0.0),
            preempt_time=self._duration(now_s - event_s if event_s is not None else 0.0),
            frames_received=result.counters.received,
            frames_segmented=result.counters.segmented,
            frames_dropped=result.counters.dropped,
            network=network,
        )


class OutputBag:
    """
    Writes the output topics into one .mcap file, which is there once all is written.

    :param path: of the file; one that exists is replaced.
    :param namespace: the node's name, with which the topics begin.
    :raises ValueError: if ``path`` is not to end in .mcap, or is a folder; if the namespace is no
        absolute name.
    """

    def __init__(self, path: str | Path, namespace: str = NAMESPACE) -> None:
        """Check the names; nothing is written yet."""
        self.path = Path(path)
        if self.path.suffix != '.mcap' or self.path.is_dir():
            raise ValueError(f'expected the output to be a file NAME.mcap, got {self.path}')
        self.namespace = checked(namespace)
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
                kind,
                typestore=self.messages.store,
                offered_qos_profiles=[_reliable(depth)],
            )
            for topic, (kind, depth) in TOPICS.items()
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
            message = self.messages.store.serialize_cdr(message, TOPICS[topic][0])
        logged = time_ns % 2**64  # MCAP has no sign, rosbag2 takes the highest bit as one
        self._writer.write(self._connections[topic], logged, message)

    def write_result(
        self, result: Result, now_s: float, time_ns: int, exit_count: int, network: str
    ) -> Any:
        """
        Write mask, confidence and status of a frame, as the node publishes them.

        :param time_ns: of publication, as the bag counts; the rest as in :meth:`Messages.status`.
        :return: the status message.
        """
        if result.exit is not None:
            header = self.messages.header(result.frame.tag)
            rendered = result.exit.rendered
            for topic, values in (
                ('output/mask', rendered.class_ids),
                ('output/confidence', rendered.confidence),
            ):
                self.write(topic, time_ns, self.messages.image(values, header))
        status = self.messages.status(result, now_s, exit_count, network)
        self.write('output/status', time_ns, status)
        return status

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


def _reliable(depth: int) -> Qos:
    return Qos(
        QosHistory.KEEP_LAST,
        depth,
        QosReliability.RELIABLE,
        QosDurability.VOLATILE,
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
    name, (kind, _) = f'{namespace}/{topic}', TOPICS[topic]
    recording = Recording(path)
    wanted = [t for t in recording.topics if (t.name, t.kind) == (name, kind)]
    if not wanted:
        known = ', '.join(sorted({t.name for t in recording.topics})) or 'none'
        raise ValueError(f'{path}: expected {name} ({kind}); topics: {known}')
    recording.prepare(wanted)
    for where, time_ns, data in recording.messages(wanted):
        yield time_ns, recording.decode(where, data)


def values_of(message: Any) -> NDArray[np.uint8]:
    """Give a mono8 image message as (H, W) uint8."""
    rows = np.asarray(message.data, np.uint8)[: message.height * message.step]
    return rows.reshape(message.height, message.step)[:, : message.width]
