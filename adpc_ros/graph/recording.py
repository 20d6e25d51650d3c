# SPDX-License-Identifier: Apache-2.0
"""What was sent to a segmentation node and what was heard of it, joined by stamp. No ROS here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Values = dict[str, Any]


def nanoseconds(time: Any) -> int:
    """Give a Time or Duration message in nanoseconds."""
    return int(time.sec) * 10**9 + int(time.nanosec)


def seconds(time: Any) -> float:
    """Give a Time or Duration message in seconds."""
    return nanoseconds(time) / 1e9


class Recording:
    """
    Status of each frame, and when masks came, by stamp.

    :param pixels: keep masks and confidences, too.
    """

    def __init__(self, pixels: bool = False) -> None:
        """Be empty."""
        self._pixels = pixels
        self.statuses: list[Values] = []
        self.received_ns: dict[int, int] = {}  # when masks came, by stamp
        self.confident_ns: list[int] = []  # stamps of the confidences
        self._arrays: dict[str, NDArray[np.uint8]] = {}

    def take(self, topic: str, message: Any, received_ns: int) -> None:
        """Keep a message of ``output/mask``, ``output/confidence`` or ``output/status``."""
        stamp_ns = nanoseconds(message.header.stamp)
        if topic == 'output/status':
            self.statuses.append({'stamp_ns': stamp_ns, **_said(message)})
            return
        if topic == 'output/mask':
            self.received_ns[stamp_ns] = received_ns
        else:
            self.confident_ns.append(stamp_ns)
        if self._pixels:
            values = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width)
            self._arrays[f'{stamp_ns}/{topic.removeprefix("output/")}'] = values

    def values(self) -> Values:
        """Give all but pixels, as values for JSON."""
        return {
            'statuses': self.statuses,
            'received_ns': self.received_ns,
            'confident_ns': self.confident_ns,
        }

    def save(self, path: Path) -> None:
        """Write an npz file: the values as JSON, and the pixels."""
        values = np.array(json.dumps(self.values()))
        np.savez(path, values=values, **self._arrays)  # type: ignore[arg-type]


def _said(status: Any) -> Values:
    return {
        'exit_index': status.exit_index,
        'exit_count': status.exit_count,
        'stop_reason': status.stop_reason,
        'urgency_stamp_ns': nanoseconds(status.urgency_stamp),
        'mean_confidence': status.mean_confidence,
        'gimac': status.gimac,
        'latency_s': seconds(status.latency),
        'compute_s': seconds(status.compute_time),
        'preempt_s': seconds(status.preempt_time),
        'frames_received': status.frames_received,
        'frames_segmented': status.frames_segmented,
        'frames_dropped': status.frames_dropped,
    }


class Played(NamedTuple):
    """
    What a camera sent and a recorder heard.

    ``frames`` have ``stamp_ns``, ``image`` (its number) and ``act``; ``urgencies``, those that
    were CRITICAL, ``stamp_ns``, ``frame_ns`` (the frame's stamp) and ``exit_ready``.
    ``received_ns`` is when the mask of a frame came, by stamp; so are the pixels, (H, W) uint8.
    """

    frames: list[Values]
    urgencies: list[Values]
    statuses: list[Values]
    received_ns: dict[int, int]
    masks: dict[int, NDArray[np.uint8]]
    confidences: dict[int, NDArray[np.uint8]]

    @classmethod
    def of(cls, sent: Values, heard: Values) -> Played:
        """Join values that were read from JSON; there are no pixels."""
        received_ns = {int(stamp): value for stamp, value in heard['received_ns'].items()}
        return cls(sent['frames'], sent['urgencies'], heard['statuses'], received_ns, {}, {})

    @classmethod
    def read(cls, sent: Path, heard: Path) -> Played:
        """Read the files of a camera (JSON) and of a recorder (npz)."""
        with np.load(heard) as archive:
            played = cls.of(json.loads(sent.read_text()), json.loads(str(archive['values'])))
            for key in archive.files:
                stamp, _, kind = key.partition('/')
                if kind:
                    of_kind = played.masks if kind == 'mask' else played.confidences
                    of_kind[int(stamp)] = archive[key]
        return played

    def published(self) -> Iterator[tuple[Values, float]]:
        """Give each status whose mask came, and the milliseconds from stamp to receipt."""
        for status in self.statuses:
            if (stamp_ns := status['stamp_ns']) in self.received_ns:
                yield status, (self.received_ns[stamp_ns] - stamp_ns) / 1e6

    def urgency_to_mask_ms(self) -> list[float]:
        """Give the times from a CRITICAL message to its mask, where an exit was ready."""
        ready = {urgency['stamp_ns'] for urgency in self.urgencies if urgency['exit_ready']}
        return [
            (self.received_ns[status['stamp_ns']] - status['urgency_stamp_ns']) / 1e6
            for status, _ in self.published()
            if status['urgency_stamp_ns'] in ready
        ]
