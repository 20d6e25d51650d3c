# SPDX-License-Identifier: Apache-2.0
"""The families of networks, and the configuration that names one of them."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass

import torch

from adpc_ros.network.adaptivity import Adaptivity, Criterion
from adpc_ros.network.anytime import AnytimeNetwork, Architecture
from adpc_ros.network.coarse import CoarseToFine
from adpc_ros.network.exits import Heads
from adpc_ros.network.hrnet import HRNet
from adpc_ros.network.mdeq import MDEQ
from adpc_ros.network.pose import PoseHRNet
from adpc_ros.network.sampling import SampledHRNet
from adpc_ros.network.task import Task
from adpc_ros.network.tensors import DISTANCES

FAMILIES: tuple[type[AnytimeNetwork], ...] = (
    *(HRNet, CoarseToFine, SampledHRNet, MDEQ, PoseHRNet),
)
ARCHITECTURES: dict[str, Architecture] = {
    name: architecture
    for family in FAMILIES
    for name, architecture in family.ARCHITECTURES.items()
}
TASKS = {name: family.TASK for family in FAMILIES for name in family.ARCHITECTURES}
CRITERIA = {name: family.CRITERIA for family in FAMILIES for name in family.ARCHITECTURES}
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_MAX_HEAD_WIDTH = 4096


@dataclass(frozen=True)
class NetworkConfig:
    """
    All that is needed to build a network and to feed it.

    :param architecture: a key of :data:`ARCHITECTURES`.
    :param heads: which exit heads; None for the family's own choice.
    :param class_count: number of classes; of a network for poses that of the joints.
    :param adaptivity: None for a network without masked convolutions.
    :param mean: RGB mean of the training images, on a scale of 0 to 1.
    :param std: RGB standard deviation, likewise.
    :param temperatures: one for each stage: what its exit's class scores are divided by before the
        confidence that is published; 1.0 changes nothing. Scores, active maps and class ids do
        not depend on it. A network with ``heads`` none uses the last. None for 1.0 everywhere.
    :param head_depths: of redesigned heads: how often each but the last pools, from 1 on; an image
        can be pooled so often if it is padded for the network. None for the family's own.
    :param head_width: channels inside redesigned heads; None for the architecture's own.
    :raises ValueError: for an unknown architecture or head, heads, depths, a width or thresholds
        that the network does not have, adaptivity of one that masks nothing, fewer than two
        classes, a mean or standard deviation that is not three numbers (the latter positive) which
        normalise an image to finite float32 numbers, or temperatures that are not positive finite
        numbers, in the range of normal float32 numbers.
    """

    architecture: str
    heads: Heads = None  # type: ignore[assignment]  # set on construction
    class_count: int = 19
    adaptivity: Adaptivity | None = None
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    temperatures: tuple[float, ...] = None  # type: ignore[assignment]  # likewise
    head_depths: tuple[int, ...] | None = None
    head_width: int | None = None

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise ValueError(
                f'unknown architecture {self.architecture!r}: expected one of '
                f'{", ".join(sorted(ARCHITECTURES))}'
            )
        known = self.sizes.heads
        heads: Heads | None = self.heads
        object.__setattr__(self, 'heads', known[0] if heads is None else Heads(heads))
        if self.heads not in known:
            raise ValueError(
                f'{self.architecture}: expected heads {" or ".join(h.value for h in known)}, '
                f'got {self.heads.value}'
            )
        for key in ('head_depths', 'head_width'):
            if getattr(self, key) is not None and self.heads is not Heads.REDESIGNED:
                raise ValueError(
                    f'{key} need redesigned heads: {self.architecture} has {self.heads.value}'
                )
        if self.head_depths is not None:
            self._check_depths(self.head_depths)
        width: object = self.head_width
        if width is not None and not (type(width) is int and 1 <= width <= _MAX_HEAD_WIDTH):
            raise ValueError(f'expected head_width from 1 to {_MAX_HEAD_WIDTH}, got {width!r}')
        if self.class_count < 2:
            raise ValueError(f'expected at least 2 classes, got {self.class_count}')
        normal = torch.finfo(torch.float32)
        if (len(self.mean), len(self.std)) != (3, 3) or not all(
            s > 0 and s * 255 < normal.max and (abs(m) + 1) / s < normal.max
            for m, s in zip(self.mean, self.std)
        ):
            raise ValueError(
                'expected 3 means and 3 positive std, which normalise an image to finite float32 '
                f'numbers, got {self.mean}, {self.std}'
            )
        if self.adaptivity is not None:
            self._check_criterion(self.adaptivity.criterion)
            if self.heads is Heads.NONE:
                raise ValueError('adaptivity needs early exits: heads is none')
            if self.stage_count == 1:
                raise ValueError(f'adaptivity needs early exits: {self.architecture} has one exit')
            adaptivity = self.adaptivity.for_network(self.stage_count, self.class_count)
            object.__setattr__(self, 'adaptivity', adaptivity)
        given: tuple[float, ...] | None = self.temperatures
        if given is None:
            given = (1.0,) * self.stage_count
        temperatures = tuple(float(t) for t in given)
        object.__setattr__(self, 'temperatures', temperatures)
        if len(temperatures) != self.stage_count or not all(
            normal.tiny <= t <= normal.max  # the inverse of a smaller one would not be finite
            for t in temperatures
        ):
            raise ValueError(
                f'expected {self.stage_count} positive finite temperatures, got {temperatures}'
            )
        if self.calibrated and self.task is not Task.SEGMENTATION:
            raise ValueError(
                f'{self.architecture} is for {self.task.value}: expected no temperatures, which '
                f'are of class scores, got {temperatures}'
            )

    def _check_criterion(self, criterion: Criterion) -> None:
        known = CRITERIA[self.architecture]
        if not known:
            raise ValueError(
                f'expected no adaptivity: every exit of {self.architecture} computes all positions'
            )
        if criterion not in known:
            raise ValueError(
                f'{self.architecture}: expected criterion '
                f'{", ".join(c.value for c in known)}, got {criterion.value}'
            )

    def _check_depths(self, depths: tuple[int, ...]) -> None:
        deepest = self.sizes.size_multiple.bit_length() - 1  # in halvings of the padded image
        limits = [deepest - level for level in self.sizes.exit_levels[:-1]]
        if len(depths) != len(limits) or not all(
            type(depth) is int and 1 <= depth <= limit for depth, limit in zip(depths, limits)
        ):
            raise ValueError(
                f'expected head_depths of exits 1 to {len(limits)}, from 1 to '
                f'{" / ".join(map(str, limits))}, got {tuple(depths)}'
            )

    @property
    def sizes(self) -> Architecture:
        """The architecture's sizes."""
        return ARCHITECTURES[self.architecture]

    @property
    def task(self) -> Task:
        """What the network is for."""
        return TASKS[self.architecture]

    def check_task(self, task: Task) -> None:
        """Raise ValueError if the network is for something else."""
        if self.task is not task:
            raise ValueError(
                f'expected a network for {task.value}, got {self.architecture}, which is for '
                f'{self.task.value}'
            )

    @property
    def stage_count(self) -> int:
        """Number of stages; the last one always has an exit."""
        return len(self.sizes.exit_levels)

    @property
    def exit_count(self) -> int:
        """Number of exits: one for each stage, or 1 if heads is none."""
        return 1 if self.heads is Heads.NONE else self.stage_count

    @property
    def exit_levels(self) -> tuple[int, ...]:
        """Of each exit that there is, the log2 of the scale of its class scores."""
        return self.sizes.exit_levels[-self.exit_count :]

    def has_exit(self, stage: int) -> bool:
        """Tell whether a stage, counted from 1, ends with an exit."""
        return self.heads is not Heads.NONE or stage == self.stage_count

    def scale_of(self, stage: int) -> int:
        """Give the pixels of a cell of class scores, on either axis, of a stage from 1."""
        return 1 << self.sizes.exit_levels[stage - 1]

    def temperature_of(self, stage: int) -> float:
        """Give the temperature of a stage's exit, counted from 1."""
        return self.temperatures[stage - 1]

    @property
    def calibrated(self) -> bool:
        """Whether any temperature changes what is published."""
        return any(t != 1.0 for t in self.temperatures)


def default_adaptivity(architecture: str) -> Adaptivity | None:
    """
    Give the masks of the paper for a network: by the first criterion of its family.

    :return: None for a network that masks nothing. An unknown one is refused as its configuration
        is built.
    """
    known = CRITERIA.get(architecture, (Criterion.MAX_PROBABILITY,))
    return Adaptivity(known[0]) if known else None


def build_network(config: NetworkConfig) -> AnytimeNetwork:
    """Build the network of a configuration, with its family's initialisation."""
    for family in FAMILIES:
        if config.architecture in family.ARCHITECTURES:
            return family(config)
    raise AssertionError(config.architecture)  # the configuration has seen to it


def with_masks(config: NetworkConfig, adaptivity: Adaptivity | None) -> NetworkConfig:
    """
    Give the configuration of the same weights with other masks, or without.

    :param adaptivity: None for no masks.
    :raises ValueError: if the network cannot have such masks, or its weights lack what predicts
        them.
    """
    changed = dataclasses.replace(config, adaptivity=adaptivity)
    predicted = adaptivity is not None and adaptivity.criterion is Criterion.PREDICTED
    if predicted and config.adaptivity is None:
        raise ValueError(
            f'{config.architecture}: expected weights that were trained with masks, got some '
            'without: they lack what predicts them'
        )
    return changed


def with_adaptivity(network: AnytimeNetwork, adaptivity: Adaptivity | None) -> AnytimeNetwork:
    """
    Give the same network with other masks, with masks though it was trained without, or without.

    Interpolation parameters are those of the network; one that has none gets initial values.

    :param network: is not changed; the result shares its parameters where the window is the same.
    :param adaptivity: None for no masks.
    :return: in the same mode, on the same device.
    :raises ValueError: as :func:`with_masks`.
    """
    config = with_masks(network.config, adaptivity)
    before, after = network.config.adaptivity, config.adaptivity
    if (before and before.window) == (after and after.window):
        changed = copy.copy(network)
        changed.config = config
        return changed
    changed = build_network(config)
    own = changed.state_dict()
    weights = {k: v for k, v in network.state_dict().items() if not k.endswith(DISTANCES)}
    changed.load_state_dict(own | {k: v for k, v in weights.items() if k in own})
    return changed.train(network.training).to(next(network.parameters()).device)
