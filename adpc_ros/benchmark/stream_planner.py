# SPDX-License-Identifier: Apache-2.0
"""
The planner beside the node while frames stream in.

``python -m adpc_ros.graph adpc_ros.benchmark.stream_planner OUT.json NODE_PID URGENCY CHANGES``.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import GetState
from rcl_interfaces.msg import Log
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile

from adpc_ros.graph.peer import Peer, joined
from adpc_ros.graph.processes import cpu_seconds, memory_mib
from adpc_ros.graph.recorder import listen
from adpc_ros.graph.recording import Recording
from adpc_ros.msg import Urgency

SAMPLE_S = 1.0
KEPT = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def random_parameters(draw: random.Random, exit_count: int) -> dict[str, Any]:
    """Draw values of live parameters that go together."""
    return {
        'min_exit': draw.randint(0, 2),
        'max_exit': draw.randint(2, max(2, exit_count)),
        'target_confidence': draw.choice((1.0, 0.9)),
        'deadline_s': draw.choice((0.0, 0.0, 0.1)),
        'adaptive': draw.random() < 0.8,
        'output_scale': draw.choice((1, 2, 4)),
        'confidence_encoding': draw.choice(('mono8', '32FC1')),
    }


def change_request(values: dict[str, Any]) -> SetParametersAtomically.Request:
    """Ask for parameters to be set together."""
    kind: Any = Parameter  # it has no types
    parameters = [kind(name, value=value) for name, value in values.items()]
    return SetParametersAtomically.Request(
        parameters=[parameter.to_parameter_msg() for parameter in parameters]
    )


class Task:
    """Something that is done again and again, and says after how many seconds."""

    def __init__(self, act: Callable[[], float]) -> None:
        """Be due at once."""
        self._act = act
        self.due_s = time.monotonic()

    def look(self) -> None:
        """Do it if it is due."""
        if time.monotonic() >= self.due_s:
            self.due_s = time.monotonic() + self._act()


class StreamPlanner:
    """A planner that keeps when things came, troubles the node, and asks how it is."""

    def __init__(self, peer: Peer, node_id: int, urgency: bool, changes: bool) -> None:
        """
        Subscribe.

        :param node_id: process id of the node.
        :param urgency: send CRITICAL and other levels at random instants.
        :param changes: change live parameters at random instants.
        """
        self._node, self._node_id, self._changes = peer.node, node_id, changes
        self._instants = random.Random(0)
        self._cpu_s, self._observed_s = 0.0, 0.0
        self._level = Urgency.ROUTINE
        self._recording = Recording()
        self.service_ms: dict[str, list[float]] = {'get_state': [], 'set_parameters': []}
        self.refused: list[str] = []
        self.memory_mib: list[float] = []
        self.warnings: list[str] = []
        self.diagnoses: list[str] = []  # that were not OK
        listen(peer, self._recording.take)
        self._urgency = self._node.create_publisher(Urgency, '/adpc/input/urgency', 10)
        self._node.create_subscription(Log, '/rosout', self._on_log, KEPT)
        self._node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        self._get_state = self._node.create_client(GetState, '/adpc/get_state')
        self._set_parameters = self._node.create_client(
            SetParametersAtomically, '/adpc/set_parameters_atomically'
        )
        acts = [self._sample, self._ask]
        acts += [self._change_level] if urgency else []
        acts += [self._change_parameters] if changes else []
        self._acts, self._tasks = acts, list[Task]()
        peer.when_found(self._begin)
        peer.announce()

    def _begin(self) -> None:
        """Begin once the node is there: what it takes to load is not judged."""
        self._started_s, self._used_s = time.monotonic(), cpu_seconds(self._node_id)
        self._tasks = [Task(act) for act in self._acts]

    def act(self) -> float:
        """Do what is due; gives the seconds until something is due again."""
        for task in self._tasks:
            task.look()
        now_s = time.monotonic()
        return min((task.due_s - now_s for task in self._tasks), default=SAMPLE_S)

    def recorded(self) -> dict[str, Any]:
        """Give what came, as values for JSON."""
        return {
            **self._recording.values(),
            'service_ms': self.service_ms,
            'refused': self.refused,
            'memory_mib': self.memory_mib,
            'warnings': self.warnings,
            'diagnoses': self.diagnoses,
            'cpu_s': self._cpu_s,
            'observed_s': self._observed_s,
        }

    # What comes

    def _on_log(self, message: Log) -> None:
        if message.name == 'adpc' and message.level >= Log.WARN:
            self.warnings.append(message.msg)

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        self.diagnoses += [status.message for status in array.status if status.level != b'\0']

    # What is done

    def _sample(self) -> float:
        try:
            memory = memory_mib(self._node_id)
            self._cpu_s = cpu_seconds(self._node_id) - self._used_s
            self._observed_s = time.monotonic() - self._started_s
            self.memory_mib.append(memory)
        except (OSError, IndexError):
            pass  # it has ended
        return SAMPLE_S

    def _ask(self) -> float:
        self._call(self._get_state, GetState.Request(), 'get_state')
        return self._instants.uniform(0.3, 0.7)

    def _change_level(self) -> float:
        urgent = [Urgency.CRITICAL, Urgency.ELEVATED] if self._changes else [Urgency.CRITICAL]
        routine = self._level == Urgency.ROUTINE
        self._level = self._instants.choice(urgent) if routine else Urgency.ROUTINE
        message = Urgency(level=self._level)
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._urgency.publish(message)
        if self._level != Urgency.ROUTINE:
            return self._instants.uniform(0.03, 0.1)
        slowest_s = max(
            (status['compute_s'] for status in self._recording.statuses[-100:]), default=0.0
        )
        return self._instants.uniform(0.05, max(0.35, 2 * slowest_s))  # anywhere in a frame

    def _change_parameters(self) -> float:
        draw = self._instants
        exit_count = self._recording.statuses[-1]['exit_count'] if self._recording.statuses else 1
        request = change_request(random_parameters(draw, exit_count))
        self._call(self._set_parameters, request, 'set_parameters')
        return draw.uniform(0.5, 1.5)

    def _call(self, client: Any, request: Any, name: str) -> None:
        if not self._recording.statuses or not client.service_is_ready():
            return
        asked_s = time.monotonic()

        def answered(future: Any) -> None:
            self.service_ms[name].append(1e3 * (time.monotonic() - asked_s))
            if name == 'set_parameters' and not future.result().result.successful:
                self.refused.append(future.result().result.reason)

        client.call_async(request).add_done_callback(answered)


def main() -> int:
    """Trouble the node and record until interrupted; gives the exit status."""
    out, node_id, urgency, changes = sys.argv[1:]
    with joined('planner') as peer:
        planner = StreamPlanner(peer, int(node_id), urgency == 'True', changes == 'True')
        peer.run(planner.act)
        Path(out).write_text(json.dumps(planner.recorded()))
    return 0
