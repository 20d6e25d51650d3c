# SPDX-License-Identifier: Apache-2.0
"""From a trained network to its program; one function for each family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from adpc_ros.network.anytime import AnytimeNetwork
from adpc_ros.network.coarse import CoarseToFine, InvertedResidual, Refine
from adpc_ros.network.hrnet import Bottleneck, HRNet
from adpc_ros.runtime.program import Join, Program, SumRelu, Writer


def compile_network(network: AnytimeNetwork) -> Program:
    """
    Write down a network's operations; its later changes do not reach the program.

    :param network: trained, on any device; described as it is in evaluation mode.
    :raises ValueError: if a parameter is not finite, or with its BatchNorm is none of float32;
        names the layer. Or for a family that :func:`has_program` says no of.
    """
    if not has_program(network):
        raise ValueError(
            f'{network.config.architecture}: expected a network that can be compiled, of '
            f'{" or ".join(family.__name__ for family in _WRITE)}; '
            'PyTorch runs this one, module by module'
        )
    writer = Writer(network)
    _WRITE[type(network)](writer, network)
    program = writer.program()
    program.check()
    return program


def has_program(network: AnytimeNetwork) -> bool:
    """Tell whether the operations of a network's family can be written down as a program."""
    return type(network) in _WRITE


def _write_hrnet(writer: Writer, network: HRNet) -> None:
    stages = network.config.stage_count
    branches: list[int] = []
    for index in range(1, stages + 1):
        # what the base network computes is all for its one exit, the last
        writer.exit_index = index if network.config.has_exit(index) else stages
        branches = _hrnet_stage(writer, network, index, branches)
        if not network.config.has_exit(index):
            continue
        joined = branches[0]
        if len(branches) > 1:
            joined = writer.add(f'exit{index}.join', Join(), *branches)
        writer.sequence(network.head(index), joined, gives_exit=True)


def _hrnet_stage(writer: Writer, network: HRNet, stage: int, xs: list[int]) -> list[int]:
    if stage == 1:
        return [_hrnet_stem(writer, network)]
    branches = []
    for i, layer in enumerate(getattr(network, f'transition{stage - 1}')):
        source = xs[min(i, len(xs) - 1)]
        branches.append(source if layer is None else writer.sequence(layer, source))
    for module in getattr(network, f'stage{stage}'):
        ys = []
        for x, blocks in zip(branches, module.branches):
            for block in blocks:
                x = writer.block(block, x)
            ys.append(x)
        branches = []
        for target, layers in enumerate(module.fuse_layers):
            terms = [
                y if layer is None else writer.sequence(layer, y) for y, layer in zip(ys, layers)
            ]
            # the target's own term comes first: it has the size that the others get
            terms.insert(0, terms.pop(target))
            name = f'{writer.name_of(module)}.fuse{target}'
            branches.append(writer.add(name, SumRelu(), *terms))
    return branches


def _hrnet_stem(writer: Writer, network: HRNet) -> int:
    x = writer.conv(network.conv1, network.bn1, True, 0)
    x = writer.conv(network.conv2, network.bn2, True, x)
    for block in network.layer1:
        assert isinstance(block, Bottleneck)
        shortcut = x if block.downsample is None else writer.sequence(block.downsample, x)
        y = writer.conv(block.conv1, block.bn1, True, x)
        y = writer.conv(block.conv2, block.bn2, True, y)
        x = writer.conv(block.conv3, block.bn3, True, y, shortcut)
    return x


def _write_coarse(writer: Writer, network: CoarseToFine) -> None:
    config, stages = network.config, network.config.stage_count
    writer.exit_index = 1 if config.has_exit(1) else stages
    x, early = _coarse_trunk(writer, network)
    for index in range(1, stages + 1):
        if index > 1:
            writer.exit_index = index if config.has_exit(index) else stages
            refine = network.refine[index - 2]
            assert isinstance(refine, Refine)
            if refine.up is not None and refine.lateral is not None:
                own, up = writer.sequence(refine.lateral, early), writer.sequence(refine.up, x)
                x = writer.add(f'{writer.name_of(refine)}.sum', SumRelu(), own, up)
            for block in refine.blocks:
                x = writer.block(block, x)  # type: ignore[arg-type]
        if config.has_exit(index):
            writer.sequence(network.head(index), x, gives_exit=True)


def _coarse_trunk(writer: Writer, network: CoarseToFine) -> tuple[int, int]:
    """Write the trunk and the way up; gives the map of exit 1 and the early features."""
    x = writer.sequence(network.stem, 0)
    maps = []
    for stage in network.trunk:
        for block in stage:  # type: ignore[attr-defined]
            assert isinstance(block, InvertedResidual)
            y = x if block.expand is None else writer.sequence(block.expand, x)
            y = writer.sequence(block.depth, y)
            x = writer.sequence(block.project, y, residual=x if block.residual else None)
        maps.append(x)
    total = writer.sequence(network.lateral[0], maps[network.joined[0]])
    for i, lateral in zip(network.joined[1:], network.lateral[1:]):
        own = writer.sequence(lateral, maps[i])
        total = writer.add(f'{writer.name_of(lateral)}.sum', SumRelu(), own, total)
    return writer.sequence(network.smooth, total), maps[network.early]


_WRITE: dict[type[AnytimeNetwork], Callable[[Writer, Any], None]] = {
    HRNet: _write_hrnet,
    CoarseToFine: _write_coarse,
}
