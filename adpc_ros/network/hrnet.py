# SPDX-License-Identifier: Apache-2.0
"""
The family of the paper: HRNet with exits after layer1 and after stages 2, 3 and 4.

Branches of falling resolution exchange what they know. Names of modules and parameters are those
of the released HRNet and ADP-C checkpoints.
Source: arXiv:1908.07919 (HRNetV2), arXiv:2104.00749 (ADP-C).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, cast

from torch import Tensor, nn

from adpc_ros.network.adaptivity import ActiveMap, MaskedConv2d, MaskedSequential
from adpc_ros.network.anytime import Part, StagedNetwork
from adpc_ros.network.exits import Heads, join_branches, plain_head, redesigned_head
from adpc_ros.network.layers import BasicBlock, batch_norm, conv_bn, resize

if TYPE_CHECKING:
    from adpc_ros.network.families import NetworkConfig

STEM_CHANNELS = 64


@dataclass(frozen=True)
class Sizes:
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
    exit_levels: ClassVar[tuple[int, ...]] = (2, 2, 2, 2)
    size_multiple: ClassVar[int] = 32  # what redesigned heads need, at most
    heads: ClassVar[tuple[Heads, ...]] = (Heads.REDESIGNED, Heads.PLAIN, Heads.NONE)
    unrolls: ClassVar[bool] = False


SIZES = {
    a.name: a
    for a in (
        Sizes('hrnet_w18_small_v2', (18, 36, 72, 144), (1, 3, 2), 2, 2),
        Sizes('hrnet_w18', (18, 36, 72, 144), (1, 4, 3), 4, 4),
        Sizes('hrnet_w32', (32, 64, 128, 256), (1, 4, 3), 4, 4),
        Sizes('hrnet_w48', (48, 96, 192, 384), (1, 4, 3), 4, 4, head_width=128),
        Sizes('hrnet_tiny', (4, 8, 16, 32), (1, 1, 1), 1, 1, stem_width=8, head_width=16),
    )
}


def _module_list(modules: Sequence[nn.Module | None]) -> nn.ModuleList:
    """Give a list with gaps, which PyTorch takes but its types do not know of."""
    return nn.ModuleList(cast('Iterable[nn.Module]', modules))


def _head_depths(config: NetworkConfig) -> tuple[int, ...]:
    """Give how often the redesigned heads of exits 1 to 3 pool: 3, 2 and 1 by default."""
    return config.head_depths or tuple(range(config.stage_count - 1, 0, -1))


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


class ExchangeModule(nn.Module):
    """Residual blocks on every branch, then every branch receives from all (the fuse layers)."""

    def __init__(
        self,
        widths: tuple[int, ...],
        blocks: int,
        window: int | None,
        outputs: int | None = None,
    ) -> None:
        """
        Build the module for branches of these widths.

        :param outputs: how many branches, from the finest on, it gives; None for all.
        """
        super().__init__()
        self.branches = nn.ModuleList(
            nn.ModuleList(BasicBlock(width, window) for _ in range(blocks)) for width in widths
        )
        self.fuse_layers = nn.ModuleList(
            _module_list([self._fuse(widths, i, j, window) for j in range(len(widths))])
            for i in range(len(widths) if outputs is None else outputs)
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
        """Map the branches, each (B, C_i, H_i, W_i), to the same shapes, or the first of them."""
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


class HRNet(StagedNetwork):
    """Stem and layer1 are stage 1; the others are HRNet's own."""

    ARCHITECTURES: ClassVar[Mapping[str, Sizes]] = SIZES
    HEADS: ClassVar[tuple[str, ...]] = ('exit1', 'exit2', 'exit3', 'last_layer')
    PRETRAINED = 'github.com/HRNet/HRNet-Image-Classification (.pth) or timm (.safetensors, .bin)'
    OUTPUTS: ClassVar[int | None] = None
    """Branches that the last module gives; None for all."""

    def __init__(self, config: NetworkConfig) -> None:
        """
        Build the network with HRNet's initialisation.

        :param config: the configuration; kept as ``self.config``.
        """
        super().__init__(config)
        a = self.ARCHITECTURES[config.architecture]
        window = config.adaptivity.window if config.adaptivity else None
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
            if stage == len(a.widths) and self.OUTPUTS is not None:
                modules[-1] = ExchangeModule(widths, a.blocks, window, self.OUTPUTS)
            setattr(self, f'stage{stage}', nn.ModuleList(modules))
            before = widths
        self._add_heads(a, window)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
                nn.init.normal_(module.weight, std=0.001)

    def _add_heads(self, sizes: Sizes, window: int | None) -> None:
        """Make the heads of exits 1 to 3, which there may be, and the last one."""
        config = self.config
        channels = [4 * sizes.stem_width, *(sum(sizes.widths[:n]) for n in (2, 3, 4))]
        classes, depths = config.class_count, _head_depths(config)
        for index in range(1, config.exit_count):
            head_window = None if index == 1 else window  # exit 1 is never masked
            width = channels[index - 1]
            if config.heads is Heads.PLAIN:
                head = plain_head(width, classes, head_window)
            else:
                depth = depths[index - 1]
                head = redesigned_head(width, sizes.head_width, classes, depth, head_window)
            setattr(self, f'exit{index}', head)
        self.last_layer = plain_head(channels[3], classes, window)

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

    def parts(self, index: int) -> Sequence[Part]:
        """
        Give stem and layer1, or the transition into stage 2, 3 or 4 and the stage's modules.

        Features are ``index`` branches, (B, C_i, H / 2^(2+i), W / 2^(2+i)).
        """
        if index == 1:
            return [lambda features, _: [self.stem(features[0])]]
        return [partial(self._enter, index), *getattr(self, f'stage{index}')]

    def _enter(self, index: int, branches: list[Tensor], active: ActiveMap | None) -> list[Tensor]:
        """Apply the transition into a stage."""
        return [
            source if layer is None else layer(source, active)
            for i, layer in enumerate(getattr(self, f'transition{index - 1}'))
            for source in (branches[min(i, len(branches) - 1)],)
        ]

    def head(self, index: int) -> nn.Sequential:
        """Give the head of an exit."""
        last = index == self.config.stage_count
        layers: nn.Sequential = self.last_layer if last else getattr(self, f'exit{index}')
        return layers

    def scores(self, index: int, features: list[Tensor], active: ActiveMap | None) -> Tensor:
        """Apply an exit's head to the joined branches; gives (B, K, H/4, W/4)."""
        scores: Tensor = self.head(index)(join_branches(features), active)
        return scores

    def check_size(self, height: int, width: int) -> None:
        """Raise ValueError for a size that redesigned heads cannot pool: no multiple of 32."""
        multiple = 4 << max(_head_depths(self.config))
        if self.config.heads is Heads.REDESIGNED and (height % multiple or width % multiple):
            raise ValueError(
                f'redesigned heads need height and width to be multiples of {multiple}, '
                f'got {height}x{width}: pad the image'
            )
