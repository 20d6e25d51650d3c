"""
HRNet, the backbone: branches of falling resolution that exchange what they know.

Names of modules and parameters are those of the released HRNet and ADP-C checkpoints.
Source: arXiv:1908.07919 (HRNetV2).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from adpc_ros.network.adaptivity import ActiveMap, MaskedConv2d, MaskedSequential

BN_MOMENTUM = 0.01
STEM_CHANNELS = 64


@dataclass(frozen=True)
class Architecture:
    """
    Sizes of one HRNet.

    :param name: as on the command line.
    :param widths: channels of branches 0 to 3 (at 1/4, 1/8, 1/16 and 1/32).
    :param modules: exchange modules in stages 2, 3 and 4.
    :param blocks: residual blocks on a branch in one module.
    :param stem_blocks: bottlenecks in layer1.
    :param stem_width: inner channels of these; they give four times as many.
    :param head_width: channels inside redesigned heads.
    """

    name: str
    widths: tuple[int, int, int, int]
    modules: tuple[int, int, int]
    blocks: int
    stem_blocks: int
    stem_width: int = 64
    head_width: int = 64


ARCHITECTURES = {
    a.name: a
    for a in (
        Architecture('hrnet_w18_small_v2', (18, 36, 72, 144), (1, 3, 2), 2, 2),
        Architecture('hrnet_w18', (18, 36, 72, 144), (1, 4, 3), 4, 4),
        Architecture('hrnet_w32', (32, 64, 128, 256), (1, 4, 3), 4, 4),
        Architecture('hrnet_w48', (48, 96, 192, 384), (1, 4, 3), 4, 4, head_width=128),
        Architecture('hrnet_tiny', (4, 8, 16, 32), (1, 1, 1), 1, 1, stem_width=8, head_width=16),
    )
}


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Give a BatchNorm with HRNet's momentum."""
    return nn.BatchNorm2d(channels, momentum=BN_MOMENTUM)


def conv_bn(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int = 1,
    relu: bool = True,
    window: int | None = None,
) -> MaskedSequential:
    """Give convolution, BatchNorm and, if asked for, ReLU."""
    layers: list[nn.Module] = [
        MaskedConv2d(in_channels, out_channels, kernel_size, stride, window=window),
        batch_norm(out_channels),
    ]
    if relu:
        layers.append(nn.ReLU(inplace=True))
    return MaskedSequential(*layers)


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (B, C, h, w) to (B, C, *size) as HRNet does: bilinear, corners not aligned."""
    if x.shape[2:] == size:
        return x
    return functional.interpolate(x, size, mode='bilinear', align_corners=False)


def _module_list(modules: Sequence[nn.Module | None]) -> nn.ModuleList:
    """Give a list with gaps, which PyTorch takes but its types do not know of."""
    return nn.ModuleList(cast('Iterable[nn.Module]', modules))


class Bottleneck(nn.Module):
    """The residual block of layer1: 1x1, 3x3, 1x1; never masked."""

    def __init__(self, in_channels: int, width: int) -> None:
        """Build the block; it gives ``4 * width`` channels."""
        super().__init__()
        self.conv1 = MaskedConv2d(in_channels, width, 1)
        self.bn1 = batch_norm(width)
        self.conv2 = MaskedConv2d(width, width, 3)
        self.bn2 = batch_norm(width)
        self.conv3 = MaskedConv2d(width, 4 * width, 1)
        self.bn3 = batch_norm(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = (
            conv_bn(in_channels, 4 * width, 1, relu=False) if in_channels != 4 * width else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, 4 * width, H, W)."""
        y: Tensor = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y = self.relu(y + (x if self.downsample is None else self.downsample(x)))
        return y


class BasicBlock(nn.Module):
    """The residual block of the branches: two masked 3x3 convolutions."""

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


class ExchangeModule(nn.Module):
    """Residual blocks on every branch, then every branch receives from all (the fuse layers)."""

    def __init__(self, widths: tuple[int, ...], blocks: int, window: int | None) -> None:
        """Build the module for branches of these widths."""
        super().__init__()
        self.branches = nn.ModuleList(
            nn.ModuleList(BasicBlock(width, window) for _ in range(blocks)) for width in widths
        )
        self.fuse_layers = nn.ModuleList(
            _module_list([self._fuse(widths, i, j, window) for j in range(len(widths))])
            for i in range(len(widths))
        )
        self.relu = nn.ReLU(inplace=True)

    @staticmethod
    def _fuse(
        widths: tuple[int, ...], target: int, source: int, window: int | None
    ) -> MaskedSequential | None:
        if source == target:
            return None
        if source > target:
            return conv_bn(widths[source], widths[target], 1, relu=False, window=window)
        halvings = target - source
        return MaskedSequential(
            *(
                conv_bn(
                    widths[source],
                    widths[target] if last else widths[source],
                    3,
                    stride=2,
                    relu=not last,
                    window=window,
                )
                for last in (k == halvings - 1 for k in range(halvings))
            )
        )

    def forward(self, xs: list[Tensor], active: ActiveMap | None) -> list[Tensor]:
        """Map the branches, each (B, C_i, H_i, W_i), to the same shapes."""
        ys = []
        for x, blocks in zip(xs, self.branches):
            for block in cast(nn.ModuleList, blocks):
                x = block(x, active)
            ys.append(x)
        fused = []
        for target, layers in enumerate(self.fuse_layers):
            size = (ys[target].shape[2], ys[target].shape[3])
            total: Tensor | None = None
            for y, layer in zip(ys, cast('Iterable[nn.Module | None]', layers)):
                term: Tensor = y if layer is None else resize(layer(y, active), size)
                total = term if total is None else total + term
            fused.append(self.relu(total))
        return fused


class HRNet(nn.Module):
    """The backbone as four stages that are called one after the other."""

    def __init__(self, architecture: Architecture, window: int | None = None) -> None:
        """
        Build stem and stages.

        :param architecture: the sizes.
        :param window: edge of the interpolation window of masked convolutions, None without them.
        """
        super().__init__()
        a = architecture
        self.conv1 = MaskedConv2d(3, STEM_CHANNELS, 3, stride=2)
        self.bn1 = batch_norm(STEM_CHANNELS)
        self.conv2 = MaskedConv2d(STEM_CHANNELS, STEM_CHANNELS, 3, stride=2)
        self.bn2 = batch_norm(STEM_CHANNELS)
        self.relu = nn.ReLU(inplace=True)
        stem_out = 4 * a.stem_width
        self.layer1 = nn.Sequential(
            *(
                Bottleneck(stem_out if i else STEM_CHANNELS, a.stem_width)
                for i in range(a.stem_blocks)
            )
        )
        before: tuple[int, ...] = (stem_out,)
        for stage, module_count in enumerate(a.modules, start=2):
            widths = a.widths[:stage]
            setattr(self, f'transition{stage - 1}', self._transition(before, widths, window))
            modules = [ExchangeModule(widths, a.blocks, window) for _ in range(module_count)]
            setattr(self, f'stage{stage}', nn.ModuleList(modules))
            before = widths

    @staticmethod
    def _transition(
        before: tuple[int, ...], after: tuple[int, ...], window: int | None
    ) -> nn.ModuleList:
        layers: list[nn.Module | None] = []
        for i, width in enumerate(after):
            if i >= len(before):  # a new branch, halved from the lowest resolution
                new = conv_bn(before[-1], width, 3, stride=2, window=window)
                layers.append(MaskedSequential(new))
            elif before[i] != width:
                layers.append(conv_bn(before[i], width, 3, window=window))
            else:
                layers.append(None)
        return _module_list(layers)

    def stem(self, image: Tensor) -> Tensor:
        """Map a normalised (B, 3, H, W) image to (B, C, H/4, W/4): stem and layer1."""
        x: Tensor = self.relu(self.bn1(self.conv1(image)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.layer1(x)
        return x

    def stage(self, stage: int, xs: list[Tensor], active: ActiveMap | None) -> list[Tensor]:
        """
        Run the transition into stage 2, 3 or 4 and the stage itself.

        :param stage: 2, 3 or 4.
        :param xs: the branches of the stage before (layer1's output alone for stage 2).
        :param active: positions to compute; None computes all.
        :return: ``stage`` branches, (B, C_i, H / 2^(2+i), W / 2^(2+i)).
        """
        transition: nn.ModuleList = getattr(self, f'transition{stage - 1}')
        branches = [
            xs[min(i, len(xs) - 1)] if layer is None else layer(xs[min(i, len(xs) - 1)], active)
            for i, layer in enumerate(transition)
        ]
        for module in getattr(self, f'stage{stage}'):
            branches = module(branches, active)
        return branches
