# SPDX-License-Identifier: Apache-2.0
"""
What a training step sees: every sample is a function of seed, epoch and position alone.

So neither the number of training processes nor that of reading ones changes what is drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from adpc_ros.labels import IGNORE_ID, ClassSet
from adpc_ros.learning.config import TrainConfig
from adpc_ros.learning.distributed import Processes
from adpc_ros.learning.sample import Sample
from adpc_ros.learning.transforms import augment, paste
from adpc_ros.network.families import NetworkConfig
from adpc_ros.progress import ProgressBar


class Samples(Protocol):
    """Labelled images by index."""

    def __len__(self) -> int:
        """Give the number of images."""

    def __getitem__(self, index: int) -> Sample:
        """Read one."""


class Batch(NamedTuple):
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


class Draws(Dataset[Sample]):
    """The augmented samples of an epoch, by position."""

    def __init__(self, sources: Sources, config: TrainConfig, epoch: int) -> None:
        """
        Draw the order; a sample is read when the loader requests it.

        :param epoch: from 0.
        """
        self.sources, self.config, self.epoch = sources, config, epoch
        self.order = np.random.default_rng((config.seed, epoch)).permutation(len(sources.data))

    def __getitem__(self, position: int) -> Sample:
        """Read and augment the sample at a position in the epoch's order."""
        config, data = self.config, self.sources.data
        rng = np.random.default_rng((config.seed, self.epoch, position))
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


def draw_batches(
    draws: Draws, processes: Processes, first_step: int = 0, last_step: int | None = None
) -> Iterator[list[Batch]]:
    """
    Yield what this process computes of each optimizer step: its share of every part.

    :param first_step: of the epoch, from 0; what lies before it is not read.
    :param last_step: where to stop; None for the end of the epoch.
    :return: for each step a list of ``accumulate`` batches.
    :raises ValueError: for data that cannot be read.
    """
    config = draws.config
    size = config.batch_size // config.accumulate
    steps = len(draws.order) // config.batch_size
    last_step = steps if last_step is None else min(last_step, steps)
    parts = range(first_step * config.accumulate, last_step * config.accumulate)
    positions = [
        list(range(part * size + processes.rank, (part + 1) * size, processes.count))
        for part in parts
    ]
    loader: DataLoader[Sample] = DataLoader(
        draws,
        batch_sampler=positions,
        num_workers=config.workers,
        collate_fn=stack,
        pin_memory=processes.device.type == 'cuda',
    )
    step: list[Batch] = []
    try:
        for batch in loader:
            step.append(Batch(*batch))
            if len(step) == config.accumulate:
                yield step
                step = []
    except ValueError as error:  # of a reading process: below its traceback
        raise ValueError(str(error).strip().rpartition('ValueError: ')[2]) from error


def stack(samples: Sequence[Sample]) -> Batch:
    """Put samples of one size into a batch."""
    soft = [sample.soft for sample in samples if sample.soft is not None]
    return Batch(
        torch.from_numpy(np.stack([s.image for s in samples])),
        torch.from_numpy(np.stack([s.label for s in samples])),
        torch.from_numpy(np.stack(soft)) if soft else None,
    )


def to_tensors(batch: Batch, config: NetworkConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    """Give (B, 3, H, W) float32 normalised images and (B, H, W) int64 labels."""
    images = batch.image.to(device, non_blocking=True).permute(0, 3, 1, 2)
    mean = torch.tensor(config.mean, device=device).view(1, 3, 1, 1)
    std = torch.tensor(config.std, device=device).view(1, 3, 1, 1)
    x = ((images / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
    return x, batch.label.to(device, non_blocking=True).long()


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
