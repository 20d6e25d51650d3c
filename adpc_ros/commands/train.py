# SPDX-License-Identifier: Apache-2.0
"""``train``: train a network by a recipe, or go on with it."""

from __future__ import annotations

import argparse
import logging
from typing import TYPE_CHECKING

from adpc_ros.commands.options import positive, use_threads

if TYPE_CHECKING:
    from adpc_ros.commands.options import Commands


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        'train',
        help='train a network by a recipe, or go on with it',
        description='Train by a recipe. Run again with the same recipe it goes on after the last '
        'saved step. Writes best.safetensors, last.safetensors, last.pt, log.jsonl and curves for '
        'TensorBoard to the output folder. On several devices: torchrun --nproc-per-node N -m '
        'adpc_ros train --config FILE. CUDA devices are used where there are any; that has not '
        'been run.',
    )
    parser.add_argument(
        '--config', required=True, metavar='FILE', help='recipe, as config/train/camvid.yaml'
    )
    parser.add_argument('--threads', type=positive, metavar='N', help='default: one per core')
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Train, and say where the weights are."""
    from adpc_ros.learning.config import read_config
    from adpc_ros.learning.distributed import environment_rank
    from adpc_ros.learning.train import train
    from adpc_ros.street_samples import StreetSamples

    logging.basicConfig(level=logging.INFO, format='adpc_ros: %(message)s')
    use_threads(options.threads)
    config = read_config(options.config)
    best = train(config, StreetSamples() if config.synthetic_share else None)
    if environment_rank() == 0:
        print(f'best weights: {best}')
