# SPDX-License-Identifier: Apache-2.0
"""Soft labels of a teacher on disk: one picture for each image, of a quarter of its size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adpc_ros.labels import IGNORE_ID
from adpc_ros.learning.sample import Sample
from adpc_ros.learning.transforms import SOFT_CELL


def path_of(folder: Path, name: str) -> Path:
    """Give the file that belongs to the image of a name."""
    return folder / f'{name}.png'


def planes_of(
    picture: NDArray[Any], classes: int, size: tuple[int, ...], path: Path
) -> NDArray[np.uint8]:
    """
    Take a picture apart, in which the classes' planes lie one below the other.

    :param picture: (K * (H // 4), W // 4) uint8, 0 to 255 for a probability of 0 to 1.
    :param size: (H, W) of the image in pixels.
    :param path: for the message.
    :return: (K, H // 4, W // 4) uint8.
    :raises ValueError: for another shape or type.
    """
    height, width = (edge // SOFT_CELL for edge in size)
    if picture.shape != (classes * height, width) or picture.dtype != np.uint8:
        raise ValueError(
            f'{path}: expected {(classes * height, width)} for {classes} classes of an image of '
            f'{size}, got {picture.shape} {picture.dtype}'
        )
    return picture.reshape(classes, height, width)


def agreement(sample: Sample) -> float:
    """
    Give the share of labelled positions that the teacher puts in their class, 0 to 1.

    :param sample: with soft labels.
    :return: 1 if nothing is labelled.
    """
    assert sample.soft is not None
    rows, columns = (  # the pixel in the middle of each position
        (2 * np.arange(cells) + 1) * edge // (2 * cells)
        for cells, edge in zip(sample.soft.shape[1:], sample.label.shape)
    )
    label = sample.label[rows][:, columns]
    known = label != IGNORE_ID
    right = (sample.soft.argmax(0) == label)[known]
    return float(right.mean()) if len(right) else 1.0
