"""
The benchmark's process beside the node: a camera and a planner in one.

``python -m adpc_ros.benchmark.ros_client OUT.json HEIGHT WIDTH SECONDS NODE_PID``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import rclpy
from sensor_msgs.msg import Image
from tqdm import tqdm

from adpc_ros.benchmark.networks import random_image
from adpc_ros.demo_graph import Camera, Planner, nanoseconds
from adpc_ros.ros.allocator import keep_freed_memory

_IMAGES = 4  # different ones, so that masks differ
_FEWEST_URGENCIES = 20
_PAUSE_S = 0.05  # after each urgent frame, about what the camera waits there


class Recorder(Planner):
    """A planner that keeps when masks came, and not what they show."""

    def __init__(self) -> None:
        """Subscribe."""
        super().__init__()
        self.received_ns: dict[int, int] = {}  # by stamp

    def _on_mask(self, message: Image) -> None:
        received_ns = self.get_clock().now().nanoseconds
        self.received_ns[nanoseconds(message.header.stamp)] = received_ns

    def _on_confidence(self, message: Image) -> None:
        pass  # received all the same


def cpu_seconds(process_id: int) -> float:
    """Give the processor time that a process has used, in seconds."""
    after_name = Path(f'/proc/{process_id}/stat').read_text().rpartition(')')[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf('SC_CLK_TCK')  # user, system


class Client(Camera):
    """Sends frames one by one, then frames with CRITICAL at random instants."""

    def __init__(self, size: tuple[int, int], duration_s: float, node_id: int) -> None:
        """
        Advertise and subscribe.

        :param size: (H, W) of the frames in pixels.
        :param duration_s: of both acts together, nearly.
        :param node_id: process id of the node.
        """
        super().__init__([random_image(size, i) for i in range(_IMAGES)], 1.0, duration_s / 2, 0)
        self._node_id = node_id
        self.cpu_share = 0.0
        self.recorder = Recorder()
        self._executor.add_node(self.recorder)

    def run(self) -> None:
        """Play both acts."""
        self._find_node()
        whole_s = self._measure()
        self._one_by_one()
        self._urgencies = max(_FEWEST_URGENCIES, int(self._act_s / (whole_s / 2 + _PAUSE_S)))
        self._urgent(whole_s)
        self._sleep_until(time.monotonic() + 0.5)  # takes what is under way

    def _one_by_one(self) -> None:
        start_s, used_s = time.monotonic(), cpu_seconds(self._node_id)
        with tqdm(desc='one by one') as progress:
            while time.monotonic() < start_s + self._act_s:
                self._publish_and_wait('one by one')
                progress.update()
        self.cpu_share = (cpu_seconds(self._node_id) - used_s) / (time.monotonic() - start_s)

    def recorded(self) -> dict[str, Any]:
        """Give what was sent and what came, as values for JSON."""
        return {
            'frames': self.frames,
            'urgencies': self.urgencies,
            'statuses': self.recorder.statuses,
            'received_ns': self.recorder.received_ns,
            'cpu_share': self.cpu_share,
        }


if __name__ == '__main__':
    keep_freed_memory()
    rclpy.init()
    client = Client((int(sys.argv[2]), int(sys.argv[3])), float(sys.argv[4]), int(sys.argv[5]))
    client.run()
    Path(sys.argv[1]).write_text(json.dumps(client.recorded()))
    rclpy.try_shutdown()
