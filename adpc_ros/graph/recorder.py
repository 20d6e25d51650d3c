"""
What a planner hears of a segmentation node.

``python -m adpc_ros.graph adpc_ros.graph.recorder OUT.npz`` is a recorder in a process of its own.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

from adpc_ros.graph.peer import Peer, joined
from adpc_ros.graph.recording import Recording
from adpc_ros.msg import SegmentationStatus

#: What the node publishes of each frame, below its name.
OUTPUTS: Mapping[str, type] = MappingProxyType(
    {
        'output/mask': Image,
        'output/confidence': Image,
        'output/status': SegmentationStatus,
    }
)
DEPTH = 50  # of the queues: nothing may be lost while one is slow


def listen(
    peer: Peer,
    take: Callable[[str, Any, int], Any],
    topics: Mapping[str, type] = OUTPUTS,
    raw: bool = False,
) -> None:
    """
    Subscribe to what the segmentation node publishes.

    :param take: called with the topic, the message and the time of receipt in nanoseconds.
    :param topics: below the node's name, with their types.
    :param raw: take the bytes of messages.
    """

    def heard(topic: str, message: Any) -> None:
        take(topic, message, peer.node.get_clock().now().nanoseconds)

    for topic, kind in topics.items():
        peer.node.create_subscription(
            kind, f'/{peer.of}/{topic}', partial(heard, topic), QoSProfile(depth=DEPTH), raw=raw
        )


def main() -> int:
    """Record until interrupted; gives the exit status."""
    recording = Recording(pixels=True)
    with contextlib.suppress(KeyboardInterrupt), joined('planner') as peer:
        listen(peer, recording.take)
        peer.announce()
        peer.run()
    recording.save(Path(sys.argv[1]))
    return 0
