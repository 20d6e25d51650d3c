# SPDX-License-Identifier: Apache-2.0
"""
HRNet's exit heads: how a stage's features become class scores.

Source: arXiv:2104.00749, section 3.2 and figure 2; indices of layers as in the released code.
"""

from __future__ import annotations

import enum

import torch
from torch import Tensor, nn

from adpc_ros.network.adaptivity import MaskedConv2d, MaskedSequential
from adpc_ros.network.layers import batch_norm, resize


class Heads(str, enum.Enum):
    """Which heads the exits have; of HRNet exits 1 to 3, whose last exit's is always plain."""

    NONE = 'none'  # the base network: one exit, the last
    PLAIN = 'plain'  # EE; of other families their own
    REDESIGNED = 'redesigned'  # RH


def join_branches(branches: list[Tensor]) -> Tensor:
    """Resize all branches to the first one's resolution and concatenate their channels."""
    size = (branches[0].shape[2], branches[0].shape[3])
    return torch.cat([resize(x, size) for x in branches], dim=1)


def plain_head(channels: int, classes: int, window: int | None) -> MaskedSequential:
    """Give the head of EE: two 1x1 convolutions at 1/4 resolution."""
    return MaskedSequential(
        MaskedConv2d(channels, channels, 1, bias=True, window=window),
        batch_norm(channels),
        nn.ReLU(inplace=True),
        MaskedConv2d(channels, classes, 1, bias=True, window=window),
    )


def redesigned_head(
    channels: int, width: int, classes: int, depth: int, window: int | None
) -> MaskedSequential:
    """
    Give the head of RH, which looks farther: pooled ``depth`` times, then upsampled as often.

    :param depth: at least 1; the paper's D, 3, 2 and 1 at exits 1, 2 and 3.
    """
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [
            nn.AvgPool2d(2),
            MaskedConv2d(width if i else channels, width, 1, bias=True, window=window),
            batch_norm(width),
            nn.ReLU(inplace=True),
        ]
    for i in range(depth):
        last = i == depth - 1
        layers += [
            nn.Upsample(scale_factor=2, mode='bilinear', align_corners=False),
            MaskedConv2d(width, classes if last else width, 1, bias=True, window=window),
        ]
        if not last:
            layers += [batch_norm(width), nn.ReLU(inplace=True)]
    return MaskedSequential(*layers)
