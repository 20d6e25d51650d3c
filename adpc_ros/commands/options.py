# SPDX-License-Identifier: Apache-2.0
"""What the commands share: types of options, numbers for people and for machines."""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adpc_ros import json_file

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

BUSY = 0.5  # load average beyond which times are doubtful
_DATA = re.compile(r'\.(png|jpe?g|mcap|db3|zstd)$|^metadata\.yaml$')  # in a folder that is read


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


def depths(text: str) -> tuple[int, ...]:
    """Read positive whole numbers between commas."""
    parts = text.split(',')
    if not all(part.isdecimal() and int(part) for part in parts):
        raise argparse.ArgumentTypeError(f'expected positive whole numbers A,B,..., got {text!r}')
    return tuple(map(int, parts))


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


def folder_of(data: str) -> str | None:
    """Give the folder of KIND:FOLDER?CHOICE; None if there is none."""
    return data.partition(':')[2].partition('?')[0] or None


def announce_load() -> None:
    """Print how busy the machine is, and warn if times will be doubtful."""
    load = os.getloadavg()[0]
    print(f'load average {load:.2f}')
    if load > BUSY:
        print('adpc_ros: other programs run on this machine: expect noise', file=sys.stderr)


def use_threads(threads: int | None) -> None:
    """
    Set the number of PyTorch's threads.

    :param threads: None for PyTorch's own choice, within the quota of a container.
    """
    import torch

    from adpc_ros.runtime.cores import core_count

    torch.set_num_threads(threads or min(torch.get_num_threads(), core_count()))


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the option that every command with numbers has."""
    parser.add_argument('--json', metavar='FILE', help='write the numbers to a file')


def write_json(path: str | None, value: Any) -> None:
    """Write numbers for machines, if a file was asked for; null for what is not known."""
    if path is not None:
        Path(path).write_text(json_file.dumps(value, indent=2) + '\n')


def check_outputs(
    files: Mapping[str, str | Path | None],
    inputs: Iterable[str | Path | None] = (),
    folders: Mapping[str, tuple[Path | None, Sequence[str]]] | None = None,
) -> None:
    """
    Make sure that all results can be written, before the work begins; nothing is left behind.

    :param files: option -> file to write, whose folder must be there; None is not asked for.
    :param inputs: files and folders that are read, none of which may be overwritten.
    :param folders: option -> folder, made if it is missing, and names of the files to write in it.
    :raises ValueError: if a place cannot be written to, is an input, or is taken by two results.
    """
    wanted: list[tuple[str, Path]] = []
    for option, path in files.items():
        if path is not None:
            wanted.append((option, Path(path)))
            _check_folder(option, Path(path), Path(path).absolute().parent)
    for option, (folder, names) in (folders or {}).items():
        if folder is not None:
            wanted += [(option, folder / name) for name in names]
            there = (place for place in (folder, *folder.absolute().parents) if place.exists())
            _check_folder(option, folder, next(there))
    read = [Path(path) for path in inputs if path is not None]
    taken: dict[object, str] = {}
    for option, path in wanted:
        if path.is_dir():
            raise ValueError(f'{option}: expected a file to write, got the folder {path}')
        if path.exists() and not path.is_file():
            continue  # a device, as /dev/null: it takes what comes
        if path.is_file():
            with _said(option, path):
                path.open('r+b').close()
        if any(_overwrites(path, source) for source in read):
            raise ValueError(f'{option}: expected an output beside the input, got {path} for both')
        if (other := taken.setdefault(_identity(path), option)) != option:
            raise ValueError(f'expected two files, got {path} for both {other} and {option}')


def _check_folder(option: str, path: Path, folder: Path) -> None:
    if not folder.is_dir():
        found = 'a file' if folder.exists() else 'nothing'
        raise ValueError(f'{option}: {path}: expected a folder at {folder}, found {found}')
    with _said(option, path), tempfile.TemporaryFile(dir=folder):
        pass


@contextmanager
def _said(option: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(f'{option}: cannot write to {path}: {error.strerror}') from error


def _identity(path: Path) -> object:
    """Give what two names of one file have in common."""
    if path.exists():
        return path.stat().st_dev, path.stat().st_ino
    return path.resolve()


def _overwrites(path: Path, source: Path) -> bool:
    if _identity(path) == _identity(source):
        return True
    is_data = path.is_file() and _DATA.search(path.name) is not None
    return is_data and source.is_dir() and source.resolve() in path.resolve().parents


def percent(values: Sequence[float | None]) -> str:
    """Print shares in [0, 1] as columns; a dash for what is not known (None, NaN)."""
    return '  '.join(
        f'{"-":>6}' if value is None or math.isnan(value) else f'{100 * value:6.2f}'
        for value in values
    )
