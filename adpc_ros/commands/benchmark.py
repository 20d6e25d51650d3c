# SPDX-License-Identifier: Apache-2.0
"""``benchmark``: what masks save, how soon a frame stops, what ROS adds, where time goes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from adpc_ros.commands.benchmark_ros import add_ros
from adpc_ros.commands.benchmark_trace import add_trace
from adpc_ros.commands.options import (
    add_json,
    announce_load,
    check_outputs,
    positive,
    probability,
    shares,
    size,
    write_json,
)

if TYPE_CHECKING:
    from adpc_ros.benchmark.preempt import Preemption
    from adpc_ros.benchmark.subjects import Subject
    from adpc_ros.commands.options import Commands

ROUNDS = 5
FRAMES_SHARE = 50  # stops of the computation for one frame that an engine is preempted in


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        'benchmark',
        help='measure what masks save, how soon a frame stops, what ROS adds, where time goes',
        description='Measure on this machine; nothing else should run on it.',
    )
    kinds = parser.add_subparsers(required=True, metavar='WHAT', dest='what')
    _add_masks(kinds)
    _add_preempt(kinds)
    add_ros(kinds)
    add_trace(kinds)


def _add_masks(kinds: Commands) -> None:
    parser = kinds.add_parser(
        'masks',
        help='time with and without masks, beside dense baselines',
        description='Time frames with and without masks, beside the network in plain PyTorch '
        '(eager) and a dense oneDNN plan, all sides taking turns. With --network: random weights '
        'and masks of given shares, whose shapes are those of real label maps. With --weights '
        'and --frames: the masks that the network gives itself.',
    )
    _add_network(parser)
    parser.add_argument('--frames', metavar='DIR', help='folder of images, with --weights')
    parser.add_argument('--limit', type=positive, metavar='N', help='first images of DIR only')
    parser.add_argument(
        '--against', metavar='FILE', help='other weights, timed in the same turns, with --weights'
    )
    parser.add_argument(
        '--threshold', type=probability, metavar='T', help='of all exits, with --weights'
    )
    parser.add_argument(
        '--masked',
        type=shares,
        metavar='A,B,...',
        help="masked share after each exit but the last (the paper's, of four exits)",
    )
    parser.add_argument('--labels', metavar='DIR', help='label maps (CamVid, if it is found)')
    parser.add_argument('--repeats', type=positive, metavar='R', help='rounds (5)')
    parser.add_argument('--plan', action='store_true', help='print the steps of the masked side')
    parser.add_argument('--no-eager', action='store_true', help='leave this baseline out')
    parser.add_argument('--no-onednn', action='store_true', help='leave this baseline out')
    parser.set_defaults(run=run_masks)


def _add_preempt(kinds: Commands) -> None:
    parser = kinds.add_parser(
        'preempt',
        help='time from a cancellation to an idle worker, from CRITICAL to the result',
        description='Stop the computation at random instants after the first exit, and measure '
        'how soon it has stopped; and send CRITICAL to an engine, and measure how soon the '
        'latest exit is handed out.',
    )
    _add_network(parser)
    parser.add_argument('--count', type=positive, default=1000, metavar='N', help='stops (1000)')
    parser.set_defaults(run=run_preempt)


def _add_network(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--network', metavar='NAME', help='with random weights, as hrnet_w48 or coarse_s'
    )
    parser.add_argument('--weights', metavar='FILE', help='safetensors file of a trained network')
    parser.add_argument('--size', type=size, metavar='HxW', help='of the image in pixels')
    parser.add_argument('--dtype', choices=('float32', 'bfloat16'), default='float32')
    parser.add_argument('--threads', type=positive, metavar='N', help='default: one per core')
    add_json(parser)


def run_masks(options: argparse.Namespace) -> None:
    """Time all sides in turn, print, and write the numbers."""
    import torch

    from adpc_ros.benchmark import masks, tables
    from adpc_ros.runtime.images import padded_size

    inputs = (options.weights, options.against, options.frames, options.labels)
    check_outputs({'--json': options.json}, inputs)
    subject = _subject(options)
    threads = _announce(options.threads)
    dtype = getattr(torch, options.dtype)
    without = {'eager': options.no_eager, 'onednn': options.no_onednn}
    sides = masks.open_sides(
        subject.network,
        dtype,
        threads,
        subject.maps,
        [n for n, is_out in without.items() if is_out],
    )
    against, plans = None, [sides.plan]
    try:
        if options.against:
            against, plan = masks.open_other(sides.runs, options.against, dtype, threads)
            plans.append(plan)
        passes = masks.take_turns(sides.runs, subject.images)
        memory_mib = sides.plan.memory_bytes / 2**20
    finally:
        for plan in plans:
            plan.close()
    height, width = subject.images[0].shape[:2]
    shares = (
        {}
        if subject.maps is None
        else masks.shares_by_resolution(
            subject.maps,
            padded_size((height, width), subject.network.config),
            subject.network.config.sizes.size_multiple,
        )
    )
    report = {
        'network': subject.name,
        'against': against,
        'size': [height, width],
        'dtype': options.dtype,
        'threads': threads,
        **tables.report(passes),
        'masks': subject.masks,
        'shares': shares,
        'memory_mib': memory_mib,
    }
    print(
        f'{subject.name}, {height}x{width}, {options.dtype}, {threads} threads, '
        f'{len(subject.images)} rounds, {memory_mib:.0f} MiB\nmasks: {subject.masks}'
    )
    if against:
        print(f'against: {against}')
    for stage, of_stage in shares.items():
        cells = ', '.join(f'{at} {100 * share:.2f}' for at, share in of_stage.items())
        print(f'  active in {stage}, %: {cells}')
    tables.print_times(report)
    if options.plan:
        tables.print_steps(passes)
    write_json(options.json, report)


def _subject(options: argparse.Namespace) -> Subject:
    from adpc_ros.benchmark.subjects import given_shares, own_masks
    from adpc_ros.network.paper import MASKED

    of_network = (options.network, options.size, options.masked, options.labels, options.repeats)
    of_weights = (options.weights, options.frames, options.limit, options.against)
    if options.weights and options.frames and not any(of_network):
        return own_masks(options.weights, options.frames, options.limit, options.threshold)
    if options.network and options.size and not any(of_weights) and options.threshold is None:
        labels = Path(options.labels) if options.labels else None
        masked, rounds = options.masked or MASKED, options.repeats or ROUNDS
        return given_shares(options.network, options.size, masked, rounds, labels)
    raise ValueError(
        'expected --network and --size (with --masked, --labels, --repeats), '
        'or --weights and --frames (with --limit, --threshold, --against)'
    )


def _announce(threads: int | None) -> int:
    """Warn of a busy machine; gives the number of threads."""
    announce_load()
    from adpc_ros.runtime.cores import core_count

    return threads or core_count()


def run_preempt(options: argparse.Namespace) -> None:
    """Stop frames, print, and write the numbers."""
    import torch

    from adpc_ros.benchmark.native import plan_of
    from adpc_ros.benchmark.networks import random_image, random_network
    from adpc_ros.benchmark.preempt import preempt_engine, stop_plan
    from adpc_ros.network import checkpoint
    from adpc_ros.network.families import NetworkConfig, default_adaptivity

    if bool(options.network) == bool(options.weights) or not options.size:
        raise ValueError('expected --size, and either --network or --weights')
    check_outputs({'--json': options.json}, [options.weights])
    if options.weights:
        loaded = checkpoint.load(options.weights)
        network, name = loaded.network, loaded.identity
        if network.config.exit_count == 1:
            raise ValueError(f'{options.weights}: expected a network with early exits')
    else:
        name = options.network
        network = random_network(NetworkConfig(name, adaptivity=default_adaptivity(name)))
    threads = _announce(options.threads)
    torch.set_num_threads(threads)
    plan = plan_of(network, getattr(torch, options.dtype), threads)
    try:
        image = random_image(options.size)
        results, frame_s = preempt_engine(plan, image, max(5, options.count // FRAMES_SHARE))
        stops = stop_plan(plan, image, options.count, frame_s)
    finally:
        plan.close()
    height, width = options.size
    print(f'{name}, {height}x{width}, {options.dtype}, {threads} threads, {frame_s:.3f} s a frame')
    print(f'{"milliseconds":40} {"n":>5}  {"median":>8}  {"99 %":>8}  {"most":>8}')
    idle = _spread('from a cancellation to the worker idle', stops)
    published = _spread('from CRITICAL to the result handed out', results)
    exits = {
        str(i): sum(stop.exit_index == i for stop in stops) for i in range(1, plan.exit_count + 1)
    }
    print('latest exit: ' + ', '.join(f'{i}: {n}' for i, n in exits.items()))
    write_json(
        options.json,
        {
            **idle,
            'network': name,
            'size': [height, width],
            'dtype': options.dtype,
            'threads': threads,
            'published': published,
            'exits': exits,
        },
    )


def _spread(title: str, found: list[Preemption]) -> dict[str, float]:
    from adpc_ros.percentiles import spread

    values = spread([1e3 * stop.seconds for stop in found])
    median, p99, most = (values[key] for key in ('median', 'p99', 'max'))
    print(f'{title:40} {len(found):5}  {median:8.2f}  {p99:8.2f}  {most:8.2f}')
    return {'median_ms': median, 'p99_ms': p99, 'max_ms': most, 'count': len(found)}
