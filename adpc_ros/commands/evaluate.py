"""``evaluate``: accuracy and cost of every exit on labelled images."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

from adpc_ros.commands.options import add_json, percent, positive, write_json

if TYPE_CHECKING:
    from adpc_ros.commands.options import Commands
    from adpc_ros.learning.evaluate import Evaluation


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        'evaluate',
        help='accuracy and cost of every exit on labelled images',
        description='Judge every exit at full size: intersection over union, what is masked, '
        'and multiply-accumulates as the masks of each image make them.',
    )
    parser.add_argument('--weights', required=True, metavar='FILE', help='safetensors file')
    parser.add_argument(
        '--data',
        required=True,
        metavar='KIND:FOLDER',
        help='camvid, cityscapes (FOLDER/SPLIT) or folder; ?drives=, ?without=, ?list= choose',
    )
    parser.add_argument('--threads', type=positive, metavar='N', help='default: one per core')
    parser.add_argument('--no-masks', action='store_true', help='compute every position')
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Evaluate, print, and write the numbers."""
    import torch

    from adpc_ros.learning.datasets import open_samples
    from adpc_ros.learning.evaluate import evaluate
    from adpc_ros.network import checkpoint

    samples = open_samples(options.data)
    loaded = checkpoint.load(options.weights)
    if loaded.classes != samples.classes:
        raise ValueError(
            f'{options.weights}: expected the classes of {samples.classes.name}, '
            f'got those of {loaded.classes.name}'
        )
    if options.threads:
        torch.set_num_threads(options.threads)
    result = evaluate(loaded.network, samples, adaptive=not options.no_masks)
    iou = {
        name: [float(confusion.iou()[i]) for confusion in result.confusions]
        for i, name in enumerate(samples.classes.names)
    }
    print(f'{loaded.identity} on {len(samples)} images of {options.data}')
    _print(result, iou)
    write_json(
        options.json,
        {
            'miou': _without_nan(result.miou),
            'iou': {name: _without_nan(values) for name, values in iou.items()},
            'masked_share': result.masked_share,
            'gimac': result.gimac,
        },
    )


def _print(result: Evaluation, iou: dict[str, list[float]]) -> None:
    print(f'{"exit":20}', '  '.join(f'{i + 1:6}' for i in range(len(result.miou))))
    for name, values in iou.items():
        print(f'{name + " IoU, %":20}', percent(values))
    print(f'{"mean IoU, %":20}', percent(result.miou))
    if result.masked_share:
        print(f'{"masked after, %":20}', percent(result.masked_share))
    print(f'{"GiMAC up to here":20}', '  '.join(f'{value:6.2f}' for value in result.gimac))


def _without_nan(values: list[float]) -> list[float | None]:
    """Put None for NaN (a class that never appears), which JSON does not know."""
    return [None if math.isnan(value) else value for value in values]
