# SPDX-License-Identifier: Apache-2.0
"""What ROS adds to the computation: frames and urgency in, masks out, between processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from adpc_ros.benchmark.networks import random_network
from adpc_ros.graph.processes import Processes, python
from adpc_ros.graph.recording import Played
from adpc_ros.labels import CITYSCAPES
from adpc_ros.network import checkpoint
from adpc_ros.network.families import NetworkConfig, default_adaptivity


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


TINY = 'hrnet_tiny'
ONE_BY_ONE = 'one by one'  # name of the act whose transport counts


def random_weights(architecture: str, folder: Path) -> Path:
    """
    Write a file with random weights.

    :raises ValueError: for an unknown architecture.
    """
    weights = folder / f'{architecture}.safetensors'
    network = random_network(
        NetworkConfig(architecture, adaptivity=default_adaptivity(architecture))
    )
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
    with Processes() as processes:
        weights = weights or random_weights(network, processes.folder)
        out = processes.folder / 'client.json'
        node_id = processes.start_node(
            f'weights:={weights.resolve()}',
            f'threads:={threads}',
            f'warmup_height:={size[0]}',
            f'warmup_width:={size[1]}',
        )
        client = python('adpc_ros.benchmark.ros_client', out, *size, duration_s, node_id)
        processes.start('client', client)
        processes.wait_for('client')
        processes.stop()
        recorded = json.loads(out.read_text())
    played = Played.of(recorded, recorded)
    one_by_one = {frame['stamp_ns'] for frame in played.frames if frame['act'] == ONE_BY_ONE}
    transport_ms = [
        ms - 1e3 * status['compute_s']
        for status, ms in played.published()
        if status['stamp_ns'] in one_by_one
    ]
    return Transport(transport_ms, played.urgency_to_mask_ms(), recorded['cpu_share'])
