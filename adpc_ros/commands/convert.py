# SPDX-License-Identifier: Apache-2.0
"""``convert``: make a weights file of this project from released weights."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adpc_ros.commands.options import check_outputs, depths, positive, probability

if TYPE_CHECKING:
    from adpc_ros.commands.options import Commands
    from adpc_ros.network.checkpoint import Checkpoint
    from adpc_ros.network.families import NetworkConfig


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        'convert',
        help='make a weights file from released weights',
        description='Read released weights (of ADP-C, or of HRNet for Cityscapes or ImageNet) or '
        "this project's own, check every entry, and write them as safetensors.",
    )
    parser.add_argument('source', metavar='IN.pth', help='PyTorch file of tensors, or safetensors')
    parser.add_argument('target', metavar='OUT.safetensors', help='file to write')
    parser.add_argument(
        '--network', required=True, metavar='NAME', help='as hrnet_w18_small_v2 or coarse_s'
    )
    parser.add_argument(
        '--heads',
        choices=('redesigned', 'plain', 'none'),
        help='exit heads: redesigned (RH), plain (EE), none (last exit alone); default: the '
        "family's own, RH for HRNet",
    )
    parser.add_argument(
        '--head-depths',
        type=depths,
        metavar='A,B,...',
        help="how often redesigned heads pool, of each exit but the last (the family's own, or "
        "safetensors' own)",
    )
    parser.add_argument(
        '--head-width',
        type=positive,
        metavar='N',
        help="channels inside redesigned heads (the network's own, or safetensors' own)",
    )
    parser.add_argument(
        '--classes',
        choices=('cityscapes', 'camvid', 'pascal_context'),
        default='cityscapes',
        help='what the outputs stand for (cityscapes)',
    )
    parser.add_argument(
        '--no-masks', action='store_true', help='the network has no masked convolutions'
    )
    parser.add_argument(
        '--threshold',
        type=probability,
        metavar='T',
        help="confidence above which a position is masked (0.998, or safetensors' own)",
    )
    parser.add_argument(
        '--window',
        type=positive,
        metavar='W',
        help="edge of the interpolation window in cells (7, or safetensors' own)",
    )
    parser.add_argument(
        '--backbone-only',
        action='store_true',
        help='take the backbone alone, as of ImageNet weights; heads get initial values',
    )
    parser.add_argument(
        '--add-masks',
        action='store_true',
        help='the source has no masks, the result has, with initial values for the interpolation',
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Convert, and say what was left out and what has initial values."""
    import torch

    from adpc_ros.labels import by_name
    from adpc_ros.network import checkpoint, official
    from adpc_ros.network.families import build_network

    source, target = Path(options.source), Path(options.target)
    if target.suffix != '.safetensors':
        raise ValueError(f'expected OUT.safetensors as the file to write, got {target}')
    check_outputs({}, [source], {'OUT.safetensors': (target.parent, [target.name])})
    own = checkpoint.load(source) if checkpoint.is_own(source) else None
    classes = by_name(options.classes)
    if own and own.classes != classes and not options.backbone_only:
        raise ValueError(
            f'{source}: expected the classes of {classes.name}, got those of {own.classes.name}'
        )
    torch.manual_seed(0)  # initial values, too, are the same each time
    network = build_network(_config(options, classes.count, own))
    released = official.Released(own.network.state_dict(), []) if own else official.read(source)
    filled = official.fill(
        network, released.tensors, source, options.backbone_only, options.add_masks
    )
    left_out = released.left_out + filled.left_out
    if own:  # of the source as it was
        left_out += [key for key in ('worth', 'exit_s') if getattr(own, key) is not None]
    info = {**(own.info if own else {}), 'source': own.identity if own else source.name}
    if filled.fresh:
        info['initial values'] = ', '.join(filled.fresh)
    checkpoint.save(target, network, classes, info)
    if left_out:
        print(f'left out: {", ".join(left_out)}')
    if filled.fresh:
        print(f'initial values, to be trained: {", ".join(filled.fresh)}')
    print(f'weights: {target}')


def _config(
    options: argparse.Namespace, class_count: int, own: Checkpoint | None
) -> NetworkConfig:
    """Join the given options; the others are as in the file, if it is one of ours."""
    from dataclasses import replace

    from adpc_ros.network.exits import Heads
    from adpc_ros.network.families import CRITERIA, NetworkConfig, default_adaptivity
    from adpc_ros.network.task import Task

    heads: Any = Heads(options.heads) if options.heads else None  # the family's own
    adaptivity = None
    default = default_adaptivity(options.network)
    if default is not None and not options.no_masks and heads is not Heads.NONE:
        adaptivity = own and own.network.config.adaptivity
        if adaptivity is None or adaptivity.criterion not in CRITERIA.get(options.network, ()):
            adaptivity = default
        if options.backbone_only:  # of heads that are not taken over
            adaptivity = replace(adaptivity, class_thresholds=())
        if options.threshold is not None:
            adaptivity = replace(adaptivity, thresholds=(options.threshold,), class_thresholds=())
        if options.window is not None:
            adaptivity = replace(adaptivity, window=options.window)
    elif options.threshold is not None or options.window is not None or options.add_masks:
        raise ValueError(
            '--threshold, --window and --add-masks need masks: no --no-masks, no --heads none'
            + ('' if default else f', and not {options.network}, which has none')
        )
    config = NetworkConfig(options.network, heads, class_count, adaptivity)
    config.check_task(Task.SEGMENTATION)
    for key in ('head_depths', 'head_width'):
        value = getattr(options, key)
        if value is None and own and config.heads is Heads.REDESIGNED:
            value = getattr(own.network.config, key)
        if value is not None:
            config = replace(config, **{key: value})
    if own:
        config = replace(config, mean=own.network.config.mean, std=own.network.config.std)
        if not options.backbone_only:  # new heads are not calibrated
            config = replace(config, temperatures=own.network.config.temperatures)
    return config
