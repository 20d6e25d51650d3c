"""Which class the values of label files mean, as ``classes.yaml`` says it: docs/data.md."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from adpc_ros.image_files import Label, read_label
from adpc_ros.labels import IGNORE_ID, ClassSet, Colour, spread_colours
from adpc_ros.yaml_file import read_mapping, typed

_LOG = logging.getLogger(__name__)

_MOST_ID = 0xFFFF
_MOST_SAID = 16  # unknown values
_UNKNOWN = -1
_KEYS = ('name', 'names', 'colours', 'vulnerable', 'values', 'unlabelled')


class LabelValues(NamedTuple):
    """
    What label files hold: class ids by ``ids`` and by ``colours`` (None: files have no such).

    ``unlabelled`` ids and colours are known and mean no class. With ``red`` the ids are those in
    the red channel of RGB.
    """

    ids: Mapping[int, int] | None
    colours: Iterable[tuple[Colour, int]] | None = None
    unlabelled: frozenset[int | Colour] = frozenset()
    red: bool = False


class LabelTable:
    """A class set, and how label files say it."""

    def __init__(self, classes: ClassSet, values: LabelValues | None = None, source: str = ''):
        """
        Hold both.

        :param values: None where the files hold class ids.
        :param source: of the values, for messages; by default the class set's name.
        """
        self.classes = classes
        self.values = values or LabelValues({i: i for i in range(classes.count)})
        self.source = source or classes.name
        self._ids: NDArray[np.int16] | None = None
        self._colours: NDArray[np.int16] | None = None
        self._said: set[int] = set()

    def read(self, path: Path, size: tuple[int, ...] | None = None) -> NDArray[np.uint8]:
        """
        Read a label file; values that are not known are unlabelled, and a log line says so once.

        :param size: (H, W) that it must have, in pixels; None for any.
        :return: (H, W) uint8 class ids, 255 where unlabelled.
        :raises ValueError: if it cannot be read, has another size, or holds colours where ids are
            expected, or the other way round.
        """
        label = read_label(path)
        height, width = label.values.shape[:2]
        if size is not None and (height, width) != tuple(size[:2]):
            raise ValueError(
                f'{path}: expected the size of its image, {size[1]}x{size[0]}, '
                f'got {width}x{height}'
            )
        codes, table = self._looked_up(label, path)
        found = table[codes]
        unknown = found < 0
        if unknown.any():
            self._say(np.unique(codes[unknown]), path, table is self._colours)
            found[unknown] = IGNORE_ID
        ids: NDArray[np.uint8] = found.astype(np.uint8)
        return ids

    def _looked_up(self, label: Label, path: Path) -> tuple[NDArray[Any], NDArray[np.int16]]:
        """Give what stands at each position, and the class ids of all that can stand there."""
        values, (ids, colours, unlabelled, red) = label.values, self.values
        coloured = values.ndim == 3
        if ids is not None and red == coloured:
            if self._ids is None:
                given = ((value, class_id) for value, class_id in ids.items())
                none = [each for each in unlabelled if isinstance(each, int)]
                self._ids = _table(_MOST_ID + 1, given, [IGNORE_ID, *none])
            return (values[..., 0] if red else values), self._ids
        if coloured and colours is not None:
            if self._colours is None:
                black = {(0, 0, 0)} | {each for each in unlabelled if isinstance(each, tuple)}
                self._colours = _table(1 << 24, self._coded(), map(_code, black))
            wide = values.astype(np.int32)
            return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2], self._colours
        if red:
            expected = 'RGB with ids in the red channel'
        elif ids is None:
            expected = 'the colours of values, in RGB'
        else:
            expected = (
                'ids, grey or of a palette (classes.yaml may say "colours" of RGB, or "values: '
                'red" for ids in its red channel)'
            )
        raise ValueError(f'{path}: expected {expected}, got mode {label.mode} ({self.source})')

    def _coded(self) -> Iterator[tuple[int, int]]:
        seen: dict[Colour, int] = {}
        for colour, class_id in self.values.colours or ():
            if seen.setdefault(colour, class_id) != class_id:
                names = [self.classes.names[each] for each in (seen[colour], class_id)]
                raise ValueError(
                    f'{self.source}: expected a colour for each class to read labels by, got '
                    f'{_hex(_code(colour))} for {" and ".join(names)}'
                )
            yield _code(colour), class_id

    def _say(self, values: NDArray[Any], path: Path, coloured: bool) -> None:
        new = [value for value in values.tolist() if value not in self._said]
        if not new or len(self._said) >= _MOST_SAID:
            return
        self._said.update(new)
        shown = ', '.join(_hex(each) if coloured else str(each) for each in new[:_MOST_SAID])
        _LOG.warning(
            '%s: taken as unlabelled, since %s has no class for %s%s',
            path, self.source, shown, ', ...' if len(new) > _MOST_SAID else '',
        )  # fmt: skip


def _table(
    size: int, known: Iterable[tuple[int, int]], unlabelled: Iterable[int]
) -> NDArray[np.int16]:
    table = np.full(size, _UNKNOWN, np.int16)
    table[list(unlabelled)] = IGNORE_ID
    for code, class_id in known:
        table[code] = class_id
    return table


def _code(colour: Colour) -> int:
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def _hex(code: int) -> str:
    return f'#{code:06x}'


def class_file(root: Path) -> Path | None:
    """Give the class file of a data set: ``classes.yaml`` in its folder, or else beside it."""
    places = (root / 'classes.yaml', root.parent / 'classes.yaml')
    return next((place for place in places if place.exists()), None)


def table_for(classes: ClassSet, root: Path) -> LabelTable:
    """
    Give how labels in or below a folder say the classes of a network: by its class file, if any.

    :raises ValueError: if there is one of other classes, or a broken one.
    """
    path = class_file(root)
    table = LabelTable(classes) if path is None else read_classes(path)
    if table.classes != classes:
        raise ValueError(
            f'{path}: expected the classes of {classes.name}, got those of {table.classes.name}'
        )
    return table


def read_classes(path: Path) -> LabelTable:
    """
    Read a class file; docs/data.md describes it.

    :raises OSError: if it cannot be opened.
    :raises ValueError: if it is not as described; says the file and the key.
    """
    content = read_mapping(path)
    try:
        if unknown := content.keys() - set(_KEYS):
            raise ValueError(f'unknown keys {sorted(unknown)}: expected {", ".join(_KEYS)}')
        if not {'name', 'names'} <= content.keys():
            raise ValueError('expected the keys name and names')
        ids, names = _names(content['names'])
        given = None if content.get('colours') == [] else content.get('colours')
        colours = spread_colours(len(names)) if given is None else _colours(given)
        vulnerable = typed(content.get('vulnerable'), tuple[str, ...] | None, 'vulnerable')
        classes = ClassSet(typed(content['name'], str, 'name'), names, colours, vulnerable or ())
        values = _values(content.get('values'), classes, ids)
        if given is not None and values.ids is not None and values.colours is None:
            values = values._replace(colours=tuple(zip(colours, range(classes.count))))
        none = typed(content.get('unlabelled'), tuple[Any, ...] | None, 'unlabelled') or ()
        values = values._replace(unlabelled=frozenset(_value(v, 'unlabelled') for v in none))
        if both := values.unlabelled & {
            *(values.ids or ()),
            *(c for c, _ in values.colours or ()),
        }:
            raise ValueError(f'unlabelled: {sorted(map(str, both))[0]} is of a class')
        return LabelTable(classes, values, str(path))
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error


def _names(given: Any) -> tuple[list[int], tuple[str, ...]]:
    """Give the label ids of the classes in ascending order, and their names."""
    if isinstance(given, dict):
        ids = sorted(_id(key, 'names') for key in given)
        given = [given[key] for key in ids]
    else:
        ids = list(range(len(given))) if isinstance(given, list) else []
    names = typed(given, tuple[str, ...], 'names')
    if not all(name.strip() for name in names):
        raise ValueError('names: expected texts, got an empty one')
    return ids, names


def _colours(given: Any) -> tuple[Colour, ...]:
    if not isinstance(given, list):
        raise ValueError(f'colours: expected a list, in the order of names, got {given!r}')
    return tuple(
        _colour(each, 'colours')
        if isinstance(each, str)
        else typed(each, tuple[int, int, int], f'colours[{i}]')
        for i, each in enumerate(given)
    )


def _values(given: Any, classes: ClassSet, ids: list[int]) -> LabelValues:
    red = given == 'red' or (isinstance(given, dict) and given.keys() == {'red'})
    if red and isinstance(given, dict):
        given = given['red']
    elif given is None or red:
        return LabelValues(dict(zip(ids, range(classes.count))), red=red)
    if not isinstance(given, dict) or not given:
        raise ValueError(f'values: expected values and class names, or red, got {given!r}')
    if ids != list(range(classes.count)):
        raise ValueError('expected the ids of labels in names or in values, got them in both')
    found: dict[int | Colour, int] = {}
    for key, name in given.items():
        value = _value(key, 'values')
        if value in found:
            raise ValueError(f'values: {key} is there twice')
        found[value] = classes.id_of(typed(name, str, f'values: {key}'))
    by_id = {value: class_id for value, class_id in found.items() if isinstance(value, int)}
    by_colour = [
        (value, class_id) for value, class_id in found.items() if isinstance(value, tuple)
    ]
    if red and by_colour:
        raise ValueError('values: expected ids in red, got colours')
    return LabelValues(by_id or None, by_colour or None, red=red)


def _value(given: Any, name: str) -> int | Colour:
    return _colour(given, name) if isinstance(given, str) else _id(given, name)


def _id(given: Any, name: str) -> int:
    value: int = typed(given, int, name)
    if not 0 <= value <= _MOST_ID:
        raise ValueError(f'{name}: expected ids in 0..{_MOST_ID}, got {value}')
    return value


def _colour(given: str, name: str) -> Colour:
    if not re.fullmatch('#[0-9a-fA-F]{6}', given):
        raise ValueError(f"{name}: expected ids, or colours as '#804080', got {given!r}")
    code = int(given[1:], 16)
    return code >> 16, code >> 8 & 255, code & 255
