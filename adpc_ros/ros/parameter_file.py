# SPDX-License-Identifier: Apache-2.0
"""
Parameter files of ROS 2, read as a node reads them; without ROS.

A node reads a file through rcl_yaml_param_parser, which differs from YAML (``yes`` is true, 010 is
8, a null is the text "null"), and then chooses sections by its name.
Source: https://github.com/ros2/rcl/tree/jazzy/rcl_yaml_param_parser (parse.c)
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from adpc_ros.yaml_file import LevelLoader, described, read_data

_KEY = 'ros__parameters'
_TRUE = {'Y', 'y', 'yes', 'Yes', 'YES', 'true', 'True', 'TRUE', 'on', 'On', 'ON'}
_FALSE = {'N', 'n', 'no', 'No', 'NO', 'false', 'False', 'FALSE', 'off', 'Off', 'OFF'}
_INT = re.compile(r'[-+]?(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)')
_FLOAT = re.compile(r'[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?')
_HEX_FLOAT = re.compile(r'[-+]?0[xX][0-9a-fA-F]+(\.[0-9a-fA-F]*)?([pP][-+]?[0-9]+)?')
_NO_NUMBER = re.compile(r'[-+]?(inf|infinity|nan)', re.IGNORECASE)
_NO_NUMBER_OF_YAML = re.compile(r'[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)')
_NODE = re.compile(r'/?((\*\*?|[A-Za-z_]\w*)/)*(\*\*?|[A-Za-z_]\w*)', re.ASCII)
_INT64 = range(-(2**63), 2**63)
_TEXT = 'tag:yaml.org,2002:str'


class _Loader(LevelLoader):
    """Composes scalars without a tag as they are, and resolves no type."""

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> Any:
        return '' if kind is yaml.ScalarNode else super().resolve(kind, value, implicit)


class ParameterFile(NamedTuple):
    """
    What a parameter file holds.

    ``sections`` are parameters by the name of the node as it is written (``/**``, ``adpc``,
    ``/front/adpc``), in file order. A parameter is a bool, int, float, str or a list of one of
    these; an empty list has no type. ``repeated`` are keys that a mapping holds twice; an
    ``empty`` file holds nothing, or comments alone.
    """

    path: Path
    sections: dict[str, dict[str, Any]]
    repeated: tuple[str, ...]
    empty: bool = False

    def of(self, node: str) -> dict[str, Any] | None:
        """
        Give the parameters of a node; those of later sections override earlier ones.

        :param node: its absolute name, as ``/front/adpc``.
        :return: by name, nested names joined with points; None if no section is the node's.
        """
        found = [values for name, values in self.sections.items() if _matches(name, node)]
        return {k: v for values in found for k, v in values.items()} if found else None

    def complaints(self, node: str) -> list[str]:
        """List what to warn a node of, one line each: no section for it, repeated keys."""
        lines = [
            f'{self.path}: {name} is there twice: the last one counts' for name in self.repeated
        ]
        if self.empty:
            lines.append(f'{self.path} is empty: expected parameters for {node}')
        elif not any(_matches(name, node) for name in self.sections):
            others = f'only for {", ".join(self.sections)}' if self.sections else 'nor for another'
            lines.append(f'{self.path} has no parameters for {node}, {others}')
        return lines


def read(path: str | Path) -> ParameterFile:
    """
    Read a parameter file.

    :raises OSError: if it cannot be opened.
    :raises ValueError: if a node could not read it, either, or it is nested too deep; says path
        and line.
    """
    data = read_data(path)
    try:
        for event in yaml.parse(data, yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise _error(event, 'a value', f'the alias *{event.anchor}')
        documents = list(yaml.compose_all(data, _Loader))
    except yaml.YAMLError as error:
        raise ValueError(f'{path}: {described(error, data)}') from error
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from None
    sections: dict[str, dict[str, Any]] = {}
    repeated: list[str] = []
    try:
        for document in documents:
            if isinstance(document, yaml.SequenceNode):
                raise _error(document, 'names of nodes', 'a list')
            if isinstance(document, yaml.MappingNode):
                _add_sections(document, '', sections, repeated)
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from None
    return ParameterFile(Path(path), sections, tuple(repeated), not documents)


def _matches(name: str, node: str) -> bool:
    """Tell whether a section is a node's: ``/*`` is one part of a name, ``/**`` any number."""
    absolute = name if name.startswith('/') else f'/{name}'
    return bool(re.fullmatch(absolute.replace('/*', r'(/\w+)'), node, re.ASCII))


def _add_sections(
    mapping: yaml.MappingNode,
    namespace: str,
    sections: dict[str, dict[str, Any]],
    repeated: list[str],
) -> None:
    for key, value in _items(mapping, repeated, namespace):
        if key.value == _KEY:
            if not namespace:
                raise _error(key, 'the name of a node', _KEY)
            if not _NODE.fullmatch(namespace):
                raise _error(key, 'the name of a node, as /front/adpc or /**', repr(namespace))
            if not isinstance(value, yaml.MappingNode):
                raise _error(value, f'parameters in {_KEY}', _shown(value))
            section = sections.setdefault(namespace, {})
            section.update(_parameters(value, '', repeated))
        elif isinstance(value, yaml.MappingNode):
            inner = f'{namespace}/{key.value}' if namespace else key.value
            _add_sections(value, inner, sections, repeated)
        else:
            raise _error(value, f'{_KEY} in {key.value}', _shown(value))


def _parameters(
    mapping: yaml.MappingNode, prefix: str, repeated: list[str]
) -> Iterator[tuple[str, Any]]:
    for key, value in _items(mapping, repeated, prefix):
        name = f'{prefix}.{key.value}' if prefix else key.value
        if isinstance(value, yaml.MappingNode):
            if not value.value:
                raise _error(value, f'a value of {name}', 'an empty mapping')
            yield from _parameters(value, name, repeated)
        elif isinstance(value, yaml.SequenceNode):
            items = [_scalar(item, name) for item in value.value]
            if len({type(item) for item in items}) > 1:
                raise _error(value, f'{name} to be a list of one type', repr(items))
            yield name, items
        else:
            yield name, _scalar(value, name)


def _items(
    mapping: yaml.MappingNode, repeated: list[str], prefix: str
) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
    seen = set()
    for key, value in mapping.value:
        if not isinstance(key, yaml.ScalarNode) or not key.value:
            raise _error(key, 'a name', _shown(key))
        if key.value in seen:
            repeated.append(f'{prefix}.{key.value}'.lstrip('.'))
        seen.add(key.value)
        yield key, value


def _scalar(node: yaml.Node, name: str) -> bool | int | float | str:
    """Give a value as rcl_yaml_param_parser does."""
    if not isinstance(node, yaml.ScalarNode):
        raise _error(node, f'a value of {name}', _shown(node))
    text: str = node.value
    if node.style in ("'", '"') or node.tag == _TEXT:
        return text
    if not text:
        raise _error(node, f'a value of {name}', 'nothing')
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if match := _INT.fullmatch(text):
        digits = match[1]
        base = 16 if digits[:2] in ('0x', '0X') else 8 if digits[0] == '0' else 10
        if (value := int(text, base)) in _INT64:
            return value
    if _NO_NUMBER_OF_YAML.fullmatch(text):
        return float(text.replace('.', ''))
    if _NO_NUMBER.fullmatch(text):
        return float(text)
    number = None
    if _HEX_FLOAT.fullmatch(text):
        number = float.fromhex(text)
    elif _FLOAT.fullmatch(text):
        number = float(text)
    return number if number is not None and math.isfinite(number) else text


def _shown(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return repr(node.value) if node.value else 'nothing'
    return 'a list' if isinstance(node, yaml.SequenceNode) else 'a mapping'


def _error(at: Any, expected: str, got: str) -> ValueError:
    return ValueError(f'line {at.start_mark.line + 1}: expected {expected}, got {got}')
