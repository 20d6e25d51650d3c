"""A labelled image in memory."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Sample(NamedTuple):
    """``image`` (H, W, 3) uint8 RGB and ``label`` (H, W) uint8 class ids, 255 unlabelled."""

    image: NDArray[np.uint8]
    label: NDArray[np.uint8]
