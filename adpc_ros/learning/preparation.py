# SPDX-License-Identifier: Apache-2.0
"""The start of a training: network and optimizer of the recipe."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adpc_ros.learning.config import Optimizer, TrainConfig
from adpc_ros.network import checkpoint, families, official
from adpc_ros.network.anytime import AnytimeNetwork

_MOMENTUM = 0.9
_POWER = 0.9
_DROP = 0.1


def check_batches(config: TrainConfig, sample_count: int, process_count: int) -> None:
    """
    Check that the processes can share a batch of so many samples.

    :raises ValueError: if not.
    """
    if sample_count < config.batch_size:
        raise ValueError(
            f'{config.data}: expected images for a batch of {config.batch_size}, '
            f'got {sample_count}'
        )
    if (config.batch_size // config.accumulate) % process_count:
        raise ValueError(
            f'expected a batch_size / accumulate that {process_count} processes can share, '
            f'got {config.batch_size} / {config.accumulate}'
        )


def build_network(config: TrainConfig, class_count: int, fresh: bool) -> AnytimeNetwork:
    """
    Build the network of a recipe, on the CPU.

    :param fresh: read the weights that it starts from; False if those of a saved state follow.
    :raises ValueError: if these are missing, broken, or another network's.
    """
    torch.manual_seed(config.seed)
    network = families.build_network(
        checkpoint.config_from_dict({**config.network, 'class_count': class_count})
    )
    if config.initial and fresh:
        tensors = checkpoint.load(config.initial, task=None).network.state_dict()
        official.fill(network, tensors, config.initial)
    if config.imagenet and fresh:
        if not Path(config.imagenet).is_file():
            raise ValueError(
                f'ImageNet weights not found: {config.imagenet}. Expected a file for '
                f'{network.config.architecture} of {network.PRETRAINED}'
            )
        tensors = official.read(config.imagenet).tensors
        official.fill(network, tensors, config.imagenet, backbone_only=True)
    return network


def build_optimizer(config: TrainConfig, network: AnytimeNetwork) -> torch.optim.Optimizer:
    """Build the optimizer of a recipe, for all parameters, in groups of one rate and decay."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        fresh = name.endswith('.Lambda') or name.partition('.')[0] in network.HEADS
        rate = config.learning_rate * (1.0 if fresh else config.trunk_rate)
        decays = config.weight_decay_norms or parameter.dim() > 1
        groups.setdefault((rate, config.weight_decay if decays else 0.0), []).append(parameter)
    options: list[dict[str, Any]] = [
        {'params': parameters, 'lr': rate, 'weight_decay': decay}
        for (rate, decay), parameters in groups.items()
    ]
    rate, decay = config.learning_rate, config.weight_decay
    if config.optimizer is Optimizer.SGD:
        return torch.optim.SGD(options, rate, _MOMENTUM, weight_decay=decay)
    adam = torch.optim.Adam if config.optimizer is Optimizer.ADAM else torch.optim.AdamW
    return adam(options, rate, weight_decay=decay)


def build_schedule(
    config: TrainConfig, optimizer: torch.optim.Optimizer, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """
    Build the course of the learning rate, after a warm-up: drops, or a polynomial down to zero.

    :param steps: of the whole training.
    """
    warmup, per_epoch = config.warmup_steps, steps // config.epochs
    if not warmup and not config.drops:
        return torch.optim.lr_scheduler.PolynomialLR(optimizer, steps, power=_POWER)

    def course(step: int) -> float:
        if config.drops:
            return math.pow(_DROP, sum(step >= epoch * per_epoch for epoch in config.drops))
        return math.pow(max(0.0, 1 - step / steps), _POWER)

    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / max(1, warmup)) * course(step)
    )
