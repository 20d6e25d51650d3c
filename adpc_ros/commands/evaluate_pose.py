# SPDX-License-Identifier: Apache-2.0
"""``evaluate`` for networks that find the joints of people: options, table and numbers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adpc_ros.commands import evaluate_sweep
from adpc_ros.commands.options import (
    check_outputs,
    folder_of,
    percent,
    size,
    use_threads,
    write_json,
)

if TYPE_CHECKING:
    from adpc_ros.learning.pose_evaluation import PoseEvaluation

OPTIONS = ('size', 'flip_test')  # of poses alone
_SIZE = (256, 256)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what networks for segmentation do not have."""
    group = parser.add_argument_group('networks for poses')
    group.add_argument(
        '--size', type=size, metavar='HxW', help='of the windows around people (256x256)'
    )
    group.add_argument(
        '--flip-test',
        action='store_true',
        help='judge the mean of the heat maps of window and mirrored window, as the published '
        'figures do; the cost is that of one',
    )


def run(options: argparse.Namespace) -> None:
    """Evaluate, print, and write the numbers."""
    from adpc_ros.learning.mpii import open_people
    from adpc_ros.learning.pose_evaluation import evaluate_poses
    from adpc_ros.network import checkpoint
    from adpc_ros.network.task import Task

    folder = folder_of(options.data)
    check_outputs(
        {'--json': options.json}, [options.weights, Path(folder).parent if folder else None]
    )
    chosen = evaluate_sweep.choices(options)
    people = open_people(options.data, judged=True)
    loaded = checkpoint.load(options.weights, Task.POSE)
    if loaded.classes != people.classes:
        raise ValueError(
            f'{loaded.identity}: expected the joints of {people.classes.name}, '
            f'got those of {loaded.classes.name}'
        )
    edges = options.size or _SIZE
    network = evaluate_sweep.with_choice(loaded.network, chosen)
    network.check_size(*edges)
    use_threads(options.threads)
    result = evaluate_poses(network, people, edges, not options.no_masks, options.flip_test)
    masks = network.config.adaptivity
    described = None if masks is None or options.no_masks else masks.described
    print(f'{loaded.identity} on {len(people)} people of {options.data}')
    if any(chosen):
        print(f"masks, not the weights' own: {described}")
    numbers = {
        'network': loaded.identity,
        'size': list(edges),
        'flip_test': options.flip_test,
        'masks': described,
        **_numbers(result),
    }
    _print(numbers)
    write_json(options.json, numbers)


def _numbers(result: PoseEvaluation) -> dict[str, Any]:
    from adpc_ros.learning.people import JOINTS

    parts = [pckh.by_part() for pckh in result.pckh]
    joints = [pckh.by_joint() for pckh in result.pckh]
    return {
        'pckh': result.means,
        'parts': {part: [each[part] for each in parts] for part in parts[0]},
        'joints': {
            name: [float(each[i]) for each in joints] for i, name in enumerate(JOINTS.names)
        },
        'masked_share': result.masked_share,
        'gimac': result.gimac,
    }


def _print(numbers: dict[str, Any]) -> None:
    exits = len(numbers['pckh'])
    print(f'{"exit":22}', '  '.join(f'{i + 1:6}' for i in range(exits)), '   mean')
    for part, values in numbers['parts'].items():
        print(f'{part + " PCKh@0.5, %":22}', percent([*values, sum(values) / exits]))
    print(f'{"mean PCKh@0.5, %":22}', percent([*numbers['pckh'], sum(numbers['pckh']) / exits]))
    if numbers['masked_share']:
        print(f'{"masked after, %":22}', percent(numbers['masked_share']))
    gimac = [*numbers['gimac'], sum(numbers['gimac']) / exits]
    print(f'{"GiMAC up to here":22}', '  '.join(f'{value:6.2f}' for value in gimac))
