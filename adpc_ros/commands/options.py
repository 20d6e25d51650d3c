"""What the commands share: types of options, numbers for people and for machines."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adpc_ros import json_file

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

BUSY = 0.5  # load average beyond which times are doubtful


def size(text: str) -> tuple[int, int]:
    """Read HxW in pixels, as 1024x2048."""
    height, _, width = text.partition('x')
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f'expected HxW in pixels, as 1024x2048, got {text!r}')
    return int(height), int(width)


def shares(text: str) -> tuple[float, ...]:
    """Read shares in [0, 1] between commas."""
    try:
        values = tuple(float(part) for part in text.split(','))
    except ValueError:
        values = ()
    if not values or not all(0 <= value <= 1 for value in values):
        raise argparse.ArgumentTypeError(f'expected A,B,... in [0, 1], got {text!r}')
    return values


def probability(text: str) -> float:
    """Read a number in [0, 1]."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f'expected a number in [0, 1], got {text!r}')
    return value


def positive(text: str) -> int:
    """Read a positive whole number."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f'expected a positive whole number, got {text!r}')
    return int(text)


def positive_number(text: str) -> float:
    """Read a positive number."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f'expected a positive number, got {text!r}')
    return value


def announce_load() -> None:
    """Print how busy the machine is, and warn if times will be doubtful."""
    load = os.getloadavg()[0]
    print(f'load average {load:.2f}')
    if load > BUSY:
        print('adpc_ros: other programs run on this machine: expect noise', file=sys.stderr)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the option that every command with numbers has."""
    parser.add_argument('--json', metavar='FILE', help='write the numbers to a file')


def write_json(path: str | None, value: Any) -> None:
    """Write numbers for machines, if a file was asked for; null for what is not known."""
    if path is not None:
        Path(path).write_text(json_file.dumps(value, indent=2) + '\n')


def percent(values: Sequence[float | None]) -> str:
    """Print shares in [0, 1] as columns; a dash for what is not known (None, NaN)."""
    return '  '.join(
        f'{"-":>6}' if value is None or math.isnan(value) else f'{100 * value:6.2f}'
        for value in values
    )
