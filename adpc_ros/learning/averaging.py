# SPDX-License-Identifier: Apache-2.0
"""A moving average of a network's weights, which is judged in place of the last ones."""

from __future__ import annotations

import copy

import torch

from adpc_ros.network.anytime import AnytimeNetwork


class WeightAverage:
    """An exponential moving average of parameters and statistics, after every step."""

    def __init__(self, network: AnytimeNetwork, decay: float) -> None:
        """
        Begin with the present weights.

        :param network: is not changed; on its final device.
        :param decay: 0 to 1, share of the average that stays in a step; less in the first ones,
            as much as their number allows.
        """
        self.decay = decay
        self.network = copy.deepcopy(network).requires_grad_(False)

    @torch.no_grad()
    def update(self, network: AnytimeNetwork, steps: int) -> None:
        """
        Take up the weights after a step.

        :param steps: optimizer steps before this one.

        Source: the warm-up is that of TensorFlow's ExponentialMovingAverage.
        """
        share = 1 - min(self.decay, (1 + steps) / (10 + steps))
        own = self.network.state_dict()
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                own[name].lerp_(value, share)
            else:
                own[name].copy_(value)
