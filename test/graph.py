"""A segmentation node in a process of its own, and a client that talks to it over DDS."""

from __future__ import annotations

import array
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import rclpy
from builtin_interfaces.msg import Duration, Time
from diagnostic_msgs.msg import DiagnosticArray
from PIL import Image as Pillow
from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Bool

from adpc_ros.msg import SegmentationStatus, Urgency

BEST_EFFORT = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
NODE = [sys.executable, '-m', 'adpc_ros.ros.node']


class NodeProcess:
    """The node; its log is in ``log()``."""

    def __init__(self, folder: Path, *parameters: str, command: list[str] | None = None) -> None:
        arguments = ['--ros-args']
        for parameter in ('threads:=1', 'warmup_height:=64', 'warmup_width:=64', *parameters):
            arguments += ['-p', parameter]
        self._log = folder / f'node_{time.monotonic_ns()}.log'
        with open(self._log, 'w') as file:
            self.process = subprocess.Popen(
                (command or NODE) + arguments, stdout=file, stderr=subprocess.STDOUT
            )

    def log(self) -> str:
        return self._log.read_text()

    def stop(self, with_signal: int = signal.SIGINT) -> int:
        """Interrupt the node and give its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(with_signal)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def memory_mib(self) -> float:
        pages = int(Path(f'/proc/{self.process.pid}/statm').read_text().split()[1])
        return pages * os.sysconf('SC_PAGE_SIZE') / 2**20

    def __enter__(self) -> NodeProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()  # killed, it would leave its shared memory behind
        if error is not None:
            print(self.log())


class Client:
    """A camera, an urgency monitor and a planner in one."""

    def __init__(
        self, name: str = 'adpc', image_type: type = Image, urgency_type: type = Urgency
    ) -> None:
        self._name = name
        self._context = rclpy.Context()
        rclpy.init(context=self._context)
        self.node = Node('client', context=self._context)
        self._executor = rclpy.executors.SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._image = self.node.create_publisher(image_type, f'/{name}/input/image', BEST_EFFORT)
        self._urgency = self.node.create_publisher(urgency_type, f'/{name}/input/urgency', 10)
        self.masks: list[Image] = []
        self.confidences: list[Image] = []
        self.statuses: list[SegmentationStatus] = []
        self.order: list[str] = []
        for topic, kind, into in (
            ('mask', Image, self.masks),
            ('confidence', Image, self.confidences),
            ('status', SegmentationStatus, self.statuses),
        ):
            self.node.create_subscription(
                kind,
                f'/{name}/output/{topic}',
                lambda message, into=into, topic=topic: (
                    into.append(message),
                    self.order.append(topic),
                ),
                QoSProfile(depth=100),
            )
        self._stamp = 0
        self._diagnosed = 0
        self.node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        self._diagnosed += array.status[0].name == f'{self._name}: segmentation'

    def close(self) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)

    def spin(self, duration_s: float) -> None:
        end_s = time.monotonic() + duration_s
        while (left_s := end_s - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left_s)

    def wait(self, condition: Callable[[], Any], timeout_s: float = 30.0) -> None:
        end_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end_s, f'timed out; so far: {self.order}'
            self._executor.spin_once(timeout_sec=0.02)

    def connect(self, node: NodeProcess) -> None:
        """Wait until every topic has found its other end."""

        def connected() -> bool:
            assert node.process.poll() is None, node.log()
            inputs = (self._image, self._urgency)
            outputs = (f'/{self._name}/output/{t}' for t in ('mask', 'confidence', 'status'))
            return all(p.get_subscription_count() for p in inputs) and all(
                map(self.node.count_publishers, outputs)
            )

        self.wait(connected, 60)
        before = self._diagnosed  # whoever hears the node has been found by it
        self.wait(lambda: self._diagnosed > before, 60)

    def call(self, kind: type, service: str, request: Any) -> Any:
        """Call one of the node's services and give its response."""
        client = self.node.create_client(kind, f'/{self._name}/{service}')
        self.wait(client.service_is_ready, 60)
        future = client.call_async(request)
        self.wait(future.done, 60)
        self.node.destroy_client(client)
        return future.result()

    def set_parameters(self, **values: Any) -> SetParametersResult:
        """Set parameters of the node, all at once."""
        messages = [
            Parameter(name, value=value).to_parameter_msg() for name, value in values.items()
        ]
        request = SetParametersAtomically.Request(parameters=messages)
        return self.call(SetParametersAtomically, 'set_parameters_atomically', request).result

    def image(
        self, size: tuple[int, int] = (96, 128), encoding: str = 'rgb8', **fields: Any
    ) -> Image:
        """Publish a random image with a stamp of its own; fields override the message's."""
        channels = {'rgb8': 3, 'bgr8': 3, 'rgba8': 4, 'bgra8': 4, 'mono8': 1}.get(encoding, 3)
        self._stamp += 1
        pixels = np.random.default_rng(self._stamp).integers(0, 256, (*size, channels), np.uint8)
        message = Image(height=size[0], width=size[1], encoding=encoding, step=size[1] * channels)
        message.data = array.array('B', pixels.tobytes())
        message.header.stamp = self.node.get_clock().now().to_msg()
        message.header.frame_id = f'camera_{self._stamp}'
        for name, value in fields.items():
            setattr(message, name, value)
        self._image.publish(message)
        return message

    def compressed(self, kind: str = 'JPEG', size: tuple[int, int] = (96, 128)) -> CompressedImage:
        """Publish a random picture as JPEG or PNG."""
        self._stamp += 1
        pixels = np.random.default_rng(self._stamp).integers(0, 256, (*size, 3), np.uint8)
        buffer = io.BytesIO()
        Pillow.fromarray(pixels).save(buffer, kind)
        return self.send(CompressedImage(format=kind.lower(), data=buffer.getvalue()))

    def send(self, message: Any) -> Any:
        """Publish an image message as it is, with the present as its stamp if it has none."""
        if message.header.stamp == Time():
            message.header.stamp = self.node.get_clock().now().to_msg()
        self._image.publish(message)
        return message

    def brake(self, now: bool) -> None:
        """Publish a Bool as urgency."""
        self._urgency.publish(Bool(data=now))

    def urgency(self, level: int, deadline_s: float = 0.0, hold_s: float = 0.0) -> Time:
        message = Urgency(level=level)
        message.header.stamp = self.node.get_clock().now().to_msg()
        message.deadline, message.hold = (
            Duration(sec=int(s // 1), nanosec=int(s % 1 * 1e9)) for s in (deadline_s, hold_s)
        )
        self._urgency.publish(message)
        return message.header.stamp
