# SPDX-License-Identifier: Apache-2.0
"""
Poses as a task of training: people in windows, heat maps of their joints, and PCKh.

Source: the released HRNet for poses (arXiv:1902.09212), which arXiv:2104.00749 trains with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adpc_ros.learning.batches import Draws
from adpc_ros.learning.config import TrainConfig
from adpc_ros.learning.distributed import Processes
from adpc_ros.learning.heat_maps import apply, cut, targets, window_matrix
from adpc_ros.learning.mpii import open_people
from adpc_ros.learning.people import JOINTS, MIRRORED, People
from adpc_ros.learning.pose_evaluation import evaluate_poses
from adpc_ros.learning.task import LearningTask, Objective, Verdict
from adpc_ros.learning.transforms import jitter, relight
from adpc_ros.network.anytime import AnytimeNetwork

_TURNED = 0.6  # of the samples
_FARTHEST = 2  # deviations of a turn


class PoseSample(NamedTuple):
    """``image`` (H, W, 3) uint8 RGB; ``places`` (J, 2) float32 in it; ``known`` (J,) bool."""

    image: NDArray[np.uint8]
    places: NDArray[np.float32]
    known: NDArray[np.bool_]


class PoseBatch(NamedTuple):
    """The same of B windows: (B, H, W, 3) uint8, (B, J, 2) float32, (B, J) bool."""

    image: Tensor
    places: Tensor
    known: Tensor


class PoseDraws(Draws):
    """The people of an epoch, each in a window of its own."""

    def __init__(self, people: People, config: TrainConfig, epoch: int) -> None:
        """
        Draw the order.

        :param epoch: from 0.
        """
        super().__init__(len(people), config, epoch)
        self.people = people

    def __getitem__(self, position: int) -> PoseSample:
        """
        Read a person's image, and scale, turn, cut, mirror and recolour it.

        The factor on the window is drawn from a normal distribution that ends at its deviation:
        half of the range of ``scales`` around the middle of it.
        """
        config, index = self.config, int(self.order[position])
        rng = self.generator(position)
        person = self.people.people[index]
        low, high = config.scales
        factor = float(np.clip(rng.normal((low + high) / 2, (high - low) / 2), low, high))
        turn = 0.0
        if config.rotation and rng.random() < _TURNED:
            limit = _FARTHEST * config.rotation
            turn = float(np.clip(rng.normal(0, config.rotation), -limit, limit))
        matrix = window_matrix(person.centre, person.edge * factor, config.crop, turn)
        image = cut(self.people.image(index), matrix, config.crop)
        places, known = apply(matrix, person.joints.places), person.joints.known
        if rng.random() < 0.5:
            image = np.ascontiguousarray(image[:, ::-1])
            places[:, 0] = config.crop[1] - 1 - places[:, 0]
            places, known = places[list(MIRRORED)], known[list(MIRRORED)]
        image = relight(jitter(image, config.colour, rng), config.gamma, rng)
        return PoseSample(image, places.astype(np.float32), known)

    @staticmethod
    def stack(samples: Sequence[PoseSample]) -> PoseBatch:
        """Put windows of one size into a batch."""
        return PoseBatch(*(torch.from_numpy(np.stack(each)) for each in zip(*samples)))


class Poses(LearningTask[PoseBatch]):
    """All exits against heat maps of the known joints."""

    def __init__(self, config: TrainConfig, processes: Processes) -> None:
        """
        Open the data.

        :raises ValueError: if data are missing, or something is wrong with them.
        """
        self.config, self.processes = config, processes
        self.people = open_people(config.data)
        self.validation = open_people(config.validation, judged=True)
        self.classes = JOINTS
        self.sample_count = len(self.people)

    def digest(self) -> str:
        """Give a short hash of what is trained on."""
        return self.people.digest()

    def draws(self, epoch: int) -> PoseDraws:
        """Give the augmented people of an epoch, counted from 0."""
        return PoseDraws(self.people, self.config, epoch)

    def objective(self, parts: Sequence[PoseBatch], epoch: int) -> Objective[PoseBatch]:
        """Give the losses of one optimizer step; each joint of each person weighs the same."""
        device, count = self.processes.device, self.config.batch_size * JOINTS.count

        def losses(maps: Sequence[Tensor], part: PoseBatch) -> Tensor:
            places, known = part.places.to(device), part.known.to(device)
            return torch.stack(heat_map_losses(maps, places, known, count))

        return losses

    def validate(self, network: AnytimeNetwork, adaptive: bool) -> Verdict:
        """Judge a network by its mean PCKh."""
        config = self.config
        result = evaluate_poses(
            network.eval(), self.validation, config.crop, adaptive, config.flip_test, False
        )
        return Verdict('pckh', 'PCKh@0.5', result.means, result.masked_share)


def heat_map_losses(
    maps: Sequence[Tensor], places: Tensor, known: Tensor, count: int
) -> list[Tensor]:
    """
    Give half of the mean squared error of each exit's heat maps.

    A joint that is not known, or whose target lies outside of the map, adds nothing to it.

    :param maps: of each exit, (B, J, h, w) float.
    :param places: (B, J, 2) float, (x, y) in the window, in pixels.
    :param known: (B, J) bool.
    :param count: heat maps that the sum over this part is divided by: those of the whole batch.
    :return: one () float for each exit.
    """
    losses: list[Tensor] = []
    size = None
    for found in maps:
        wide = found.to(torch.promote_types(found.dtype, torch.float32))  # autocast gives bf16
        if size != (size := (wide.shape[2], wide.shape[3])):  # mostly the same for all exits
            wanted = targets(places.to(wide.dtype), size)
            weight = known & (wanted.amax((2, 3)) > 0)
        error = ((wide - wanted) ** 2).mean((2, 3))
        losses.append(0.5 * (error * weight).sum() / count)
    return losses
