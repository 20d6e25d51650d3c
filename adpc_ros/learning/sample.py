# SPDX-License-Identifier: Apache-2.0
"""A labelled image in memory."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Sample(NamedTuple):
    """
    An image with its label, and with soft labels if a teacher gave some.

    ``image`` (H, W, 3) uint8 RGB and ``label`` (H, W) uint8 class ids, 255 unlabelled. ``soft``
    (K, h, w) uint8 covers the whole image at a lower resolution: the probability of each class,
    0 to 255 for 0 to 1; all 0 where the teacher says nothing.
    """

    image: NDArray[np.uint8]
    label: NDArray[np.uint8]
    soft: NDArray[np.uint8] | None = None
