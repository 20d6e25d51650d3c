# SPDX-License-Identifier: Apache-2.0
"""Making a new plan while the node runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from adpc_ros.network.anytime import AnytimeNetwork
from adpc_ros.network.checkpoint import load
from adpc_ros.runtime.plan import Plan
from adpc_ros.runtime.watchdog import Watch


def watch_of(
    limit_s: float, weights: str | Path, identity: str, make: Callable[[AnytimeNetwork], Plan]
) -> Watch | None:
    """
    Give the engine's watch, which reads the weights again: the network is not kept for it.

    :param limit_s: without progress, in seconds; 0 for no watch.
    :param identity: of the weights; another file in their place is an error then.
    :param make: compiles a network as the first plan was made.
    """
    if not limit_s:
        return None

    def remake() -> Plan:
        checkpoint = load(weights)
        if checkpoint.identity != identity:
            raise ValueError(f'{weights}: expected {identity}, got {checkpoint.identity}')
        return make(checkpoint.network)

    return Watch(limit_s, remake)
