# SPDX-License-Identifier: Apache-2.0
"""``benchmark trace``: where the time of a frame goes, in the node between two processes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adpc_ros.commands.options import (
    add_json,
    announce_load,
    check_outputs,
    positive,
    positive_number,
    write_json,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from adpc_ros.commands.options import Commands

NO_FRAME = 1  # exit status
_IMAGES = 16  # of the drive

Values = dict[str, Any]


def add_trace(kinds: Commands) -> None:
    """Describe the command."""
    parser = kinds.add_parser(
        'trace',
        help='where the time of a frame goes: a trace file and what it adds up to',
        description='Run the node, a camera and a recorder over DDS on this machine, with the '
        'packaged weights and the built-in street unless others are named. Write a trace that '
        'Perfetto (ui.perfetto.dev) and Chrome open, and print what latencies consist of.',
    )
    parser.add_argument('out', metavar='OUT.json', help='the trace')
    parser.add_argument('--weights', metavar='FILE', help='of the node (packaged)')
    parser.add_argument('--frames', metavar='DIR', help='folder of images (the street)')
    parser.add_argument(
        '--seconds', type=positive, default=10, metavar='S', help='how long frames are sent (10)'
    )
    parser.add_argument(
        *('--rate', '-r'),
        type=positive_number,
        default=15.0,
        metavar='HZ',
        help='of the camera, less if the node cannot follow (15)',
    )
    parser.add_argument(
        *('-p', '--parameter'),
        action='append',
        dest='parameters',
        metavar='NAME:=VALUE',
        help='parameter of the node',
    )
    add_json(parser)
    parser.set_defaults(run=run_trace)


def run_trace(options: argparse.Namespace) -> int:
    """Run the node, write the trace, print and write the numbers; gives the exit status."""
    from adpc_ros.benchmark.trace import record, summary, write
    from adpc_ros.network import checkpoint

    weights = Path(options.weights) if options.weights else None
    if weights is not None and not weights.is_file():
        raise ValueError(f'weights not found: {weights}')
    outputs = {'OUT.json': options.out, '--json': options.json}
    check_outputs(outputs, [options.weights, options.frames])
    if weights is not None:
        checkpoint.load(weights)  # what is wrong with it is said before anything starts
    announce_load()
    images = _images(options.frames)
    traced = record(images, options.rate, options.seconds, weights, options.parameters or [])
    write(Path(options.out), traced)
    found = summary(traced)
    _print(found)
    write_json(options.json, {'size': list(images[0].shape[:2]), **found})
    return 0 if found['frames'] else NO_FRAME


def _images(folder: str | None) -> list[NDArray[np.uint8]]:
    from itertools import islice

    from adpc_ros.drive import open_drive

    images = [frame.image for frame in islice(open_drive(folder), _IMAGES)]
    if len({image.shape for image in images}) != 1:
        raise ValueError(f'{folder}: expected images of one size')
    return images


def _print(found: Values) -> None:
    print(f'{found["frames"]} frames; milliseconds')
    print(f'{"":28} {"n":>6}  {"median":>8}  {"95 %":>8}  {"share":>7}')
    _print_row('stamp to mask', found['latency_ms'])
    for name, values in {**found['parts'], 'unexplained': found['unexplained']}.items():
        _print_row(f'  {name}', values)
    print('within these, after them or beside')
    for name, values in found['others'].items():
        _print_row(f'  {name}', values)


def _print_row(title: str, values: Values) -> None:
    if values['n']:
        share = values.get('share')
        cells = f'{values["n"]:6}  {values["median"]:8.3f}  {values["p95"]:8.3f}'
        print(f'{title:28} {cells}' + (f'  {share:7.1%}' if share is not None else ''))
