# SPDX-License-Identifier: Apache-2.0
"""Parameters as fields of a dataclass: type, default, range and meaning, and their checks."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

LIVE = 'live: a change counts from the next frame on'
AT_CONFIGURE = 'read when the node is configured'
QOS_OVERRIDES = 'qos_overrides.'
#: Parameters that every node of rclpy has, beside those that override a quality of service.
OF_EVERY_NODE = frozenset({'use_sim_time', 'start_type_description_service'})
_TYPES = {bool: 'true or false', int: 'an integer', float: 'a number with a point', str: 'a text'}
_LISTS = {int: 'a list of integers', float: 'a list of numbers with a point'}


def field(
    default: Any,
    meaning: str,
    low: float | None = None,
    high: float | None = None,
    *,
    choices: tuple[Any, ...] = (),
    pattern: tuple[str, str] | None = None,
    items: type | None = None,
    live: bool = False,
) -> Any:
    """
    Describe a parameter, as a field of a dataclass.

    :param default: of the parameter's type; an empty tuple for a list.
    :param low: least value, in the parameter's own unit; None for any.
    :param high: greatest value, likewise.
    :param choices: all that it may be; empty for any.
    :param pattern: what a text must match as a whole, and how that is said; None for any.
    :param items: type of a list's items, int or float.
    :param live: whether it can be changed while the node is configured.
    """
    metadata = {
        'meaning': meaning,
        'low': low,
        'high': high,
        'choices': choices,
        'pattern': pattern,
        'items': items,
        'live': live,
    }
    return dataclasses.field(default=default, metadata=metadata)


def check(parameters: DataclassInstance) -> None:
    """
    Check the values of parameters, each by itself.

    :raises ValueError: for one that is out of range, or none of the choices.
    """
    for each in dataclasses.fields(parameters):
        _check_range(each, getattr(parameters, each.name))


def typed(kind: type[DataclassInstance], values: Mapping[str, Any]) -> dict[str, Any]:
    """
    Check values that came from outside, each by itself, as a node of rclpy does.

    No type is converted: an integer is no number with a point.

    :param kind: the dataclass that describes them; names that it does not have are left out.
    :param values: by name; lists as any sequence, None for an empty one (of no type).
    :return: the values by name, lists as tuples.
    :raises ValueError: for a wrong type, or as :func:`check`; says name, expected and got.
    """
    found = {}
    for each in dataclasses.fields(kind):
        if each.name in values:
            value = found[each.name] = _typed(each, values[each.name])
            _check_range(each, value)
    return found


def _typed(each: dataclasses.Field[Any], value: Any) -> Any:
    items = each.metadata['items']
    if items is not None:
        as_list = () if value is None else value
        if isinstance(as_list, (str, bytes, bool, int, float)) or not all(
            type(item) is items for item in as_list
        ):
            shown = value if isinstance(value, (str, bool, int, float)) else list(as_list)
            raise ValueError(f'{each.name}: expected {_LISTS[items]}, got {shown!r}')
        return tuple(as_list)
    expected = type(each.default)
    if type(value) is not expected:
        example = f', as {float(value)}' if (expected, type(value)) == (float, int) else ''
        shown = 'no value' if value is None else repr(value)
        raise ValueError(f'{each.name}: expected {_TYPES[expected]}{example}, got {shown}')
    return value


def _check_range(each: dataclasses.Field[Any], value: Any) -> None:
    low, high, choices = (each.metadata[key] for key in ('low', 'high', 'choices'))
    if low is not None and not low <= value <= high:
        raise ValueError(f'{each.name}: expected {low} to {high}, got {value}')
    if choices and value not in choices:
        raise ValueError(f'{each.name}: expected one of {listed(choices)}, got {value!r}')
    if pattern := each.metadata['pattern']:
        expression, expected = pattern
        if not re.fullmatch(expression, value):
            raise ValueError(f'{each.name}: expected {expected}, got {value!r}')


def unknown(names: Iterable[str], known: Collection[str]) -> list[str]:
    """Give one line for each unknown name, with the nearest known one."""
    lines = []
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            lines.append(
                f'{name}: no parameter of this node' + (f'; is {near[0]} meant?' if near else '')
            )
    return lines


def listed(choices: Iterable[Any]) -> str:
    """Give the choices in a line."""
    return ', '.join(str(choice) for choice in choices)
