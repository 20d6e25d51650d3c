# SPDX-License-Identifier: Apache-2.0
"""A node that talks to a segmentation node: how it joins, finds the other, waits and leaves."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import Empty

from adpc_ros.ros.allocator import keep_freed_memory
from adpc_ros.ros.interrupts import Interrupts

BEST_EFFORT = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
LISTENING = '/recorder/listening'  # advertised by who records, once the node has found it
_POLL_S = 0.05  # a change of the graph wakes no executor


class Peer:
    """
    A node and its executor.

    :param name: its own.
    :param of: name of the segmentation node, with its namespace, as front/adpc.
    :param context: None for that of the process.
    :param options: of rclpy's Node.
    """

    def __init__(
        self, name: str, of: str = 'adpc', context: Context | None = None, **options: Any
    ) -> None:
        """Join."""
        self.of = of
        self.node = Node(name, context=context, **options)
        self.executor = SingleThreadedExecutor(context=context)
        self.executor.add_node(self.node)
        self.interrupts: Interrupts | None = None

    def close(self) -> None:
        """Leave."""
        self.executor.shutdown()
        self.node.destroy_node()

    # Waiting

    def wait(self, condition: Callable[[], Any], timeout_s: float) -> bool:
        """Handle what comes until a condition holds; gives whether it does."""
        end_s = time.monotonic() + timeout_s
        while not condition():
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                return False
            self.executor.spin_once(timeout_sec=min(left_s, _POLL_S))
        return True

    def spin(self, duration_s: float) -> None:
        """Handle what comes for some seconds."""
        end_s = time.monotonic() + duration_s
        while (left_s := end_s - time.monotonic()) > 0:
            self.executor.spin_once(timeout_sec=left_s)

    def run(self, due: Callable[[], float] = lambda: 1.0) -> None:
        """
        Handle what comes until interrupted; no callback is cut short.

        :param due: called in between; gives the seconds after which it has to be called again.
        """
        if self.interrupts is not None:
            self.interrupts.raise_no_more()  # rclpy's handler shuts the context down
        with contextlib.suppress(ExternalShutdownException):
            while self.node.context.ok():
                self.executor.spin_once(timeout_sec=max(due(), 0.0))

    # Finding

    def when_found(self, act: Callable[[], Any]) -> None:
        """
        Do something once the segmentation node has found this one, and not before.

        To be called when all topics of this node are there: whoever hears the other's
        diagnostics, which come once a second, has been found with everything that was there.
        """
        heard: list[DiagnosticArray] = []

        def on_diagnostics(array: DiagnosticArray) -> None:
            if not heard and array.status[0].name == f'{self.of}: segmentation':
                heard.append(array)
                act()

        self.node.create_subscription(DiagnosticArray, '/diagnostics', on_diagnostics, 10)

    def announce(self) -> None:
        """Let cameras know in the graph when what they cause will be heard here."""
        self.when_found(lambda: self.node.create_publisher(Empty, LISTENING, 1))

    def handshake(
        self, publishers: Sequence[Publisher], outputs: Sequence[str] = (), recorder: bool = False
    ) -> Callable[[], bool]:
        """
        Give the condition that this node and the segmentation node have found each other.

        :param publishers: that must have been subscribed to.
        :param outputs: topics that must be published.
        :param recorder: whether there must also be a recorder that has been found.
        """
        found: list[bool] = []
        self.when_found(lambda: found.append(True))
        topics = [*outputs, *([LISTENING] if recorder else [])]
        return lambda: (
            bool(found)
            and all(publisher.get_subscription_count() for publisher in publishers)
            and all(map(self.node.count_publishers, topics))
        )


@contextlib.contextmanager
def joined(name: str, raises: bool = True, **options: Any) -> Iterator[Peer]:
    """
    Make the one node of a process, and leave in the end; further signals are ignored then.

    :param raises: let a signal raise KeyboardInterrupt wherever the process is, but while
        :meth:`Peer.run` does its work; False: only where it waits for the graph, or asks.
    :param options: of :class:`Peer`.
    :raises KeyboardInterrupt: if interrupted.
    """
    interrupts = Interrupts()
    keep_freed_memory()
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    try:
        peer = Peer(name, **options)
        peer.interrupts = interrupts
        try:
            interrupts.let_rclpy_hear()
            if raises:
                interrupts.raise_from_now_on()
            yield peer
        finally:
            interrupts.raise_no_more()
            peer.close()
    except (ExternalShutdownException, RuntimeError) as error:  # rcl's errors are the latter
        if rclpy.ok():
            raise
        raise KeyboardInterrupt from error  # rclpy's handler has shut the context down
    finally:
        interrupts.raise_no_more()
        rclpy.try_shutdown()
        interrupts.over()
