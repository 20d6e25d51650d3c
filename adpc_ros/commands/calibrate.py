# SPDX-License-Identifier: Apache-2.0
"""``calibrate``: fit temperatures and thresholds on images that training has not seen."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from adpc_ros.commands.options import (
    add_json,
    check_outputs,
    folder_of,
    percent,
    positive,
    positive_number,
    use_threads,
    write_json,
)

if TYPE_CHECKING:
    from adpc_ros.commands.options import Commands


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        'calibrate',
        help='fit temperatures and thresholds on images that training has not seen',
        description='Fit a threshold (the lowest that costs the last exit at most --max-loss) '
        'and temperatures (so that a confidence says how often it is right), and write weights '
        'that carry them, what each exit is worth on these images and how long it takes.',
    )
    parser.add_argument('--weights', required=True, metavar='FILE', help='safetensors file')
    parser.add_argument(
        '--data',
        required=True,
        metavar='KIND:FOLDER',
        help='images and labels that were held out, as camvid:FOLDER?drives=0001TP',
    )
    parser.add_argument('target', metavar='OUT.safetensors', help='file to write')
    parser.add_argument(
        '--max-loss',
        '--most-loss',  # its former name
        dest='max_loss',
        type=positive_number,
        default=0.2,
        metavar='P',
        help='percentage points of mean IoU that masks may cost (0.2)',
    )
    parser.add_argument(
        '--each-exit',
        action='store_true',
        help="lower each exit's own threshold as well; with some dozens of images it fits noise",
    )
    parser.add_argument(
        '--each-class',
        action='store_true',
        help='fit a threshold for each class as well, and keep these if they save more',
    )
    parser.add_argument('--threads', type=positive, metavar='N', help='default: one per core')
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Fit, write the weights, and say what the fit does on its own images."""
    import torch

    from adpc_ros.learning.calibrate import calibrate
    from adpc_ros.learning.datasets import open_samples
    from adpc_ros.learning.worth import exit_times_of, worth_of
    from adpc_ros.network import checkpoint

    target = Path(options.target)
    if target.suffix != '.safetensors':
        raise ValueError(f'expected OUT.safetensors as the file to write, got {target}')
    check_outputs(
        {'--json': options.json},
        [options.weights, folder_of(options.data)],
        {'OUT.safetensors': (target.parent, [target.name])},
    )
    samples = open_samples(options.data)
    loaded = checkpoint.load(options.weights)
    if loaded.classes != samples.classes:
        raise ValueError(
            f'{options.weights}: expected the classes of {samples.classes.name}, '
            f'got those of {loaded.classes.name}'
        )
    use_threads(options.threads)
    fitted = calibrate(
        loaded.network,
        samples,
        options.max_loss / 100,
        options.each_exit,
        options.each_class,
    )
    config = fitted.network.config
    thresholds = config.adaptivity.thresholds if config.adaptivity else ()
    by_class = config.adaptivity.class_thresholds if config.adaptivity else ()
    info = {
        **loaded.info,
        'calibration': f'{options.data}, at most {options.max_loss} points of mIoU lost',
    }
    before, after = fitted.without_masks, fitted.with_masks
    worth = worth_of(after, options.data)
    height, width = samples[0].image.shape[:2]
    exit_s = exit_times_of(after, (height, width), torch.get_num_threads())
    checkpoint.save(target, fitted.network, samples.classes, info, worth, exit_s)
    print(f'thresholds   {"  ".join(f"{t:6.4f}" for t in thresholds)}')
    for name, values in zip(loaded.classes.names, zip(*by_class)):
        print(f'  {name:10} {"  ".join(f"{t:6.4f}" for t in values)}')
    print(f'temperatures {"  ".join(f"{t:6.3f}" for t in config.temperatures)}')
    for name, result in (('as it was, no masks', before), ('calibrated', after)):
        print(f'{name}, on {len(samples)} images of {options.data}')
        print(f'  mean IoU, %          {percent(result.miou)}')
        print(f'  calibration error, % {percent(result.ece)}')
        print(f'  GiMAC                {"  ".join(f"{g:6.2f}" for g in result.gimac)}')
    for line in worth.described(samples.classes):
        print(line)
    print(f'weights: {target}')
    write_json(
        options.json,
        {
            'thresholds': list(thresholds),
            'class_thresholds': [list(each) for each in by_class],
            'temperatures': list(config.temperatures),
            **{
                f'{key}_{when}': getattr(result, key)
                for key in ('miou', 'ece', 'gimac')
                for when, result in (('before', before), ('after', after))
            },
        },
    )
