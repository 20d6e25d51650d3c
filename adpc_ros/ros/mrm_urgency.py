#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
Autoware's minimal risk manoeuvres as urgency: MrmState in, adpc_ros/Urgency out.

Which level a state means is decided without ROS. The messages of Autoware are looked for when the
node starts: nothing else of this package needs them.
"""

from __future__ import annotations

import enum
import importlib
import sys
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile

from adpc_ros.msg import Urgency
from adpc_ros.ros.interrupts import Interrupts
from adpc_ros.ros.node_parameters import ParameterNode
from adpc_ros.ros.parameter_fields import check, field
from adpc_ros.ros.starting import StartError, parameter_files, run, spin
from adpc_ros.ros.warn_once import WarnOnce
from adpc_ros.runtime.scheduler import Level

MESSAGES = 'autoware_adapi_v1_msgs'


class State(enum.IntEnum):
    """What ``state`` may be. Source: autoware_adapi_v1_msgs/msg/MrmState, version 1.9.2."""

    UNKNOWN = 0
    NORMAL = 1
    MRM_OPERATING = 2
    MRM_SUCCEEDED = 3
    MRM_FAILED = 4


class Behavior(enum.IntEnum):
    """What ``behavior`` may be; the same source."""

    UNKNOWN = 0
    NONE = 1
    EMERGENCY_STOP = 2
    COMFORTABLE_STOP = 3
    PULL_OVER = 4


class Raised(NamedTuple):
    """An urgency to be published; ``hold_s`` is 0 for one that stays until the next."""

    level: Level
    hold_s: float


def level_of(state: int, behavior: int) -> Level | None:
    """
    Give the level that a manoeuvre calls for.

    A gentle manoeuvre (COMFORTABLE_STOP, PULL_OVER) is ELEVATED: it still needs detail, in time.
    Any other, and one that failed, is CRITICAL. One that succeeded is over: the vehicle stands.

    :param state: one of :class:`State`.
    :param behavior: one of :class:`Behavior`; counts while a manoeuvre is operating.
    :return: None for UNKNOWN and for a number that is none of them: nothing is known then.
    """
    if state == State.MRM_OPERATING:
        gentle = behavior in (Behavior.COMFORTABLE_STOP, Behavior.PULL_OVER)
        return Level.ELEVATED if gentle else Level.CRITICAL
    if state == State.MRM_FAILED:
        return Level.CRITICAL
    return Level.ROUTINE if state in (State.NORMAL, State.MRM_SUCCEEDED) else None


class Adapter:
    """
    Decide what is published for each state that comes.

    A raised level is repeated with each state, and holds for ``hold_s``, so that it ends if the
    states cease. ROUTINE is said once, when a manoeuvre is over: another planner's urgency on the
    same topic is left alone.
    """

    def __init__(self, hold_s: float) -> None:
        """
        Begin with ROUTINE.

        :param hold_s: longer than the pause between two states.
        """
        self._hold_s, self._level = hold_s, Level.ROUTINE

    def on_state(self, state: int, behavior: int) -> Raised | None:
        """
        Take a state.

        :return: what to publish; None for nothing.
        """
        level = level_of(state, behavior)
        if level is None:
            return None
        was, self._level = self._level, level
        if level != Level.ROUTINE:
            return Raised(level, self._hold_s)
        return None if was == Level.ROUTINE else Raised(level, 0.0)


@dataclass(frozen=True)
class MrmUrgencyParameters:
    """
    The node's parameters; they are read when it starts.

    :raises ValueError: for a value outside its range.
    """

    hold_s: float = field(
        1.0,
        'How long a raised level holds after the last state, in seconds; more than the pause '
        'between two (0.1 of Autoware).',
        0.01,
        60.0,
    )

    def __post_init__(self) -> None:
        """Check the value."""
        check(self)


class MrmUrgencyNode(ParameterNode):
    """MrmState on ``~/input/mrm_state``, Urgency on ``~/output/urgency``."""

    kind = MrmUrgencyParameters

    def __init__(self, message_type: Any) -> None:
        """
        Declare the parameter, advertise and subscribe.

        :param message_type: the class of autoware_adapi_v1_msgs/MrmState.
        :raises ValueError: for an invalid parameter.
        """
        super().__init__('mrm_urgency')
        self.declare_described(read_only=True)
        self._adapter = Adapter(self.read_described().hold_s)
        self._warn_once = WarnOnce(self.get_logger())
        self._output = self.create_publisher(Urgency, '~/output/urgency', QoSProfile(depth=10))
        self.create_subscription(
            message_type, '~/input/mrm_state', self.on_state, QoSProfile(depth=10)
        )

    def on_state(self, message: Any) -> None:
        """Publish what a MrmState calls for, with its stamp."""
        if level_of(message.state, message.behavior) is None:
            self._warn_once(
                f'state {message.state}',
                f'expected a state of {State.NORMAL} to {State.MRM_FAILED}, got {message.state}: '
                'no urgency is published for it',
            )
        raised = self._adapter.on_state(message.state, message.behavior)
        if raised is not None:
            urgency = Urgency(level=int(raised.level))
            urgency.header.stamp = message.stamp
            urgency.hold = Duration(seconds=raised.hold_s).to_msg()
            self._output.publish(urgency)


def mrm_state() -> Any:
    """
    Import the class of Autoware's message.

    :raises StartError: if it is not installed.
    """
    try:
        return importlib.import_module(f'{MESSAGES}.msg').MrmState
    except (ImportError, AttributeError) as error:
        raise StartError(
            f'expected {MESSAGES}/MrmState, got: {error}; source the workspace of Autoware, or '
            f'install ros-jazzy-{MESSAGES.replace("_", "-")}'
        ) from error


def _work(node: MrmUrgencyNode, interrupts: Interrupts, args: list[str] | None) -> int:
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        for text in node.complaints(parameter_files(args)):
            node.get_logger().warning(text)
        spin(executor, interrupts)
    finally:
        executor.shutdown()
    return 0


def main(args: list[str] | None = None) -> int:
    """Run the node until it is interrupted; returns the exit status."""
    return run(
        *('mrm_urgency', lambda: MrmUrgencyNode(mrm_state()), partial(_work, args=args), args)
    )


if __name__ == '__main__':
    sys.exit(main())
