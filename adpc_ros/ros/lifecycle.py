# SPDX-License-Identifier: Apache-2.0
"""What rclpy's managed node lacks."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

from rclpy._rclpy_pybind11 import RCLError
from rclpy.lifecycle import LifecycleNode


def refuse_impossible_transitions(node: LifecycleNode) -> None:
    """
    Answer a request for a transition that the state does not have with False.

    In rclpy 7.1 such a request (``ros2 lifecycle set /adpc configure``, twice) raises in the
    executor, and so ends the node.
    """
    service = node._service_change_state
    change = service.callback

    def guarded(request: Any, response: Any) -> Any:
        try:
            return change(request, response)
        except RCLError as error:
            node.get_logger().warning(f'transition {request.transition.id} refused: {error}')
            response.success = False
            return response

    service.callback = guarded


class Interrupts:
    """
    Lets SIGINT raise KeyboardInterrupt until the node spins; from then on rclpy's handler ends it.

    The events executor calls Python from C++ that no exception may leave: one that is raised there
    at the wrong moment aborts the process. Create it in the main thread, before ``rclpy.init``,
    whose handler calls this one.
    """

    def __init__(self) -> None:
        """Take the signal."""
        self.raises = True
        signal.signal(signal.SIGINT, self)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle the signal."""
        if self.raises:
            raise KeyboardInterrupt
