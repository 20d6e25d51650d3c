# SPDX-License-Identifier: Apache-2.0
"""What :mod:`adpc_ros.replay.launched` is told, and what of it is checked before all else."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from adpc_ros.bag import image_topics
from adpc_ros.recording.reader import Recording


class Failure(Exception):
    """Why a replay is none, in one line."""


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the arguments; exits with a message if they are wrong."""
    parser = argparse.ArgumentParser('replay_bag', description='Play a bag to a node, and record.')
    parser.add_argument('--bag', type=Path, required=True)
    parser.add_argument('--output', type=Path, required=True, help='bag to be written')
    parser.add_argument('--storage', default='mcap', choices=('mcap', 'sqlite3'))
    parser.add_argument('--rate', type=float, default=1.0)
    parser.add_argument('--node', required=True, help='name of the node, as /front/adpc')
    parser.add_argument('--image', required=True, help='topic of the camera images')
    parser.add_argument('--outputs', nargs=3, required=True, help='mask, confidence, status')
    parser.add_argument('--play', nargs='*', default=[], help='further topics to be played')
    parser.add_argument('--record', nargs='*', default=[], help='further topics to be recorded')
    parser.add_argument('--timeout', type=float, default=120.0, help='for all to be there, s')
    own = list(arguments)  # launch_ros appends ROS arguments, though there may be none
    chosen = parser.parse_args(own[: own.index('--ros-args')] if '--ros-args' in own else own)
    for name in ('rate', 'timeout'):
        if not 0 < getattr(chosen, name) < float('inf'):
            parser.error(f'--{name}: expected a number above 0, got {getattr(chosen, name)}')
    return chosen


def check(chosen: argparse.Namespace) -> list[str]:
    """
    Look at what can be known before anything is started.

    :return: types of the image topic in the bag; empty if nothing here can read bags, which is
        warned of.
    :raises Failure: if the output is there already, the bag cannot be read or has no such images.
    """
    if chosen.output.exists():
        raise Failure(f'output: expected no file or folder of this name, got {chosen.output}')
    try:
        recording = Recording(chosen.bag)
        topics = image_topics(recording, chosen.image)
        if not recording.count(topics):
            raise Failure(
                f'bag: {chosen.bag}: expected images on {chosen.image}, found no message'
            )
    except ImportError as error:
        say(f'the bag is not looked at before it is played: {error}')
        return []
    except (OSError, ValueError) as error:
        raise Failure(f'bag: {error}') from error
    return sorted({topic.kind for topic in topics})


def say(text: str) -> None:
    """Write a line to stderr."""
    print(f'adpc_ros: {text}', file=sys.stderr, flush=True)
