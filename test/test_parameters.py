"""Parameters: what is valid, what can change when, and what a node says about them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import pytest
import rclpy
from rclpy.node import Node

from adpc_ros.ros import parameters
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


@pytest.fixture
def node() -> Iterator[Node]:
    context = rclpy.Context()
    rclpy.init(context=context)
    node = Node('described', context=context)
    parameters.declare(node)
    yield node
    node.destroy_node()
    rclpy.shutdown(context=context)


def test_a_node_describes_range_meaning_and_when_a_change_counts(node: Node) -> None:
    assert parameters.read(node) == Parameters()
    for field in dataclasses.fields(Parameters):
        described = node.describe_parameter(field.name)
        assert described.description == field.metadata['meaning']
        live = described.additional_constraints.endswith(parameters.LIVE)
        assert live == (field.name in LIVE_NAMES)
        assert live or described.additional_constraints.endswith(parameters.AT_CONFIGURE)
    assert node.describe_parameter('min_exit').integer_range[0].to_value == 4
    constraints = node.describe_parameter('output_scale').additional_constraints
    assert constraints.startswith('one of 1, 2, 4; live')
