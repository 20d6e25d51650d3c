# SPDX-License-Identifier: Apache-2.0
"""Labelled pictures for the tests, and a data set of them on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adpc_ros.learning.sample import Sample

Bytes = NDArray[np.uint8]


def write_sample(
    root: Path, name: str, image: Bytes, label: Bytes, soft: Bytes | None = None
) -> None:
    (root / 'image').mkdir(parents=True, exist_ok=True)
    (root / 'label').mkdir(exist_ok=True)
    Image.fromarray(image).save(root / 'image' / f'{name}.jpg', quality=95, subsampling=0)
    Image.fromarray(label).save(root / 'label' / f'{name}.png')
    if soft is not None:
        (root / 'soft').mkdir(exist_ok=True)
        Image.fromarray(soft.reshape(-1, soft.shape[2])).save(root / 'soft' / f'{name}.png')


def blocks(seed: int, size: tuple[int, int] = (64, 96)) -> Sample:
    """Give a learnable picture: three classes as coloured rectangles, a strip unlabelled."""
    rng = np.random.default_rng(seed)
    label = np.zeros(size, np.uint8)
    top, left = int(rng.integers(8, size[0] - 24)), int(rng.integers(8, size[1] - 40))
    label[size[0] // 2 :] = 3
    label[top : top + 20, left : left + 32] = 8
    colours = np.zeros((12, 3))
    colours[[0, 3, 8]] = (90, 140, 220), (120, 110, 100), (200, 40, 30)
    image = colours[label] + rng.normal(0, 12, (*size, 3))
    label[-4:] = 11  # CamVid's own id of the unlabelled
    return Sample(np.clip(image, 0, 255).astype(np.uint8), label)


def taught(seed: int, size: tuple[int, int] = (64, 96)) -> Sample:
    """Give blocks with soft labels that are sure of the label."""
    image, label, _ = blocks(seed, size)
    cells = label[2::4, 2::4]
    soft = np.zeros((11, *cells.shape), np.uint8)
    for class_id in range(11):
        soft[class_id][cells == class_id] = 255
    return Sample(image, label, soft)


def write_tree(root: Path) -> Path:
    """Write six training and two validation images in CamVid's layout; gives the folder."""
    for seed in range(6):
        write_sample(root / 'train', f'0001TP_{seed:06}', *blocks(seed))
    for seed in range(2):
        write_sample(root / 'val', f'0016E5_{seed:05}', *blocks(100 + seed))
    return root
