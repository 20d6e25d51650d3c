# SPDX-License-Identifier: Apache-2.0
"""
HRNet for poses: the exits give heat maps, one for each joint of a person.

The stages are HRNet's, but that the last one gives its finest branch alone.
Source: arXiv:1902.09212 (HRNet for poses), arXiv:2104.00749 (its exits and their masks).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from torch import Tensor, nn

from adpc_ros.network.adaptivity import ActiveMap, Criterion, MaskedConv2d, MaskedSequential
from adpc_ros.network.exits import Heads, join_branches
from adpc_ros.network.hrnet import SIZES as HRNET_SIZES
from adpc_ros.network.hrnet import HRNet, Sizes
from adpc_ros.network.task import Task

_OF_HRNET = ('hrnet_w32', 'hrnet_w48')
SIZES = {
    a.name: a
    for a in (
        *(replace(HRNET_SIZES[n], name=f'pose_{n}', head_width=64) for n in _OF_HRNET),
        Sizes('pose_hrnet_tiny', (16, 16, 16, 32), (1, 1, 1), 1, 1, stem_width=8, head_width=16),
    )
}


class PoseHRNet(HRNet):
    """
    HRNet with heat maps (B, K, H/4, W/4) in place of class scores.

    The last head and plain heads read the finest branch alone, redesigned ones all branches.
    """

    TASK = Task.POSE
    CRITERIA = (Criterion.PEAK_RESPONSE, Criterion.RANDOM)
    ARCHITECTURES: ClassVar[Mapping[str, Sizes]] = SIZES
    PRETRAINED = f'{HRNet.PRETRAINED}, or github.com/HRNet/HRNet-Human-Pose-Estimation'
    OUTPUTS = 1

    def _add_heads(self, sizes: Sizes, window: int | None) -> None:
        super()._add_heads(sizes, window)
        finest = sizes.widths[0]
        if self.config.heads is Heads.PLAIN:
            self.exit1 = self._plain_head(4 * sizes.stem_width, None)  # never masked
            self.exit2, self.exit3 = (self._plain_head(finest, window) for _ in range(2))
        self.last_layer = self._plain_head(finest, window)
        for name, module in self.named_modules():
            if name.startswith(self.HEADS) and isinstance(module, nn.Conv2d):
                assert module.bias is not None
                nn.init.zeros_(module.bias)  # heat maps are near 0 nearly everywhere

    def _plain_head(self, channels: int, window: int | None) -> MaskedSequential:
        conv = MaskedConv2d(channels, self.config.class_count, 1, bias=True, window=window)
        return MaskedSequential(conv)

    def scores(self, index: int, features: list[Tensor], active: ActiveMap | None) -> Tensor:
        """Give an exit's heat maps before carry-over, (B, K, H/4, W/4)."""
        joins = self.config.heads is Heads.REDESIGNED and index < self.config.stage_count
        read = join_branches(features) if joins else features[0]
        maps: Tensor = self.head(index)(read, active)
        return maps

    def by_own_names(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """
        Give the tensors of a released HRNet, without what gives the last module's other branches.

        :param tensors: by the names of the file.
        """
        modules = self.ARCHITECTURES[self.config.architecture].modules
        fuse = f'stage4.{modules[-1] - 1}.fuse_layers.'
        return {
            name: tensor
            for name, tensor in tensors.items()
            if not name.startswith(fuse) or name.startswith(f'{fuse}0.')
        }
