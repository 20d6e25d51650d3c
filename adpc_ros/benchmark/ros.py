"""What ROS adds to the computation: frames and urgency in, masks out, between processes."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from adpc_ros.benchmark.networks import random_network
from adpc_ros.labels import CITYSCAPES
from adpc_ros.network import checkpoint
from adpc_ros.network.adaptivity import Adaptivity
from adpc_ros.network.families import NetworkConfig
from adpc_ros.processes import Processes
from adpc_ros.ros.domain import isolated


class Transport(NamedTuple):
    """
    What was measured.

    ``transport_ms`` from a frame's stamp to the receipt of its mask without the computation, of
    frames sent one by one; ``urgency_to_mask_ms`` from CRITICAL's stamp to the receipt of the
    mask that it made leave, where an exit was ready; ``cpu_share`` is the node's processor time
    over the first of these, 1 for one core.
    """

    transport_ms: list[float]
    urgency_to_mask_ms: list[float]
    cpu_share: float


def percentiles(values_ms: list[float]) -> dict[str, Any]:
    """Give number, median, 95th and 99th percentile; None without values."""
    if not values_ms:
        return {'n': 0, 'median': None, 'p95': None, 'p99': None}
    median, p95, p99 = (float(np.percentile(values_ms, q)) for q in (50, 95, 99))
    return {'n': len(values_ms), 'median': median, 'p95': p95, 'p99': p99}


TINY = 'hrnet_tiny'


def random_weights(architecture: str, folder: Path) -> Path:
    """
    Write a file with random weights.

    :raises ValueError: for an unknown architecture.
    """
    weights = folder / f'{architecture}.safetensors'
    network = random_network(NetworkConfig(architecture, adaptivity=Adaptivity()))
    checkpoint.save(weights, network, CITYSCAPES, {})
    return weights


def measure(
    size: tuple[int, int],
    duration_s: float,
    weights: Path | None = None,
    threads: int = 0,
    network: str = TINY,
) -> Transport:
    """
    Run a node and a client on this machine, in a domain of their own.

    :param size: (H, W) of the frames in pixels.
    :param duration_s: how long frames are sent.
    :param weights: of the node; None for random ones.
    :param threads: of the node; 0 for one for each core.
    :param network: architecture of the random weights.
    :raises ChildProcessError: if one of the processes fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        weights = weights or random_weights(network, Path(folder))
        out = Path(folder) / 'client.json'
        python = [sys.executable, '-m']
        node = [*python, 'adpc_ros.ros.node', '--ros-args']
        for parameter in (
            f'weights:={weights.resolve()}',
            f'threads:={threads}',
            f'warmup_height:={size[0]}',
            f'warmup_width:={size[1]}',
        ):
            node += ['-p', parameter]
        client = [*python, 'adpc_ros.benchmark.ros_client', str(out), *map(str, size)]
        with Processes(isolated(os.environ)) as processes:
            node_id = processes.start('node', node)
            processes.start('client', [*client, str(duration_s), str(node_id)])
            processes.wait_for('client')
            processes.stop()
        return _evaluate(json.loads(out.read_text()))


def _evaluate(recorded: dict[str, Any]) -> Transport:
    received_ns = {int(stamp): value for stamp, value in recorded['received_ns'].items()}
    act = {frame['stamp_ns']: frame['act'] for frame in recorded['frames']}
    ready = {u['stamp_ns'] for u in recorded['urgencies'] if u['exit_ready']}
    transport_ms, urgency_ms = [], []
    for status in recorded['statuses']:
        stamp_ns = status['stamp_ns']
        if stamp_ns not in received_ns:
            continue
        if act.get(stamp_ns) == 'one by one':
            way_ms = (received_ns[stamp_ns] - stamp_ns) / 1e6
            transport_ms.append(way_ms - 1e3 * status['compute_s'])
        elif status['urgency_stamp_ns'] in ready:
            urgency_ms.append((received_ns[stamp_ns] - status['urgency_stamp_ns']) / 1e6)
    return Transport(transport_ms, urgency_ms, recorded['cpu_share'])
