# SPDX-License-Identifier: Apache-2.0
"""The start of a training: data, network and optimizer of the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from adpc_ros.learning.config import Optimizer, TrainConfig
from adpc_ros.learning.datasets import open_samples
from adpc_ros.learning.labelled_images import LabelledImages
from adpc_ros.network import checkpoint, families, official
from adpc_ros.network.anytime import AnytimeNetwork

_MOMENTUM = 0.9
_POWER = 0.9


class Data(NamedTuple):
    """Images for training and for validation, and the extra ones if there are any."""

    training: LabelledImages
    validation: LabelledImages
    extra: LabelledImages | None

    def digest(self) -> str:
        """Give a short hash of what is trained on."""
        extra = () if self.extra is None else (self.extra.digest(),)
        return '+'.join((self.training.digest(), *extra))


def open_data(config: TrainConfig, process_count: int) -> Data:
    """
    Open the images of a recipe.

    :raises ValueError: if they are missing, or do not fit each other, the recipe or the number of
        processes that share a batch.
    """
    samples, validation = open_samples(config.data), open_samples(config.validation)
    extra = open_samples(config.extra) if config.extra else None
    for description, others in ((config.validation, validation), (config.extra, extra)):
        if others is not None and samples.classes != others.classes:
            raise ValueError(
                f'{description}: expected the classes of {samples.classes.name}, '
                f'got those of {others.classes.name}'
            )
    if config.distils and not (samples.has_soft or (extra is not None and extra.has_soft)):
        raise ValueError('distill_weight is set: expected soft= in data or extra')
    if len(samples) < config.batch_size:
        raise ValueError(
            f'{config.data}: expected images for a batch of {config.batch_size}, '
            f'got {len(samples)}'
        )
    if config.class_weights is not None and len(config.class_weights) != samples.classes.count:
        raise ValueError(
            f'{config.data}: expected {samples.classes.count} class_weights, '
            f'got {len(config.class_weights)}'
        )
    if (config.batch_size // config.accumulate) % process_count:
        raise ValueError(
            f'expected a batch_size / accumulate that {process_count} processes can share, '
            f'got {config.batch_size} / {config.accumulate}'
        )
    return Data(samples, validation, extra)


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
        tensors = checkpoint.load(config.initial).network.state_dict()
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
    return torch.optim.AdamW(options, rate, weight_decay=decay)


def build_schedule(
    config: TrainConfig, optimizer: torch.optim.Optimizer, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """
    Build the course of the learning rate: a polynomial that ends at zero, after a warm-up.

    :param steps: of the whole training.
    """
    warmup = config.warmup_steps
    if not warmup:
        return torch.optim.lr_scheduler.PolynomialLR(optimizer, steps, power=_POWER)
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(1.0, (step + 1) / warmup) * max(0.0, 1 - step / steps) ** _POWER,
    )
