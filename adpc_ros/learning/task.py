# SPDX-License-Identifier: Apache-2.0
"""What a training has of its task: the data, what is drawn of them, losses and judgement."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from torch import Tensor

from adpc_ros.labels import ClassSet
from adpc_ros.learning.batches import Draws
from adpc_ros.network.anytime import AnytimeNetwork


class Batch(Protocol):
    """Some samples together, on the CPU."""

    @property
    def image(self) -> Tensor:
        """The images, (B, H, W, 3) uint8 RGB."""


BatchT = TypeVar('BatchT', bound=Batch)
#: Maps the outputs of every exit, each (B, K, h, w) float, and the batch that they are of to the
#: (exits,) float losses.
Objective = Callable[[Sequence[Tensor], BatchT], Tensor]


class Verdict(NamedTuple):
    """
    What a validation says of a network.

    ``by_exit`` (0 to 1, higher is better) is a measure that is ``key`` in the log and ``name`` for
    people; the last exit's decides which weights are the best. ``masked_share`` (0 to 1), of
    positions after each exit but the last; empty without masks.
    """

    key: str
    name: str
    by_exit: Sequence[float]
    masked_share: Sequence[float]


class LearningTask(ABC, Generic[BatchT]):
    """One task in one process of a training; it is constructed from recipe and processes."""

    classes: ClassSet
    """What the network's outputs stand for."""

    sample_count: int
    """Samples of an epoch."""

    @abstractmethod
    def digest(self) -> str:
        """Give a short hash of what is trained on."""

    def begin(self, state: Mapping[str, Any] | None) -> None:
        """
        Find, in all processes together, what it takes beside the data.

        :param state: what an earlier run saved, which holds :meth:`state`; None for a fresh start.
        """
        return

    def state(self) -> dict[str, Any]:
        """Give what :meth:`begin` found, to be saved."""
        return {}

    @abstractmethod
    def draws(self, epoch: int) -> Draws:
        """Give the augmented samples of an epoch, counted from 0."""

    @abstractmethod
    def objective(self, parts: Sequence[BatchT], epoch: int) -> Objective[BatchT]:
        """
        Give the losses of one optimizer step, normalised over the whole batch.

        They add up over the parts and the processes. All processes must call it.

        :param parts: this process's share of each part of the batch.
        :param epoch: from 0.
        """

    @abstractmethod
    def validate(self, network: AnytimeNetwork, adaptive: bool) -> Verdict:
        """
        Judge a network on the validation data; the main process alone does.

        :param network: is put into evaluation mode.
        """
