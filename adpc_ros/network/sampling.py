# SPDX-License-Identifier: Apache-2.0
"""
Feature-based stochastic sampling on HRNet: the exits' features say which positions are computed.

A convolution on an exit's features predicts, for each position, whether the stages up to the next
exit compute it. Source: arXiv:2003.08866, as a baseline of arXiv:2104.00749. What the latter does
not say is chosen here: the course of the temperature, the predictors' first bias, that
predictions are resized bilinearly for coarser branches, and that no class scores are carried over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from adpc_ros.network.adaptivity import ActiveMap, Criterion, MaskedConv2d
from adpc_ros.network.anytime import Exit, Learnt, TrainingStep
from adpc_ros.network.exits import join_branches
from adpc_ros.network.hrnet import SIZES as HRNET_SIZES
from adpc_ros.network.hrnet import HRNet, Sizes
from adpc_ros.network.layers import resize

if TYPE_CHECKING:
    from adpc_ros.network.families import NetworkConfig

SIZES = {f'{name}_sampled': replace(a, name=f'{name}_sampled') for name, a in HRNET_SIZES.items()}
LAST_TEMPERATURE = 0.03  # of the soft masks; the first is 1
_FIRST_BIAS = 3.0  # nearly everything is computed at first
_SMALLEST = 1e-6  # of a random number, whose logarithm is taken

Gate = Callable[[int, list[Tensor]], 'ActiveMap | None']
"""Gives, of an exit's index and its stage's features, what is computed up to the next exit."""


class PredictedMap(ActiveMap):
    """The positions that are predicted to be worth computing."""

    def __init__(self, logits: Tensor, threshold: float) -> None:
        """
        Hold the predictions.

        :param logits: (B, 1, H, W) float.
        :param threshold: probability from which on a position is active, in [0, 1].
        """
        odds = threshold / (1 - threshold) if threshold < 1 else math.inf
        self._limit = math.log(odds) if odds else -math.inf
        super().__init__(logits >= self._limit)
        self._logits = logits

    @property
    def finite(self) -> Tensor:
        """Of which images all predictions are finite, (B, 1, 1, 1) bool."""
        return self._logits.isfinite().all(3, keepdim=True).all(2, keepdim=True)

    def _resized(self, size: tuple[int, int]) -> Tensor:
        return resize(self._logits, size) >= self._limit


class SoftMap(ActiveMap):
    """How much each position counts while the predictors are trained: float in [0, 1]."""

    def __init__(self, logits: Tensor, noise: Tensor, temperature: float) -> None:
        """
        Draw between active and inactive, relaxed so that a gradient goes through.

        :param logits: (B, 1, H, W) float.
        :param noise: likewise, the difference of two draws from Gumbel's distribution.
        :param temperature: above 0; towards 0 the map becomes one of zeros and ones.

        Source: arXiv:1611.01144 (Gumbel-softmax, of two classes).
        """
        super().__init__(logits >= 0)
        self._scaled = (logits + noise) / temperature
        self._at = {}  # of soft values alone

    def _resized(self, size: tuple[int, int]) -> Tensor:
        return torch.sigmoid(resize(self._scaled, size))


class SampledHRNet(HRNet):
    """HRNet whose masks are predicted from features; with adaptivity None it is HRNet."""

    ARCHITECTURES: ClassVar[Mapping[str, Sizes]] = SIZES
    CRITERIA = (Criterion.PREDICTED,)
    HEADS = (*HRNet.HEADS, 'mask1', 'mask2', 'mask3')

    def __init__(self, config: NetworkConfig) -> None:
        """
        Build the network; its predictors begin with a weight of 0.

        :param config: the configuration; kept as ``self.config``.
        """
        super().__init__(config)
        if config.adaptivity is None:
            return
        sizes = self.ARCHITECTURES[config.architecture]
        widths = (4 * sizes.stem_width, *(sum(sizes.widths[:n]) for n in (2, 3)))
        for index, width in enumerate(widths, start=1):
            predictor = MaskedConv2d(width, 1, 3, bias=True)  # never masked itself
            assert predictor.bias is not None
            nn.init.zeros_(predictor.weight)
            nn.init.constant_(predictor.bias, _FIRST_BIAS)
            setattr(self, f'mask{index}', predictor)

    def predict(self, index: int, features: list[Tensor]) -> Tensor:
        """
        Give the logits of what is worth computing after an exit.

        :param index: of the exit, from 1, but the last.
        :param features: of its stage.
        :return: (B, 1, H/4, W/4) float32.
        """
        predictor: MaskedConv2d = getattr(self, f'mask{index}')
        logits: Tensor = predictor(join_branches(features))
        return logits.float()

    def steps(
        self,
        image: Tensor,
        adaptive: bool = True,
        active_maps: list[ActiveMap] | None = None,
    ) -> Iterator[Exit | None]:
        """
        Yield the exits in turn, and None after each part of a stage; no scores are carried.

        Scores of an exit are NaN in images of which a prediction after it is not finite.
        """
        adaptivity = self.config.adaptivity if adaptive else None

        def gate(index: int, features: list[Tensor]) -> ActiveMap | None:
            if active_maps is not None:
                size = (features[0].shape[2], features[0].shape[3])
                return ActiveMap(active_maps[index - 1].at(size))
            if adaptivity is None:
                return None
            return PredictedMap(self.predict(index, features), adaptivity.thresholds[index - 1])

        return self._gated(image, gate)

    def _gated(self, image: Tensor, gate: Gate) -> Iterator[Exit | None]:
        features = [image]
        active: ActiveMap | None = None
        for index in range(1, self.config.stage_count + 1):
            for part in self.parts(index):
                features = part(features, active)
                yield None
            if not self.config.has_exit(index):
                continue
            logits = self.scores(index, features, active)
            last = index == self.config.stage_count
            following = None if last else gate(index, features)
            if isinstance(following, PredictedMap):
                logits = torch.where(following.finite, logits, math.nan)
            yield Exit(index, logits, logits, features, active, following)
            active = following

    def learn(
        self, image: Tensor, adaptive: bool = True, now: TrainingStep | None = None
    ) -> Learnt:
        """
        Compute every exit with soft masks; the penalty is how much they let through.

        It adds up the mean share that is computed after each exit but the last, times 1/3, 2/3
        and 1 (of three).

        :param adaptive: False masks nothing.
        :param now: gives the temperature, which falls exponentially from 1 to 0.03, and the seeds
            of the draws; None for the masks of inference.
        """
        if now is None or not adaptive or self.config.adaptivity is None:
            return super().learn(image, adaptive, now)
        self.check_image(image)
        temperature = LAST_TEMPERATURE**now.done
        generators = [torch.Generator().manual_seed(seed) for seed in now.seeds]

        def gate(index: int, features: list[Tensor]) -> ActiveMap:
            logits = self.predict(index, features)
            return SoftMap(logits, logistic_noise(logits, generators), temperature)

        exits = [done for done in self._gated(image, gate) if done is not None]
        penalty = image.new_zeros((), dtype=torch.float32)
        for done in exits[:-1]:
            assert done.next_active is not None
            size = (done.logits.shape[2], done.logits.shape[3])
            factor = done.exit_index / (len(exits) - 1)
            penalty = penalty + factor * done.next_active.at(size).mean()
        return Learnt([done.logits for done in exits], penalty)


def logistic_noise(like: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """
    Draw the difference of two numbers from Gumbel's distribution, which is a logistic one.

    :param like: (B, 1, H, W), gives shape and device.
    :param generators: B of them, on the CPU: the draws of an image do not depend on the others.
    :return: (B, 1, H, W) float32.
    """
    draws = [torch.rand(like.shape[1:], generator=each) for each in generators]
    return torch.logit(torch.stack(draws), _SMALLEST).to(like.device)
