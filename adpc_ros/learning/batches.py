# SPDX-License-Identifier: Apache-2.0
"""
What a training step sees: every sample is a function of seed, epoch and position alone.

So neither the number of training processes nor that of reading ones changes what is drawn.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from adpc_ros.learning.config import TrainConfig
from adpc_ros.learning.distributed import Processes
from adpc_ros.network.families import NetworkConfig


class Draws(Dataset[Any]):
    """The augmented samples of an epoch, by position; a sample is read when it is asked for."""

    def __init__(self, count: int, config: TrainConfig, epoch: int) -> None:
        """
        Draw the order.

        :param count: of the data that make an epoch.
        :param epoch: from 0.
        """
        self.config, self.epoch = config, epoch
        self.order = np.random.default_rng((config.seed, epoch)).permutation(count)

    def generator(self, position: int) -> np.random.Generator:
        """Give what all that is random about a position comes from."""
        return np.random.default_rng((self.config.seed, self.epoch, position))

    @abstractmethod
    def __getitem__(self, position: int) -> Any:
        """Read and augment the sample at a position in the epoch's order."""

    @staticmethod
    @abstractmethod
    def stack(samples: Sequence[Any]) -> Any:
        """Put samples into a batch."""


def positions_of(part: int, config: TrainConfig, processes: Processes) -> range:
    """
    Give the positions in an epoch's order that this process computes of a part of a batch.

    :param part: counts an epoch's parts from 0, ``accumulate`` of them in each step.
    """
    size = config.batch_size // config.accumulate
    return range(part * size + processes.rank, (part + 1) * size, processes.count)


def image_seeds(
    part: int, epoch: int, config: TrainConfig, processes: Processes
) -> tuple[int, ...]:
    """Give each image of a part a seed for what the network itself draws, from 0 to 2^63 - 1."""
    return tuple(
        int(np.random.default_rng((config.seed, epoch, position, 1)).integers(2**63))
        for position in positions_of(part, config, processes)
    )


def draw_batches(
    draws: Draws, processes: Processes, first_step: int = 0, last_step: int | None = None
) -> Iterator[list[Any]]:
    """
    Yield what this process computes of each optimizer step: its share of every part.

    :param first_step: of the epoch, from 0; what lies before it is not read.
    :param last_step: where to stop; None for the end of the epoch.
    :return: for each step a list of ``accumulate`` batches.
    :raises ValueError: for data that cannot be read.
    """
    config = draws.config
    steps = len(draws.order) // config.batch_size
    last_step = steps if last_step is None else min(last_step, steps)
    parts = range(first_step * config.accumulate, last_step * config.accumulate)
    positions = [list(positions_of(part, config, processes)) for part in parts]
    loader: DataLoader[Any] = DataLoader(
        draws,
        batch_sampler=positions,
        num_workers=config.workers,
        collate_fn=draws.stack,
        pin_memory=processes.device.type == 'cuda',
    )
    step: list[Any] = []
    try:
        for batch in loader:
            step.append(batch)
            if len(step) == config.accumulate:
                yield step
                step = []
    except ValueError as error:  # of a reading process: below its traceback
        raise ValueError(str(error).strip().rpartition('ValueError: ')[2]) from error


def normalised(image: Tensor, config: NetworkConfig, device: torch.device) -> Tensor:
    """Give (B, H, W, 3) uint8 images as a network takes them, (B, 3, H, W) float32."""
    images = image.to(device, non_blocking=True).permute(0, 3, 1, 2)
    mean = torch.tensor(config.mean, device=device).view(1, 3, 1, 1)
    std = torch.tensor(config.std, device=device).view(1, 3, 1, 1)
    return ((images / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
