# SPDX-License-Identifier: Apache-2.0
"""Where the tests find reference numbers and driving frames; both lie beside the repository."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get('ADPC_SHARED', ROOT.parent / 'shared'))

# fmt: off
CITYSCAPES_CLASS_WEIGHTS = (  # of the training loss, as released
    0.8373, 0.918, 0.866, 1.0345, 1.0166, 0.9969, 0.9754, 1.0489, 0.8786, 1.0023,
    0.9539, 0.9843, 1.1116, 0.9037, 1.0865, 1.0955, 1.0865, 1.1529, 1.0507,
)
# fmt: on


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
