"""Parameters: what is valid, what can change when, and what a node says about them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import rclpy
from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import GetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter

from adpc_ros.ros import label_points_parameters, parameters
from adpc_ros.ros.parameters import LIVE_NAMES, Parameters
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
            {'threads': 2, 'device': 'cpu', 'min_exit': 2},
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


@contextmanager
def declared(module: Any, *given: str) -> Iterator[Node]:
    """Give a node with the parameters of a module, of which some are given."""
    arguments = [word for parameter in given for word in ('-p', parameter)]
    context = rclpy.Context()
    rclpy.init(context=context, args=['--ros-args', *arguments] if given else [])
    node = Node('described', context=context)
    try:
        module.declare(node)
        yield node
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)


def test_a_node_describes_range_meaning_and_when_a_change_counts() -> None:
    with declared(parameters) as node:
        assert parameters.read(node) == Parameters()
        for field in dataclasses.fields(Parameters):
            described = node.describe_parameter(field.name)
            assert described.description == field.metadata['meaning']
            live = described.additional_constraints.endswith(parameters.LIVE)
            assert live == (field.name in LIVE_NAMES)
            assert live or described.additional_constraints.endswith(parameters.AT_CONFIGURE)
        exits = node.describe_parameter('min_exit').integer_range[0]
        assert (exits.from_value, exits.to_value) == (0, 255)
        constraints = node.describe_parameter('output_scale').additional_constraints
        assert constraints.startswith('one of 1, 2, 4; live')


@pytest.mark.parametrize('module', [parameters, label_points_parameters])
def test_all_parameters_can_be_read_at_once(module: Any) -> None:
    """As ``ros2 param dump`` does; one that is unset would leave it with nothing."""
    with declared(module) as node:
        request = GetParameters.Request(names=list(node._parameters))
        service = node._parameter_service
        values = service._get_parameters_callback(request, GetParameters.Response()).values
        assert len(values) == len(request.names) > 5
        assert all(value.type != ParameterType.PARAMETER_NOT_SET for value in values)


@pytest.mark.parametrize('given, expected', [('[]', ()), ('[1, 0]', (1, 0))])
def test_an_array_is_as_given_and_keeps_its_type(given: str, expected: tuple[int, ...]) -> None:
    with declared(parameters, f'cores:={given}') as node:
        assert node.get_parameter('cores').type_ == Parameter.Type.INTEGER_ARRAY
        assert parameters.read(node).cores == expected


def test_an_array_that_is_read_only_stays_so() -> None:
    with declared(label_points_parameters) as node:
        new = Parameter('extrinsics', value=[0.0] * 7)
        assert not node.set_parameters([new])[0].successful
        assert node.describe_parameter('extrinsics').read_only
