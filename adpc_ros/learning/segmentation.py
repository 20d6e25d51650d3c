# SPDX-License-Identifier: Apache-2.0
"""Segmentation as a task of training: labelled images, cross-entropies and mean IoU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from adpc_ros.labels import IGNORE_ID, ClassSet
from adpc_ros.learning.batches import Draws
from adpc_ros.learning.config import TrainConfig
from adpc_ros.learning.datasets import open_samples
from adpc_ros.learning.distributed import Processes
from adpc_ros.learning.evaluate import evaluate
from adpc_ros.learning.losses import (
    distillation_losses,
    exit_losses,
    label_counts,
    label_weight,
    taught_positions,
)
from adpc_ros.learning.sample import Sample
from adpc_ros.learning.task import LearningTask, Objective, Verdict
from adpc_ros.learning.transforms import augment, paste
from adpc_ros.network.anytime import AnytimeNetwork
from adpc_ros.progress import ProgressBar


class Samples(Protocol):
    """Labelled images by index."""

    def __len__(self) -> int:
        """Give the number of images."""

    def __getitem__(self, index: int) -> Sample:
        """Read one."""


class SegmentationBatch(NamedTuple):
    """
    What :class:`Sample` says, of B images of one size, on the CPU.

    ``image`` (B, H, W, 3) and ``label`` (B, H, W) uint8; ``soft`` (B, K, H // 4, W // 4) uint8 if
    a teacher is listened to.
    """

    image: Tensor
    label: Tensor
    soft: Tensor | None = None


class Sources(NamedTuple):
    """
    Where samples come from.

    ``data`` makes the epochs; ``synthetic`` and ``extra`` are drawn from with the recipe's shares.
    ``classes`` is the number of classes, ``rare`` are those that may be pasted.
    """

    data: Samples
    synthetic: Samples | None = None
    extra: Samples | None = None
    classes: int = 0
    rare: Sequence[int] = ()


class SegmentationDraws(Draws):
    """The labelled images of an epoch."""

    def __init__(self, sources: Sources, config: TrainConfig, epoch: int) -> None:
        """
        Draw the order.

        :param epoch: from 0.
        """
        super().__init__(len(sources.data), config, epoch)
        self.sources = sources

    def __getitem__(self, position: int) -> Sample:
        """Read and augment the sample at a position in the epoch's order."""
        config, data = self.config, self.sources.data
        rng = self.generator(position)
        sample = self._augment(self._draw(position, rng), rng)
        if config.class_mix and rng.random() < config.class_mix:
            other = self._augment(data[int(rng.integers(len(data)))], rng)
            sample = paste(sample, other, self.sources.rare, rng)
        return sample

    def _draw(self, position: int, rng: np.random.Generator) -> Sample:
        config, (data, synthetic, extra, *_) = self.config, self.sources
        if config.extra_until is not None and self.epoch >= config.extra_until:
            extra = None
        if synthetic is not None or extra is not None:
            drawn = rng.random()
            if synthetic is not None and drawn < config.synthetic_share:
                return synthetic[int(rng.integers(len(synthetic)))]
            if extra is not None and drawn >= 1 - config.extra_share:
                return extra[int(rng.integers(len(extra)))]
        return data[int(self.order[position])]

    def _augment(self, sample: Sample, rng: np.random.Generator) -> Sample:
        config = self.config
        if not config.distils:
            sample = sample._replace(soft=None)
        elif sample.soft is None:
            sample = sample._replace(soft=np.zeros((self.sources.classes, 1, 1), np.uint8))
        return augment(sample, config.crop, config.scales, config.colour, rng, config.gamma)

    @staticmethod
    def stack(samples: Sequence[Sample]) -> SegmentationBatch:
        """Put samples of one size into a batch."""
        soft = [sample.soft for sample in samples if sample.soft is not None]
        return SegmentationBatch(
            torch.from_numpy(np.stack([s.image for s in samples])),
            torch.from_numpy(np.stack([s.label for s in samples])),
            torch.from_numpy(np.stack(soft)) if soft else None,
        )


class Segmentation(LearningTask[SegmentationBatch]):
    """All exits against the label, each pixel once, and against a teacher if there is one."""

    def __init__(
        self, config: TrainConfig, processes: Processes, synthetic: Samples | None = None
    ) -> None:
        """
        Open the data.

        :param synthetic: source of the synthetic share.
        :raises ValueError: if data are missing or do not fit each other or the recipe, or a
            synthetic share is asked for without source.
        """
        if config.synthetic_share and synthetic is None:
            raise ValueError('synthetic_share is set: expected a source of synthetic samples')
        self.config, self.processes, self.synthetic = config, processes, synthetic
        self.samples = samples = open_samples(config.data)
        self.validation = open_samples(config.validation)
        self.extra = extra = open_samples(config.extra) if config.extra else None
        self.classes = samples.classes
        self.sample_count = len(samples)
        for description, others in ((config.validation, self.validation), (config.extra, extra)):
            if others is not None and samples.classes != others.classes:
                raise ValueError(
                    f'{description}: expected the classes of {samples.classes.name}, '
                    f'got those of {others.classes.name}'
                )
        if config.distils and not (samples.has_soft or (extra is not None and extra.has_soft)):
            raise ValueError('distill_weight is set: expected soft= in data or extra')
        weights = config.class_weights
        if weights is not None and len(weights) != self.classes.count:
            raise ValueError(
                f'{config.data}: expected {self.classes.count} class_weights, got {len(weights)}'
            )
        self.class_weights: Sequence[float] | None = weights
        self.sources = Sources(samples)

    def digest(self) -> str:
        """Give a short hash of what is trained on."""
        extra = () if self.extra is None else (self.extra.digest(),)
        return '+'.join((self.samples.digest(), *extra))

    def begin(self, state: Mapping[str, Any] | None) -> None:
        """Take up or find the weights of the classes; those with one above 1 are rare."""
        config = self.config
        if state is not None and 'class_weights' in state:
            self.class_weights = state['class_weights']
        elif config.class_weights is None:  # also for a state of before they were kept
            self.class_weights = balanced_weights(
                self.samples, self.classes, config.class_balance or 0, self.processes
            )
        rare = [i for i, weight in enumerate(self.class_weights or ()) if weight > 1]
        self.sources = Sources(self.samples, self.synthetic, self.extra, self.classes.count, rare)

    def state(self) -> dict[str, Any]:
        """Give the weights of the classes."""
        return {'class_weights': list(self.class_weights) if self.class_weights else None}

    def draws(self, epoch: int) -> SegmentationDraws:
        """Give the augmented samples of an epoch, counted from 0."""
        return SegmentationDraws(self.sources, self.config, epoch)

    def objective(
        self, parts: Sequence[SegmentationBatch], epoch: int
    ) -> Objective[SegmentationBatch]:
        """
        Give the losses of one optimizer step.

        Each pixel weighs the same, in whichever process and part it is: the sum is divided by the
        weight of all of them.
        """
        device = self.processes.device
        labels = torch.cat([part.label.flatten() for part in parts]).to(device)
        counts = self.processes.sum(label_counts(labels, self.classes.count))
        total = label_weight(counts, self.class_weights)
        weight = self.config.distill_weight_in(epoch)
        taught = torch.zeros((), dtype=torch.int64, device=device)
        if weight:
            positions = [taught_positions(part.soft) for part in parts if part.soft is not None]
            taught = self.processes.sum(torch.stack(positions).sum().to(device))

        def losses(logits: Sequence[Tensor], part: SegmentationBatch) -> Tensor:
            label = part.label.to(device, non_blocking=True).long()
            found = torch.stack(exit_losses(logits, label, self.class_weights, total))
            if weight and part.soft is not None:
                own = distillation_losses(logits, part.soft.to(device), taught)
                found = found + weight * torch.stack(own)
            return found

        return losses

    def validate(self, network: AnytimeNetwork, adaptive: bool) -> Verdict:
        """Judge a network by its mean IoU."""
        pairs = (self.validation[i] for i in range(len(self.validation)))
        result = evaluate(network.eval(), pairs, adaptive, progress=False)
        return Verdict('miou', 'mIoU', result.miou, result.masked_share)


def balanced_weights(
    samples: Samples, classes: ClassSet, balance: float, processes: Processes
) -> list[float] | None:
    """
    Weigh rare classes up; each process counts a share of the labels.

    :param balance: c in 1 / ln(c + share), scaled to a mean of 1; 0 gives None.

    Source: arXiv:1606.02147, section 5.2.
    """
    if balance == 0:
        return None
    counts = np.zeros(IGNORE_ID + 1, np.int64)
    own = range(processes.rank, len(samples), processes.count)
    for index in ProgressBar(own, 'class shares', disable=not processes.is_main):
        counts += np.bincount(samples[index].label.ravel(), minlength=IGNORE_ID + 1)
    counts = processes.sum(torch.from_numpy(counts).to(processes.device)).cpu().numpy()
    share = counts[: classes.count] / max(1, counts[: classes.count].sum())
    weights = 1.0 / np.log(balance + share)
    return [float(w) for w in weights / weights.mean()]
