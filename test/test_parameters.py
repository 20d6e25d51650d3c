# SPDX-License-Identifier: Apache-2.0
"""Parameters: what is valid, what can change when, and what a node says about them."""

from __future__ import annotations

import dataclasses
import math
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import rclpy
import yaml
from rcl_interfaces.msg import ParameterType, SetParametersResult
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.node import Node
from rclpy.parameter import (
    Parameter,
    parameter_dict_from_yaml_file,
    parameter_value_to_python,
)

from adpc_ros.ros.label_points_parameters import LabelPointsParameters
from adpc_ros.ros.node_parameters import ParameterNode
from adpc_ros.ros.parameter_fields import AT_CONFIGURE, LIVE
from adpc_ros.ros.parameters import LIVE_NAMES, Parameters
from adpc_ros.ros.starting import StartError, parameter_files, start
from adpc_ros.runtime.window import Thresholds


def test_live_parameters_set_together_are_judged_together() -> None:
    first = Parameters(min_exit=1, max_exit=2)
    both = first.changed({'min_exit': 3, 'max_exit': 4})
    assert (both.min_exit, both.max_exit) == (3, 4)
    with pytest.raises(ValueError, match='expected min_exit <= max_exit, got 3, 2'):
        first.changed({'min_exit': 3})


@pytest.mark.parametrize(
    'values, expected',
    [
        ({'output_scale': 3}, 'output_scale: expected one of 1, 2, 4, got 3'),
        ({'confidence_encoding': 'mono16'}, "expected one of mono8, 32FC1, got 'mono16'"),
        ({'max_age_s': -1.0}, 'max_age_s: expected 0.0 to 3600.0, got -1.0'),
        (
            {'threads': 2, 'device': 'cuda', 'min_exit': 2},
            'device, threads: read when the node is configured: deactivate and clean up first',
        ),
    ],
)
def test_a_change_that_cannot_be_says_what_was_expected(
    values: dict[str, object], expected: str
) -> None:
    with pytest.raises(ValueError, match=expected):
        Parameters().changed(values)


@pytest.mark.parametrize(
    'given, advised, expected',
    [
        ({}, 1, (1, 4, 1)),
        ({}, 2, (2, 4, 2)),
        ({}, 4, (4, 4, 4)),
        ({'min_exit': 1, 'urgent_max_exit': 3}, 2, (1, 4, 3)),
        ({'max_exit': 2}, 3, (2, 2, 3)),  # an advised exit gives way
        ({'min_exit': 9, 'urgent_max_exit': 9}, 2, (4, 4, 4)),
        ({'max_exit': 9}, 2, (2, 4, 2)),
    ],
)
def test_exits_that_are_not_given_are_as_advised(
    given: dict[str, int], advised: int, expected: tuple[int, int, int]
) -> None:
    policy = Parameters(**given).policy(4, advised)
    assert (policy.min_exit, policy.max_exit, policy.urgent_max_exit) == expected


@pytest.mark.parametrize(
    'given, warned_of',
    [
        ({}, []),
        ({'min_exit': 2, 'max_exit': 3, 'urgent_max_exit': 2}, []),
        ({'min_exit': 1}, ['min_exit: 1 lets out masks of exit 1']),
        ({'urgent_max_exit': 1}, ['urgent_max_exit: 1 lets out masks of exit 1']),
        ({'max_exit': 1}, ['max_exit: 1 lets out masks of exit 1']),
        ({'max_exit': 9}, ['max_exit: 9 is taken as the last exit, 3']),
    ],
)
def test_exits_that_see_too_little_or_are_none_are_warned_of(
    given: dict[str, int], warned_of: list[str]
) -> None:
    found = Parameters(**given).warnings(3, 2)
    assert [text[: len(start)] for text, start in zip(found, warned_of)] == warned_of
    assert len(found) == len(warned_of)
    assert Parameters(**given).warnings(9, 1) == []


def test_what_frames_may_spend_is_live_and_what_is_built_is_not() -> None:
    policy = {'min_exit', 'max_exit', 'deadline_s', 'target_confidence', 'elevated_deadline_s'}
    policy |= {'urgent_max_exit', 'max_age_s'}
    outputs = {'confidence_encoding', 'output_scale'}
    watched = {name for name in LIVE_NAMES if name.startswith('diagnostics_')}
    assert LIVE_NAMES == policy | {'adaptive'} | outputs | watched


def test_every_threshold_has_a_value_that_disables_it() -> None:
    never = Parameters(
        diagnostics_stale_s=0.0,
        diagnostics_warn_latency_s=0.0,
        diagnostics_warn_drop_share=1.0,
        diagnostics_warn_late_share=1.0,
    )
    assert never.thresholds() == Thresholds(math.inf, math.inf, 1.0, 1.0)


class Described(ParameterNode):
    kind = Parameters


class DescribedPoints(ParameterNode):
    kind = LabelPointsParameters


@contextmanager
def declared(
    node_type: type[ParameterNode], *given: str, read_only: bool = False
) -> Iterator[ParameterNode]:
    """Give a node with its parameters declared, of which some are given."""
    arguments = [word for parameter in given for word in ('-p', parameter)]
    context = rclpy.Context()
    rclpy.init(context=context, args=['--ros-args', *arguments] if given else [])
    node = node_type('described', context=context)
    try:
        node.declare_described(read_only)
        yield node
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)


def test_a_node_describes_range_meaning_and_when_a_change_counts() -> None:
    with declared(Described) as node:
        assert node.read_described() == Parameters()
        for field in dataclasses.fields(Parameters):
            described = node.describe_parameter(field.name)
            assert described.description == field.metadata['meaning']
            live = described.additional_constraints.endswith(LIVE)
            assert live == (field.name in LIVE_NAMES)
            assert live or described.additional_constraints.endswith(AT_CONFIGURE)
        exits = node.describe_parameter('min_exit').integer_range[0]
        assert (exits.from_value, exits.to_value) == (0, 255)
        constraints = node.describe_parameter('output_scale').additional_constraints
        assert constraints.startswith('one of 1, 2, 4; live')


@pytest.mark.parametrize('has', [True, False])
def test_changes_are_told_where_rclpy_does_not_tell_them(
    has: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has:  # as in Humble
        monkeypatch.delattr(Node, 'add_post_set_parameters_callback')
    with declared(Described) as node:
        told: list[list[str]] = []
        node.after_changes(lambda changed: told.append([p.name for p in changed]))
        for name, value in (('max_exit', 2), ('max_exit', 2), ('max_exit', 'two')):
            node.set_parameters_atomically([Parameter(name, value=value)])
        assert told == [['max_exit']]


def loaded(node: ParameterNode, dumped: dict[str, Any]) -> dict[str, SetParametersResult]:
    """Set parameters as ``ros2 param load`` does."""
    file = {'described': {'ros__parameters': dumped}}
    with tempfile.NamedTemporaryFile('w', suffix='.yaml') as stream:
        yaml.dump(file, stream)
        stream.flush()
        messages = list(parameter_dict_from_yaml_file(stream.name).values())
    service = node._parameter_service
    request = SetParameters.Request(parameters=messages)
    response = service._set_parameters_callback(request, SetParameters.Response())
    return {message.name: result for message, result in zip(messages, response.results)}


@pytest.mark.parametrize('node_type, read_only', [(Described, False), (DescribedPoints, True)])
def test_what_was_dumped_can_be_loaded(node_type: type[ParameterNode], read_only: bool) -> None:
    """One parameter that is unset would leave ``ros2 param dump`` with nothing."""
    with declared(node_type, read_only=read_only) as node:
        if not read_only:
            node.add_on_set_parameters_callback(
                lambda changed: SetParametersResult(successful=False, reason=str(changed))
            )
        request = GetParameters.Request(names=list(node._parameters))
        service = node._parameter_service
        values = service._get_parameters_callback(request, GetParameters.Response()).values
        assert len(values) == len(request.names) > 5
        assert all(value.type != ParameterType.PARAMETER_NOT_SET for value in values)
        dumped = {n: parameter_value_to_python(v) for n, v in zip(request.names, values)}
        results = loaded(node, dumped)
        assert results.keys() == dumped.keys()
        assert [r.reason for r in results.values() if not r.successful] == []


@pytest.mark.parametrize('given, expected', [('[]', ()), ('[1, 0]', (1, 0))])
def test_an_array_is_as_given_and_keeps_its_type(given: str, expected: tuple[int, ...]) -> None:
    with declared(Described, f'cores:={given}') as node:
        assert node.get_parameter('cores').type_ == Parameter.Type.INTEGER_ARRAY
        assert node.read_described().cores == expected


@pytest.mark.parametrize(
    'empty',
    [
        Parameter('cores'),
        Parameter('cores', Parameter.Type.BOOL_ARRAY, []),
        Parameter('cores', Parameter.Type.BYTE_ARRAY, []),
        Parameter('cores', Parameter.Type.INTEGER_ARRAY, []),
    ],
)
def test_an_array_can_be_emptied_again(empty: Parameter) -> None:
    with declared(Described, 'cores:=[1]') as node:
        assert node.set_parameters_atomically([empty]).successful
        assert node.get_parameter('cores').type_ == Parameter.Type.INTEGER_ARRAY
        assert node.read_described().cores == ()


def test_an_array_that_is_read_only_stays_so() -> None:
    with declared(DescribedPoints, read_only=True) as node:
        new = Parameter('extrinsics', value=[0.0] * 7)
        assert not node.set_parameters([new])[0].successful
        assert not node.set_parameters_atomically([new]).successful
        assert node.describe_parameter('extrinsics').read_only


@pytest.mark.parametrize(
    'name, value, reason',
    [
        ('threads', 'two', "threads: expected an integer, got 'two'"),
        ('deadline_s', 1, 'deadline_s: expected a number with a point, as 1.0, got 1'),
        ('cores', [0.5], 'cores: expected a list of integers, got [0.5]'),
        ('threads', None, 'threads: expected an integer, got no value'),
        ('max_exit', 256, 'max_exit: expected 0 to 255, got 256'),
        ('output_scale', 3, 'output_scale: expected one of 1, 2, 4, got 3'),
    ],
)
def test_a_wrong_value_is_refused_with_name_expected_and_got(
    name: str, value: object, reason: str
) -> None:
    with declared(Described) as node:
        result = node.set_parameters_atomically([Parameter(name, value=value)])
        assert (result.successful, result.reason) == (False, reason)
        assert node.read_described() == Parameters()
    if value is not None:
        with pytest.raises(ValueError, match=re.escape(reason)):
            with declared(Described, f'{name}:={value}'):
                pass


def test_what_was_given_and_is_not_taken_is_complained_of() -> None:
    given = ('deadlines_s:=1.0', 'class_names:=[a]', 'qos_overrides./x.publisher.depht:=1')
    with declared(Described, *given, 'flux:=1', 'use_sim_time:=true') as node:
        assert node.complaints([], {'class_names'}) == [
            'deadlines_s: no parameter of this node; is deadline_s meant?',
            'flux: no parameter of this node',
        ]
        (qos,) = node.unknown_qos()
        assert qos.startswith('qos_overrides./x.publisher.depht: no parameter of this node')


@pytest.mark.parametrize(
    'arguments, words',
    [
        ('--params-file nope.yaml', 'nope.yaml: No such file or directory'),
        ('--params-file {broken}', '{broken}: line 3: expected a value of threads, got nothing'),
        ('--params-file {broken} -p threads:=1', '{broken}: line 3: expected a value of threads'),
        ('-p threads:=two', "threads: expected an integer, got 'two'"),
        ('-p cores:=a,b', "cores: expected a list of integers, got 'a,b'"),
        ('-p cores:=[1,a]', "Couldn't parse parameter override rule: '-p cores:=[1,a]'"),
        ('-p cores:=', "Couldn't parse parameter override rule: '-p cores:='"),
        ('-p deadline_s:=1', 'deadline_s: expected a number with a point, as 1.0, got 1'),
        ('-p deadline_s:=-1.0', 'deadline_s: expected 0.0 to 60.0, got -1.0'),
        ('-p weights:=3', 'weights: expected a text, got 3'),
        ('-p adaptive:=1', 'adaptive: expected true or false, got 1'),
        ('--params-files x.yaml', "unknown ROS arguments: ['--params-files', 'x.yaml']"),
        ('-r __ns:=/bad-ns', "Couldn't parse remap rule: '-r __ns:=/bad-ns'"),
        ('--log-level rcl:=loud', "Couldn't parse log level: '--log-level rcl:=loud'"),
    ],
)
def test_what_is_wrong_with_the_arguments_is_said_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], arguments: str, words: str
) -> None:
    broken = tmp_path / 'broken.yaml'
    broken.write_text('/**:\n  ros__parameters:\n    threads:\n')

    def make() -> ParameterNode:
        # a name of its own: the error still holds the node of the case before
        node = Described(f'node_{abs(hash(arguments))}')
        node.declare_described()
        return node

    with pytest.raises(StartError) as caught:
        start(make, ['--ros-args', *arguments.format(broken=broken).split()])
    assert str(caught.value).startswith(words.format(broken=broken))
    assert '\n' not in str(caught.value) and '.c:' not in str(caught.value)
    assert not rclpy.ok() and capfd.readouterr().err == ''


def test_parameter_files_are_found_among_the_arguments() -> None:
    words = '--params-file a --ros-args -p b:=1 --params-file c -- --params-file d --ros-args'
    assert parameter_files([*words.split(), '--params-file', 'e']) == ['c', 'e']


def test_a_parameter_that_is_not_live_may_be_given_as_it_is() -> None:
    first = Parameters(cores=(1,))
    assert first.changed({'cores': (1,), 'threads': 0, 'max_exit': 2}).max_exit == 2
    with pytest.raises(ValueError, match='cores: read when the node is configured'):
        first.changed({'cores': (), 'threads': 0})
