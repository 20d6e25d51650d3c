# SPDX-License-Identifier: Apache-2.0
"""YAML files that people write: read strictly, each value of the type that is expected."""

from __future__ import annotations

import dataclasses
import enum
import math
import re
import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

_FLOAT, _INT = 'tag:yaml.org,2002:float', 'tag:yaml.org,2002:int'
_MAX_LEVELS = 100
_NAMES = {bool: 'true or false', int: 'a whole number', float: 'a finite number', str: 'a text'}


class LevelLoader(yaml.SafeLoader):
    """Refuses values that are nested so deep that Python's stack might not hold them."""

    def __init__(self, stream: Any) -> None:
        """Begin at the top."""
        super().__init__(stream)
        self._level = 0

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        """Compose a node with all that is in it."""
        self._level += 1
        if self._level > _MAX_LEVELS:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            problem = f'at most {_MAX_LEVELS} levels are taken, got more'
            raise yaml.composer.ComposerError(None, None, problem, mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._level -= 1
        return node


class _Loader(LevelLoader):
    """YAML 1.1 without numbers of base 60, with YAML 1.2's 1e-3 as a number; no key twice."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in (_FLOAT, _INT)]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                continue  # refused as the mapping is built
            merges = key_node.tag == 'tag:yaml.org,2002:merge'
            key = key_node.value if merges else self.construct_object(key_node)
            if key in keys:
                raise yaml.constructor.ConstructorError(
                    None, None, f'the key {key!r} is there twice', key_node.start_mark
                )
            keys.add(key)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except yaml.YAMLError:
            raise
        except Exception as error:  # a scalar's constructor may raise anything
            kind = node.tag.rpartition(':')[2]
            why = f': {error}' if isinstance(error, ValueError) else ''
            problem = f'{node.value!r:.80} is no {kind}{why}'
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None


_Loader.add_implicit_resolver(
    _INT,
    re.compile(r'^[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*)$'),
    list('-+0123456789'),
)
_Loader.add_implicit_resolver(
    _FLOAT,
    re.compile(
        r'^(?:[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?'
        r'|[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$'
    ),
    list('-+0123456789.'),
)


def read_yaml(path: str | Path) -> Any:
    """
    Read a YAML file in UTF-8, with a byte order mark or without, or in UTF-16 with one.

    Numbers may have an exponent without a point (1e-3), as in YAML 1.2.

    :return: what it holds, as dicts, lists and scalars; None for an empty file.
    :raises OSError: if it cannot be opened.
    :raises ValueError: if it is a folder, is not YAML, is in another encoding, is nested too deep,
        or has a key twice in a mapping; says path and line.
    """
    data = read_data(path)
    try:
        return yaml.load(data, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(f'{path}: {described(error, data)}') from error


def read_data(path: str | Path) -> bytes:
    """
    Read the bytes of a file.

    :raises OSError: if it cannot be opened.
    :raises ValueError: if it is a folder.
    """
    if Path(path).is_dir():
        raise ValueError(f'{path}: expected a file, got a folder')
    return Path(path).read_bytes()


def described(error: yaml.YAMLError, data: bytes) -> str:
    """
    Say in one line what is wrong with YAML, and in which line of it.

    :param data: what was read.
    """
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        place = '' if mark is None else f'line {mark.line + 1}: '
        problem = ', '.join(filter(None, (error.context, error.problem)))
    elif isinstance(error, yaml.reader.ReaderError):  # of bytes, or of the text they stand for
        text = error.encoding == 'unicode'
        before = (data.decode('utf-8', 'replace') if text else data)[: error.position]
        place = f'line {len(before.splitlines()) or 1}: '
        problem = str(error).splitlines()[0]
    else:
        place, problem = '', str(error)
    return f'{place}expected YAML in UTF-8: {" ".join(problem.split())}'


def read_mapping(path: str | Path) -> dict[str, Any]:
    """
    Read a YAML file that holds keys, which are texts, and values.

    :raises OSError: if it cannot be opened.
    :raises ValueError: if it is anything else, or as :func:`read_yaml`.
    """
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise ValueError(f'{path}: expected keys and values, got {_shown(values)}')
    for key in values:
        if not isinstance(key, str):
            raise ValueError(f'{path}: expected texts as keys, got {_shown(key)}')
    return values


def typed(value: Any, kind: Any, name: str) -> Any:
    """
    Check a value from YAML against a type, and give it in that type.

    A whole number is also a finite number; nothing else is converted: no text is a number, and no
    true or false, either.

    :param kind: bool, int, float, str, an enum of texts, ``dict[str, T]``, ``tuple[T, ...]`` or
        ``tuple[T, T]`` (a list in YAML), a dataclass, a union of these with None, or Any.
    :param name: of the value, for the message.
    :raises ValueError: if it is of another type, or a number is not finite; says name and value.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        (inner,) = (each for each in arguments if each is not type(None))
        return None if value is None else typed(value, inner, name)
    if origin is tuple:
        return _items(value, arguments, name)
    if origin is dict:
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            return {key: typed(each, arguments[1], f'{name}.{key}') for key, each in value.items()}
        raise ValueError(f'{name}: expected keys and values, got {_shown(value)}')
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        given = fields_of(value, kind, name)
        try:
            return kind(**given)
        except ValueError as error:
            raise ValueError(f'{name}: {error}') from error
    if issubclass(kind, enum.Enum):
        if value in [each.value for each in kind]:
            return kind(value)
        known = ', '.join(str(each.value) for each in kind)
        raise ValueError(f'{name}: expected one of {known}, got {_shown(value)}')
    if kind is float and type(value) is int:
        value = float(value) if abs(value) < sys.float_info.max else math.inf
    if type(value) is not kind or (kind is float and not math.isfinite(value)):
        raise ValueError(f'{name}: expected {_NAMES[kind]}, got {_shown(value)}')
    return value


def fields_of(values: Any, cls: Any, name: str = '') -> dict[str, Any]:
    """
    Check keys and values from YAML against the fields of a dataclass, see :func:`typed`.

    :param cls: the dataclass; its field types name what each value must be.
    :param name: of the values, for messages; empty for those of a whole file.
    :return: the fields that were given, for ``cls``, which checks their ranges itself.
    :raises ValueError: for unknown or missing keys, and values of another type.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f'{name}: expected keys and values, got {_shown(values)}')
    place = f'{name}: ' if name else ''
    fields = {field.name: field for field in dataclasses.fields(cls)}
    if unknown := values.keys() - fields.keys():
        raise ValueError(
            f'{place}unknown keys {sorted(map(str, unknown))}: expected {sorted(fields)}'
        )
    required = {k for k, f in fields.items() if f.default is dataclasses.MISSING}
    if missing := required - values.keys():
        raise ValueError(
            f'{place}missing keys {sorted(missing)}: expected {sorted(required)}, '
            f'got {sorted(values)}'
        )
    kinds = typing.get_type_hints(cls)
    prefix = f'{name}.' if name else ''
    return {key: typed(value, kinds[key], prefix + key) for key, value in values.items()}


def _items(value: Any, kinds: tuple[Any, ...], name: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise ValueError(f'{name}: expected a list, got {_shown(value)}')
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(value)
    if len(value) != len(kinds):
        raise ValueError(f'{name}: expected {len(kinds)} values, got {_shown(value)}')
    return tuple(
        typed(each, kind, f'{name}[{i}]') for i, (each, kind) in enumerate(zip(value, kinds))
    )


def _shown(value: Any) -> str:
    """Write a value as YAML has it, with its type where one could be taken for another."""
    if value is None:
        return 'null'
    if isinstance(value, bool):
        return f'{str(value).lower()} (unquoted yes, no, on and off mean that, too)'
    return f'the text {value!r}' if isinstance(value, str) else repr(value)
