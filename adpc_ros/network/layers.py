# SPDX-License-Identifier: Apache-2.0
"""What the families of networks are built of."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from adpc_ros.network.adaptivity import ActiveMap, MaskedConv2d, MaskedSequential

BN_MOMENTUM = 0.01  # HRNet's
BN_EPS = 1e-5


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Give a BatchNorm with HRNet's momentum."""
    return nn.BatchNorm2d(channels, BN_EPS, BN_MOMENTUM)


def conv_bn(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int = 1,
    relu: bool = True,
    window: int | None = None,
    groups: int = 1,
) -> MaskedSequential:
    """Give convolution, BatchNorm and, on request, ReLU."""
    layers: list[nn.Module] = [
        MaskedConv2d(in_channels, out_channels, kernel_size, stride, window=window, groups=groups),
        batch_norm(out_channels),
    ]
    if relu:
        layers.append(nn.ReLU(inplace=True))
    return MaskedSequential(*layers)


class BasicBlock(nn.Module):
    """A residual block of two masked 3x3 convolutions."""

    def __init__(self, width: int, window: int | None) -> None:
        """Build the block."""
        super().__init__()
        self.conv1 = MaskedConv2d(width, width, 3, window=window)
        self.bn1 = batch_norm(width)
        self.conv2 = MaskedConv2d(width, width, 3, window=window)
        self.bn2 = batch_norm(width)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor, active: ActiveMap | None) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        y: Tensor = self.relu(self.bn1(self.conv1(x, active)))
        y = self.bn2(self.conv2(y, active))
        y = self.relu(y + x)
        return y


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (B, C, h, w) to (B, C, *size) as HRNet does: bilinear, corners not aligned."""
    if x.shape[2:] == size:
        return x
    return functional.interpolate(x, size, mode='bilinear', align_corners=False)
