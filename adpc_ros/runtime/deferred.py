# SPDX-License-Identifier: Apache-2.0
"""Images that are decoded when their turn comes; apart, so that who names them needs no torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Deferred(NamedTuple):
    """
    An image that the worker decodes, once its frame's turn has come.

    ``size`` (H, W) in pixels; ``decode`` gives (H, W, 3) uint8 RGB, or raises ValueError.
    """

    size: tuple[int, int]
    decode: Callable[[], NDArray[np.uint8]]


def size_of(image: NDArray[np.uint8] | Deferred) -> tuple[int, int]:
    """Give the (H, W) of an image in pixels, decoded or not."""
    return image.size if isinstance(image, Deferred) else (image.shape[0], image.shape[1])
