# SPDX-License-Identifier: Apache-2.0
"""What became of the frames, in numbers."""

from __future__ import annotations

from typing import Any, NamedTuple

from adpc_ros.replay.source import nanoseconds
from adpc_ros.runtime.scheduler import DropReason, StopReason


class FrameRecord(NamedTuple):
    """
    What became of a frame.

    ``number`` counts from 0 in order of receipt; ``received_ns`` and ``stamp_ns`` (the header's)
    are nanoseconds, and so is ``published_ns``, of the mask or of the drop. ``dropped`` says why
    it was dropped and is empty if it was not: then ``exit_index`` and ``reason`` (a stop reason's
    name) say how far it came, the durations are seconds, and the shares 0 to 1.
    """

    number: int
    received_ns: int
    stamp_ns: int
    published_ns: int
    dropped: str = ''
    exit_index: int = 0
    reason: str = ''
    latency_s: float = 0.0
    compute_s: float = 0.0
    preempt_s: float = 0.0
    deadline_missed: bool = False
    mean_confidence: float = 0.0
    confident_share: float = 0.0
    gimac: float = 0.0

    @property
    def has_mask(self) -> bool:
        """Whether a mask was published."""
        return self.exit_index > 0

    @property
    def is_lost(self) -> bool:
        """Whether it was no image, or its computation failed."""
        return self.dropped == DropReason.INVALID.value or self.reason == StopReason.FAILED.name


def record_of(
    number: int, received_ns: int, stamp_ns: int, published_ns: int, status: Any
) -> FrameRecord:
    """Make the record of a frame from its status message."""
    return FrameRecord(
        number,
        received_ns,
        stamp_ns,
        published_ns,
        '',
        int(status.exit_index),
        StopReason(status.stop_reason).name,
        nanoseconds(status.latency) / 1e9,
        nanoseconds(status.compute_time) / 1e9,
        nanoseconds(status.preempt_time) / 1e9,
        bool(status.deadline_missed),
        float(status.mean_confidence),
        float(status.confident_share),
        float(status.gimac),
    )


Key = tuple[int, int]


class Counted:
    """Tells frames with the same stamp apart (a looping drive): by the n-th of that stamp."""

    def __init__(self) -> None:
        """Start with none."""
        self._seen: dict[int, int] = {}

    def __call__(self, stamp_ns: int) -> Key:
        """Give the key of the next frame with this stamp."""
        count = self._seen[stamp_ns] = self._seen.get(stamp_ns, -1) + 1
        return stamp_ns, count
