"""
The anytime network: an HRNet with four exits, each reusing what the ones before it computed.

Source: arXiv:2104.00749 (ADP-C) and its released code, whose behaviour is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from adpc_ros.network.adaptivity import ActiveMap, Adaptivity, active_positions
from adpc_ros.network.exits import Heads, join_branches, plain_head, redesigned_head
from adpc_ros.network.hrnet import ARCHITECTURES, Architecture, HRNet

EXIT_COUNT = 4
SIZE_MULTIPLE = 32  # what redesigned heads need of height and width
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class NetworkConfig:
    """
    All that is needed to build a network and to feed it.

    :param architecture: a key of :data:`ARCHITECTURES`.
    :param heads: which exit heads.
    :param class_count: number of classes.
    :param adaptivity: None for a network without masked convolutions.
    :param mean: RGB mean of the training images, on a scale of 0 to 1.
    :param std: RGB standard deviation, likewise.
    :param temperatures: one for each exit: what its class scores are divided by before the
        confidence that is published; 1.0 changes nothing. Scores, active maps and class ids know
        nothing of it. A network whose heads are none uses the last.
    :raises ValueError: for an unknown architecture or head, fewer than two classes, a mean or
        standard deviation that is not three numbers (the latter positive), or temperatures that
        are not four positive finite numbers, in the range of normal float32 numbers.
    """

    architecture: str
    heads: Heads = Heads.REDESIGNED
    class_count: int = 19
    adaptivity: Adaptivity | None = None
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    temperatures: tuple[float, ...] = (1.0,) * EXIT_COUNT

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise ValueError(
                f'unknown architecture {self.architecture!r}: expected one of '
                f'{", ".join(sorted(ARCHITECTURES))}'
            )
        object.__setattr__(self, 'heads', Heads(self.heads))
        if self.class_count < 2:
            raise ValueError(f'expected at least 2 classes, got {self.class_count}')
        if len(self.mean) != 3 or len(self.std) != 3 or not all(s > 0 for s in self.std):
            raise ValueError(f'expected 3 means and 3 positive std, got {self.mean}, {self.std}')
        if self.heads is Heads.NONE and self.adaptivity is not None:
            raise ValueError('adaptivity needs early exits: heads is none')
        object.__setattr__(self, 'temperatures', tuple(float(t) for t in self.temperatures))
        normal = torch.finfo(torch.float32)  # the inverse of a smaller one would not be finite
        if len(self.temperatures) != EXIT_COUNT or not all(
            normal.tiny <= t <= normal.max for t in self.temperatures
        ):
            raise ValueError(
                f'expected {EXIT_COUNT} positive finite temperatures, got {self.temperatures}'
            )

    @property
    def exit_count(self) -> int:
        """Number of exits: 4, or 1 for the base network."""
        return 1 if self.heads is Heads.NONE else EXIT_COUNT

    @property
    def calibrated(self) -> bool:
        """Whether any temperature changes what is published."""
        return any(t != 1.0 for t in self.temperatures)

    @property
    def sizes(self) -> Architecture:
        """The architecture's sizes."""
        return ARCHITECTURES[self.architecture]


class Exit(NamedTuple):
    """
    What one exit gives.

    ``exit_index`` counts from 1. ``logits`` (B, K, H/4, W/4) are class scores after carry-over,
    ``raw_logits`` before it. ``branches`` are the stage's features. ``active`` marks what this
    exit computed (None: all), ``next_active`` what the next one will.
    """

    exit_index: int
    logits: Tensor
    raw_logits: Tensor
    branches: list[Tensor]
    active: ActiveMap | None
    next_active: ActiveMap | None


class AnytimeNetwork(HRNet):
    """An HRNet with exits after layer1 and after stages 2, 3 and 4."""

    def __init__(self, config: NetworkConfig) -> None:
        """
        Build the network with HRNet's initialisation.

        :param config: the configuration; kept as ``self.config``.
        """
        sizes = config.sizes
        window = config.adaptivity.window if config.adaptivity else None
        super().__init__(sizes, window)
        self.config = config
        channels = [4 * sizes.stem_width, *(sum(sizes.widths[:n]) for n in (2, 3, 4))]
        classes = config.class_count
        for index in range(1, config.exit_count):
            head_window = None if index == 1 else window  # exit 1 is never masked
            if config.heads is Heads.PLAIN:
                head = plain_head(channels[index - 1], classes, head_window)
            else:
                depth = EXIT_COUNT - index
                head = redesigned_head(
                    channels[index - 1], sizes.head_width, classes, depth, head_window
                )
            setattr(self, f'exit{index}', head)
        self.last_layer = plain_head(channels[3], classes, window)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
                nn.init.normal_(module.weight, std=0.001)

    def exits(
        self,
        image: Tensor,
        adaptive: bool = True,
        active_maps: list[ActiveMap] | None = None,
    ) -> Iterator[Exit]:
        """
        Yield the exits in turn; nothing of an exit is computed before it is asked for.

        :param image: (B, 3, H, W) float, RGB, normalised with the configuration's mean and std.
        :param adaptive: False computes every position, as if no exit were ever confident.
        :param active_maps: given, these three rule stages 2, 3 and 4 instead of the network's own.
        :return: an iterator over the exits.
        :raises ValueError: for another shape; with redesigned heads also if the height or the
            width is not a multiple of 32.
        """
        self._check(image)
        adaptivity = self.config.adaptivity if adaptive else None
        branches = [self.stem(image)]
        logits: Tensor | None = None
        active: ActiveMap | None = None
        for index in range(1, EXIT_COUNT + 1):
            if index > 1:
                branches = self.stage(index, branches, active)
            if index < EXIT_COUNT and self.config.heads is Heads.NONE:
                continue
            head = self.last_layer if index == EXIT_COUNT else getattr(self, f'exit{index}')
            raw = head(join_branches(branches), active)
            if active is None or logits is None:
                logits = raw
            else:
                logits = torch.where(active.at((raw.shape[2], raw.shape[3])), raw, logits)
            following: ActiveMap | None = None
            if index < EXIT_COUNT and active_maps is not None:
                following = active_maps[index - 1]
            elif index < EXIT_COUNT and adaptivity is not None:
                positions = active_positions(
                    logits, adaptivity.criterion, adaptivity.thresholds[index - 1]
                )
                if active is not None:  # nested, also when a later threshold is higher
                    positions = positions & active.at((raw.shape[2], raw.shape[3]))
                following = ActiveMap(positions)
            yield Exit(index, logits, raw, branches, active, following)
            active = following

    def forward(self, image: Tensor, adaptive: bool = True) -> list[Tensor]:
        """
        Compute every exit, for training.

        :return: the logits of each exit, (B, K, H/4, W/4) float.
        """
        return [out.logits for out in self.exits(image, adaptive)]

    def _check(self, image: Tensor) -> None:
        if image.dim() != 4 or image.shape[1] != 3 or 0 in image.shape:
            raise ValueError(f'expected a (B, 3, H, W) image, got shape {tuple(image.shape)}')
        height, width = image.shape[2:]
        redesigned = self.config.heads is Heads.REDESIGNED
        if redesigned and (height % SIZE_MULTIPLE or width % SIZE_MULTIPLE):
            raise ValueError(
                f'redesigned heads need height and width to be multiples of {SIZE_MULTIPLE}, '
                f'got {height}x{width}: pad the image'
            )
