# SPDX-License-Identifier: Apache-2.0
"""
The benchmark's process beside the node: a camera and a planner in one.

``python -m adpc_ros.graph adpc_ros.benchmark.ros_client OUT.json HEIGHT WIDTH SECONDS NODE_PID``.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from adpc_ros.benchmark.networks import random_image
from adpc_ros.benchmark.ros import ONE_BY_ONE
from adpc_ros.graph.camera import Camera
from adpc_ros.graph.peer import joined
from adpc_ros.graph.processes import cpu_seconds
from adpc_ros.graph.recorder import listen
from adpc_ros.graph.recording import Recording
from adpc_ros.graph.schedule import Act, Pace

_IMAGES = 4  # different ones, so that masks differ
_FEWEST_URGENCIES = 20


def main() -> int:
    """Send frames one by one, then with CRITICAL, and write what came; gives the exit status."""
    out, height, width, duration_s, node_id = sys.argv[1:]
    act_s = float(duration_s) / 2
    one_by_one = Act(ONE_BY_ONE, Pace.ONE_BY_ONE, act_s)
    urgent = Act('urgency', Pace.URGENT, act_s, count=_FEWEST_URGENCIES)
    with joined('client') as peer:
        images = (random_image((int(height), int(width)), i) for i in range(_IMAGES))
        camera, recording = Camera(peer, images), Recording()
        listen(peer, recording.take)
        camera.find_node(recorder=False)
        whole_s = camera.measure()
        start_s, used_s = time.monotonic(), cpu_seconds(int(node_id))
        camera.perform([one_by_one], whole_s)
        cpu_s = cpu_seconds(int(node_id)) - used_s
        cpu_share = cpu_s / (time.monotonic() - start_s)
        camera.perform([urgent], whole_s)
        peer.spin(0.5)  # what is under way
        sent = {'frames': camera.frames, 'urgencies': camera.urgencies}
        values = {**sent, **recording.values(), 'cpu_share': cpu_share}
        Path(out).write_text(json.dumps(values))
    return 0
