# SPDX-License-Identifier: Apache-2.0
"""Drawn stick people for the tests, and MPII's files of them in both forms."""

from __future__ import annotations

import colorsys
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

HEIGHT = 80  # of a figure, in pixels
SIZE = (120, 150)  # (H, W) of an image
LIMBS = [(0, 1), (1, 2), (2, 6), (6, 3), (3, 4), (4, 5), (6, 7), (7, 8), (8, 9)]
LIMBS += [(10, 11), (11, 12), (12, 7), (7, 13), (13, 14), (14, 15)]
_BODY = [  # (x, y) of MPII's joints, in heights
    *[(-0.12, 0.5), (-0.1, 0.27), (-0.07, 0.02), (0.07, 0.02), (0.1, 0.27), (0.12, 0.5)],
    *[(0, 0), (0, -0.27), (0, -0.33), (0, -0.5)],
    *[(-0.3, -0.02), (-0.22, -0.13), (-0.12, -0.27), (0.12, -0.27), (0.22, -0.13), (0.3, -0.02)],
]  # fmt: skip


class Figure(NamedTuple):
    """
    A figure as MPII would annotate it, but that places count from 0.

    ``joints`` (16, 2) and ``known`` (16,); ``scale`` is its height over 200; ``box`` of the head
    (x1, y1, x2, y2).
    """

    image: NDArray[np.uint8]
    joints: NDArray[np.float64]
    known: NDArray[np.bool_]
    centre: tuple[float, float]
    scale: float
    box: tuple[float, float, float, float]


def draw(seed: int) -> Figure:
    """Draw one: every joint is a disc of a colour of its own; one or two are not annotated."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform(0.42, 0.58, 2) * SIZE[::-1]
    joints = centre + HEIGHT * (np.array(_BODY) + rng.normal(0, 0.02, (16, 2)))
    picture = Image.new('RGB', SIZE[::-1], tuple(rng.integers(90, 130, 3).tolist()))
    pen = ImageDraw.Draw(picture)
    for a, b in LIMBS:
        pen.line([*joints[a], *joints[b]], (30, 30, 30), 3)
    for i, (x, y) in enumerate(joints):
        red, green, blue = colorsys.hsv_to_rgb(i / 16, 1, 1 - 0.4 * (i % 2))
        pen.ellipse([x - 3, y - 3, x + 3, y + 3], tuple(int(255 * v) for v in (red, green, blue)))
    known = np.ones(16, bool)
    known[rng.integers(0, 16, 2)] = False
    (x, y), half = joints[9], HEIGHT / 10
    box = (x - half, y - half, x + half, y + half)
    return Figure(np.array(picture), joints, known, (centre[0], centre[1]), HEIGHT / 200, box)


def write_images(root: Path, figures: Sequence[Figure], first: int) -> list[str]:
    (root / 'images').mkdir(parents=True, exist_ok=True)
    names = [f'{first + i:09}.png' for i in range(len(figures))]
    for name, figure in zip(names, figures):
        Image.fromarray(figure.image).save(root / 'images' / name)
    return names


def write_hrnet(root: Path, split: str, figures: Sequence[Figure], truth: bool = True) -> None:
    """Write HRNet's form: a list of people, and the ground truth of its evaluation."""
    names = write_images(root, figures, {'train': 0, 'valid': 100}[split])
    (root / 'annot').mkdir(exist_ok=True)
    entries = [
        {
            'image': name,
            'center': [f.centre[0] + 1, f.centre[1] + 1],
            'scale': f.scale,
            'joints': np.where(f.known[:, None], f.joints + 1, -1.0).tolist(),
            'joints_vis': f.known.astype(int).tolist(),
        }
        for name, f in zip(names, figures)
    ]
    (root / 'annot' / f'{split}.json').write_text(json.dumps(entries))
    if truth:
        write_truth(root / 'annot' / f'gt_{split}.mat', figures)


def write_truth(path: Path, figures: Sequence[Figure], **changes: Any) -> None:
    from scipy.io import savemat

    codes = 'rank rkne rhip lhip lkne lank pelv thor neck head rwri relb rsho lsho lelb lwri'
    joints = np.stack([f.joints + 1 for f in figures], -1)
    content = {
        'dataset_joints': np.array([codes.split()], object),
        'jnt_missing': np.stack([~f.known for f in figures], -1).astype(float),
        'pos_gt_src': joints,
        'headboxes_src': np.stack([np.reshape(f.box, (2, 2)) + 1 for f in figures], -1),
    }
    savemat(path, content | changes)


def rect_of(figure: Figure, **changes: Any) -> dict[str, Any]:
    """Give a figure as a struct of MPII's own file; the value None leaves a field out."""
    points = [
        {'x': x + 1, 'y': y + 1, 'id': i, 'is_visible': i % 2}
        for i, (x, y) in enumerate(figure.joints)
        if figure.known[i]
    ]
    x1, y1, x2, y2 = (corner + 1 for corner in figure.box)
    fields = {
        **{'x1': x1, 'y1': y1, 'x2': x2, 'y2': y2, 'scale': figure.scale},
        'objpos': {'x': figure.centre[0] + 1, 'y': figure.centre[1] + 1},
        'annopoints': {'point': np.array(points, object)},
    }
    return {key: value for key, value in (fields | changes).items() if value is not None}


def write_published(root: Path, rects: Sequence[tuple[str, Any, int]]) -> Path:
    """
    Write MPII's own file.

    :param rects: of each image its name, its ``annorect`` and whether it is for training.
    """
    from scipy.io import savemat

    images = [{'image': {'name': name}, 'annorect': rect} for name, rect, _ in rects]
    release = {
        'annolist': np.array(images, object),
        'img_train': np.array([train for _, _, train in rects], float),
        'version': '1.2',
    }
    path = root / 'mpii_human_pose_v1_u12_1.mat'
    savemat(path, {'RELEASE': release})
    return path
