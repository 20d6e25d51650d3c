# SPDX-License-Identifier: Apache-2.0
"""A replay in numbers, for people and for machines."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from adpc_ros.percentiles import spread
from adpc_ros.replay.agreement import Agreement
from adpc_ros.replay.run import Replayed
from adpc_ros.replay.source import stamp_text


def summary(
    replayed: Replayed,
    agreement: Agreement | None = None,
    miou: float | None = None,
    unmet: list[str] | None = None,
) -> dict[str, Any]:
    """
    Count frames, ends and times, as values for JSON.

    :param agreement: with an earlier output; None if there is none.
    :param miou: 0 to 1, likewise.
    :param unmet: what of the expectation was not met; None if nothing was expected.
    """
    records = replayed.records
    masks = [record for record in records if record.has_mask]
    return {
        'network': replayed.network,
        'how': replayed.how,
        'frames': {
            'received': len(records),
            'segmented': len(masks),
            'dropped': len(records) - len(masks),
        },
        'drops': _counts([r.dropped or 'failed' for r in records if not r.has_mask]),
        'exits': _counts([str(record.exit_index) for record in masks]),
        'stops': _counts([record.reason for record in records if record.reason]),
        'urgency': _counts([urgency.level for urgency in replayed.urgencies]),
        'latency_s': spread([record.latency_s for record in masks]),
        'preempt_s': spread([r.preempt_s for r in masks if r.reason in ('NEXT_FRAME', 'URGENT')]),
        'deadlines_missed': sum(record.deadline_missed for record in records),
        'mean_confidence': _mean([record.mean_confidence for record in masks]),
        'gimac': _mean([record.gimac for record in masks]),
        'agreement': None if agreement is None else _of(agreement),
        'miou': miou,
        'unmet': unmet,
        'passed_over': replayed.passed_over,
    }


def _counts(values: list[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _of(agreement: Agreement) -> dict[str, Any]:
    shares = agreement.shares
    least = agreement.min if shares else None
    least_at = stamp_text(min(shares, key=lambda s: s[1])[0]) if shares else None
    return {
        'frames': len(shares),
        'mean': agreement.mean if shares else None,
        'min': least,
        'min_at': least_at,
        'least': least,  # the former names of these two
        'least_at': least_at,
        'only_before': [stamp_text(stamp) for stamp in agreement.only_before],
        'only_now': [stamp_text(stamp) for stamp in agreement.only_now],
        'changes': [
            {
                'stamp': stamp_text(change.stamp_ns),
                'before': list(change.before),
                'now': list(change.now),
            }
            for change in agreement.changes
        ],
    }


def counts(values: dict[str, int]) -> str:
    """Write numbers of things by their names."""
    return ', '.join(f'{name} {n}' for name, n in values.items()) or 'none'


def lines(numbers: dict[str, Any]) -> list[tuple[str, str]]:
    """Give the rows (name, value) of the summary for people."""

    def milliseconds(times: dict[str, Any]) -> str:
        if not times['n']:
            return 'none'
        cells = (f'{name} {1e3 * times[key]:.1f} ms' for name, key in _SPREAD)
        return f'{", ".join(cells)} (n = {times["n"]})'

    rows = [
        ('network', numbers['network']),
        ('computed', numbers['how']),
        ('frames', counts(numbers['frames'])),
        ('dropped as', counts(numbers['drops'])),
        ('masks of exit', counts(numbers['exits'])),
        ('stopped as', counts(numbers['stops'])),
        ('urgency messages', counts(numbers['urgency'])),
        ('latency (stamp to publication)', milliseconds(numbers['latency_s'])),
        ('event to publication', milliseconds(numbers['preempt_s'])),
        ('deadlines missed', str(numbers['deadlines_missed'])),
    ]
    if (agreement := numbers['agreement']) is not None:
        rows.append(('frames in both outputs', str(agreement['frames'])))
        if agreement['frames']:
            rows.append(('equal pixels', _equal(agreement)))
        missing = f'{len(agreement["only_before"])} before, {len(agreement["only_now"])} now'
        rows.append(('frames in one alone', missing))
        rows.append(('other exit or reason', f'{len(agreement["changes"])} frames'))
    if numbers['miou'] is not None:
        rows.append(('mIoU', f'{100 * numbers["miou"]:.2f} %'))
    if (unmet := numbers['unmet']) is not None:
        rows.append(('expectation', f'{len(unmet)} not met' if unmet else 'met'))
    if names := numbers['passed_over']:
        more = f' and {len(names) - _NAMED} more' if len(names) > _NAMED else ''
        rows.append(('topics passed over', ', '.join(names[:_NAMED]) + more))
    return rows


_NAMED = 8  # topics, at most
_SPREAD = (('median', 'median'), ('99 %', 'p99'), ('max', 'max'))


def _equal(agreement: dict[str, Any]) -> str:
    return (
        f'mean {100 * agreement["mean"]:.3f} %, '
        f'min {100 * agreement["min"]:.3f} % at {agreement["min_at"]}'
    )
