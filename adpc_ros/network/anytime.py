# SPDX-License-Identifier: Apache-2.0
"""
The anytime network: exits one after the other, each reusing what the ones before it computed.

What all families (:mod:`adpc_ros.network.families`) have in common; and what those of stages have
in common, of which a family says what the parts of a stage and the exit heads compute.
Source: arXiv:2104.00749 (ADP-C) and its released code, whose behaviour is kept.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from adpc_ros.network.adaptivity import ActiveMap, Criterion, active_positions
from adpc_ros.network.exits import Heads
from adpc_ros.network.layers import resize
from adpc_ros.network.task import Task

if TYPE_CHECKING:
    from adpc_ros.network.families import NetworkConfig


class Architecture(Protocol):
    """What the sizes of a network of any family have in common."""

    @property
    def name(self) -> str:
        """As on the command line."""

    @property
    def exit_levels(self) -> tuple[int, ...]:
        """Of each exit, the log2 of its scale: 2 for class scores at 1/4 of the image's size."""

    @property
    def size_multiple(self) -> int:
        """What height and width are padded to multiples of, in pixels."""

    @property
    def heads(self) -> tuple[Heads, ...]:
        """The exit heads that there are; the first is the default."""

    @property
    def unrolls(self) -> bool:
        """Whether training can unroll in place of an equilibrium (:class:`TrainingStep`)."""


class Exit(NamedTuple):
    """
    What one exit gives.

    ``exit_index`` counts from 1. ``logits`` (B, K, h, w) are class scores after carry-over, at the
    exit's own scale; ``raw_logits`` before it. ``features`` are the stage's. ``active`` marks what
    this exit computed (None: all), ``next_active`` what the next one will.
    """

    exit_index: int
    logits: Tensor
    raw_logits: Tensor
    features: list[Tensor]
    active: ActiveMap | None
    next_active: ActiveMap | None


class TrainingStep(NamedTuple):
    """
    Where a training is, for networks that depend on it.

    ``steps`` optimizer steps came before. ``seeds``, one for each image of the batch, are for what
    is drawn: they depend on the recipe's seed and the image's place in the epoch alone.
    ``unrolled``: a network whose layer is iterated applies it a few times and seeks no
    equilibrium. ``done``: the share of all steps that came before, 0 to 1.
    """

    steps: int
    seeds: tuple[int, ...]
    unrolled: bool = False
    done: float = 1.0


class Learnt(NamedTuple):
    """
    What a training gets of a network.

    ``outputs`` of each exit, as :meth:`AnytimeNetwork.forward` gives them; ``penalty`` () float,
    the mean over the images of what is to be kept small beside their losses.
    """

    outputs: list[Tensor]
    penalty: Tensor


Part = Callable[[list[Tensor], ActiveMap | None], list[Tensor]]
"""
A small part of a stage: from features, each (B, C, h, w), and the positions to compute (None for
all, as in stage 1) to features.
"""


class AnytimeNetwork(nn.Module, ABC):
    """A network that gives its exits one after the other, in small steps."""

    ARCHITECTURES: ClassVar[Mapping[str, Architecture]]
    """The family's networks by name."""

    TASK: ClassVar[Task] = Task.SEGMENTATION
    """What they are for."""

    CRITERIA: ClassVar[tuple[Criterion, ...]]
    """What masks may go by, the default first; none for a family that masks nothing."""

    HEADS: ClassVar[tuple[str, ...]]
    """Top-level modules that weights for ImageNet lack: all but the backbone."""

    PRETRAINED: ClassVar[str]
    """Where weights for ImageNet are released, for messages."""

    def __init__(self, config: NetworkConfig) -> None:
        """
        Hold the configuration.

        :param config: kept as ``self.config``.
        """
        super().__init__()
        self.config = config

    @abstractmethod
    def steps(
        self,
        image: Tensor,
        adaptive: bool = True,
        active_maps: list[ActiveMap] | None = None,
    ) -> Iterator[Exit | None]:
        """
        Yield the exits in turn, and None after each other unit of work.

        What comes next is computed when the iterator is advanced; dropping it cancels the rest.
        Parameters as of :meth:`exits`, which checks them.
        """

    @abstractmethod
    def check_size(self, height: int, width: int) -> None:
        """Raise ValueError for an image size, in pixels, that the network does not take."""

    def check_image(self, image: Tensor) -> None:
        """Raise ValueError for what :meth:`exits` does not take."""
        if image.dim() != 4 or image.shape[1] != 3 or 0 in image.shape:
            raise ValueError(f'expected a (B, 3, H, W) image, got shape {tuple(image.shape)}')
        self.check_size(image.shape[2], image.shape[3])

    def by_own_names(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """
        Give the tensors of a released file by this network's names; here they are the same.

        :param tensors: by the names of the file.
        :return: without what has no place in the network's architecture.
        """
        return dict(tensors)

    def exits(
        self,
        image: Tensor,
        adaptive: bool = True,
        active_maps: list[ActiveMap] | None = None,
    ) -> Iterator[Exit]:
        """
        Yield the exits in turn; each is computed when the iterator reaches it.

        :param image: (B, 3, H, W) float, RGB, normalised with the configuration's mean and std.
        :param adaptive: False computes every position, as if no exit were ever confident.
        :param active_maps: given, one for each exit but the last, these rule the stages that
            follow instead of the network's own, resized to the exit's scale (nearest).
        :return: an iterator over the exits.
        :raises ValueError: for another shape, or a size that the network does not take.
        """
        self.check_image(image)
        for done in self.steps(image, adaptive, active_maps):
            if done is not None:
                yield done

    def forward(
        self, image: Tensor, adaptive: bool = True, now: TrainingStep | None = None
    ) -> list[Tensor]:
        """
        Compute every exit, for training.

        :param now: where the training is; None as at its end, and nothing is drawn.
        :return: the logits of each exit, (B, K, h, w) float.
        """
        return [out.logits for out in self.exits(image, adaptive)]

    def learn(
        self, image: Tensor, adaptive: bool = True, now: TrainingStep | None = None
    ) -> Learnt:
        """
        Compute every exit, as :meth:`forward`; here there is no penalty.

        :return: what the parameters are trained by.
        """
        outputs = self(image, adaptive, now)
        return Learnt(outputs, outputs[0].new_zeros((), dtype=torch.float32))


class StagedNetwork(AnytimeNetwork):
    """
    A network of stages with an exit after each, the confident positions of which are masked.

    Where an exit is finer than the one before, the scores that are carried over are resized
    bilinearly, and the active map to the nearest.
    """

    CRITERIA: ClassVar[tuple[Criterion, ...]] = (
        *(Criterion.MAX_PROBABILITY, Criterion.ENTROPY, Criterion.TOP_K, Criterion.RANDOM),
    )

    @abstractmethod
    def parts(self, index: int) -> Sequence[Part]:
        """
        Give what a stage computes, in order.

        :param index: of the stage, from 1. The first part of stage 1 gets the image.
        """

    @abstractmethod
    def head(self, index: int) -> nn.Module:
        """Give the layers of an exit, the last of which gives its class scores."""

    @abstractmethod
    def scores(self, index: int, features: list[Tensor], active: ActiveMap | None) -> Tensor:
        """
        Give an exit's class scores before carry-over.

        :param features: of the exit's stage.
        :return: (B, K, h, w) float, at the exit's scale.
        """

    def steps(
        self,
        image: Tensor,
        adaptive: bool = True,
        active_maps: list[ActiveMap] | None = None,
    ) -> Iterator[Exit | None]:
        """Yield the exits in turn, and None after each part of a stage."""
        adaptivity = self.config.adaptivity if adaptive else None
        stage_count = self.config.stage_count
        features = [image]
        logits: Tensor | None = None
        active: ActiveMap | None = None
        for index in range(1, stage_count + 1):
            for part in self.parts(index):
                features = part(features, active)
                yield None
            if not self.config.has_exit(index):
                continue
            raw = self.scores(index, features, active)
            size = (raw.shape[2], raw.shape[3])
            if active is None or logits is None:
                logits = raw
            else:
                logits = torch.where(active.at(size), raw, resize(logits, size))
            following: ActiveMap | None = None
            if index < stage_count and active_maps is not None:
                following = ActiveMap(active_maps[index - 1].at(size))
            elif index < stage_count and adaptivity is not None:
                threshold = adaptivity.thresholds_of(index)
                positions = active_positions(logits, adaptivity.criterion, threshold, active)
                following = ActiveMap(positions)
            yield Exit(index, logits, raw, features, active, following)
            active = following
