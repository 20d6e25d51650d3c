"""What a training starts from: data, network and optimizer, as the recipe says."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from adpc_ros.learning.config import Optimizer, TrainConfig
from adpc_ros.learning.datasets import LabelledImages, open_samples
from adpc_ros.network import checkpoint, families, official
from adpc_ros.network.anytime import AnytimeNetwork

_MOMENTUM = 0.9


def open_data(config: TrainConfig, process_count: int) -> tuple[LabelledImages, LabelledImages]:
    """
    Open the images for training and for validation.

    :raises ValueError: if they are missing, or do not fit each other, the recipe or the number of
        processes that share a batch.
    """
    samples, validation = open_samples(config.data), open_samples(config.validation)
    if samples.classes != validation.classes:
        raise ValueError(
            f'{config.validation}: expected the classes of {samples.classes.name}, '
            f'got those of {validation.classes.name}'
        )
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
    return samples, validation


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
                f'{network.config.architecture} of github.com/HRNet/HRNet-Image-Classification '
                '(.pth) or of timm (.safetensors, .bin)'
            )
        tensors = official.read(config.imagenet).tensors
        official.fill(network, tensors, config.imagenet, backbone_only=True)
    return network


def build_optimizer(config: TrainConfig, network: nn.Module) -> torch.optim.Optimizer:
    """Build the optimizer of a recipe, for all parameters."""
    rate, decay = config.learning_rate, config.weight_decay
    if config.optimizer is Optimizer.SGD:
        return torch.optim.SGD(network.parameters(), rate, _MOMENTUM, weight_decay=decay)
    return torch.optim.AdamW(network.parameters(), rate, weight_decay=decay)
