"""Which files make up a recording: what they hold counts, and metadata.yaml only for the names."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import yaml

log = logging.getLogger(__name__)

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
    present = sorted(
        (file for file in path.iterdir() if file.is_file() and _STORAGE.search(file.name)),
        key=lambda file: (len(file.name), file.name),  # bag_9 before bag_10
    )
    names = _listed(path / 'metadata.yaml')
    return _listed_files(path, names, present) if names else _unlisted_files(path, present)


def _listed_files(folder: Path, names: list[str], present: list[Path]) -> list[Path]:
    found = [_place(folder, name) for name in names]
    lost = [name for name, file in zip(names, found) if file is None]
    if not lost:
        return [file for file in found if file is not None]
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
    for place in (folder / name, folder / Path(name).name):
        for file in (place, place.with_name(f'{place.name}.zstd'), place.with_suffix('')):
            if file.is_file() and _STORAGE.search(file.name):
                return file
    return None


def _unlisted_files(folder: Path, present: list[Path]) -> list[Path]:
    if not present:
        raise ValueError(f'{folder}: {_EXPECTED}, found none of these in the folder')
    if len(present) > 1:
        parts = [_PART.fullmatch(file.name) for file in present]
        if len({part and part[1] for part in parts}) > 1 or parts[0] is None:
            raise ValueError(
                f'{folder}: expected metadata.yaml or a single recording, got '
                f'{", ".join(file.name for file in present)}: give the one that is meant'
            )
    log.warning('%s: no metadata.yaml to go by: taking %s', folder, ', '.join(
        file.name for file in present))  # fmt: skip
    return present


def _listed(path: Path) -> list[str]:
    """Read the names of the files from metadata.yaml; none if it is missing or broken."""
    if not path.exists():
        return []
    try:
        document: Any = yaml.safe_load(path.read_bytes())
        values = document['rosbag2_bagfile_information']
        names = [str(name) for name in values['relative_file_paths'] or []]
    except (OSError, yaml.YAMLError, UnicodeError, KeyError, TypeError) as error:
        log.warning('%s: expected the metadata of a recording: %r', path, error)
        return []
    mode = str(values.get('compression_mode') or '').lower()
    form = str(values.get('compression_format') or 'zstd').lower()
    if mode == 'message' and form != 'zstd':
        raise ValueError(f'{path}: expected messages compressed as zstd, got {form}')
    return names
