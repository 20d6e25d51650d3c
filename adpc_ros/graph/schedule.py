# SPDX-License-Identifier: Apache-2.0
"""What a camera does when: acts as data, and the messages that they consist of. No ROS here."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from adpc_ros.runtime.scheduler import Level

PATIENCE_S = 20.0  # for the answer to a frame
_LAST_S = 10.0  # for the answer to the last frame of a stream
_SETTLE_S = 0.5  # for progress to be published
_PAUSE_S = 0.03  # after an urgent frame
_URGENT_S = 0.05  # what such a frame takes beside half of its computation, about


class Frame(NamedTuple):
    """
    A frame is sent ``at_s`` seconds after the schedule began.

    ``message`` is an image message or its bytes, sent as it is, and ``stamp_ns`` its stamp; None
    for one of the camera's own images, with the present as its stamp: ``image`` is its number,
    None for the next. ``act`` is noted.
    """

    at_s: float
    act: str
    message: Any = None
    stamp_ns: int = 0
    image: int | None = None


class Urgent(NamedTuple):
    """An urgency message is sent; ``message`` is sent as it is, None for one of ``level``."""

    at_s: float
    level: int
    message: Any = None


class Calibration(NamedTuple):
    """A camera_info message, or its bytes, is sent as it is."""

    at_s: float
    message: Any


class Answer(NamedTuple):
    """
    The status of the latest frame is waited for; time starts anew.

    ``needed``: that none comes is an error.
    """

    timeout_s: float = PATIENCE_S
    needed: bool = True


class Progress(NamedTuple):
    """From now on the camera hears whether a frame has an exit; time starts anew."""


Event = Frame | Urgent | Calibration | Answer | Progress


class Pace(str, enum.Enum):
    """What makes the next frame come."""

    STEADY = 'steady'  # the clock, whatever the node does
    ONE_BY_ONE = 'one by one'  # the answer to the one before
    URGENT = 'urgent'  # likewise, and CRITICAL comes at a random instant of each computation


@dataclasses.dataclass(frozen=True)
class Act:
    """
    A part of a schedule.

    :param name: what its frames are marked with.
    :param seconds: how long it lasts.
    :param count: of frames, the fewest if there are ``seconds``, too; not of a steady pace.
    :param rate_hz: of a steady pace.
    :param load: fewest and most frames in the time that the node takes for a whole one; the rate
        is raised or lowered to that.
    :raises ValueError: for negative values, or a steady pace without a rate.
    """

    name: str
    pace: Pace
    seconds: float = 0.0
    count: int = 0
    rate_hz: float = 0.0
    load: tuple[float, float] = (0.0, math.inf)

    def __post_init__(self) -> None:
        """Check."""
        if self.seconds < 0 or self.count < 0:
            raise ValueError(
                f'act {self.name}: expected seconds and count >= 0, '
                f'got {self.seconds} and {self.count}'
            )
        if self.pace is Pace.STEADY and not self.rate_hz > 0:
            raise ValueError(f'act {self.name}: expected rate_hz > 0, got {self.rate_hz}')

    @property
    def measured(self) -> bool:
        """Whether it depends on the time that the node takes for a whole frame."""
        return self.pace is Pace.URGENT or self.load != (0.0, math.inf)

    def rate(self, whole_s: float) -> float:
        """Give the rate in Hz where a whole frame takes ``whole_s`` seconds."""
        if not self.measured:
            return self.rate_hz
        least, most = self.load
        return min(max(self.rate_hz, least / whole_s), most / whole_s)

    def frames(self, whole_s: float) -> int | None:
        """Give the number of frames; None if only time will tell."""
        if self.pace is Pace.STEADY:
            return max(1, int(self.seconds * self.rate(whole_s)))
        if self.pace is Pace.URGENT:
            return max(self.count, int(self.seconds / (whole_s / 2 + _URGENT_S)))
        return None if self.seconds else self.count

    def events(self, whole_s: float) -> Iterator[Event]:
        """
        Give what happens, lazily: each is asked for when the one before is over.

        :param whole_s: seconds that the node takes for a whole frame; not looked at unless
            ``measured``.
        """
        count = self.frames(whole_s)
        if self.pace is Pace.STEADY:
            assert count is not None
            rate_hz = self.rate(whole_s)
            yield from (Frame(i / rate_hz, self.name) for i in range(count))
            yield Answer(_LAST_S, needed=False)
        elif self.pace is Pace.URGENT:
            assert count is not None
            yield from self._urgent(whole_s, count)
        else:
            yield from self._one_by_one(count)

    def _one_by_one(self, count: int | None) -> Iterator[Event]:
        end_s, sent = time.monotonic() + self.seconds, 0
        while sent < count if count is not None else time.monotonic() < end_s:
            yield Frame(0.0, self.name)
            yield Answer()
            sent += 1

    def _urgent(self, whole_s: float, count: int) -> Iterator[Event]:
        yield Progress()
        start_s, instants = _SETTLE_S, random.Random(0)
        for _ in range(count):
            yield Frame(start_s, self.name)
            yield Urgent(start_s + instants.uniform(0.1, 1.0) * whole_s, Level.CRITICAL)
            yield Answer(_LAST_S, needed=False)
            yield Urgent(0.0, Level.ROUTINE)
            start_s = _PAUSE_S


def write_acts(path: Path, acts: Sequence[Act]) -> None:
    """Write acts for a camera's process (JSON)."""
    path.write_text(json.dumps([dataclasses.asdict(act) for act in acts]))


def read_acts(path: Path) -> list[Act]:
    """Read what :func:`write_acts` wrote."""
    values = json.loads(path.read_text())
    return [Act(**v | {'pace': Pace(v['pace']), 'load': tuple(v['load'])}) for v in values]
