# SPDX-License-Identifier: Apache-2.0
"""Parameter files are read as a node reads them: rcl itself is asked what is right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import rclpy
from rclpy.node import Node

from adpc_ros.ros import parameter_file

VALUES = """
/**:
  ros__parameters:
    bools: [Y, yes, on, true, N, no, Off, FALSE]
    ints: [1, +1, -7, 0x10, 0X1f, -0x10, 010, 0, -9223372036854775808]
    floats: [1e-1, 1e3, 1., .5, +.5e+3, 09, 0x1p3, 9223372036854775808, .inf, -.INF, inf, Infinity]
    nan: [.nan, NaN, -nan]
    texts: [null, ~, 0o10, 1_000, 2020-01-01, 0xg, 1f, 1e400, -0b1, Null, tRUE, "1", 'yes']
    tagged: [!!str 1, !!str yes, !!str 1e3]
    other_tags: {a: !!int "3", b: !!float 1, c: !foo 3, d: !!python/tuple [1, 2], e: !!int x}
    sixty: 1:30
    folded: >-
      5
    literal: |
      5
    empty: []
    empty_text: ""
    nested: {a: {b: 1}, 1: 1, true: 2, x y: 3, c.d: {e: [2.5]}}
    twice: 1
    dotted: {a: 1}
    dotted.a: 2
    twice: 2
"""
NAMES = """
/*: {ros__parameters: {one: 1}}
/**: {ros__parameters: {any: 1}}
/**/adpc: {ros__parameters: {any_adpc: 1}}
/*/adpc: {ros__parameters: {one_adpc: 1}}
adpc: {ros__parameters: {bare: 1}}
/adpc: {ros__parameters: {root: 1}}
/**/*: {ros__parameters: {any_one: 1}}
/front/adpc: {ros__parameters: {front: 1}}
front:
  adpc: {ros__parameters: {nested: 1}}
  other: {ros__parameters: {other: 1}}
/front:
  adpc: {ros__parameters: {nested_root: 1}}
  deep:
    adpc: {ros__parameters: {deep: 1}}
/front/**: {ros__parameters: {under_front: 1}}
front/*/adpc: {ros__parameters: {between: 1}}
"**": {ros__parameters: {starred: 1}}
"*/adpc": {ros__parameters: {star_adpc: 1}}
"""
LATER = """
adpc: {ros__parameters: {z: 1, y: 1}}
/**: {ros__parameters: {z: 2, x: 2}}
adpc: {ros__parameters: {z: 3, x: 3}}
---
/adpc: {ros__parameters: {x: 4}}
"""


def taken(path: Path, node: str) -> dict[str, Any]:
    """Give what a node of that name takes from a file; raises RuntimeError if it does not."""
    namespace, _, name = node.rpartition('/')
    context = rclpy.Context()
    rclpy.init(context=context, args=['--ros-args', '--params-file', str(path)])
    try:
        asked = Node(name, namespace=namespace, context=context)
        given = {n: p.value for n, p in asked._parameter_overrides.items()}
        asked.destroy_node()
    finally:
        rclpy.shutdown(context=context)
    return {
        n: [] if v is None else v if isinstance(v, (str, float, int)) else list(v)
        for n, v in given.items()
    }


@pytest.mark.parametrize(
    'text, nodes',
    [
        (VALUES, ['/adpc']),
        (NAMES, ['/adpc', '/front/adpc', '/front/deep/adpc', '/other', '/front/other', '/rear']),
        (LATER, ['/adpc', '/other']),
        ('\ufeff/**: {ros__parameters: {a: 1}}', ['/adpc']),
        ('/**: {ros__parameters: {}}', ['/adpc']),
        *((text, ['/adpc']) for text in ('', '# nothing', '{}', 'text', 'adpc: {}')),
    ],
    ids=['values', 'names', 'later', 'mark', 'none', *'abcde'],
)
def test_a_file_is_read_as_rcl_reads_it(tmp_path: Path, text: str, nodes: list[str]) -> None:
    path = tmp_path / 'given.yaml'
    path.write_text(text)
    file = parameter_file.read(path)
    for node in nodes:
        assert repr(file.of(node) or {}) == repr(taken(path, node))


@pytest.mark.parametrize('encoding', ['utf-16', 'utf-8-sig'])
def test_a_file_may_have_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / 'given.yaml'
    path.write_text('/**: {ros__parameters: {a: ä}}', encoding=encoding)
    assert parameter_file.read(path).of('/adpc') == taken(path, '/adpc') == {'a': 'ä'}


@pytest.mark.parametrize(
    'text, words',
    [
        ('a: 1', 'line 1: expected ros__parameters in a'),
        ('/**:\n', 'expected ros__parameters in /**, got nothing'),
        ('- a', 'line 1: expected names of nodes, got a list'),
        ('/**:\n  ros__parameters:\n', 'line 2: expected parameters in ros__parameters'),
        ('/**: {ros__parameters: [1]}', 'got a list'),
        ('ros__parameters: {a: 1}', 'expected the name of a node'),
        ('ad-pc: {ros__parameters: {a: 1}}', "as /front/adpc or /**, got 'ad-pc'"),
        ('//adpc: {ros__parameters: {a: 1}}', 'expected the name of a node'),
        ('/**:\n  ros__parameters:\n    a:\n    b: 1', '3: expected a value of a, got nothing'),
        ('/**: {ros__parameters: {a: {}, b: 1}}', 'expected a value of a, got an empty mapping'),
        ('/**: {ros__parameters: {a: [1, 2.0]}}', 'expected a to be a list of one type'),
        ('/**: {ros__parameters: {a: &x 1, b: *x}}', 'the alias *x'),
        ('/**: {ros__parameters: {"": 1}}', 'expected a name'),
        ('/**: {ros__parameters: {a: [1}}', 'line 1: expected YAML'),
        ('/**: {ros__parameters:\n{a: \xff}}', 'line 2: expected YAML'),
    ],
)  # fmt: skip
def test_what_rcl_cannot_read_is_an_error_with_path_and_line(
    tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / 'broken.yaml'
    path.write_bytes(text.encode('latin-1'))
    with pytest.raises(RuntimeError):
        taken(path, '/adpc')
    with pytest.raises(ValueError) as caught:
        parameter_file.read(path)
    assert str(caught.value).startswith(f'{path}: ') and words in str(caught.value)
    assert '\n' not in str(caught.value)


def test_a_file_that_says_nothing_to_a_node_or_something_twice_is_complained_of(
    tmp_path: Path,
) -> None:
    path = tmp_path / 'given.yaml'
    path.write_text('/front/adpc: {ros__parameters: {a: {b: 1, b: 2}}}\nrear: {}')
    file = parameter_file.read(path)
    twice = f'{path}: a.b is there twice: the last one counts'
    assert file.complaints('/front/adpc') == [twice]
    assert file.complaints('/adpc') == [
        twice,
        f'{path} has no parameters for /adpc, only for /front/adpc',
    ]
    path.write_text('rear: {}')
    text = f'{path} has no parameters for /adpc, nor for another'
    assert parameter_file.read(path).complaints('/adpc') == [text]
    path.write_text('# /**:\n')
    text = f'{path} is empty: expected parameters for /adpc'
    assert parameter_file.read(path).complaints('/adpc') == [text]


def test_a_folder_or_a_file_of_too_many_levels_is_named(tmp_path: Path) -> None:
    path = tmp_path / 'deep.yaml'
    path.write_text('\n/**: {ros__parameters: ' + '{a: ' * 3000 + '1' + '}' * 3001)
    with pytest.raises(ValueError, match=f'^{path}: line 2: .*at most 100 levels are taken'):
        parameter_file.read(path)
    with pytest.raises(ValueError, match=f'^{tmp_path}: expected a file, got a folder$'):
        parameter_file.read(tmp_path)
