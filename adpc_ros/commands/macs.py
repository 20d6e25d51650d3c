# SPDX-License-Identifier: Apache-2.0
"""``macs``: what a network costs, beside the figures of the paper."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import zip_longest
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

    def line(self, paper: Sequence[float | None] = ()) -> str:
        """Print it, each figure followed by the paper's if there is one."""
        masked = '-' if self.masked is None else ' '.join(f'{100 * m:.1f}' for m in self.masked)
        cells = _cells(self.gimac, paper)
        return ' '.join([f'{self.network:19} {self.heads:10}  {masked:14}', *cells]).rstrip()


def _cells(ours: Sequence[float | None], paper: Sequence[float | None]) -> list[str]:
    """Give our figures, each followed by the paper's where there is one."""
    cells = []
    for value, printed in zip_longest(ours, paper):
        cell = f'{"-":>7}' if value is None else f'{value:7.2f}'
        cells.append(cell + (f' [{printed:7.2f}]' if printed is not None else ' ' * 10))
    return cells if paper else [cell.rstrip() for cell in cells]


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        'macs',
        help='count multiply-accumulates, beside the figures of the paper',
        description='Count multiply-accumulates up to each exit. Without --network: the systems '
        'that the paper gives figures for on Cityscapes, or on all data sets (--all). With '
        '--weights and --image: what this image really costs, from the masks that it gets.',
    )
    parser.add_argument(
        '--all', action='store_true', help='every table of the paper, row by row, beside ours'
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
        '--head-width',
        type=positive,
        metavar='N',
        help='channels inside redesigned heads (128 for hrnet_w48)',
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
    settings = [options.heads, options.head_depths, options.head_width, options.masked]
    described = [options.network, *settings, options.size, options.classes]
    if options.weights or options.image:
        if not (options.weights and options.image) or any(described) or options.all:
            raise ValueError('--weights and --image go together, and with --json alone')
        _count_frame(options.weights, options.image, options.json)
    elif options.network:
        if options.all:
            raise ValueError('--all is of every network: expected no --network')
        _count_network(options)
    elif any(settings):
        raise ValueError('--heads, --head-depths, --head-width and --masked need --network')
    elif options.all and (options.size or options.classes):
        raise ValueError('--all is of the sizes and classes of the paper: expected no others')
    else:
        _count_paper(options)


def _header(image: tuple[int, int], padded: tuple[int, int]) -> str:
    note = f', padded to {padded[0]}x{padded[1]}' if padded != image else ''
    return (
        f'GiMAC (2^30 multiply-accumulates) up to each exit, {image[0]}x{image[1]}{note}\n'
        f'{"network":19} {"heads":10}  {"masked, %":14} exits [paper]'
    )


def _count_network(options: argparse.Namespace) -> None:
    from dataclasses import replace

    from adpc_ros.network import macs, paper
    from adpc_ros.network.exits import Heads
    from adpc_ros.network.families import NetworkConfig, default_adaptivity
    from adpc_ros.runtime.images import padded_size

    image, classes = options.size or paper.SIZE, options.classes or paper.CLASSES
    masks = default_adaptivity(options.network) if options.masked else None
    config = NetworkConfig(options.network, class_count=classes, adaptivity=masks)
    if options.heads:
        config = replace(config, heads=Heads(options.heads))
    config = replace(config, head_depths=options.head_depths, head_width=options.head_width)
    padded = padded_size(image, config)
    gimac = [n / macs.GI for n in macs.count_shares(config, padded, options.masked)]
    kind = config.heads.value
    if options.head_depths:
        kind += ' ' + ','.join(map(str, options.head_depths))
    masked = list(options.masked) if options.masked else None
    row = Row(options.network, kind, masked, [*image], gimac)
    print(_header(image, padded))
    print(row.line(paper.printed(config, image, options.masked)))
    write_json(options.json, [row._asdict()])


def _count_paper(options: argparse.Namespace) -> None:
    """Print the paper's systems, each figure beside the paper's; or of another size, alone."""
    from adpc_ros.network import paper

    print('GiMAC (2^30 multiply-accumulates) up to each exit [paper]; the last is the mean')
    rows: list[dict[str, object]] = []
    for table, title in paper.TABLES.items():
        if table not in paper.CITYSCAPES and not options.all:
            continue
        systems = [each for each in paper.SYSTEMS if each.table == table]
        if options.size or options.classes:
            size, classes = options.size or paper.SIZE, options.classes or paper.CLASSES
            title = f'{size[0]}x{size[1]}, {classes} classes'
            systems = [each.of(size, classes) for each in systems]
        print(f'\n{title}')
        for system in systems:
            gimac = system.gimac()
            ours: list[float | None] = [None] * len(system.exits)
            if gimac is not None:
                ours = [*gimac, sum(gimac) / len(gimac)]
            note = '' if gimac is not None else '  (its masks are not known)'
            if system.counting is not paper.Counting.RUN:
                note = f'  ({system.counting.value})'
            printed = [*system.exits, system.mean][: None if len(system.exits) > 1 else 1]
            cells = ' '.join(_cells(ours[: len(printed)], printed)).rstrip()
            print(f'{system.name:11} {system.heads.value:10} {cells}{note}', flush=True)
            rows.append(
                Row(
                    system.network,
                    system.heads.value,
                    None if system.masked is None else [*system.masked],
                    [*system.size],
                    gimac or [],
                )._asdict()
                | {
                    'table': table,
                    'system': system.name,
                    'classes': system.classes,
                    'counting': system.counting.value,
                    'paper': [*system.exits],
                    'paper_mean': system.mean,
                }
            )
    write_json(options.json, rows)


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
