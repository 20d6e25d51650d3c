# SPDX-License-Identifier: Apache-2.0
"""Networks with random weights whose features stay in range, and images to feed them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from adpc_ros.network.anytime import AnytimeNetwork
from adpc_ros.network.families import NetworkConfig, build_network
from adpc_ros.network.layers import BN_MOMENTUM
from adpc_ros.network.task import Task
from adpc_ros.runtime.images import to_input

_CALIBRATION_SIZE = (128, 256)  # pixels; 4x8 cells remain at the coarsest branch


def random_image(size: tuple[int, int], seed: int = 0) -> NDArray[np.uint8]:
    """
    Draw soft blobs of colour, which survive the pooling of the heads, under fine noise.

    :param size: (H, W) in pixels.
    :return: (H, W, 3) uint8, RGB.
    """
    generator = np.random.default_rng(seed)
    height, width = size
    coarse = generator.integers(0, 256, (height // 16 + 2, width // 16 + 2, 3), np.uint8)
    soft = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR))
    noise = generator.integers(-16, 17, (height, width, 3), np.int16)
    noisy: NDArray[np.int16] = np.clip(soft + noise, 0, 255)
    return noisy.astype(np.uint8)


@torch.no_grad()
def random_network(config: NetworkConfig, seed: int = 0) -> AnytimeNetwork:
    """
    Build a network with random weights, in evaluation mode.

    BatchNorm's statistics are those of an image, as after training, so that features neither
    explode nor vanish however deep the network is. Lambda keeps its initial value, 3, and so do
    weights under weight normalisation (MDEQ's).

    :raises ValueError: for a network that is not for segmentation.
    """
    config.check_task(Task.SEGMENTATION)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        network = build_network(config)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and hasattr(module, 'weight'):
            fan_in = module.weight[0].numel()
            module.weight.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
            if module.bias is not None:
                module.bias.zero_()
    for norm in norms:
        norm.weight.fill_(1)  # also where a block begins as the identity
        norm.bias.normal_(0, 0.2, generator=generator)
        norm.momentum = 1.0  # one image gives the statistics
    image = to_input(random_image(_CALIBRATION_SIZE, seed), config, torch.device('cpu'))
    network.train()
    network(image, adaptive=False)
    for norm in norms:
        norm.momentum = BN_MOMENTUM
    return network.eval()
