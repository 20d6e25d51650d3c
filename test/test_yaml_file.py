# SPDX-License-Identifier: Apache-2.0
"""YAML files: numbers are numbers, nothing is there twice, and what is wrong is named."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Any

import pytest

from adpc_ros.yaml_file import read_mapping, read_yaml, typed


class Fruit(str, enum.Enum):
    APPLE = 'apple'


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / 'file.yaml'
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ('1e-3', 0.001),
        ('-2E+4', -20000.0),
        ('+.5e1', 5.0),
        ('1.e3', 1000.0),
        ('1.5', 1.5),
        ('12', 12),
        ('-0x1f', -31),
        ('010', 8),
        ('1_000', 1000),
        ("'1e-3'", '1e-3'),
        ('1e', '1e'),
        ('e5', 'e5'),
        ('190:20:30', '190:20:30'),  # base 60 in YAML 1.1
        ('1:30.5', '1:30.5'),
        ('yes', True),
        ('~', None),
        ('-.inf', float('-inf')),
    ],
)
def test_numbers_are_those_that_people_mean(tmp_path: Path, text: str, value: object) -> None:
    found = read_yaml(write(tmp_path, f'key: {text}'))['key']
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16'])
def test_a_file_may_be_in_any_encoding_that_yaml_allows(tmp_path: Path, encoding: str) -> None:
    assert read_mapping(write(tmp_path, 'name: Straße\r\n'.encode(encoding))) == {'name': 'Straße'}


def test_merged_keys_are_overridden_and_not_there_twice(tmp_path: Path) -> None:
    text = 'a: &a {x: 1, y: 1}\nb: &b {<<: *a, x: 2}\nc: {<<: *b, y: 3}\n'
    assert read_yaml(write(tmp_path, text))['c'] == {'x': 2, 'y': 3}


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('a: 1\nb: 2\na: 3\n', "line 3: expected YAML in UTF-8: the key 'a' is there twice"),
        ('a:\n  0x1: 1\n  1: 2\n', 'line 3: expected YAML .*the key 1 is there twice'),
        ('a:\n- [1\n', "line 3: expected YAML .*while parsing a flow sequence, expected ','"),
        ('a: 1\nb: Straße'.encode('latin-1'), 'line 2: .* unacceptable character #x00df'),
        ('a: ßß\nb: \0', 'line 2: expected YAML in UTF-8: unacceptable character #x0000'),
        (b'\x89PNG\r\n\x1a\n\0\0', 'line 1: expected YAML in UTF-8: '),
        ('a:\n  2024-13-45', "line 2: .* '2024-13-45' is no timestamp: month must be in 1..12$"),
        ('a: !!int x', "line 1: expected YAML in UTF-8: 'x' is no int"),
        ('a: !!bool perhaps', "line 1: expected YAML in UTF-8: 'perhaps' is no bool$"),
        ('a: ' + '[' * 5000, 'line 1: expected YAML in UTF-8: at most 100 levels are taken'),
        ('{a: ' * 5000 + '}' * 5000, 'line 1: .* at most 100 levels are taken, got more'),
        ('- 1', r'expected keys and values, got \[1\]'),
        ('', 'expected keys and values, got null'),
        ('on: 1', 'expected texts as keys, got true'),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_is_wrong_is_said_with_the_path(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    path = write(tmp_path, content)
    with pytest.raises(ValueError, match=f'^{path}: {message}') as caught:
        read_mapping(path)
    assert '\n' not in str(caught.value)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f'^{tmp_path}: expected a file, got a folder$'):
        read_yaml(tmp_path)


def test_a_hundred_levels_are_read(tmp_path: Path) -> None:
    found = read_yaml(write(tmp_path, '[' * 99 + '7' + ']' * 99))
    for _ in range(99):
        (found,) = found
    assert found == 7


@pytest.mark.parametrize(
    ('value', 'kind', 'result'),
    [
        (3, float, 3.0),
        ([1, 2.5], tuple[float, float], (1.0, 2.5)),
        ([], tuple[int, ...], ()),
        (None, float | None, None),
        ('apple', Fruit, Fruit.APPLE),
        ({'a': 1}, dict[str, float], {'a': 1.0}),
        ({'a': [None]}, dict[str, Any], {'a': [None]}),
    ],
)
def test_a_value_comes_in_its_type(value: object, kind: Any, result: object) -> None:
    found = typed(value, kind, 'key')
    assert found == result and type(found) is type(result)


@pytest.mark.parametrize(
    ('value', 'kind', 'message'),
    [
        ('1e-3', float, "key: expected a finite number, got the text '1e-3'"),
        (True, float, 'key: expected a finite number, got true'),
        (float('nan'), float, 'key: expected a finite number, got nan'),
        (float('-inf'), float | None, 'key: expected a finite number, got -inf'),
        (None, int, 'key: expected a whole number, got null'),
        (3.0, int, r'key: expected a whole number, got 3\.0'),
        (False, int, 'key: expected a whole number, got false'),
        (1, bool, 'key: expected true or false, got 1'),
        (1, str, 'key: expected a text, got 1'),
        ('12', tuple[int, int], "key: expected a list, got the text '12'"),
        ([1], tuple[int, int], r'key: expected 2 values, got \[1\]'),
        ([1, 'b'], tuple[int, ...], r"key\[1\]: expected a whole number, got the text 'b'"),
        ({1: 2}, dict[str, int], r'key: expected keys and values, got \{1: 2\}'),
        ({'a': 'b'}, dict[str, int], r"key\.a: expected a whole number, got the text 'b'"),
        ('pear', Fruit, "key: expected one of apple, got the text 'pear'"),
        ([], Fruit, r'key: expected one of apple, got \[\]'),
    ],
)
def test_a_value_of_another_type_is_refused_by_name(value: Any, kind: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        typed(value, kind, 'key')
