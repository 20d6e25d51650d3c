# SPDX-License-Identifier: Apache-2.0
"""Percentiles of measured times, defined once for the node and all reports."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

PERCENTILES = (50, 95, 99)


def percentiles(values: Sequence[float]) -> tuple[float, ...] | None:
    """
    Give the :data:`PERCENTILES` by the nearest-rank method: each is one of the values.

    :return: None for no values.
    """
    if not values:
        return None
    ordered = sorted(values)
    return tuple(ordered[math.ceil(p / 100 * len(ordered)) - 1] for p in PERCENTILES)


def spread(values: Sequence[float], digits: int | None = None) -> dict[str, Any]:
    """
    Give number, percentiles and maximum as a report writes them.

    :param digits: after the point, to which they are rounded; None for all.
    :return: ``n``, ``median``, ``p95``, ``p99`` and ``max`` in the unit of the values; all but
        ``n`` are None for no values.
    """
    found = [*(percentiles(values) or ()), *([max(values)] if values else ())]
    if digits is not None:
        found = [round(value, digits) for value in found]
    names = ('median', 'p95', 'p99', 'max')
    return {'n': len(values), **dict(zip(names, found or [None] * len(names)))}
