# SPDX-License-Identifier: Apache-2.0
"""What rclpy's managed node lacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lifecycle_msgs.srv import ChangeState
from rclpy.lifecycle import LifecycleNode


def refuse_impossible_transitions(node: LifecycleNode) -> None:
    """
    Answer a request for a transition that the state does not have with False.

    In rclpy such a request (``ros2 lifecycle set /adpc configure``, twice) raises in the executor,
    and so ends the node. Nothing but the service's public type and callback is used; a release
    that has no such service among those of the node is warned of, and works without.
    """
    found = [
        service for service in node.services if getattr(service, 'srv_type', None) is ChangeState
    ]
    for service in found:
        service.callback = _guarded(node, service.callback)
    if not found:
        node.get_logger().warning(
            'this release of rclpy hides its change_state service: a request for an impossible '
            'transition may end the node'
        )


def _guarded(node: LifecycleNode, change: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def guarded(request: Any, response: Any) -> Any:
        try:
            return change(request, response)
        except RuntimeError as error:  # as all errors of rcl; those of callbacks do not come here
            node.get_logger().warning(f'transition {request.transition.id} refused: {error}')
            response.success = False
            return response

    return guarded
