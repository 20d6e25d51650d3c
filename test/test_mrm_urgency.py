# SPDX-License-Identifier: Apache-2.0
"""Autoware's minimal risk manoeuvres as urgency."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import rclpy
from builtin_interfaces.msg import Time
from rclpy.qos import QoSProfile
from shared import ROOT
from std_msgs.msg import Header

from adpc_ros.graph.peer import Peer
from adpc_ros.msg import Urgency
from adpc_ros.ros.mrm_urgency import (
    MESSAGES,
    Adapter,
    Behavior,
    MrmUrgencyNode,
    MrmUrgencyParameters,
    Raised,
    State,
    level_of,
)
from adpc_ros.runtime.scheduler import Level

R, E, C = Level
OPERATING = State.MRM_OPERATING


@pytest.mark.parametrize(
    'state, behavior, level',
    [
        (State.NORMAL, Behavior.NONE, R),
        (OPERATING, Behavior.EMERGENCY_STOP, C),
        (OPERATING, Behavior.COMFORTABLE_STOP, E),
        (OPERATING, Behavior.PULL_OVER, E),
        (OPERATING, Behavior.NONE, C),
        (OPERATING, 17, C),
        (State.MRM_SUCCEEDED, Behavior.EMERGENCY_STOP, R),
        (State.MRM_FAILED, Behavior.COMFORTABLE_STOP, C),
        (State.UNKNOWN, Behavior.EMERGENCY_STOP, None),
        (17, Behavior.EMERGENCY_STOP, None),
    ],
)
def test_a_manoeuvre_means_a_level(state: int, behavior: int, level: Level | None) -> None:
    assert level_of(state, behavior) is level


def test_a_raised_level_is_repeated_and_routine_said_once_when_it_is_over() -> None:
    adapter = Adapter(0.5)
    emergency, gentle = (OPERATING, Behavior.EMERGENCY_STOP), (OPERATING, Behavior.PULL_OVER)
    normal, unknown = (State.NORMAL, Behavior.NONE), (State.UNKNOWN, Behavior.UNKNOWN)
    given = [normal, gentle, emergency, emergency, unknown, normal, normal]
    assert [adapter.on_state(*state) for state in given] == [
        None,
        Raised(E, 0.5),
        Raised(C, 0.5),
        Raised(C, 0.5),
        None,
        Raised(R, 0.0),
        None,
    ]


@pytest.fixture
def node() -> Iterator[MrmUrgencyNode]:
    rclpy.init(args=['--ros-args', '-p', 'hold_s:=2.5'])
    node = MrmUrgencyNode(Header)  # any type: states are handed over directly
    yield node
    node.destroy_node()
    rclpy.shutdown()


def test_the_node_publishes_level_hold_and_the_stamp_of_the_state(node: MrmUrgencyNode) -> None:
    peer, heard = Peer('planner'), list[Urgency]()
    try:
        topic = '/mrm_urgency/output/urgency'
        peer.node.create_subscription(Urgency, topic, heard.append, QoSProfile(depth=10))
        assert peer.wait(lambda: node.count_subscribers(topic), 20)
        peer.spin(0.5)
        stamp = Time(sec=7, nanosec=8)
        for state in (State.UNKNOWN, OPERATING, State.MRM_SUCCEEDED):
            behavior = int(Behavior.EMERGENCY_STOP)
            node.on_state(SimpleNamespace(stamp=stamp, state=int(state), behavior=behavior))
        assert peer.wait(lambda: len(heard) == 2, 20)
    finally:
        peer.close()
    raised, over = heard
    assert (raised.level, over.level) == (Urgency.CRITICAL, Urgency.ROUTINE)
    assert raised.header.stamp == over.header.stamp == stamp
    assert (raised.hold.sec, raised.hold.nanosec) == (2, 500_000_000)
    assert (over.hold.sec, over.hold.nanosec) == (0, 0)


def test_a_hold_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match='hold_s: expected .* got 0.0'):
        MrmUrgencyParameters(0.0)


@pytest.mark.skipif(find_spec(MESSAGES) is not None, reason=f'{MESSAGES} is installed')
def test_without_the_messages_of_autoware_one_line_says_what_is_missing() -> None:
    command = [sys.executable, ROOT / 'scripts' / 'mrm_urgency_node']
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f'mrm_urgency: expected {MESSAGES}/MrmState, got: No module named')
    assert 'ros-jazzy-autoware-adapi-v1-msgs' in line


def test_the_constants_are_those_of_the_message() -> None:
    message = pytest.importorskip(
        'autoware_adapi_v1_msgs.msg', reason='its messages come with Autoware, without wheels'
    ).MrmState
    for each in (*State, *Behavior):
        assert getattr(message, each.name) == each.value
