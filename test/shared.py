"""Where the tests find reference numbers and driving frames; both lie beside the repository."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get('ADPC_SHARED', ROOT.parent / 'shared'))


def reference(name: str) -> dict[str, np.ndarray]:
    """Load ``parity/NAME.npz``, or skip the test and say what is missing."""
    path = SHARED / 'parity' / f'{name}.npz'
    if not path.exists():
        pytest.skip(f'reference numbers not found: {path} (set ADPC_SHARED)')
    with np.load(path) as archive:
        return {key: archive[key] for key in archive.files}


def camvid(part: str) -> Path:
    """Give the folder ``camvid/PART``, or skip the test and say what is missing."""
    path = SHARED / 'camvid' / part
    if not path.is_dir():
        pytest.skip(f'driving frames not found: {path} (set ADPC_SHARED)')
    return path
