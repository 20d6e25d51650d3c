# SPDX-License-Identifier: Apache-2.0
"""The class file of a data set, ``classes.yaml``, as docs/data.md describes it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from adpc_ros.label_table import MAX_ID, LabelTable, LabelValues
from adpc_ros.labels import ClassSet, Colour, spread_colours
from adpc_ros.yaml_file import read_mapping, typed

_KEYS = ('name', 'names', 'colours', 'vulnerable', 'values', 'unlabelled')


def find_class_file(root: Path) -> Path | None:
    """Give the class file of a data set: ``classes.yaml`` in its folder, or else beside it."""
    places = (root / 'classes.yaml', root.parent / 'classes.yaml')
    return next((place for place in places if place.exists()), None)


def table_for(classes: ClassSet, root: Path, values: LabelValues | None = None) -> LabelTable:
    """
    Give how labels in or below a folder say the classes of a network: by its class file, if any.

    :param values: of the labels if there is none; see :class:`LabelTable`.
    :raises ValueError: if there is one of other classes, or a broken one.
    """
    path = find_class_file(root)
    table = LabelTable(classes, values) if path is None else read_classes(path)
    if table.classes != classes:
        raise ValueError(
            f'{path}: expected the classes of {classes.name}, got those of {table.classes.name}'
        )
    return table


def read_classes(path: Path) -> LabelTable:
    """
    Read a class file.

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
        if not isinstance(given, list):
            raise ValueError(f'names: expected a list, or ids and names, got {given!r}')
        ids = list(range(len(given)))
    names = typed(given, tuple[str, ...], 'names')
    if not all(name.strip() for name in names):
        raise ValueError('names: expected texts, got an empty one')
    return ids, names


def _colours(given: Any) -> tuple[Colour, ...]:
    if not isinstance(given, list):
        raise ValueError(f'colours: expected a list, in the order of names, got {given!r}')
    return tuple(
        typed(each, tuple[int, int, int], f'colours[{i}]')
        if isinstance(each, list)
        else _colour(each, f'colours[{i}]', "[128, 64, 128] or '#804080'")
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
    if not isinstance(given, str):
        return _id(given, name)
    return _colour(given, name, "ids, or colours as '#804080'")


def _id(given: Any, name: str) -> int:
    value: int = typed(given, int, name)
    if not 0 <= value <= MAX_ID:
        raise ValueError(f'{name}: expected ids in 0..{MAX_ID}, got {value}')
    return value


def _colour(given: Any, name: str, expected: str) -> Colour:
    if not isinstance(given, str) or not re.fullmatch('#[0-9a-fA-F]{6}', given):
        raise ValueError(f'{name}: expected {expected}, got {given!r}')
    code = int(given[1:], 16)
    return code >> 16, code >> 8 & 255, code & 255
