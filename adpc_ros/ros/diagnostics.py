# SPDX-License-Identifier: Apache-2.0
"""What the node says of itself on /diagnostics, once a second."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.lifecycle.managed_entity import ManagedEntity
from rclpy.qos import QoSProfile

from adpc_ros.percentiles import PERCENTILES
from adpc_ros.ros.connections import CAMERAS, DROPPED, RECEIVED, SEGMENTED, subscribers
from adpc_ros.ros.inputs import Inputs
from adpc_ros.ros.outputs import Outputs
from adpc_ros.ros.publication import Fields
from adpc_ros.runtime.engine import Engine
from adpc_ros.runtime.ledger import Result
from adpc_ros.runtime.scheduler import StopReason
from adpc_ros.runtime.watchdog import Health
from adpc_ros.runtime.window import Grade, Outcome, Summary, Window, judge

PERIOD_S = 1.0
MIB = 2**20

Values = dict[str, object]


class Process(NamedTuple):
    """What the process takes: ``resident`` memory in bytes, and its threads."""

    resident: int
    threads: int

    @classmethod
    def now(cls) -> Process:
        """Ask the system."""
        pages = int(Path('/proc/self/statm').read_text().split()[1])
        return cls(pages * os.sysconf('SC_PAGE_SIZE'), len(os.listdir('/proc/self/task')))


class Diagnostics(ManagedEntity):
    """
    Publishes the status of a node in all of its states.

    It uses the steady clock, so that it also publishes while the node's clock stands still. The
    engine counts through :meth:`results` and :meth:`exits`; all else happens in the node's thread.
    """

    def __init__(self, node: LifecycleNode) -> None:
        """Start to publish."""
        self._node = node
        self._window = Window()
        self._engine: Engine | None = None
        self._outputs: Outputs | None = None
        self._inputs: Inputs | None = None  # of an active node
        self._description = ''
        self._error = self._advice = ''
        self._hardware = platform.node()
        self._publisher = node.create_publisher(
            DiagnosticArray, '/diagnostics', QoSProfile(depth=10)
        )
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(PERIOD_S, self._tick, clock=clock)
        node.add_managed_entity(self)

    # What the node tells

    def configured(self, engine: Engine, outputs: Outputs, device: str) -> None:
        """Take what there is to be watched."""
        self._engine, self._outputs, self._error = engine, outputs, ''
        self._hardware = f'{platform.node()} {device}'
        self._description = engine.plan.description  # one that hangs would not answer later
        self._begin()

    def unconfigured(self) -> None:
        """Let go of it."""
        self._engine = self._outputs = self._inputs = None

    def failed(self, error: str) -> None:
        """Keep in mind why the node could not be configured, until it can."""
        self._error = error

    def listening(self, inputs: Inputs) -> None:
        """Take what the active node listens with."""
        self._inputs = inputs

    def advise(self, text: str) -> None:
        """Warn of what keeps images from arriving, whatever else there is; empty for nothing."""
        self._advice = text

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begin to expect images."""
        self._begin()
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Expect none any more."""
        self._inputs = None
        return TransitionCallbackReturn.SUCCESS

    def _begin(self) -> None:
        if self._engine is not None:
            self._window.begin(time.monotonic(), self._engine.counters())

    # What the engine tells, from its threads

    def results(self, publish: Callable[[Result], Fields]) -> Callable[[Result], None]:
        """Count what is published, as its status says."""

        def counted(result: Result) -> None:
            status = publish(result).values
            self._window.result(
                Outcome(
                    time.monotonic(),
                    status['latency'].nanoseconds / 1e9,
                    status['exit_index'],
                    StopReason(status['stop_reason']),
                    status['deadline_missed'],
                )
            )

        return counted

    def exits(self, publish: Callable[[Result], None]) -> Callable[[Result], None]:
        """Count every exit that is computed."""

        def counted(result: Result) -> None:
            outputs, done = self._outputs, result.exit
            assert done is not None
            computed = done.computed
            if outputs is not None and computed.exit_index < outputs.network.exit_count:
                self._window.exit(done.time_s, computed.exit_index, computed.active_share)
            publish(result)

        return counted

    # Once a second

    def _tick(self) -> None:
        try:
            self._publisher.publish(self._array())
        except Exception as error:  # it must not end the node that it watches
            self._node.get_logger().warning(f'no diagnostics: {error!r}', once=True)

    def _array(self) -> DiagnosticArray:
        array = DiagnosticArray(status=[self._status()])
        array.header.stamp = self._node.get_clock().now().to_msg()
        return array

    def _status(self) -> DiagnosticStatus:
        now_s = time.monotonic()
        engine, outputs = self._engine, self._outputs
        grade, message = Grade.OK, 'not configured'
        values: Values = {'State': 'unconfigured'}
        if self._error:
            grade, message = Grade.ERROR, self._error
        elif engine is not None and outputs is not None:
            counters = engine.counters()
            self._window.sample(now_s, counters)
            summary, health = self._window.summary(now_s), engine.health()
            message = 'not active'
            if self._inputs is not None:
                thresholds = outputs.parameters.thresholds()
                grade, message = judge(summary, health, thresholds, now_s)
                if self._advice:
                    message = self._advice if grade == Grade.OK else f'{message}; {self._advice}'
                    grade = max(grade, Grade.WARN)
            values = {
                'State': 'inactive' if self._inputs is None else 'active',
                'Network': outputs.network.identity,
                'Computes': self._description,
                **numbers(summary, health),
                **self._connections(outputs),
                RECEIVED: counters.received,
                SEGMENTED: counters.segmented,
                DROPPED: counters.dropped,
                **({'Shared memory': self._advice} if self._advice else {}),
                'Plan memory (MiB)': f'{engine.memory_bytes / MIB:.1f}',
            }
        process = Process.now()
        values |= {
            'Resident memory (MiB)': f'{process.resident / MIB:.1f}',
            'Threads': process.threads,
        }
        return DiagnosticStatus(
            level=bytes([grade]),
            name=f'{self._node.get_fully_qualified_name().lstrip("/")}: segmentation',
            message=message,
            hardware_id=self._hardware,
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )

    def _connections(self, outputs: Outputs) -> Values:
        cameras = 0 if self._inputs is None else self._inputs.cameras()
        counts = outputs.subscriber_counts()
        return {
            CAMERAS: cameras,
            **{subscribers(topic): count for topic, count in counts.items()},
        }


def numbers(summary: Summary, health: Health) -> Values:
    """Give the values of a status, in the order in which they are shown."""
    values: Values = {
        'Input rate (Hz)': f'{summary.input_hz:.2f}',
        'Output rate (Hz)': f'{summary.output_hz:.2f}',
        'Time without image (s)': f'{summary.silent_s:.1f}',
    }
    for percent, latency_s in zip(PERCENTILES, summary.latencies_s or ()):
        values[f'Latency, {percent} % (s)'] = f'{latency_s:.4f}'
    for exit_index, count in summary.exits.items():
        values[f'Masks of exit {exit_index}'] = count
    for reason in StopReason:
        values[f'Stopped: {reason.name}'] = summary.reasons.get(reason, 0)
    for drop, count in summary.drops.items():
        values[f'Dropped: {drop.value}'] = count
    values['Deadlines missed'] = summary.late
    for exit_index, share in summary.active_shares.items():
        values[f'Active after exit {exit_index} (%)'] = f'{share:.1%}'.rstrip('%')
    values['Worker restarts'] = health.restarts
    values['Workers stuck'] = health.stuck
    return values
