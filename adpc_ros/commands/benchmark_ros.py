# SPDX-License-Identifier: Apache-2.0
"""``benchmark ros``: what ROS adds to the computation, and what the node bears."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adpc_ros.commands import benchmark_soak
from adpc_ros.commands.options import (
    add_json,
    announce_load,
    check_outputs,
    positive,
    positive_number,
    size,
    write_json,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from adpc_ros.commands.options import Commands

SECONDS = 30  # without --soak
DOES_NOT_ADD_UP = 1  # exit status
_STREAM = ('urgency', 'changes', 'frames', 'parameters')  # options that need --rate
_IMAGES = 4  # that differ, so that masks do

Values = dict[str, Any]


def add_ros(kinds: Commands) -> None:
    """Describe the command."""
    parser = kinds.add_parser(
        'ros',
        help='time that ROS adds between processes; frames, urgency, changes for as long as asked',
        description='Run the node and a client over DDS on this machine, and measure what comes '
        'on top of the computation. With --rate frames stream in from a camera that waits for '
        'nothing, as long as asked; the exit status is 1 if a frame is unaccounted for. With '
        '--soak all that can happen to a node happens at random for an hour; the exit status is '
        '1 if it breaks a promise.',
    )
    parser.add_argument(
        '--size', type=size, metavar='HxW', help='of the frames in pixels (--soak: 360x480)'
    )
    parser.add_argument(
        '--weights', metavar='FILE', help='of the node (random ones; --soak: the packaged ones)'
    )
    parser.add_argument(
        '--network', metavar='NAME', help='with random weights, as coarse_s (a tiny one)'
    )
    parser.add_argument(
        '--seconds',
        type=positive,
        metavar='S',
        help=f'how long frames are sent ({SECONDS}; --soak: {benchmark_soak.SECONDS})',
    )
    parser.add_argument('--threads', type=positive, metavar='N', help='default: one per core')
    parser.add_argument(
        '--rate', type=positive_number, metavar='HZ', help='of a camera that waits for nothing'
    )
    soak = parser.add_argument_group('in place of --rate')
    soak.add_argument(
        '--soak',
        action='store_true',
        help='frames of several sizes, garbage, urgency, changes and lifecycle, cameras and '
        'planners that start again, all at random instants',
    )
    soak.add_argument(
        '--seed', type=int, default=0, metavar='N', help='of what happens in --soak (0)'
    )
    stream = parser.add_argument_group('with --rate')
    stream.add_argument('--frames', metavar='DIR', help='folder of images in place of --size')
    stream.add_argument('--urgency', action='store_true', help='CRITICAL at random instants')
    stream.add_argument(
        '--changes',
        action='store_true',
        help='live parameters change at random instants; with --urgency ELEVATED comes, too',
    )
    stream.add_argument(
        *('-p', '--parameter'),
        action='append',
        dest='parameters',
        metavar='NAME:=VALUE',
        help='parameter of the node (also with --soak)',
    )
    add_json(parser)
    parser.set_defaults(run=run_ros)


def run_ros(options: argparse.Namespace) -> int:
    """Run node and client, print, and write the numbers; gives the exit status."""
    from adpc_ros.benchmark.ros import TINY, measure
    from adpc_ros.network import checkpoint
    from adpc_ros.percentiles import spread

    weights = Path(options.weights) if options.weights else None
    if weights is not None and not weights.is_file():
        raise ValueError(f'weights not found: {weights}')
    if weights is not None and options.network:
        raise ValueError('expected either --network or --weights')
    given = [f'--{name}' for name in _STREAM if getattr(options, name)]
    if options.soak:
        given = [name for name in given if name != '--parameters']
        if given or options.rate is not None:
            raise ValueError(f'--soak: expected it without {", ".join(given or ["--rate"])}')
    elif given and options.rate is None:
        raise ValueError(f'{", ".join(given)}: expected --rate, too')
    elif bool(options.size) == bool(options.frames):
        raise ValueError('expected either --size or, with --rate, --frames')
    check_outputs({'--json': options.json}, [options.weights, options.frames])
    if weights is not None:
        checkpoint.load(weights)  # what is wrong with it is said before anything starts
    announce_load()
    if options.soak:
        return _said(benchmark_soak.run_soak(options, weights), 'broken')
    options.seconds = options.seconds or SECONDS
    if options.rate is not None:
        return _run_stream(options, weights)
    found = measure(
        *(options.size, options.seconds, weights, options.threads or 0, options.network or TINY)
    )
    transport, urgency = spread(found.transport_ms), spread(found.urgency_to_mask_ms)
    _print_times(
        {
            'frame stamped to mask, less the computation': transport,
            'CRITICAL published to mask, an exit being ready': urgency,
        }
    )
    print(f"node's processor time: {found.cpu_share:.2f} cores")
    write_json(
        options.json,
        {
            'size': list(options.size),
            'frames': transport['n'],
            'transport_ms': transport,
            'urgency_to_mask_ms': urgency,
            'cpu_share': found.cpu_share,
        },
    )
    return 0


def _run_stream(options: argparse.Namespace, weights: Path | None) -> int:
    from adpc_ros.benchmark.ros import TINY
    from adpc_ros.benchmark.stream import stream

    images = _images(options)
    found = stream(
        images,
        options.rate,
        options.seconds,
        weights,
        [f'threads:={options.threads or 0}', *(options.parameters or [])],
        options.urgency,
        options.changes,
        options.network or TINY,
    )
    _print_stream(found)
    write_json(
        options.json,
        {
            'size': list(images.shape[1:3]),
            'rate_hz': options.rate,
            'seconds': options.seconds,
            'parameters': options.parameters or [],
            **found,
        },
    )
    return _said(found['unaccounted'] + found['refused'], 'does not add up')


def _said(wrong: list[str], what: str) -> int:
    for text in wrong:
        print(f'adpc_ros: {what}: {text}', file=sys.stderr)
    return DOES_NOT_ADD_UP if wrong else 0


def _images(options: argparse.Namespace) -> NDArray[np.uint8]:
    import numpy as np

    from adpc_ros.benchmark.networks import random_image
    from adpc_ros.drive import FolderDrive

    if options.size:
        return np.stack([random_image(options.size, i) for i in range(_IMAGES)])
    images = [frame.image for frame in FolderDrive(options.frames)]
    if len({image.shape for image in images}) != 1:
        raise ValueError(f'{options.frames}: expected images of one size')
    return np.stack(images)


def _print_stream(found: Values) -> None:
    frames = found['frames']
    print('frames: ' + ', '.join(f'{n} {name}' for name, n in frames.items()))
    print(f'masks: {found["results_hz"]:.1f} a second')
    print('exits: ' + ', '.join(f'{index}: {n}' for index, n in found['exits'].items()))
    print('stops: ' + ', '.join(f'{name} {n}' for name, n in found['stops'].items()))
    _print_times(
        {
            'frame stamped to mask': found['stamp_to_mask_ms'],
            'the same, less the computation': found['transport_ms'],
            'CRITICAL published to mask, an exit being ready': found['urgency_to_mask_ms'],
            'lifecycle service answered': found['service_ms']['get_state'],
            'parameters set': found['service_ms']['set_parameters'],
        }
    )
    print(f"node's processor time: {found['cores']:.2f} cores")
    if memory := found['memory']:
        first, last, growth = (memory[key] for key in ('first_mib', 'last_mib', 'growth'))
        print(f"node's memory: {first:.1f} MiB at first, {last:.1f} MiB at last, {growth:+.2%}")
    for title, counts in (('logged', 'warnings'), ('in /diagnostics', 'diagnoses')):
        print(f'warnings {title}: {sum(found[counts].values()) or "none"}')
        for text, count in found[counts].items():
            print(f'  {count} x {text}')


def _print_times(rows: dict[str, Values]) -> None:
    print(f'{"milliseconds":48} {"n":>6}  {"median":>7}  {"95 %":>7}  {"99 %":>7}')
    for title, values in rows.items():
        if values['n']:
            cells = [f'{values[key]:7.2f}' for key in ('median', 'p95', 'p99')]
            print(f'{title:48} {values["n"]:6}  {"  ".join(cells)}')
