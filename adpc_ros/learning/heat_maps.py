# SPDX-License-Identifier: Apache-2.0
"""
Windows around people, and heat maps of the joints in them.

A place (x, y) counts pixels from 0, the first one's middle. A window is a square of the image,
possibly turned, resized to (H, W) pixels; heat maps have a quarter of its size.
Source: the released HRNet for poses (arXiv:1902.09212).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

CELL = 4  # pixels of a heat map's cell, on either axis
SIGMA = 2.0  # of the Gaussian around a joint, in cells
_REACH = 6  # of the Gaussian, three times its sigma, in cells
_QUARTER = 0.25  # of a cell: the step towards the higher neighbour

Matrix = NDArray[np.float64]
"""(2, 3) float, maps places of the image, (x, y, 1), to places of a window."""


def window_matrix(
    centre: tuple[float, float], edge: float, size: tuple[int, int], turn_deg: float = 0.0
) -> Matrix:
    """
    Give what maps an image to a window.

    :param centre: (x, y) in the image, which becomes (W / 2, H / 2).
    :param edge: of the square that fills the window, in pixels of the image.
    :param size: (H, W) of the window in pixels.
    :param turn_deg: clockwise turn of the square in the image, in degrees.
    """
    factor = min(size) / edge
    cos, sin = (factor * f(math.radians(turn_deg)) for f in (math.cos, math.sin))
    linear = np.array([[cos, sin], [-sin, cos]])
    shift = np.array([size[1] / 2, size[0] / 2]) - linear @ np.array(centre)
    return np.column_stack([linear, shift])


def apply(matrix: Matrix, places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map (N, 2) places of the image to the window."""
    return places @ matrix[:, :2].T + matrix[:, 2]


def invert(matrix: Matrix) -> Matrix:
    """Give what maps the window back to the image."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.column_stack([linear, -linear @ matrix[:, 2]])


def cut(image: NDArray[np.uint8], matrix: Matrix, size: tuple[int, int]) -> NDArray[np.uint8]:
    """
    Cut a window out of an image, bilinearly; what lies outside of it is black.

    :param image: (H, W, 3) uint8.
    :param size: (H, W) of the window in pixels.
    """
    back = invert(matrix)
    # Pillow counts from the corner of the first pixel
    back[:, 2] += 0.5 - back[:, :2].sum(1) / 2
    window = Image.fromarray(image).transform(
        (size[1], size[0]),
        Image.Transform.AFFINE,
        tuple(back.ravel().tolist()),
        Image.Resampling.BILINEAR,
    )
    return np.asarray(window)


def targets(places: Tensor, size: tuple[int, int]) -> Tensor:
    """
    Draw a Gaussian around each joint, 1 in the cell that is nearest to it.

    :param places: (..., 2) float, (x, y) in the window, in pixels.
    :param size: (h, w) of the heat maps in cells.
    :return: (..., h, w) float; 0 farther than three sigma from the joint, on either axis.
    """
    cells = (places / CELL + 0.5).floor()
    along = []
    for axis, count in ((1, size[0]), (0, size[1])):
        offset = torch.arange(count, device=places.device) - cells[..., axis, None]
        near = offset.abs() <= _REACH
        along.append(torch.where(near, torch.exp(-(offset**2) / (2 * SIGMA**2)), 0.0))
    return along[0][..., :, None] * along[1][..., None, :]


def peaks(maps: NDArray[np.float32]) -> NDArray[np.float64]:
    """
    Give the place of each joint: its highest cell, and a quarter towards the higher neighbour.

    :param maps: (J, h, w) float.
    :return: (J, 2) float, (x, y) in the window, in pixels; (0, 0) where no response is above 0.
    """
    count, height, width = maps.shape
    flat = maps.reshape(count, -1)
    rows, columns = np.divmod(flat.argmax(1), width)
    places = np.column_stack([columns, rows]).astype(np.float64)
    for joint, (x, y) in enumerate(zip(columns, rows)):
        if 1 < x < width - 1 and 1 < y < height - 1:
            own = maps[joint]
            slope = own[y, x + 1] - own[y, x - 1], own[y + 1, x] - own[y - 1, x]
            places[joint] += _QUARTER * np.sign(slope)
    places[flat.max(1) <= 0] = 0
    return places * CELL


def unmirrored(maps: Tensor, mirrored: Sequence[int]) -> Tensor:
    """
    Give the heat maps of a mirrored window as those of the window itself.

    :param maps: (B, J, h, w) float.
    :param mirrored: index of each joint on the other side of the body.
    :return: (B, J, h, w) float, moved by a cell: a place x is cell x / 4, and when mirrored cell
        (W - 1 - x) / 4, which lies 3/4 of a cell before the mirrored cell.
    """
    turned = maps.flip(3)[:, list(mirrored)]
    return torch.cat([turned[..., :1], turned[..., :-1]], dim=3)
