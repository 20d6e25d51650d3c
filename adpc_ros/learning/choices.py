# SPDX-License-Identifier: Apache-2.0
"""What a description of data chooses of them, by the names of their images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from adpc_ros.image_files import SUFFIXES


def parts_of(description: str) -> tuple[str, list[str]]:
    """Give what stands before the ``?`` of a description, and the parts of what comes after."""
    place, _, choice = description.partition('?')
    return place, [part for part in choice.split('&') if part]


def chosen_images(part: str, images: Sequence[Path]) -> Callable[[Path], bool] | None:
    """
    Give what says of an image's path whether it is chosen.

    :param part: ``drives=A,B`` (names that begin so), ``without=A,B`` (all but these) or
        ``list=FILE`` (one name a line).
    :param images: that there are.
    :return: None for a part of another form.
    :raises ValueError: if a name is of none of the images, or the list cannot be read.
    """
    key, _, value = part.partition('=')
    if key in ('drives', 'without') and value.strip(','):
        return _beginning(value, images, part, key == 'drives')
    if key == 'list' and value:
        return _listed(Path(value), images)
    return None


def _beginning(
    value: str, images: Sequence[Path], part: str, wanted: bool
) -> Callable[[Path], bool]:
    """Choose the images whose names begin so (``wanted``), or all others."""
    prefixes = tuple(filter(None, value.split(',')))
    names = [image.stem for image in images]
    for prefix in prefixes:
        if not any(name.startswith(prefix) for name in names):
            raise ValueError(
                f'{part}: none of {len(names)} images begins with {prefix}, '
                f'the first is {names[0]}'
            )
    return lambda image: image.stem.startswith(prefixes) == wanted


def _listed(path: Path, images: Sequence[Path]) -> Callable[[Path], bool]:
    """
    Choose the images that a file lists, one a line.

    By name, with or without its ending and folder; other names may follow on the line, as those of
    the labels do in SegNet's lists.
    """
    try:
        lines = path.read_text('utf-8-sig').splitlines()
    except OSError as error:
        raise ValueError(f'cannot read the list {path}: {error.strerror}') from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f'cannot read the list {path}: expected text in UTF-8: {error}'
        ) from error
    known = {form: image for image in images for form in (image.name, image.stem)}
    chosen: set[Path] = set()
    missing = []
    for line in filter(None, map(str.strip, lines)):
        found = [_named(name, known) for name in (line, *line.split())]
        names = found[:1] if found[0] else found[1:]
        chosen.update(filter(None, names))
        if not all(names):
            missing.append(line)
    if missing:
        raise ValueError(f'{path}: no image of the name {missing[0]} ({len(missing)} missing)')
    return chosen.__contains__


def _named(name: str, known: Mapping[str, Path]) -> Path | None:
    """Give the image of a name; it may have a folder, and the ending of another kind of image."""
    name = name.replace('\\', '/').rpartition('/')[2]
    stem, _, ending = name.rpartition('.')
    return known.get(name) or (known.get(stem) if f'.{ending.lower()}' in SUFFIXES else None)
