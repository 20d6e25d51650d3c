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
from tqdm import tqdm

from adpc_ros.labels import IGNORE_ID, ClassSet
from adpc_ros.learning.config import TrainConfig
from adpc_ros.learning.distributed import Processes
from adpc_ros.learning.sample import Sample
from adpc_ros.learning.transforms import augment
from adpc_ros.network.families import NetworkConfig


class Samples(Protocol):
    """Labelled images by index."""

    def __len__(self) -> int:
        """Give the number of images."""

    def __getitem__(self, index: int) -> Sample:
        """Read one."""


class Batch(NamedTuple):
    """``image`` (B, H, W, 3) uint8 RGB and ``label`` (B, H, W) uint8 class ids, on the CPU."""

    image: Tensor
    label: Tensor


class Draws(Dataset[Sample]):
    """The augmented samples of an epoch, by position."""

    def __init__(
        self, samples: Samples, synthetic: Samples | None, config: TrainConfig, epoch: int
    ) -> None:
        """
        Draw the order; nothing is read before it is asked for.

        :param synthetic: source of the synthetic share.
        :param epoch: from 0.
        """
        self.samples, self.synthetic = samples, synthetic
        self.config, self.epoch = config, epoch
        self.order = np.random.default_rng((config.seed, epoch)).permutation(len(samples))

    def __getitem__(self, position: int) -> Sample:
        """Read and augment the sample at a position in the epoch's order."""
        config = self.config
        rng = np.random.default_rng((config.seed, self.epoch, position))
        if self.synthetic is not None and rng.random() < config.synthetic_share:
            sample = self.synthetic[int(rng.integers(len(self.synthetic)))]
        else:
            sample = self.samples[int(self.order[position])]
        return augment(sample, config.crop, config.scales, config.colour, rng)


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
    for batch in loader:
        step.append(Batch(*batch))
        if len(step) == config.accumulate:
            yield step
            step = []


def stack(samples: Sequence[Sample]) -> Batch:
    """Put samples of one size into a batch."""
    return Batch(
        torch.from_numpy(np.stack([s.image for s in samples])),
        torch.from_numpy(np.stack([s.label for s in samples])),
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
    for index in tqdm(own, 'class shares', disable=not processes.is_main):
        counts += np.bincount(samples[index].label.ravel(), minlength=IGNORE_ID + 1)
    counts = processes.sum(torch.from_numpy(counts).to(processes.device)).cpu().numpy()
    share = counts[: classes.count] / max(1, counts[: classes.count].sum())
    weights = 1.0 / np.log(balance + share)
    return [float(w) for w in weights / weights.mean()]
