"""
The processes beside the node while frames stream in: a camera and a planner.

``python -m adpc_ros.benchmark.stream_graph camera OUT.json IMAGES.npy RATE_HZ SECONDS`` and
``python -m adpc_ros.benchmark.stream_graph planner OUT.json NODE_PID URGENCY CHANGES``.
"""

from __future__ import annotations

import json
import os
import random
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import GetState
from rcl_interfaces.msg import Log
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from adpc_ros.benchmark.ros_client import cpu_seconds
from adpc_ros.demo_graph import BEST_EFFORT, LISTENING, POLL_S, Planner, nanoseconds, when_met
from adpc_ros.msg import Urgency
from adpc_ros.ros.allocator import keep_freed_memory
from adpc_ros.ros.conversions import array_to_image

FIND_S = 60.0
STAMP_AT = 4  # bytes before the stamp in a serialised message with a header
SAMPLE_S = 1.0
KEPT = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)  # type: ignore[no-untyped-call]


def run_camera(out: Path, images: Path, rate_hz: float, duration_s: float) -> None:
    """
    Publish images at a fixed rate, whatever the node does, and write their stamps to ``out``.

    They are serialised beforehand: a driver in C++ takes as little of the processor.

    :param images: (N, H, W, 3) uint8 RGB, an npy file.
    """
    node = Node('camera')
    publisher = node.create_publisher(Image, '/adpc/input/image', BEST_EFFORT)
    header = Header(frame_id='camera')
    frames = [
        bytearray(serialize_message(array_to_image(image, header))) for image in np.load(images)
    ]
    met: list[bool] = []
    when_met(node, lambda: met.append(True))
    found_s = time.monotonic() + FIND_S
    while not (met and publisher.get_subscription_count() and node.count_publishers(LISTENING)):
        if time.monotonic() > found_s:
            raise RuntimeError(f'node and planner were not found within {FIND_S:.0f} s')
        rclpy.spin_once(node, timeout_sec=POLL_S)
    stamps_ns = []
    start_s = time.monotonic()
    for i in range(int(duration_s * rate_hz)):
        time.sleep(max(start_s + i / rate_hz - time.monotonic(), 0.0))
        frame = frames[i % len(frames)]
        stamp_ns = node.get_clock().now().nanoseconds
        struct.pack_into('<iI', frame, STAMP_AT, *divmod(stamp_ns, 10**9))
        publisher.publish(bytes(frame))
        stamps_ns.append(stamp_ns)
    out.write_text(json.dumps({'stamps_ns': stamps_ns}))
    time.sleep(1.0)  # what was written must have been read before it is taken back


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


class StreamPlanner(Planner):
    """A planner that keeps when things came, troubles the node, and asks how it is."""

    def __init__(self, node_id: int, urgency: bool, changes: bool) -> None:
        """
        Subscribe.

        :param node_id: process id of the node.
        :param urgency: send CRITICAL and other levels at random instants.
        :param changes: change live parameters at random instants.
        """
        super().__init__()
        self._node_id, self._changes = node_id, changes
        self._instants = random.Random(0)
        self._started_s, self._used_s = time.monotonic(), cpu_seconds(node_id)
        self._level = Urgency.ROUTINE
        self.received_ns: dict[int, int] = {}  # masks, by stamp
        self.confident_ns: list[int] = []  # stamps of the confidences
        self.service_ms: dict[str, list[float]] = {'get_state': [], 'set_parameters': []}
        self.refused: list[str] = []
        self.memory_mib: list[float] = []
        self.warnings: list[str] = []
        self.diagnoses: list[str] = []  # that were not OK
        self._urgency = self.create_publisher(Urgency, '/adpc/input/urgency', 10)
        self.create_subscription(Log, '/rosout', self._on_log, KEPT)
        self.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        self._get_state = self.create_client(GetState, '/adpc/get_state')
        self._set_parameters = self.create_client(
            SetParametersAtomically, '/adpc/set_parameters_atomically'
        )
        acts = [self._sample, self._ask]
        acts += [self._change_level] if urgency else []
        acts += [self._change_parameters] if changes else []
        self._tasks = [Task(act) for act in acts]

    def run(self) -> None:
        """Do what is due until the context is shut down."""
        executor = SingleThreadedExecutor()
        executor.add_node(self)
        while rclpy.ok():
            due_s = min(task.due_s for task in self._tasks)
            executor.spin_once(timeout_sec=max(due_s - time.monotonic(), 0.0))
            for task in self._tasks:
                task.look()

    def recorded(self) -> dict[str, Any]:
        """Give what came, as values for JSON."""
        return {
            'statuses': self.statuses,
            'received_ns': self.received_ns,
            'confident_ns': self.confident_ns,
            'service_ms': self.service_ms,
            'refused': self.refused,
            'memory_mib': self.memory_mib,
            'warnings': self.warnings,
            'diagnoses': self.diagnoses,
            'cpu_s': self._cpu_s,
            'observed_s': self._observed_s,
        }

    # What comes

    def _on_mask(self, message: Image) -> None:
        received_ns = self.get_clock().now().nanoseconds
        self.received_ns[nanoseconds(message.header.stamp)] = received_ns

    def _on_confidence(self, message: Image) -> None:
        self.confident_ns.append(nanoseconds(message.header.stamp))

    def _on_log(self, message: Log) -> None:
        if message.name == 'adpc' and message.level >= Log.WARN:
            self.warnings.append(message.msg)

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        self.diagnoses += [status.message for status in array.status if status.level != b'\0']

    # What is done

    def _sample(self) -> float:
        try:
            pages = int(Path(f'/proc/{self._node_id}/statm').read_text().split()[1])
            self._cpu_s = cpu_seconds(self._node_id) - self._used_s
            self._observed_s = time.monotonic() - self._started_s
            self.memory_mib.append(pages * os.sysconf('SC_PAGE_SIZE') / 2**20)
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
        message.header.stamp = self.get_clock().now().to_msg()
        self._urgency.publish(message)
        if self._level != Urgency.ROUTINE:
            return self._instants.uniform(0.03, 0.1)
        slowest_s = max((status['compute_s'] for status in self.statuses[-100:]), default=0.0)
        return self._instants.uniform(0.05, max(0.35, 2 * slowest_s))  # anywhere in a frame

    def _change_parameters(self) -> float:
        draw = self._instants
        exit_count = self.statuses[-1]['exit_count'] if self.statuses else 1
        values: dict[str, Any] = {
            'min_exit': draw.randint(0, 2),
            'max_exit': draw.randint(2, max(2, exit_count)),
            'target_confidence': draw.choice((1.0, 0.9)),
            'deadline_s': draw.choice((0.0, 0.0, 0.1)),
            'adaptive': draw.random() < 0.8,
            'output_scale': draw.choice((1, 2, 4)),
            'confidence_encoding': draw.choice(('mono8', '32FC1')),
        }
        kind: Any = Parameter  # it has no types
        parameters = [kind(name, value=value) for name, value in values.items()]
        request = SetParametersAtomically.Request(
            parameters=[parameter.to_parameter_msg() for parameter in parameters]
        )
        self._call(self._set_parameters, request, 'set_parameters')
        return draw.uniform(0.5, 1.5)

    def _call(self, client: Any, request: Any, name: str) -> None:
        if not self.statuses or not client.service_is_ready():
            return
        asked_s = time.monotonic()

        def answered(future: Any) -> None:
            self.service_ms[name].append(1e3 * (time.monotonic() - asked_s))
            if name == 'set_parameters' and not future.result().result.successful:
                self.refused.append(future.result().result.reason)

        client.call_async(request).add_done_callback(answered)


def run_planner(out: Path, node_id: int, urgency: bool, changes: bool) -> None:
    """Trouble the node and record until interrupted, then write ``out`` (JSON)."""
    planner = StreamPlanner(node_id, urgency, changes)
    try:
        planner.run()
    except (KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
        pass
    out.write_text(json.dumps(planner.recorded()))


if __name__ == '__main__':
    keep_freed_memory()
    rclpy.init()
    file, rest = Path(sys.argv[2]), sys.argv[3:]
    if sys.argv[1] == 'camera':
        run_camera(file, Path(rest[0]), float(rest[1]), float(rest[2]))
    else:
        run_planner(file, int(rest[0]), rest[1] == 'True', rest[2] == 'True')
    rclpy.try_shutdown()
