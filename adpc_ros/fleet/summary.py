# SPDX-License-Identifier: Apache-2.0
"""Many drives in numbers: counts, and agreement and accuracy with their intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adpc_ros.learning.metrics import mean_iou
from adpc_ros.replay.summary import counts
from adpc_ros.replay.verdicts import Status

_ROUNDS, _AT_ONCE = 2000, 100  # of the bootstrap
_COUNTS = ('frames', 'drops', 'exits', 'stops')  # of a drive's summary
_NAMES = {
    Status.PASSED: 'passed',
    Status.UNMET: 'not as expected',
    Status.FAULT: 'faults of the input',
    Status.CRASHED: 'crashed',
}


class Group:
    """Adds up drives; of each no more is kept than a few numbers."""

    def __init__(self) -> None:
        """Start with none."""
        self._verdicts: Counter[Status] = Counter()
        self._counts: dict[str, Counter[str]] = {name: Counter() for name in _COUNTS}
        self._late = self._changes = 0
        self._confidence: list[tuple[float, int]] = []  # mean of a drive, and its masks
        self._shares: list[tuple[float, int]] = []  # equal pixels: mean of a drive, and its frames
        self._least: tuple[float, str] | None = None
        self._classes: set[tuple[str, ...]] = set()
        self._confusions: list[NDArray[np.int64]] = []

    def add(self, name: str, status: Status, result: Mapping[str, Any] | None) -> None:
        """
        Count a drive.

        :param result: what was kept of it, its ``confusion`` (K, K) int64; None if nothing was.
        """
        self._verdicts[status] += 1
        numbers = result and result['numbers']
        if not result or not numbers:
            return
        for kind, counter in self._counts.items():
            counter.update(numbers[kind])
        self._late += numbers['deadlines_missed']
        if numbers['mean_confidence'] is not None:
            self._confidence.append((numbers['mean_confidence'], numbers['frames']['segmented']))
        agreement = numbers['agreement']
        if agreement is not None:
            self._changes += len(agreement['changes'])
            if agreement['frames']:
                self._shares.append((agreement['mean'], agreement['frames']))
                least = agreement['min'], f'{name}, {agreement["min_at"]}'
                self._least = min(self._least or least, least)
        if result['confusion'] is not None:
            self._classes.add(tuple(result['classes']))
            self._confusions.append(result['confusion'])

    def numbers(self) -> dict[str, Any]:
        """Give the sums, as values for JSON."""
        verdicts = {text: self._verdicts[status] for status, text in _NAMES.items()}
        counters = {name: dict(sorted(counter.items())) for name, counter in self._counts.items()}
        frames = self._counts['frames']
        return {
            'drives': {'all': self._verdicts.total(), **verdicts},
            **counters,
            'frames': {name: frames[name] for name in ('received', 'segmented', 'dropped')},
            'deadlines_missed': self._late,
            'mean_confidence': _weighted(self._confidence),
            'agreement': self._agreement(),
            'miou': self._miou(),
        }

    def _agreement(self) -> dict[str, Any] | None:
        if self._least is None:
            return None
        means, frames = np.array(self._shares, np.float64).T
        low, high = _interval(
            lambda times: (times @ (means * frames)) / (times @ frames), len(means)
        )
        return {
            'drives': len(means),
            'frames': int(frames.sum()),
            'mean': _weighted(self._shares),
            'low': low,
            'high': high,
            'min': self._least[0],
            'min_at': self._least[1],
            'changes': self._changes,
        }

    def _miou(self) -> dict[str, Any] | None:
        """Give the mIoU of all labelled frames; None also if they have several class sets."""
        if len(self._classes) != 1:
            return None
        matrices = np.stack(self._confusions)
        flat = matrices.reshape(len(matrices), -1).astype(np.float64)
        low, high = _interval(
            lambda times: mean_iou((times @ flat).reshape(-1, *matrices.shape[1:])), len(flat)
        )
        return {
            'drives': len(matrices),
            'value': float(mean_iou(matrices.sum(0))),
            'low': low,
            'high': high,
        }


def _weighted(values: list[tuple[float, int]]) -> float | None:
    total = sum(weight for _, weight in values)
    return sum(value * weight for value, weight in values) / total if total else None


def _interval(
    statistic: Callable[[NDArray[np.float64]], NDArray[Any]], count: int, seed: int = 0
) -> tuple[float | None, float | None]:
    """
    Give bounds (2.5 and 97.5 %) of a statistic over drives, by drawing drives with replacement.

    Drives are drawn and not frames, since those of one drive are like each other.

    :param statistic: gives (R,) values for (R, ``count``) numbers of times each drive was drawn.
    :return: None for a single drive.
    """
    if count < 2:
        return None, None
    rng = np.random.default_rng(seed)
    found = [
        statistic(rng.multinomial(count, np.full(count, 1 / count), _AT_ONCE).astype(np.float64))
        for _ in range(_ROUNDS // _AT_ONCE)
    ]
    low, high = np.nanpercentile(np.concatenate(found), (2.5, 97.5))
    return float(low), float(high)


def cells(numbers: Mapping[str, Any]) -> dict[str, str]:
    """Give what :meth:`Group.numbers` gives for people: names and values."""
    drives = dict(numbers['drives'])
    total = drives.pop('all')
    agreement, miou = numbers['agreement'], numbers['miou']
    given = {
        'drives': f'{total}: {counts({name: n for name, n in drives.items() if n})}',
        'frames': counts(numbers['frames']),
        'dropped as': counts(numbers['drops']),
        'masks of exit': counts(numbers['exits']),
        'stopped as': counts(numbers['stops']),
        'deadlines missed': str(numbers['deadlines_missed']),
        'equal pixels': '',
        'mIoU': '',
    }
    if agreement is not None:
        given['equal pixels'] = (
            f'mean {_percent(agreement["mean"], agreement)}, '
            f'min {100 * agreement["min"]:.3f} % at {agreement["min_at"]}; '
            f'{agreement["frames"]} frames of {agreement["drives"]} drives, '
            f'{agreement["changes"]} with another exit or reason'
        )
    if miou is not None:
        given['mIoU'] = f'{_percent(miou["value"], miou)}; {miou["drives"]} drives'
    return given


def _percent(value: float, bounds: Mapping[str, Any]) -> str:
    text = f'{100 * value:.3f} %'
    if bounds['low'] is None:
        return text
    return f'{text} [{100 * bounds["low"]:.3f}, {100 * bounds["high"]:.3f}]'
