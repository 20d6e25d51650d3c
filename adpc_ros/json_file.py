# SPDX-License-Identifier: Apache-2.0
"""JSON for machines: numbers that JSON does not know are null."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def dumps(value: Any, indent: int | None = None) -> str:
    """
    Write a value as JSON.

    :param value: of dicts, lists, tuples and scalars; NaN and infinity become null.
    :param indent: spaces; None for a single line.
    """
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, (list, tuple)) else value
