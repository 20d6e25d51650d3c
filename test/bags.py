# SPDX-License-Identifier: Apache-2.0
"""Bags for the tests, with times to the millisecond."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mcap.writer import Writer as McapWriter
from PIL import Image
from rosbags.rosbag2 import StoragePlugin, Writer

from adpc_ros.recording.types import typestore
from adpc_ros.ros.message_types import (
    BOOL_TYPE,
    CAMERA_INFO_TYPE,
    COMPRESSED_TYPE,
    RAW_TYPE,
    URGENCY_TYPE,
)

START_NS = 1_700_000_000_000_000_000
STORE = typestore()


class Shot(NamedTuple):
    """A frame: when it is received and its stamp, in milliseconds from the start."""

    at_ms: float
    stamp_ms: float | None = None  # None: as received
    topic: str = '/camera'
    encoding: str = 'rgb8'  # png: compressed


class Call(NamedTuple):
    """An urgency message."""

    at_ms: float
    level: int
    deadline_ms: float = 0.0
    hold_ms: float = 0.0


class Brake(NamedTuple):
    """A std_msgs/Bool."""

    at_ms: float
    on: bool
    topic: str = '/adpc/input/urgency'


class Info(NamedTuple):
    """The camera's calibration, of 64x96 pixels."""

    at_ms: float
    focal: float = 80.0
    topic: str = '/camera_info'


def calibration(info: Info) -> Any:
    roi = STORE.types['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False)
    k = np.array([info.focal, 0, 48, 0, info.focal, 32, 0, 0, 1], np.float64)
    p = np.insert(k, [3, 6, 9], 0.0)
    return STORE.types[CAMERA_INFO_TYPE](
        *(header(ns(info.at_ms)), 64, 96, 'plumb_bob', np.zeros(5), k, np.eye(3).ravel(), p),
        *(0, 0, roi),
    )


def pair(kind: str, nanoseconds: int) -> Any:
    seconds = min(nanoseconds // 10**9, 2**31 - 1)  # and the rest in nanoseconds
    rest = nanoseconds - seconds * 10**9
    return STORE.types[f'builtin_interfaces/msg/{kind}'](sec=seconds, nanosec=rest)


def header(stamp_ns: int, frame_id: str = 'front') -> Any:
    return STORE.types['std_msgs/msg/Header'](stamp=pair('Time', stamp_ns), frame_id=frame_id)


def ns(ms: float) -> int:
    return START_NS + round(ms * 1e6)


def picture_message(shot: Shot, picture: np.ndarray) -> tuple[str, Any]:
    """Give type and message of a frame; a stamp of -1 is zero."""
    stamp_ms = shot.at_ms if shot.stamp_ms is None else shot.stamp_ms
    top = header(0 if stamp_ms == -1 else ns(stamp_ms))
    if shot.encoding == 'png':
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, 'png')
        data = np.frombuffer(buffer.getvalue(), np.uint8)
        return COMPRESSED_TYPE, STORE.types[COMPRESSED_TYPE](header=top, format='png', data=data)
    height, width = picture.shape[:2]
    return RAW_TYPE, STORE.types[RAW_TYPE](
        header=top,
        height=height,
        width=width,
        encoding=shot.encoding,
        is_bigendian=0,
        step=3 * width,
        data=picture.reshape(-1),
    )


def write_bag(
    path: Path,
    events: Sequence[Shot | Call | Info | Brake],
    storage: str = 'MCAP',
    size: tuple[int, int] = (64, 96),
) -> Path:
    """Write a bag folder with frames of random blocks, and urgency; events in order."""
    rng = np.random.default_rng(0)
    with Writer(path, version=9, storage_plugin=StoragePlugin[storage]) as writer:
        connections: dict[tuple[str, str], Any] = {}
        for event in events:
            if isinstance(event, Shot):
                topic = event.topic
                coarse = rng.integers(0, 256, (size[0] // 16, size[1] // 16, 3), np.uint8)
                picture = np.kron(coarse, np.ones((16, 16, 1), np.uint8))
                kind, message = picture_message(event, picture)
            elif isinstance(event, Brake):
                topic, kind = event.topic, BOOL_TYPE
                message = STORE.types[kind](data=event.on)
            elif isinstance(event, Info):
                topic, kind, message = event.topic, CAMERA_INFO_TYPE, calibration(event)
            else:
                topic, kind = '/adpc/input/urgency', URGENCY_TYPE
                message = STORE.types[kind](
                    header=header(ns(event.at_ms) + 1, ''),
                    level=event.level,
                    deadline=pair('Duration', round(event.deadline_ms * 1e6)),
                    hold=pair('Duration', round(event.hold_ms * 1e6)),
                )
            if (topic, kind) not in connections:
                connections[topic, kind] = writer.add_connection(topic, kind, typestore=STORE)
            data = STORE.serialize_cdr(message, kind)
            writer.write(connections[topic, kind], ns(event.at_ms), data)
    return path


IMAGE_DEFINITION = STORE.generate_msgdef(RAW_TYPE, ros_version=2)[0].encode()


class Channel(NamedTuple):
    """A channel of an MCAP file, as whoever wrote it describes it."""

    topic: str = '/camera'
    kind: str = RAW_TYPE
    definition: bytes = IMAGE_DEFINITION
    definition_format: str = 'ros2msg'
    encoding: str = 'cdr'
    metadata: dict[str, str] = {}  # noqa: RUF012


class Said(NamedTuple):
    """A message of a channel, by its place in the list of them."""

    time_ns: int
    data: bytes = b'?'
    channel: int = 0


def grey(value: int, stamp_ns: int = 0, size: tuple[int, int] = (4, 4)) -> bytes:
    """Give the bytes of an image message of one value."""
    picture = np.full((*size, 3), value, np.uint8)
    kind, message = picture_message(Shot(0), picture)
    message.header.stamp = pair('Time', stamp_ns)
    return bytes(STORE.serialize_cdr(message, kind))


def write_mcap(
    path: Path, channels: Iterable[Channel], messages: Iterable[Said], **options: Any
) -> Path:
    """Write a single MCAP file as it is told, in the order of the messages."""
    with path.open('wb') as file:
        writer = McapWriter(file, **options)
        writer.start('ros2')
        numbers = []
        for channel in channels:
            form, definition = channel.definition_format, channel.definition
            schema = writer.register_schema(channel.kind, form, definition)
            numbers.append(
                writer.register_channel(channel.topic, channel.encoding, schema, channel.metadata)
            )
        for said in messages:
            logged = said.time_ns % 2**64
            writer.add_message(numbers[said.channel], logged, said.data, logged)
        writer.finish()
    return path
