# SPDX-License-Identifier: Apache-2.0
"""Which files make up a recording: what they hold counts, and metadata.yaml only for the names."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adpc_ros.yaml_file import read_mapping, typed

log = logging.getLogger(__name__)

METADATA = 'metadata.yaml'
_STORAGE = re.compile(r'\.(mcap|db3)(\.zstd)?$')
_PART = re.compile(r'(.*)_(\d+)\.(mcap|db3)(\.zstd)?')  # of a split recording
_EXPECTED = 'expected a rosbag2 recording (folder with metadata.yaml, .mcap or .db3 file)'


def files_of(path: Path) -> list[Path]:
    """
    List the files of a recording, in order.

    :param path: its folder, or a single file.
    :raises FileNotFoundError: if there is nothing at ``path``.
    :raises ValueError: if the folder is no recording, or a file of it is missing.
    """
    if not path.exists():
        raise FileNotFoundError(
            f'expected a bag (folder, .mcap or .db3 file) at {path}, found nothing'
        )
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ValueError(f'{path}: {_EXPECTED}, got a device or pipe')
    present = stored_in(path)
    metadata = path / METADATA
    try:
        values = _information(metadata)
        names, found = _listed(path, values)
    except FileNotFoundError:
        return _unlisted_files(path, present, f'{path}: no metadata.yaml to go by')
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        why = str(reason).removeprefix(f'{metadata}: ')
        return _unlisted_files(path, present, f'{metadata}: no metadata to go by: {why}')
    _check_compression(metadata, values)
    return _listed_files(path, names, found, present)


def is_stored(path: Path) -> bool:
    """Tell whether there is a file that holds messages, by its name alone."""
    return path.is_file() and _STORAGE.search(path.name) is not None


def stored_in(folder: Path) -> list[Path]:
    """List the files in a folder that hold messages, by their names alone, in order."""
    return sorted(
        (file for file in folder.iterdir() if is_stored(file)),
        key=lambda file: (len(file.name), file.name),  # bag_9 before bag_10
    )


def _listed_files(
    folder: Path, names: Sequence[str], found: Sequence[Path | None], present: list[Path]
) -> list[Path]:
    lost = [name for name, file in zip(names, found) if file is None]
    if not lost:
        return list(dict.fromkeys(file for file in found if file is not None))
    others = [file for file in present if file not in found]
    said = f'{folder}: metadata.yaml names {", ".join(lost)}'
    if len(others) != len(lost):
        held = ', '.join(file.name for file in others) or 'none'
        raise ValueError(f'{said}: expected it in the folder; other recordings there: {held}')
    log.warning('%s, which is not there: taking %s', said, ', '.join(f.name for f in others))
    renamed = iter(others)
    return [file if file is not None else next(renamed) for file in found]


def _place(folder: Path, name: str) -> Path | None:
    """Find a file that metadata names, whatever folder it says, compressed or not any more."""
    for place in (folder / Path(name).name, folder / name):
        for file in (place, place.with_name(f'{place.name}.zstd'), place.with_suffix('')):
            if file.is_file() and _STORAGE.search(file.name):
                return file
    return None


def _unlisted_files(folder: Path, present: list[Path], why: str) -> list[Path]:
    if not present:
        raise ValueError(f'{folder}: {_EXPECTED}, found none of these in the folder')
    if len(present) > 1:
        parts = [_PART.fullmatch(file.name) for file in present]
        if len({part and part[1] for part in parts}) > 1 or parts[0] is None:
            raise ValueError(
                f'{why}: expected metadata.yaml or a single recording, got '
                f'{", ".join(file.name for file in present)}: give the one that is meant'
            )
    log.warning('%s: taking %s', why, ', '.join(file.name for file in present))
    return present


def _information(path: Path) -> dict[str, Any]:
    """Read metadata.yaml; raises ValueError or OSError if it is none."""
    if path.exists() and not path.is_file():
        raise ValueError('expected a file, got a folder, device or pipe')
    key = 'rosbag2_bagfile_information'
    values: dict[str, Any] = typed(read_mapping(path).get(key), dict[str, Any], key)
    return values


def _listed(folder: Path, values: Mapping[str, Any]) -> tuple[tuple[str, ...], list[Path | None]]:
    """Give the names of the files, and where they lie; raises ValueError if these are no names."""
    key = 'relative_file_paths'
    names = typed(values.get(key), tuple[str, ...], key)
    if not names:
        raise ValueError(f'{key}: expected names of files, got none')
    places = []
    for name in names:
        try:
            if not _STORAGE.search(Path(name).name) or not name.isprintable():
                raise ValueError
            places.append(_place(folder, name))
        except (OSError, ValueError):  # OSError: too long
            raise ValueError(f'{key}: expected names of files, got {name!r:.80}') from None
    return names, places


def _check_compression(path: Path, values: Mapping[str, Any]) -> None:
    mode = str(values.get('compression_mode') or '').lower()
    form = str(values.get('compression_format') or 'zstd').lower()
    if mode == 'message' and form != 'zstd':
        raise ValueError(f'{path}: expected messages compressed as zstd, got {form}')
