# SPDX-License-Identifier: Apache-2.0
"""
Masks with given shares and a street's shapes: what is far from any class boundary goes first.

A trained network is sure inside a road or a sky and unsure where classes meet, so the distance to
the nearest boundary of a label map stands in for its confidence.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from adpc_ros.image_files import read_label
from adpc_ros.network.adaptivity import ActiveMap

Labels = NDArray[np.uint8]

# where the tests look, too: beside the repository
_SHARED = Path(os.environ.get('ADPC_SHARED', Path(__file__).resolve().parents[3] / 'shared'))
_SITES, _CLASSES = 48, 11  # of the stand-in for a label map


class MaskShapes(NamedTuple):
    """Where the shapes come from, and the map that rules each stage after the first."""

    source: str
    maps: list[ActiveMap]


def boundaries(labels: Labels) -> NDArray[np.bool_]:
    """
    Mark the cells with a neighbour (of four) of another class.

    :param labels: (H, W) class ids.
    :return: (H, W) bool.
    """
    found = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        one, other = (
            (slice(None),) * axis + (part,) for part in (slice(None, -1), slice(1, None))
        )
        differ = labels[one] != labels[other]
        found[one] |= differ
        found[other] |= differ
    return found


def boundary_distance(labels: Labels) -> NDArray[np.float64]:
    """
    Give the Euclidean distance to the nearest boundary, exactly.

    :param labels: (H, W) class ids.
    :return: (H, W) float64, in cells.
    :raises ValueError: if the labels have no boundary.

    Rows first, then columns, as in Felzenszwalb and Huttenlocher, Distance Transforms of Sampled
    Functions (2012), with the lower envelope found by trying every offset.
    """
    found = boundaries(labels)
    if not found.any():
        raise ValueError('expected labels of at least two classes, got one class alone')
    height, width = labels.shape
    columns = np.arange(width)
    left = np.maximum.accumulate(np.where(found, columns, -np.inf), axis=1)
    right = np.minimum.accumulate(np.where(found, columns, np.inf)[:, ::-1], axis=1)[:, ::-1]
    along_row = np.minimum(columns - left, right - columns) ** 2
    square = along_row.copy()
    for offset in range(1, height):
        if offset**2 >= square.max():  # a boundary farther away is nobody's nearest
            break
        candidate = along_row + offset**2
        np.minimum(square[offset:], candidate[:-offset], out=square[offset:])
        np.minimum(square[:-offset], candidate[offset:], out=square[:-offset])
    distance: NDArray[np.float64] = np.sqrt(square)
    return distance


def nearest_active(
    distance: NDArray[np.float64], masked: Sequence[float]
) -> list[NDArray[np.bool_]]:
    """
    Keep the cells nearest to a boundary active, as many as the shares leave.

    :param distance: (H, W), from :func:`boundary_distance`.
    :param masked: shares in [0, 1] that are masked, none below the one before.
    :return: (H, W) bool for each share, True where active; each is met to half a cell, and of
        equally distant cells the upper left ones stay active.
    :raises ValueError: if a share is out of range or below the one before.
    """
    if sorted(masked) != list(masked) or not all(0 <= share <= 1 for share in masked):
        raise ValueError(f'expected masked shares in [0, 1] that rise, got {tuple(masked)}')
    order = np.argsort(distance, axis=None, kind='stable')
    maps = []
    for share in masked:
        active = np.zeros(distance.size, bool)
        active[order[: distance.size - round(share * distance.size)]] = True
        maps.append(active.reshape(distance.shape))
    return maps


def voronoi_labels(size: tuple[int, int], seed: int = 0) -> Labels:
    """
    Draw a stand-in for a street's label map: small cells at the horizon, large above and below.

    :param size: (H, W) in cells.
    :return: (H, W) uint8.
    """
    generator = np.random.default_rng(seed)
    rows = generator.normal(0.45, 0.15, _SITES) * size[0]
    columns = generator.uniform(0, 1, _SITES) * size[1]
    classes = generator.integers(0, _CLASSES, _SITES)
    classes[0], classes[1] = 0, 1  # two at least
    y, x = np.mgrid[: size[0], : size[1]]
    nearest = np.full(size, np.inf)
    labels = np.zeros(size, np.uint8)
    for row, column, class_id in zip(rows, columns, classes):
        distance = (y - row) ** 2 + ((x - column) / 2) ** 2  # segments are wider than high
        closer = distance < nearest
        nearest[closer], labels[closer] = distance[closer], class_id
    return labels


def read_labels(path: Path, size: tuple[int, int]) -> Labels:
    """
    Read a label map, resized to the nearest pixel.

    :param size: (H, W) in cells.
    :return: (H, W) uint8 class ids.
    :raises ValueError: if the file is no PNG of ids.
    """
    values = read_label(path).values
    if values.ndim != 2:
        raise ValueError(f'{path}: expected ids, grey or of a palette, got colours')
    return np.array(Image.fromarray(values).resize(size[::-1], Image.Resampling.NEAREST))


def label_files(folder: Path | None) -> list[Path]:
    """
    List label maps.

    :param folder: with PNG files; None for CamVid's where they lie beside the repository.
    :return: sorted paths; none if ``folder`` is None and there is no CamVid.
    :raises FileNotFoundError: if ``folder`` is given and has none.
    """
    if folder is not None:
        found = sorted(folder.glob('*.png'))
        if not found:
            raise FileNotFoundError(f'expected label maps at {folder}/*.png, found none')
        return found
    parts = [sorted(_SHARED.glob(f'camvid/{part}/label/*.png')) for part in ('val', 'train')]
    return parts[0] or parts[1]


def mask_shapes(
    size: tuple[int, int], masked: Sequence[float], labels: Path | None = None
) -> MaskShapes:
    """
    Give masks of the given shares from the label map whose boundaries are of median length.

    :param size: (H, W) in cells, a quarter of the padded image's.
    :param masked: shares in [0, 1] masked after each exit but the last.
    :param labels: as in :func:`label_files`; a tessellation stands in where none are found.
    """
    lengths = {
        file: float(boundaries(read_labels(file, size)).mean()) for file in label_files(labels)
    }
    if lengths:
        chosen = sorted(lengths, key=lambda file: (lengths[file], file))[len(lengths) // 2]
        source = f'labels {chosen.name}, the median of {len(lengths)} in boundary length'
        label_map = read_labels(chosen, size)
    else:
        source = f'random Voronoi tessellation of {_SITES} cells (no label maps found)'
        label_map = voronoi_labels(size)
    active = nearest_active(boundary_distance(label_map), masked)
    return MaskShapes(source, [ActiveMap(torch.from_numpy(a)[None, None]) for a in active])
