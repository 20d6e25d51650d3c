# SPDX-License-Identifier: Apache-2.0
"""
Interpolation at inactive positions, at the cost of the inactive positions alone.

Only those next to an active one (the ring) receive something; the others are zero.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from adpc_ros.network.adaptivity import ActiveMap


class Ring(NamedTuple):
    """
    Where to interpolate, as indices into the (H * W) positions of a feature map.

    ``inactive`` (M) int64; ``positions`` (N) int64, those of them that have an active neighbour;
    ``neighbours`` (N, K) int64; ``near`` (N, K) float32, 1 where the neighbour is active.
    """

    inactive: Tensor
    positions: Tensor
    neighbours: Tensor
    near: Tensor


class RingMap(ActiveMap):
    """An active map that also gives the ring at any resolution; it lives for one frame."""

    def __init__(self, active: Tensor) -> None:
        """
        Hold the map at the resolution of the exit.

        :param active: (1, 1, H, W) bool.
        """
        super().__init__(active)
        self._rings: dict[tuple[tuple[int, int], int], Ring] = {}

    def ring(self, size: tuple[int, int], reach: int) -> Ring:
        """
        Give the ring at a size.

        :param size: (H, W) in cells.
        :param reach: of the interpolation window, in cells.
        """
        if (size, reach) not in self._rings:
            self._rings[size, reach] = _find_ring(self.at(size)[0, 0], reach)
        return self._rings[size, reach]


def _find_ring(active: Tensor, reach: int) -> Ring:
    height, width = active.shape
    edge = 2 * reach + 1
    close = functional.max_pool2d(active[None, None].float(), edge, 1, reach)[0, 0] > 0
    positions = (close & ~active).flatten().nonzero()[:, 0]
    offsets = torch.arange(edge * edge, device=active.device)
    offsets = offsets[offsets != edge * edge // 2]
    rows = (positions // width)[:, None] + offsets // edge - reach
    columns = (positions % width)[:, None] + offsets % edge - reach
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    neighbours = torch.where(inside, rows * width + columns, 0)
    near = (active.flatten()[neighbours] & inside).float()
    return Ring((~active).flatten().nonzero()[:, 0], positions, neighbours, near)


def ring_weights(taps: Tensor) -> Tensor:
    """
    Give the weights of a window's neighbours, in the order of :class:`Ring`.

    :param taps: (k,) float, one factor of the separable window.
    :return: (k * k - 1,) float.
    """
    window = torch.outer(taps, taps).flatten()
    return torch.cat([window[: len(window) // 2], window[len(window) // 2 + 1 :]])


def fill_(y: Tensor, shift: Tensor, ring: Ring, weights: Tensor) -> Tensor:
    """
    Interpolate inactive positions in place.

    :param y: (1, C, H, W) float32 or bfloat16 in channels_last order, what was computed plus
        ``shift``.
    :param shift: (C,) float32, which BatchNorm adds after the interpolation.
    :param weights: (K,) float32 from :func:`ring_weights`.
    :return: ``y``.
    """
    flat = y.permute(0, 2, 3, 1).view(-1, y.shape[1])
    share = (ring.near * weights).to(y.dtype)
    values = functional.embedding_bag(ring.neighbours, flat, per_sample_weights=share, mode='sum')
    brought = share.float().sum(dim=1, keepdim=True)  # of the shift, by the neighbours
    values = (values + (1 - brought) * shift).to(y.dtype)
    flat.index_copy_(0, ring.inactive, shift.to(y.dtype).expand(len(ring.inactive), -1))
    flat.index_copy_(0, ring.positions, values)
    return y
