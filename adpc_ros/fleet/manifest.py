# SPDX-License-Identifier: Apache-2.0
"""A manifest: which bags are replayed, and what is expected of each (YAML)."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from adpc_ros.recording.files import METADATA, is_stored, stored_in
from adpc_ros.yaml_file import fields_of, read_mapping

_MAGIC = '*?['


@dataclass(frozen=True)
class Entry:
    """
    One entry as it is written; paths are relative to the manifest.

    :param bag: path of a bag, or a glob (``**`` goes through folders).
    :param tags: what it shows, for the report.
    :param topic: of the camera.
    :param params: the node's parameter file.
    :param labels: folder of label PNGs.
    :param expect: an expectation file.
    """

    bag: str
    tags: tuple[str, ...] = ()
    topic: str | None = None
    params: str | None = None
    labels: str | None = None
    expect: str | None = None

    def __post_init__(self) -> None:
        """Check what the types do not say."""
        for name in ('bag', 'topic', 'params', 'labels', 'expect'):
            if getattr(self, name) == '':
                raise ValueError(f'{name}: expected a text that is not empty')
        if not all(self.tags) or len(set(self.tags)) < len(self.tags):
            raise ValueError(f'tags: expected names, each once, got {list(self.tags)}')


@dataclass(frozen=True)
class _Content:
    drives: tuple[Entry, ...]


class Listed(NamedTuple):
    """
    A bag of a manifest.

    ``name`` is unique in the manifest and stays the same wherever that lies; ``files`` are the
    bag's, resolved.
    """

    name: str
    bag: Path
    files: tuple[Path, ...]
    tags: tuple[str, ...]
    topic: str | None
    params: Path | None
    labels: Path | None
    expect: Path | None


def read(path: Path, one_label_folder: bool = True) -> list[Listed]:
    """
    Read a manifest, and see that all that it names is there; no bag is opened.

    :param one_label_folder: a folder of labels belongs to a single bag.
    :return: the bags in the order of the entries, those of a glob in the order of their names.
    :raises OSError: if the manifest cannot be opened.
    :raises ValueError: if it has an unknown key or a value of another type, or names what is not
        there, or the same drive twice; says path and entry.
    """
    content = read_mapping(path)
    try:
        entries = _Content(**fields_of(content, _Content)).drives
        if not entries:
            raise ValueError('drives: expected at least one, got none')
        listed: list[Listed] = []
        seen: dict[object, int] = {}
        for i, entry in enumerate(entries):
            try:
                found = list(_listed(entry, path.parent))
            except (OSError, ValueError) as error:
                raise ValueError(f'drives[{i}]: {error}') from error
            if entry.labels is not None and one_label_folder and len(found) > 1:
                raise ValueError(
                    f'drives[{i}].labels: expected a single bag (--labels-by order), '
                    f'{entry.bag} matches {len(found)}'
                )
            for drive in found:
                what = drive.files, drive.topic, drive.params
                if (first := seen.setdefault(what, i)) != i:
                    raise ValueError(
                        f'drives[{i}]: {drive.bag} is in drives[{first}] already, with the same '
                        'topic and params'
                    )
            if len({drive.files for drive in found}) < len(found):
                raise ValueError(
                    f'drives[{i}].bag: {entry.bag} matches a bag and the folder that it is in'
                )
            listed += found
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error
    return listed


def _listed(entry: Entry, base: Path) -> Iterator[Listed]:
    params, labels, expect = (
        None if text is None else base / text
        for text in (entry.params, entry.labels, entry.expect)
    )
    for name, file in (('params', params), ('expect', expect)):
        if file is not None and not file.is_file():
            raise ValueError(f'{name}: expected a file at {file}, {_found(file)}')
    if labels is not None and not labels.is_dir():
        raise ValueError(f'labels: expected a folder at {labels}, {_found(labels)}')
    chosen = ''.join(
        f' {name}={text}'
        for name, text in (('topic', entry.topic), ('params', entry.params))
        if text is not None
    )
    for text in _matches(entry.bag, base):
        bag = base / text
        files = tuple(file.resolve() for file in files_of(bag))
        yield Listed(
            f'{Path(text)}{chosen}', bag, files, entry.tags, entry.topic, params, labels, expect
        )


def _matches(text: str, base: Path) -> Sequence[str]:
    """Give the path, or what a glob matches."""
    if (base / text).exists() or not any(each in text for each in _MAGIC):
        return [text]
    found = sorted(glob.glob(text, root_dir=base, recursive=True))
    if not found:
        raise ValueError(f'bag: expected bags at {base / text}, the glob matches nothing')
    return found


def files_of(bag: Path) -> list[Path]:
    """
    List the files that hold a bag's messages, by their names alone.

    :raises ValueError: if it is no bag.
    """
    expected = f'bag: expected a folder, .mcap or .db3 file at {bag}'
    if bag.is_dir():
        files = stored_in(bag)
        if not files:
            raise ValueError(f'{expected}, found a folder without recordings')
        return files
    if not bag.is_file():
        raise ValueError(f'{expected}, {_found(bag)}')
    if not is_stored(bag):
        raise ValueError(f'{expected}, found another file')
    return [bag]


def state_of(bag: Path) -> list[tuple[str, int, int]]:
    """
    Give name, size in bytes and time of change in nanoseconds of a bag's files.

    :raises OSError: if one is gone.
    :raises ValueError: if it is no bag.
    """
    files = files_of(bag)
    metadata = bag / METADATA
    beside = [f.with_name(f'{f.name}-wal') for f in files if f.suffix == '.db3']  # of SQLite
    more = [file for file in (metadata, *beside) if file.is_file()]
    return state([*files, *more])


def state(files: Sequence[Path]) -> list[tuple[str, int, int]]:
    """Give name, size in bytes and time of change in nanoseconds of files."""
    stats = [(file.name, file.stat()) for file in files]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


def _found(path: Path) -> str:
    if path.is_dir():
        return 'found a folder'
    return 'found something else' if path.exists() else 'found nothing'
