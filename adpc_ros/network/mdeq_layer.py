# SPDX-License-Identifier: Apache-2.0
"""
The layer f of the multiscale deep equilibrium network, and its equations for a batch.

Names of modules and parameters are those of the released checkpoints: ``weight_v`` is the
direction and ``weight_g`` (one number for each output channel) the length of a weight under weight
normalisation (arXiv:1602.07868).
Source: arXiv:2006.08656 and https://github.com/locuslab/mdeq.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from adpc_ros.network.broyden import Broyden

_GROUPS = 8  # of GroupNorm; half as many after the branches are joined
_TOLERANCE = 1e-5  # of f(z) - z, in the mean of a state's values


class NormalisedConv2d(nn.Conv2d):
    """A convolution without bias whose weight is a direction times a length."""

    weight_g: nn.Parameter
    weight_v: nn.Parameter

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        """Build the layer; its output has the size of its input."""
        super().__init__(
            in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False
        )
        direction = self.weight
        del self.weight
        self.weight_g = nn.Parameter(_lengths(direction.detach()))
        self.weight_v = nn.Parameter(direction.detach())

    def normalised(self) -> Tensor:
        """Give the weight, (C', C, k, k)."""
        return self.weight_v * (self.weight_g / _lengths(self.weight_v))

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:  # type: ignore[override]
        """
        Convolve.

        :param weight: of :meth:`normalised`, made once for many evaluations.
        """
        y: Tensor = self._conv_forward(x, weight, None)
        return y


class Fixed(NamedTuple):
    """
    What a branch has in all evaluations of f for a batch.

    ``first``, ``second`` and ``last`` are weights; ``keep`` (B, C, 1, 1), what dropout multiplies
    by, and ``injection`` (B, C, h, w), what comes from the image; both may be None.
    """

    first: Tensor
    second: Tensor
    last: Tensor
    keep: Tensor | None
    injection: Tensor | None


class Block(nn.Module):
    """The residual block of a branch."""

    def __init__(self, width: int, expansion: int) -> None:
        """Build the block."""
        super().__init__()
        self.conv1 = NormalisedConv2d(width, expansion * width, 3)
        self.gn1 = nn.GroupNorm(_GROUPS, expansion * width)
        self.conv2 = NormalisedConv2d(expansion * width, width, 3)
        self.gn2 = nn.GroupNorm(_GROUPS, width)
        self.gn3 = nn.GroupNorm(_GROUPS, width)

    def forward(self, z: Tensor, fixed: Fixed) -> Tensor:
        """Map (B, C, h, w) to the same shape."""
        y: Tensor = functional.relu(self.gn1(self.conv1(z, fixed.first)), inplace=True)
        y = self.conv2(y, fixed.second)
        if fixed.keep is not None:
            y = y * fixed.keep
        if fixed.injection is not None:
            y = y + fixed.injection
        y = self.gn3(functional.relu(self.gn2(y) + z, inplace=True))
        return y


class Exchange(nn.Module):
    """What one branch sends to another one."""

    def __init__(self, widths: Sequence[int], source: int, target: int) -> None:
        """Build the layers between two branches, counted from 0, the finest."""
        super().__init__()
        if source > target:
            layers: list[tuple[str, nn.Module]] = [
                ('conv', nn.Conv2d(widths[source], widths[target], 1, bias=False)),
                ('gnorm', nn.GroupNorm(_GROUPS, widths[target])),
                ('upsample', nn.Upsample(scale_factor=2 ** (source - target), mode='nearest')),
            ]
            self.net = nn.Sequential(OrderedDict(layers))
            return
        halvings = target - source
        self.net = nn.Sequential(
            *(
                self._halving(widths[source], widths[target if last else source], relu=not last)
                for last in (k == halvings - 1 for k in range(halvings))
            )
        )

    @staticmethod
    def _halving(channels: int, width: int, relu: bool) -> nn.Sequential:
        layers: list[tuple[str, nn.Module]] = [
            ('conv', nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False)),
            ('gnorm', nn.GroupNorm(_GROUPS, width)),
        ]
        if relu:
            layers.append(('relu', nn.ReLU(inplace=True)))
        return nn.Sequential(OrderedDict(layers))

    def forward(self, x: Tensor) -> Tensor:
        """Map the source's (B, C, h, w) to the target's shape."""
        y: Tensor = self.net(x)
        return y


class Layer(nn.Module):
    """The layer f, whose equilibrium is sought: a block on each branch, then all exchange."""

    def __init__(self, widths: Sequence[int], expansion: int) -> None:
        """Build f for branches of these widths."""
        super().__init__()
        # one block each; the list is there for the released names
        self.branches = nn.ModuleList(
            nn.ModuleDict({'blocks': nn.ModuleList([Block(width, expansion)])}) for width in widths
        )
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(
                nn.Identity() if source == target else Exchange(widths, source, target)
                for source in range(len(widths))
            )
            for target in range(len(widths))
        )
        self.post_fuse_layers = nn.ModuleList(
            nn.ModuleDict(
                {
                    'conv': NormalisedConv2d(width, width, 1),
                    'gnorm': nn.GroupNorm(_GROUPS // 2, width),
                }
            )
            for width in widths
        )

    def block(self, branch: int) -> Block:
        """Give the block of a branch, counted from 0."""
        blocks: Any = self.branches[branch]
        return cast(Block, blocks['blocks'][0])

    def fixed(self, injection: Tensor, keeps: Sequence[Tensor | None]) -> list[Fixed]:
        """
        Prepare for many evaluations.

        :param injection: (B, C, h, w) of the first branch; the others get none.
        :param keeps: for each branch what dropout multiplies by, None for no dropout.
        """
        return [
            Fixed(
                self.block(i).conv1.normalised(),
                self.block(i).conv2.normalised(),
                cast(Any, self.post_fuse_layers[i])['conv'].normalised(),
                keep,
                None if i else injection,
            )
            for i, keep in enumerate(keeps)
        ]

    def forward(self, state: Sequence[Tensor], fixed: Sequence[Fixed]) -> list[Tensor]:
        """Map the branches, each (B, C_i, h_i, w_i), to the same shapes."""
        blocks = [self.block(i)(z, own) for i, (z, own) in enumerate(zip(state, fixed))]
        return [self._join(i, blocks, own.last) for i, own in enumerate(fixed)]

    def _join(self, target: int, blocks: Sequence[Tensor], weight: Tensor) -> Tensor:
        layers: Any = self.fuse_layers[target]
        after: Any = self.post_fuse_layers[target]
        total = layers[0](blocks[0])
        for layer, block in zip(layers[1:], blocks[1:]):
            total = total + layer(block)
        y: Tensor = after['gnorm'](after['conv'](functional.relu(total), weight))
        return y


class Problem:
    """
    The equations of a batch: g(z) = f(z) - z, with all branches in one vector.

    A state z is (B, N) float; :meth:`branches` gives its parts.
    """

    def __init__(
        self, layer: Layer, injection: Tensor, keeps: Sequence[Tensor] | None = None
    ) -> None:
        """
        Prepare f.

        :param injection: (B, C, h, w) float, what comes from the image.
        :param keeps: for each branch what dropout multiplies by, (B, C, 1, 1); None for none.
        """
        self._layer = layer
        self._fixed = layer.fixed(injection, keeps or [None] * len(layer.branches))
        height, width = injection.shape[2:]
        self._shapes = [
            (height >> i, width >> i, own.last.shape[0]) for i, own in enumerate(self._fixed)
        ]
        self._parts = [math.prod(shape) for shape in self._shapes]
        self.start = injection.new_zeros(injection.shape[0], sum(self._parts))

    def branches(self, state: Tensor) -> list[Tensor]:
        """Give the (B, C_i, h_i, w_i) branches of a state, without a copy."""
        return [
            part.view(-1, *shape).permute(0, 3, 1, 2)
            for part, shape in zip(torch.split(state, self._parts, dim=1), self._shapes)
        ]

    def f(self, state: Tensor) -> Tensor:
        """Apply the layer."""
        after = self._layer(self.branches(state), self._fixed)
        return torch.cat([y.permute(0, 2, 3, 1).flatten(1) for y in after], dim=1)

    def solver(self, iterations: int) -> Broyden:
        """Begin a solution, from zeros."""
        tolerance = _TOLERANCE * math.sqrt(self.start.shape[1])
        return Broyden(lambda z: self.f(z) - z, self.start, iterations, tolerance)


def _lengths(direction: Tensor) -> Tensor:
    """Give the norm of each output channel's weights, (C', 1, 1, 1)."""
    lengths: Tensor = torch.linalg.vector_norm(direction, dim=(1, 2, 3), keepdim=True)
    return lengths
