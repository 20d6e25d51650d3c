# SPDX-License-Identifier: Apache-2.0
"""Small networks for the tests, with statistics as if they had been trained, and images."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from adpc_ros.network.adaptivity import Adaptivity
from adpc_ros.network.anytime import AnytimeNetwork
from adpc_ros.network.exits import Heads
from adpc_ros.network.families import NetworkConfig, build_network

COARSE_EXITS = 3  # of coarse_tiny
LOGIT_SPREAD = 2.0  # top probabilities from nearly equal to nearly sure, median about 0.6


def random_image(height: int, width: int, seed: int = 0) -> Tensor:
    """Give a (1, 3, H, W) float image of soft blobs, which survive the pooling of the heads."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, 3, max(2, height // 8), max(2, width // 8), generator=generator)
    fine = torch.randn(1, 3, height, width, generator=generator)
    return 1.5 * functional.interpolate(coarse, (height, width), mode='bilinear') + 0.3 * fine


def random_network(
    seed: int = 0,
    heads: Heads | None = None,
    adaptivity: Adaptivity | None = None,
    class_count: int = 11,
    temperatures: tuple[float, ...] | None = None,
    architecture: str = 'hrnet_tiny',
    fresh_blocks: bool = False,
    head_depths: tuple[int, ...] | None = None,
) -> AnytimeNetwork:
    """
    Give a tiny network in evaluation mode whose exits disagree and are sometimes sure.

    :param fresh_blocks: leave the weight of residual blocks as its family begins a training.
    """
    generator = torch.Generator().manual_seed(seed)
    network = build_network(
        NetworkConfig(
            *(architecture, heads, class_count, adaptivity),  # type: ignore[arg-type]
            temperatures=temperatures,  # type: ignore[arg-type]
            head_depths=head_depths,
        )
    ).eval()
    for name, value in network.state_dict().items():
        if name.endswith('Lambda'):
            value.copy_(0.3 + 2 * torch.rand((), generator=generator))
        elif name.endswith('bn2.weight') and not fresh_blocks:
            value.fill_(1.0)  # a block must not be the identity
        elif name.endswith('running_var'):
            value.uniform_(0.5, 1.5, generator=generator)
        elif name.endswith(('running_mean', 'bias')):
            value.normal_(0, 0.2, generator=generator)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan = module.weight[0].numel()
            module.weight.data.normal_(0, (2 / fan) ** 0.5, generator=generator)
    _spread_logits(network, random_image(96, 128, seed + 1000))
    return network


@torch.no_grad()
def _spread_logits(network: AnytimeNetwork, image: Tensor) -> None:
    """Let every exit's class scores on an image have mean 0 and a given deviation."""
    for out in network.exits(image, adaptive=False):
        _spread(network.head(out.exit_index)[-1], out.raw_logits)


def _spread(classifier: nn.Module, logits: Tensor) -> None:
    centre = logits.mean(dim=(0, 2, 3))
    factor = LOGIT_SPREAD / (logits - centre.view(1, -1, 1, 1)).std()
    classifier.weight.mul_(factor)
    classifier.bias.sub_(centre).mul_(factor)


def equilibrium_network(
    seed: int = 0, heads: Heads | None = None, class_count: int = 11, gain: float = 0.15
) -> AnytimeNetwork:
    """
    Give a tiny MDEQ in evaluation mode whose iterates differ, and come closer to an equilibrium.

    :param gain: of the last normalisation in its layer; with 0.05 it contracts.
    """
    torch.manual_seed(seed)
    network = build_network(NetworkConfig('mdeq_tiny', heads, class_count)).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if 'post_fuse_layers' in name and name.endswith('gnorm.weight'):
                parameter.fill_(gain)
            elif name.endswith('weight_g'):
                parameter.mul_(0.5 + torch.rand_like(parameter))
            elif parameter.dim() == 1:  # norms and biases
                parameter.add_(0.3 * torch.randn_like(parameter))
            elif name.startswith('last_layer') or name.startswith('downsample'):
                parameter.normal_(0, (2 / parameter[0].numel()) ** 0.5)
        *_, last = network.exits(random_image(96, 128, seed + 1000))
        _spread(network.last_layer[-1], last.logits)
    return network
