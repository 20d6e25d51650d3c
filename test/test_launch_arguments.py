# SPDX-License-Identifier: Apache-2.0
"""What is wrong with an argument of a launch file is one line that names it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from adpc_ros.ros import launch_arguments as given
from adpc_ros.ros.label_points_parameters import LabelPointsParameters
from adpc_ros.ros.parameter_fields import typed
from adpc_ros.ros.parameters import Parameters

KINDS = (Parameters, LabelPointsParameters)
FIELDS = [(kind, each) for kind in KINDS for each in dataclasses.fields(kind)]


def wrong_text(each: dataclasses.Field) -> str | None:
    """Give a text that is no value of a parameter; None where every text is one."""
    if each.metadata['items'] is not None or not isinstance(each.default, str):
        return 'two'
    return 'gpu' if each.metadata['choices'] or each.metadata['pattern'] else None


def beyond(each: dataclasses.Field) -> str | None:
    """Give a text of the right type, out of range; None where there is no range."""
    if each.metadata['high'] is None:
        return None
    return str(type(each.default)(each.metadata['high'] + 1))


@pytest.mark.parametrize('kind, each', FIELDS, ids=lambda value: getattr(value, 'name', ''))
def test_a_wrong_text_of_a_parameter_names_it_what_was_expected_and_what_came(
    kind: type, each: dataclasses.Field
) -> None:
    for text in filter(None, (wrong_text(each), beyond(each))):
        with pytest.raises(ValueError) as error:
            given.parameters(kind, {each.name: text})
        message = str(error.value)
        assert message.startswith(f'{each.name}: expected ') and '\n' not in message
        assert f'got {text}' in message or f'got {text!r}' in message


@pytest.mark.parametrize('kind, each', FIELDS, ids=lambda value: getattr(value, 'name', ''))
def test_a_wrong_type_of_a_parameter_names_it_likewise(
    kind: type, each: dataclasses.Field
) -> None:
    wrong = [{}, b'x'] if isinstance(each.default, str) else ['two', None, b'x']
    if isinstance(each.default, tuple):
        wrong = ['two', 1, True, ['two']]
    for value in wrong:
        with pytest.raises(ValueError, match=f'^{each.name}: expected .*, got '):
            typed(kind, {each.name: value})


@pytest.mark.parametrize(
    'kind, name, text, value',
    [
        (Parameters, 'cores', '0,2', [0, 2]),
        (Parameters, 'cores', '[0, 2]', [0, 2]),
        (Parameters, 'threads', '3', 3),
        (Parameters, 'device', 'cuda:1', 'cuda:1'),
        (Parameters, 'weights', '7', '7'),
        (Parameters, 'compressed_input', 'true', True),
        (LabelPointsParameters, 'extrinsics', '1 2 3.5, 0 0 0 1', [1.0, 2.0, 3.5, 0, 0, 0, 1]),
    ],
)
def test_a_right_text_becomes_the_value(kind: type, name: str, text: str, value: object) -> None:
    assert given.parameters(kind, {name: text}) == {name: value}
    assert given.parameters(kind, {name: ''}) == {}, 'as in the file'


def test_a_pose_that_is_none_is_said() -> None:
    with pytest.raises(ValueError, match='^extrinsics: expected x y z qx qy qz qw, got 3 num'):
        given.parameters(LabelPointsParameters, {'extrinsics': '1 2 3'})


@pytest.mark.parametrize(
    'name, text, expected',
    [
        ('namespace', 'a b', 'a namespace'),
        ('name', '1x', "a node's name"),
        ('output_mask', '/a b', 'a topic'),
        ('input_image', '', 'a topic'),
        ('input_image', '/a//b', 'a topic'),
        ('input_urgency', '~x', 'a topic'),
        ('output_status', '{node}/status', 'a topic'),
    ],
)
def test_a_name_that_ros_does_not_take_is_said(name: str, text: str, expected: str) -> None:
    given.check_names({name: '/front/adpc' if name != 'name' else 'adpc'}, given.TOPICS)
    with pytest.raises(ValueError, match=f'^{name}: expected {expected}.*, got {text!r}: '):
        given.check_names({name: text}, given.TOPICS)


@pytest.mark.parametrize('text', ['0', '-1', 'fast', 'nan', 'inf'])
def test_a_rate_is_above_0(text: str) -> None:
    with pytest.raises(ValueError, match=f"^rate: expected a number above 0, got '{text}'"):
        given.check_positive({'rate': text}, ['rate'])


def test_files_are_read_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="params_file: expected a file, got '/nowhere'"):
        given.parameter_file_of({'params_file': '/nowhere'})
    path = tmp_path / 'broken.yaml'
    path.write_text('/**:\n  ros__parameters:\n    threads: [1\n')
    with pytest.raises(ValueError, match=rf'^params_file: {path}: line ') as error:
        given.parameter_file_of({'params_file': str(path)})
    assert '\n' not in str(error.value)


def test_former_names_are_taken_with_a_warning_and_misspelt_ones_are_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    declared = {name: what[0] for name, what in given.NODE.items()}
    configurations = declared | {'mask': '/m', 'urgency': '/u', 'delay_s': '2'}
    former = given.FORMER | {'delay_s': ''}
    argv = ['mask:=/m', 'treads:=2', 'max_exits:=3', 'front_cores:=1']
    values, lines = given.taken(configurations, given.NODE, former, argv)
    assert (values['output_mask'], values['input_urgency']) == ('/m', '/u')
    assert not {'mask', 'urgency', 'delay_s'} & configurations.keys()
    assert lines == [
        'urgency:=/u is now called input_urgency:=/u',
        'mask:=/m is now called output_mask:=/m',
        'delay_s:=2 has no effect any more',
        'treads: no argument of this launch file; is threads meant?',
    ]
    for name, meant in (
        ('treads', 'is threads meant'),
        ('max_exit', 'set it in params_file'),
        ('front_cores', 'it has '),
    ):
        monkeypatch.setattr('sys.argv', ['ros2', 'launch', 'adpc_ros', 'adpc.launch.py'])
        with pytest.raises(
            ValueError, match=f'^{name}: no argument of this launch file; .*{meant}'
        ):
            given.taken(dict(declared), given.NODE, {}, [f'{name}:=1'], '/x/adpc.launch.py')
        monkeypatch.setattr('sys.argv', ['ros2', 'launch', 'mine', 'vehicle.launch.py'])
        given.taken(dict(declared), given.NODE, {}, [f'{name}:=1'], '/x/adpc.launch.py')
    twice = declared | {'mask': '/m', 'output_mask': '/n'}
    with pytest.raises(ValueError, match="^output_mask: expected one value, got '/n' and mask:=/"):
        given.taken(twice, given.NODE, given.FORMER)
