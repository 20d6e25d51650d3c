# SPDX-License-Identifier: Apache-2.0
"""
Cost of a network: multiply-accumulates of its convolutions, by the paper's convention.

Cumulative over exits, for one image; BatchNorm, ReLU, bias, pooling and resizing count nothing.
The paper prints them divided by 2^30 and calls them GFLOPs; here they are GiMAC.
Source: arXiv:2104.00749, tables 1 to 6; masked convolutions as in the released counter.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from adpc_ros.network.adaptivity import ActiveMap, MaskedConv2d
from adpc_ros.network.anytime import AnytimeNetwork
from adpc_ros.network.exits import Heads
from adpc_ros.network.families import NetworkConfig, build_network

GI = 2**30
# (architecture, heads, masked) at 1024x2048 with 19 classes: the paper's figures, exits 1 to 4
PAPER_GIMAC: dict[tuple[str, Heads, bool], tuple[float, ...]] = {
    ('hrnet_w48', Heads.NONE, False): (696.2,),
    ('hrnet_w48', Heads.PLAIN, False): (48.4, 113.4, 388.9, 722.2),
    ('hrnet_w48', Heads.REDESIGNED, False): (41.9, 105.6, 368.0, 701.3),
    ('hrnet_w48', Heads.REDESIGNED, True): (41.9, 93.9, 259.3, 387.1),
    ('hrnet_w18_small_v2', Heads.NONE, False): (71.58,),
    ('hrnet_w18_small_v2', Heads.PLAIN, False): (31.44, 42.56, 59.53, 82.88),
    ('hrnet_w18_small_v2', Heads.REDESIGNED, False): (23.69, 34.74, 49.87, 73.23),
}
# table 6, exits at iterations 4, 6, 8 and 10; see count_iterates
PAPER_MDEQ_GIMAC = {
    'mdeq_small': (521.6, 717.9, 914.2, 1110.5),
    'mdeq_xl': (4617.9, 6374.5, 8131.2, 9887.8),
}
PAPER_SIZE = (1024, 2048)
PAPER_CLASSES = 19
PAPER_MASKED = (0.193, 0.384, 0.630)  # mean masked share of pixels at exits 1, 2, 3


class ConvCost(NamedTuple):
    """
    One convolution: dense multiply-accumulates, those of its fill, and its output size.

    Without a fill it is never masked. ``module`` is its name in the network.
    """

    macs: int
    fill_macs: int
    size: tuple[int, int]
    module: str = ''

    def at(self, active_share: float) -> int:
        """Give the count at an active share in [0, 1]."""
        if active_share >= 1.0 or not self.fill_macs:
            return self.macs
        interpolated = (1 - active_share) * active_share
        return int(self.macs * active_share) + int(interpolated * self.fill_macs)


def conv_macs(
    weights: int, window_weights: int, size: tuple[int, int], module: str = ''
) -> ConvCost:
    """
    Give the cost of one convolution.

    :param weights: number of its weights.
    :param window_weights: output channels times cells of the interpolation window; 0 without one.
    :param size: (H, W) of its output.
    :param module: its name.
    """
    positions = size[0] * size[1]
    return ConvCost(weights * positions, window_weights * positions, size, module)


def exit_costs(
    config: NetworkConfig, size: tuple[int, int], adaptive: bool = True
) -> list[list[ConvCost]]:
    """
    List the convolutions that each exit adds; nothing is computed.

    :param size: (H, W) of the image in pixels.
    :param adaptive: False leaves out what finds the masks.
    :return: for each exit, its convolutions in order of execution.
    """
    if not adaptive:
        config = dataclasses.replace(config, adaptivity=None)
    with torch.device('meta'):
        meta = build_network(config).eval()
    costs: list[ConvCost] = []

    def record(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        size = (output.shape[2], output.shape[3])
        inputs = module.in_channels // module.groups * math.prod(module.kernel_size)
        outputs = module.out_channels
        window = module.window_cells if isinstance(module, MaskedConv2d) else 0
        costs.append(conv_macs(inputs * outputs, outputs * window, size, names[module]))

    names = {module: name for name, module in meta.named_modules()}
    for module in names:
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(record)
        for name, child in module.named_children():
            if isinstance(child, (nn.BatchNorm2d, nn.GroupNorm)):
                setattr(module, name, nn.Identity())  # half of the time, and changes no shape
    per_exit = []
    for _ in meta.exits(torch.empty(1, 3, *size, device='meta')):
        per_exit.append(list(costs))
        costs.clear()
    return per_exit


def count(
    costs: Sequence[Sequence[ConvCost]], active_share: Callable[[int, tuple[int, int]], float]
) -> list[int]:
    """
    Count multiply-accumulates up to each exit.

    :param costs: from :func:`exit_costs`.
    :param active_share: of (exit index from 1, (H, W) of the layer) gives the share in [0, 1].
    :return: cumulative counts.
    """
    total = 0
    totals = []
    for index, added in enumerate(costs, start=1):
        total += sum(cost.at(active_share(index, cost.size)) for cost in added)
        totals.append(total)
    return totals


def count_shares(
    config: NetworkConfig, size: tuple[int, int], masked: Sequence[float] | None = None
) -> list[int]:
    """
    Count with the same masked share at every resolution.

    :param masked: shares in [0, 1] masked after each exit but the last; None counts without masks.
    :return: cumulative multiply-accumulates of each exit.
    :raises ValueError: if ``masked`` is not one share for each exit but the last, or the network
        has no adaptivity.
    """
    exits = config.stage_count - 1
    if masked is not None and (len(masked) != exits or not all(0 <= m <= 1 for m in masked)):
        raise ValueError(f'expected {exits} masked shares in [0, 1], got {tuple(masked)}')
    if masked is not None and config.adaptivity is None:
        raise ValueError('masks need a network with adaptivity: it is None')
    shares = (1.0, *(1.0 - m for m in masked or (0.0,) * exits))
    costs = exit_costs(config, size, masked is not None)
    return count(costs, lambda index, _: shares[index - 1])


def count_maps(costs: Sequence[Sequence[ConvCost]], maps: Sequence[ActiveMap | None]) -> list[int]:
    """
    Count multiply-accumulates up to each exit, with the masks of one image.

    :param costs: from :func:`exit_costs`.
    :param maps: what each exit computed; None for everything.
    :return: cumulative counts.
    """

    def share(index: int, size: tuple[int, int]) -> float:
        active = maps[index - 1]
        return 1.0 if active is None else active.share(size)

    return count(costs, share)


def count_iterates(
    config: NetworkConfig, size: tuple[int, int], f_twice: bool = False
) -> list[int]:
    """
    Count what each exit of MDEQ costs in a run that ends there, without the heads before it.

    So the paper's table 6 counts. In one run with all exits, as :func:`count_shares` counts it,
    an exit also has the heads of those before.

    :param config: of MDEQ.
    :param f_twice: count the convolutions of the layer f twice, as table 6 does: there f was a
        submodule under two names, and the counter put its hooks on it under each of them. So the
        table overstates MDEQ's cost by a factor of nearly 2.
    :return: multiply-accumulates of each exit.
    """
    total, counts = 0, []
    for added in exit_costs(config, size):
        head = sum(cost.macs for cost in added if cost.module.startswith('last_layer.'))
        layer = sum(cost.macs for cost in added if cost.module.startswith('fullstage.'))
        total += sum(cost.macs for cost in added) - head + (layer if f_twice else 0)
        counts.append(total + head)
    return counts


class FrameCost(NamedTuple):
    """
    What one image costs.

    ``macs`` are cumulative multiply-accumulates of each exit; ``active_shares`` (0 to 1) are what
    each exit computed of the positions at its own resolution.
    """

    macs: list[int]
    active_shares: list[float]


def count_frame(network: AnytimeNetwork, image: Tensor, adaptive: bool = True) -> FrameCost:
    """
    Count exactly what one image costs, from the masks that it gets.

    :param image: (1, 3, H, W) float, normalised.
    :return: counts and active shares of each exit.
    """
    maps, shares = [], []
    with torch.inference_mode():
        for out in network.exits(image, adaptive):
            maps.append(out.active)
            size = (out.logits.shape[2], out.logits.shape[3])
            shares.append(1.0 if out.active is None else out.active.share(size))

    costs = exit_costs(network.config, (image.shape[2], image.shape[3]), adaptive)
    return FrameCost(count_maps(costs, maps), shares)
