# SPDX-License-Identifier: Apache-2.0
"""
What a planner hears of a segmentation node.

``python -m adpc_ros.graph adpc_ros.graph.recorder OUT.npz`` is a recorder in a process of its own.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from adpc_ros.graph.peer import Peer, joined
from adpc_ros.graph.recording import Recording
from adpc_ros.ros.conversions import MESSAGES
from adpc_ros.ros.publication import TOPICS

#: What the node publishes of each frame that a planner reads, below its name.
HEARD = ('output/mask', 'output/confidence', 'output/status')
DEPTH = 50  # of the queues: nothing may be lost while one is slow


def listen(
    peer: Peer,
    take: Callable[[str, Any, int], Any],
    topics: Iterable[str] = HEARD,
    raw: bool = False,
) -> None:
    """
    Subscribe to what the segmentation node publishes.

    :param take: called with the topic, the message and the time of receipt in nanoseconds.
    :param topics: of :data:`adpc_ros.ros.publication.TOPICS`; those of a type that is not
        installed are left out.
    :param raw: take the bytes of messages.
    """

    def heard(topic: str, message: Any) -> None:
        take(topic, message, peer.node.get_clock().now().nanoseconds)

    for topic in topics:
        about = TOPICS[topic]
        quality = QoSProfile(depth=DEPTH)
        if about.loose:
            quality.reliability = ReliabilityPolicy.BEST_EFFORT
        if about.kept:
            quality.durability = DurabilityPolicy.TRANSIENT_LOCAL
        if about.kind in MESSAGES:
            peer.node.create_subscription(
                *(MESSAGES[about.kind], f'/{peer.of}/{topic}', partial(heard, topic), quality),
                raw=raw,
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
