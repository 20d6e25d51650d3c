# SPDX-License-Identifier: Apache-2.0
"""A segmentation node in a process of its own, and a client that talks to it over DDS."""

from __future__ import annotations

import array
import io
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import rclpy
from builtin_interfaces.msg import Duration, Time
from PIL import Image as Pillow
from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Bool

from adpc_ros.graph import processes
from adpc_ros.graph.camera import Camera
from adpc_ros.graph.peer import BEST_EFFORT, Peer
from adpc_ros.graph.processes import Process, python, with_parameters
from adpc_ros.graph.recorder import HEARD, listen
from adpc_ros.msg import SegmentationStatus, Urgency

__all__ = ['BEST_EFFORT', 'NODE', 'Client', 'NodeProcess']

NODE = python(processes.NODE)


class NodeProcess(Process):
    """The node; its log is in ``log()``, and on stdout if the ``with`` block fails."""

    #: before what is given
    parameters = ('threads:=1', 'warmup_height:=64', 'warmup_width:=64')

    def __init__(self, folder: Path, *parameters: str, command: list[str] | None = None) -> None:
        given = (*self.parameters, *parameters)
        log = folder / f'node_{time.monotonic_ns()}.log'
        super().__init__('node', with_parameters(command or NODE, given), log)

    def stop(self, with_signal: int = signal.SIGINT) -> int:
        """Interrupt the node and give its exit status."""
        self.interrupt(with_signal)
        return self.end()

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


class Client(Peer):
    """A camera, an urgency monitor and a planner in one."""

    def __init__(
        self, name: str = 'adpc', image_type: type = Image, urgency_type: type = Urgency
    ) -> None:
        self._context = rclpy.Context()
        rclpy.init(context=self._context)
        super().__init__('client', name, self._context)
        self.camera = Camera(self, (), image_type, urgency_type)
        self.masks: list[Image] = []
        self.confidences: list[Image] = []
        self.statuses: list[SegmentationStatus] = []
        self.order: list[str] = []
        self._heard = dict(zip(HEARD, (self.masks, self.confidences, self.statuses)))
        listen(self, self._take)
        self._stamp = 0

    def _take(self, topic: str, message: Any, received_ns: int) -> None:
        self._heard[topic].append(message)
        self.order.append(topic.removeprefix('output/'))

    def close(self) -> None:
        super().close()
        rclpy.shutdown(context=self._context)

    def wait(self, condition: Callable[[], Any], timeout_s: float = 30.0) -> bool:
        assert super().wait(condition, timeout_s), f'timed out; so far: {self.order}'
        return True

    def connect(self, node: NodeProcess) -> None:
        """Wait until every topic has found its other end."""
        inputs = (self.camera.image, self.camera.urgency)
        met = self.handshake(inputs, [f'/{self.of}/{topic}' for topic in HEARD])

        def connected() -> bool:
            assert not node.ended, node.log()
            return met()

        self.wait(connected, 60)

    def call(self, kind: type, service: str, request: Any) -> Any:
        """Call one of the node's services and give its response."""
        client = self.node.create_client(kind, f'/{self.of}/{service}')
        response = self.ask(client, request)
        self.node.destroy_client(client)
        return response

    def ask(self, client: Any, request: Any) -> Any:
        """Give the response; a node that has not found its client yet is asked again."""
        self.wait(client.service_is_ready, 60)
        for _ in range(5):
            future = client.call_async(request)
            if Peer.wait(self, future.done, 10):
                break
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
        self.camera.image.publish(message)
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
        self.camera.image.publish(message)
        return message

    def brake(self, now: bool) -> None:
        """Publish a Bool as urgency."""
        self.camera.urgency.publish(Bool(data=now))

    def urgency(self, level: int, deadline_s: float = 0.0, hold_s: float = 0.0) -> Time:
        message = Urgency(level=level)
        message.header.stamp = self.node.get_clock().now().to_msg()
        message.deadline, message.hold = (
            Duration(sec=int(s // 1), nanosec=int(s % 1 * 1e9)) for s in (deadline_s, hold_s)
        )
        self.camera.urgency.publish(message)
        return message.header.stamp
