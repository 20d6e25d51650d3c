# SPDX-License-Identifier: Apache-2.0
"""``macs``: what a network costs, beside the figures of the paper."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from adpc_ros.commands.options import (
    add_json,
    check_outputs,
    depths,
    percent,
    positive,
    shares,
    size,
    write_json,
)

if TYPE_CHECKING:
    from adpc_ros.commands.options import Commands


class Row(NamedTuple):
    """A line of the table; ``size`` (H, W) in pixels, ``gimac`` cumulative over the exits."""

    network: str
    heads: str
    masked: list[float] | None
    size: list[int]
    gimac: list[float]

    def line(self, paper: Sequence[float] = ()) -> str:
        """Print it, each figure followed by the paper's if there is one."""
        masked = '-' if self.masked is None else ' '.join(f'{100 * m:.1f}' for m in self.masked)
        cells = [f'{value:7.2f}' for value in self.gimac]
        if paper:
            cells = [f'{cell} [{figure:6.2f}]' for cell, figure in zip(cells, paper)]
        return ' '.join([f'{self.network:19} {self.heads:10}  {masked:14}', *cells])


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        'macs',
        help='count multiply-accumulates, beside the figures of the paper',
        description='Count multiply-accumulates up to each exit. Without --network: a table of '
        'the configurations that the paper gives figures for. With --weights and --image: what '
        'this image really costs, from the masks that it gets.',
    )
    parser.add_argument('--network', metavar='NAME', help='as hrnet_w48 or coarse_s')
    parser.add_argument(
        '--heads',
        choices=('none', 'plain', 'redesigned'),
        help='exit heads: none (last exit alone), plain (EE), redesigned (RH); default: the '
        "family's own, RH for HRNet",
    )
    parser.add_argument(
        '--head-depths',
        type=depths,
        metavar='A,B,...',
        help='how often redesigned heads pool, of each exit but the last (3,2,1 for HRNet)',
    )
    parser.add_argument(
        '--masked',
        type=shares,
        metavar='A,B,...',
        help='masked share after each exit but the last, 0 to 1',
    )
    parser.add_argument(
        '--size', type=size, metavar='HxW', help='of the image in pixels (1024x2048)'
    )
    parser.add_argument('--classes', type=positive, metavar='N', help='number of classes (19)')
    parser.add_argument('--weights', metavar='FILE', help='safetensors file of a trained network')
    parser.add_argument('--image', metavar='FILE', help='camera image, with --weights')
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Count, print, and write what was counted."""
    check_outputs({'--json': options.json}, [options.weights, options.image])
    described = [options.network, options.heads, options.head_depths, options.masked]
    described += [options.size, options.classes]
    if options.weights or options.image:
        if not (options.weights and options.image) or any(described):
            raise ValueError('--weights and --image go together, and with --json alone')
        _count_frame(options.weights, options.image, options.json)
    else:
        _count_configurations(options)


def _header(image: tuple[int, int], padded: tuple[int, int]) -> str:
    note = f', padded to {padded[0]}x{padded[1]}' if padded != image else ''
    return (
        f'GiMAC (2^30 multiply-accumulates) up to each exit, {image[0]}x{image[1]}{note}\n'
        f'{"network":19} {"heads":10}  {"masked, %":14} exits [paper]'
    )


def _count_configurations(options: argparse.Namespace) -> None:
    from dataclasses import replace

    from adpc_ros.network import macs
    from adpc_ros.network.exits import Heads
    from adpc_ros.network.families import NetworkConfig, default_adaptivity
    from adpc_ros.runtime.images import padded_size

    wanted: list[tuple[str, Heads | None, tuple[float, ...] | None]]
    if options.network:
        heads = Heads(options.heads) if options.heads else None
        wanted = [(options.network, heads, options.masked)]
    elif options.heads or options.masked or options.head_depths:
        raise ValueError('--heads, --head-depths and --masked need --network')
    else:
        kinds = [*((heads, None) for heads in Heads), (Heads.REDESIGNED, macs.PAPER_MASKED)]
        wanted = [(n, h, m) for n in ('hrnet_w48', 'hrnet_w18_small_v2') for h, m in kinds]
    image, classes = options.size or macs.PAPER_SIZE, options.classes or macs.PAPER_CLASSES
    rows: list[Row] = []
    for name, heads, masked in wanted:
        masks = default_adaptivity(name) if masked else None
        config = NetworkConfig(name, class_count=classes, adaptivity=masks)
        if heads is not None:
            config = replace(config, heads=heads)
        config = replace(config, head_depths=options.head_depths)
        padded = padded_size(image, config)
        counts = macs.count_shares(config, padded, masked)
        gimac = [n / macs.GI for n in counts]
        comparable = image == macs.PAPER_SIZE and classes == macs.PAPER_CLASSES
        comparable &= options.head_depths is None
        comparable &= masked is None or masked == macs.PAPER_MASKED
        key = (name, config.heads, masked is not None)
        paper = macs.PAPER_GIMAC.get(key) if comparable else None
        if not rows:
            print(_header(image, padded))
        kind = config.heads.value
        if options.head_depths:
            kind += ' ' + ','.join(map(str, options.head_depths))
        rows.append(Row(name, kind, list(masked) if masked else None, [*image], gimac))
        print(rows[-1].line(paper or ()), flush=True)
    write_json(options.json, [row._asdict() for row in rows])


def _count_frame(weights: str, file: str, json: str | None) -> None:
    import torch

    from adpc_ros.image_files import read_image
    from adpc_ros.network import checkpoint, macs
    from adpc_ros.runtime.images import to_input

    network = checkpoint.load(weights, task=None).network
    config = network.config
    image = read_image(file)
    x = to_input(image, config, torch.device('cpu'))
    counts, active = macs.count_frame(network, x)
    masked = [1 - share for share in active[1:]] if config.adaptivity else None
    height, width = image.shape[:2]
    gimac = [n / macs.GI for n in counts]
    row = Row(config.architecture, config.heads.value, masked, [height, width], gimac)
    print(_header((height, width), (x.shape[2], x.shape[3])))
    print(row.line())
    print(f'{"active, %":47} {percent(active)}')
    write_json(json, [row._asdict() | {'image': file}])
