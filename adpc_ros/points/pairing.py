# SPDX-License-Identifier: Apache-2.0
"""
Which mask a cloud is labelled with, and how long it waits for one.

Pure, without threads or clocks: times are passed in, stamps in nanoseconds.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

CloudT = TypeVar('CloudT')
PlaneT = TypeVar('PlaneT')

KEPT_FRAMES = 10  # masks of full size are megabytes; clouds come before their masks, or soon after
WAITING_CLOUDS = 32


class Pair(NamedTuple, Generic[PlaneT]):
    """Mask and confidence of one frame."""

    stamp_ns: int
    mask: PlaneT
    confidence: PlaneT


class Settled(NamedTuple, Generic[CloudT, PlaneT]):
    """A cloud whose waiting is over; without a pair, ``reason`` says what was missing."""

    cloud: CloudT
    pair: Pair[PlaneT] | None
    reason: str


class _Waiting(NamedTuple, Generic[CloudT]):
    stamp_ns: int
    cloud: CloudT
    until_s: float


class Pairing(Generic[CloudT, PlaneT]):
    """
    Clouds that wait for the mask nearest in stamp.

    Masks come in the order of their stamps, so a cloud's nearest one is known once there is one
    that is not older than the cloud. Else it is known when the waiting ends. Clouds leave in the
    order in which they came: what is there for a later one will not be bettered for one before it.

    :param max_stamp_difference_s: between a cloud and its mask.
    :param max_wait_s: from a cloud's arrival; 0 takes what is there.
    """

    def __init__(self, max_stamp_difference_s: float, max_wait_s: float) -> None:
        """Nothing waits."""
        self._tolerance_ns = round(max_stamp_difference_s * 1e9)
        self._max_wait_s = max_wait_s
        self._masks: dict[int, PlaneT] = {}
        self._confidences: dict[int, PlaneT] = {}
        self._clouds: deque[_Waiting[CloudT]] = deque()

    @property
    def waiting_count(self) -> int:
        """How many clouds wait."""
        return len(self._clouds)

    def add_mask(self, stamp_ns: int, mask: PlaneT) -> None:
        """Keep a mask for a while."""
        _keep(self._masks, stamp_ns, mask)

    def add_confidence(self, stamp_ns: int, confidence: PlaneT) -> None:
        """Keep a confidence for a while."""
        _keep(self._confidences, stamp_ns, confidence)

    def add_cloud(self, stamp_ns: int, cloud: CloudT, now_s: float) -> None:
        """
        Let a cloud wait.

        :param now_s: monotonic time.
        """
        self._clouds.append(_Waiting(stamp_ns, cloud, now_s + self._max_wait_s))

    def settle(
        self, now_s: float, can_label: Callable[[CloudT], bool] = lambda cloud: True
    ) -> list[Settled[CloudT, PlaneT]]:
        """
        Take the clouds whose waiting is over.

        :param now_s: monotonic time.
        :param can_label: False while something else is missing that is worth waiting for.
        :return: in the order in which they came.
        """
        count = max(0, len(self._clouds) - WAITING_CLOUDS)
        for position, waiting in enumerate(self._clouds):
            if now_s >= waiting.until_s or (self._is_final(waiting) and can_label(waiting.cloud)):
                count = max(count, position + 1)
        return [self._settled(self._clouds.popleft()) for _ in range(count)]

    def _is_final(self, waiting: _Waiting[CloudT]) -> bool:
        """
        Tell whether no mask will come that is nearer than those there.

        A later mask beyond the tolerance proves that, too, but may also be one that a bag left
        behind when it began again.
        """
        return any(
            0 <= stamp_ns - waiting.stamp_ns <= self._tolerance_ns for stamp_ns in self._paired()
        )

    def _paired(self) -> list[int]:
        return [stamp_ns for stamp_ns in self._masks if stamp_ns in self._confidences]

    def _settled(self, waiting: _Waiting[CloudT]) -> Settled[CloudT, PlaneT]:
        nearest_ns = _nearest(self._paired(), waiting.stamp_ns)
        if abs(nearest_ns - waiting.stamp_ns) <= self._tolerance_ns:
            stamp_ns = int(nearest_ns)
            pair = Pair(stamp_ns, self._masks[stamp_ns], self._confidences[stamp_ns])
            return Settled(waiting.cloud, pair, '')
        return Settled(waiting.cloud, None, self._what_is_missing(waiting.stamp_ns))

    def _what_is_missing(self, stamp_ns: int) -> str:
        for name, kept in (('mask', self._masks), ('confidence', self._confidences)):
            if not kept:
                return f'no {name} has come'
            off_s = (_nearest(list(kept), stamp_ns) - stamp_ns) / 1e9
            if abs(off_s) > self._tolerance_ns / 1e9:
                return (
                    f'no {name} within {self._tolerance_ns / 1e9:g} s of the stamp: '
                    f'the nearest is {off_s:+.3f} s off'
                )
        return 'no mask and confidence of one stamp'


def _nearest(stamps_ns: list[int], stamp_ns: int) -> float:
    """Give the stamp nearest to another, infinity if there is none; of two the later one."""
    return min(stamps_ns, key=lambda other: (abs(other - stamp_ns), -other), default=math.inf)


def _keep(kept: dict[int, PlaneT], stamp_ns: int, plane: PlaneT) -> None:
    """Keep it; a stamp that goes backwards begins a new timeline, as a looping bag does."""
    for other in [other for other in kept if other >= stamp_ns]:
        del kept[other]
    kept[stamp_ns] = plane
    while len(kept) > KEPT_FRAMES:
        del kept[next(iter(kept))]
