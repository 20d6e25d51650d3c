# SPDX-License-Identifier: Apache-2.0
"""Cascades: plain networks run one after the other, to be compared with anytime ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from adpc_ros.network.families import NetworkConfig
from adpc_ros.runtime.plan import ComputedExit, Plan


class Cascade:
    """Networks whose exits count on; nothing of one is used by the next."""

    def __init__(self, plans: Sequence[Plan]) -> None:
        """
        Hold the plans.

        :param plans: in the order in which they run.
        :raises ValueError: for none, or for networks with masks, which rule one network alone.
        """
        if not plans or any(plan.config.adaptivity is not None for plan in plans):
            raise ValueError('expected plain networks, without masks, for a cascade')
        self._plans = list(plans)
        self._running = self._plans[0]

    @property
    def config(self) -> NetworkConfig:
        """The last network's configuration."""
        return self._plans[-1].config

    @property
    def exit_count(self) -> int:
        """Number of exits of all of them."""
        return sum(plan.exit_count for plan in self._plans)

    @property
    def description(self) -> str:
        """What computes, for people."""
        return self._plans[-1].description

    def segment(
        self, image: NDArray[np.uint8], adaptive: bool = True
    ) -> Iterator[ComputedExit | None]:
        """
        Run the networks in turn; exits, and multiply-accumulates, count on.

        :param image: (H, W, 3) uint8 RGB of any size.
        :return: as :meth:`adpc_ros.runtime.plan.Plan.segment`.
        """
        exits = macs = 0
        for plan in self._plans:
            self._running = plan
            spent = macs
            for computed in plan.segment(image, adaptive):
                if computed is not None:
                    exits, macs = exits + 1, spent + computed.macs
                    computed = computed._replace(exit_index=exits, macs=macs)
                yield computed

    def logits(self) -> Tensor:
        """Give the latest class scores, as :meth:`adpc_ros.runtime.plan.Plan.logits`."""
        return self._running.logits()

    def close(self) -> None:
        """Free memory and threads."""
        for plan in self._plans:
            plan.close()
