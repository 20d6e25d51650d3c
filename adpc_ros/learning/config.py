# SPDX-License-Identifier: Apache-2.0
"""Recipes: what a training is told, read from YAML and checked."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adpc_ros.network.adaptivity import Criterion
from adpc_ros.network.exits import Heads
from adpc_ros.network.families import ARCHITECTURES, CRITERIA, TASKS, NetworkConfig
from adpc_ros.network.task import Task
from adpc_ros.yaml_file import fields_of, read_mapping

_CLASS_BALANCE = 1.1
#: Keys that mean something for one task alone.
_OF_TASK = {
    Task.SEGMENTATION: (
        *('class_mix', 'class_weights', 'class_balance', 'synthetic_share'),
        *('distill_weight', 'distill_weight_end', 'extra', 'extra_share', 'extra_until'),
    ),
    Task.POSE: ('rotation', 'flip_test'),
}
_MAX_INT = 2**31 - 1
_MAX_SEED = 2**64 - 1  # of torch
_MAX_WEIGHT = 1e6  # and of rates; far above is no number in float32
_MAX_SCALE = 16.0
_MAX_CROP = 65536
NO_EFFECT = frozenset({'workers', 'save_every'})  # keys that change no result


class Optimizer(str, enum.Enum):
    """What turns gradients into steps."""

    ADAM = 'adam'
    ADAMW = 'adamw'
    SGD = 'sgd'  # with momentum 0.9


@dataclass(frozen=True)
class TrainConfig:
    """
    A recipe, for the task that its network is for.

    :param network: keys of :class:`adpc_ros.network.families.NetworkConfig`.
    :param data: training images, as :func:`adpc_ros.learning.datasets.open_samples` takes them;
        for poses as :func:`adpc_ros.learning.mpii.open_people` does.
    :param validation: likewise, of the same classes.
    :param output: folder for checkpoints; training resumes from what it finds there.
    :param epochs: passes over the training images.
    :param batch_size: images that one optimizer step sees, in all processes together.
    :param accumulate: parts of a batch that are computed one after the other, for want of memory;
        divides ``batch_size``. BatchNorm sees a part, the loss is normalised over the batch.
    :param crop: (H, W) of the training window in pixels, multiples of what the network takes, at
        most 65536.
    :param scales: range of the random resize, above 0, at most 16. For poses of the window around
        a person: the larger, the smaller is the person in it.
    :param rotation: for poses: deviation of the random turn in degrees, 0 to 180, which 60 % of
        the samples get and which is at most twice as large; 0 for none.
    :param colour: strength of the random colour change, 0 to 1.
    :param gamma: strength of the random change of light, as at dusk, 0 to 1; 0 for none.
    :param class_mix: probability that rare classes of another image (those whose weight in the
        loss is above 1) are pasted onto a sample.
    :param optimizer: adamw, adam, or sgd with momentum 0.9.
    :param learning_rate: at the first step, above 0; falls polynomially (power 0.9) to zero, or
        by ``drops``.
    :param drops: epochs, from 0 and rising, from each of which on the learning rate is a tenth of
        what it was before; empty for the polynomial.
    :param trunk_rate: factor on the learning rate of the backbone, which ``imagenet`` fills.
    :param warmup_steps: first steps, in which the learning rate grows linearly to its course.
    :param weight_decay: of every parameter.
    :param weight_decay_norms: False leaves out biases, BatchNorm and interpolation parameters.
    :param ema: decay of a moving average of the weights, which is validated and saved in place
        of the last ones; 0 for none, below 1.
    :param exit_weights: weight of each exit's loss, at least 0 and not all 0; None for all 1.
    :param adaptive_from: first epoch with confidence adaptivity.
    :param unrolled_steps: first optimizer steps in which a network that seeks an equilibrium
        (MDEQ) applies its layer three times instead; 0 for none, and for all other networks.
    :param sparsity_weight: weight, in the loss, of the share of positions that a network with
        predicted masks computes after each exit, of later exits more; None for the paper's 0.1,
        and for all other networks.
    :param class_weights: weight of each class in the loss; None to take ``class_balance``.
    :param class_balance: c, above 1, in the class weights 1 / ln(c + share of the class); 0 for
        none, 1.1 if neither it nor ``class_weights`` is given.
    :param autocast: None computes in float32; 'bfloat16' the forward pass where that is safe (the
        loss stays in float32).
    :param distill_weight: weight, beside each exit's cross-entropy, of its divergence from the
        soft labels that ``data`` or ``extra`` have (``soft=``), in the first epoch; 0 for none.
    :param distill_weight_end: in the last epoch, changing linearly; None for the same.
    :param synthetic_share: share of samples drawn from procedural streets, 0 to 1.
    :param extra: more training images, of the same classes; empty for none.
    :param extra_share: share of samples drawn from them, 0 to 1. An epoch stays as long as
        ``data`` makes it.
    :param extra_until: first epoch, from 0, without them; None for never.
    :param initial: weights to start from, of the same network; empty for random ones.
    :param imagenet: ImageNet weights for the backbone (HRNet's, official or timm's;
        EfficientNet-lite's for the coarse-to-fine family; MDEQ's); empty for none, and not
        together with ``initial``.
    :param flip_test: for poses: judge the mean of the heat maps of image and mirrored image.
    :param workers: processes that read and augment, for each training process; 0 for itself.
        Changes nothing that is drawn.
    :param evaluate_every: epochs between validations.
    :param save_every: optimizer steps between saved states, beside one after each epoch; 0 for
        these alone.
    :param norm_batches: batches over which BatchNorm's statistics are averaged anew before a
        validation, since in a short training the running ones lag behind; 0 for none.
    :param seed: of everything random, below 2^64; other whole numbers are below 2^31.
    :raises ValueError: if a value is outside its range.
    """

    network: dict[str, Any]
    data: str
    validation: str
    output: str
    epochs: int
    batch_size: int = 6
    accumulate: int = 1
    crop: tuple[int, int] = (192, 256)
    scales: tuple[float, float] = (0.5, 1.0)
    rotation: float = 0.0
    colour: float = 0.3
    gamma: float = 0.0
    class_mix: float = 0.0
    optimizer: Optimizer = Optimizer.ADAMW
    learning_rate: float = 1e-3
    drops: tuple[int, ...] = ()
    trunk_rate: float = 1.0
    warmup_steps: int = 0
    weight_decay: float = 0.01
    weight_decay_norms: bool = True
    ema: float = 0.0
    exit_weights: tuple[float, ...] | None = None
    adaptive_from: int = 0
    unrolled_steps: int = 0
    sparsity_weight: float | None = None
    class_weights: tuple[float, ...] | None = None
    class_balance: float | None = None
    autocast: str | None = None
    distill_weight: float = 0.0
    distill_weight_end: float | None = None
    synthetic_share: float = 0.0
    extra: str = ''
    extra_share: float = 0.0
    extra_until: int | None = None
    initial: str = ''
    imagenet: str = ''
    flip_test: bool = False
    workers: int = 0
    evaluate_every: int = 5
    save_every: int = 0
    norm_batches: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        self._check_task()
        for key in ('epochs', 'batch_size', 'accumulate', 'evaluate_every'):
            self._check_at_least(key, 1)
        for key in (
            'workers', 'save_every', 'norm_batches', 'warmup_steps', 'adaptive_from', 'seed',
            'unrolled_steps',
        ):  # fmt: skip
            self._check_at_least(key, 0)
        if self.extra_until is not None:
            self._check_at_least('extra_until', 0)
        if self.batch_size % self.accumulate:
            raise ValueError(
                f'expected accumulate to divide the batch_size of {self.batch_size}, '
                f'got {self.accumulate}'
            )
        sizes = ARCHITECTURES.get(self.network.get('architecture', ''))
        multiple = sizes.size_multiple if sizes else 1  # an unknown one is refused as it is built
        if len(self.crop) != 2 or any(edge < multiple or edge % multiple for edge in self.crop):
            raise ValueError(f'expected a crop (H, W) of multiples of {multiple}, got {self.crop}')
        if max(self.crop) > _MAX_CROP:
            raise ValueError(f'expected a crop (H, W) of at most {_MAX_CROP}, got {self.crop}')
        if self.unrolled_steps and sizes is not None and not sizes.unrolls:
            raise ValueError(
                f'unrolled_steps is for networks that seek an equilibrium, as mdeq_small: '
                f'expected 0 for {sizes.name}, got {self.unrolled_steps}'
            )
        if self.sparsity_weight is not None and sizes is not None:
            if Criterion.PREDICTED not in CRITERIA[sizes.name] or not self.network.get(
                'adaptivity'
            ):
                raise ValueError(
                    f'sparsity_weight is for networks with predicted masks, as hrnet_w48_sampled '
                    f'with adaptivity: expected null for {sizes.name}, got {self.sparsity_weight}'
                )
        if len(self.scales) != 2 or not 0 < self.scales[0] <= self.scales[1] <= _MAX_SCALE:
            raise ValueError(
                'expected scales (low, high), both positive and at most '
                f'{_MAX_SCALE:g}, got {self.scales}'
            )
        for key in ('synthetic_share', 'extra_share', 'colour', 'gamma', 'class_mix'):
            if not 0 <= getattr(self, key) <= 1:
                raise ValueError(f'expected {key} in [0, 1], got {getattr(self, key)}')
        if self.synthetic_share + self.extra_share > 1:
            raise ValueError(
                'expected synthetic_share and extra_share of at most 1 together, got '
                f'{self.synthetic_share} and {self.extra_share}'
            )
        if bool(self.extra) != (self.extra_share > 0):
            raise ValueError(
                f'expected extra and extra_share together, got {self.extra!r}, {self.extra_share}'
            )
        if not 0 <= self.ema < 1:
            raise ValueError(f'expected ema in [0, 1), got {self.ema}')
        for key in (
            'learning_rate', 'trunk_rate', 'weight_decay', 'distill_weight', 'distill_weight_end',
            'sparsity_weight',
        ):  # fmt: skip
            value = getattr(self, key)
            if value is not None and not 0 <= value <= _MAX_WEIGHT:
                raise ValueError(
                    f'expected {key} of at least 0 and at most {_MAX_WEIGHT:g}, got {value}'
                )
        if not 0 <= self.rotation <= 180:
            raise ValueError(f'expected rotation in [0, 180] degrees, got {self.rotation}')
        if list(self.drops) != sorted({d for d in self.drops if 0 < d < self.epochs}):
            raise ValueError(
                f'expected drops as rising epochs above 0 and below {self.epochs}, '
                f'got {list(self.drops)}'
            )
        if not self.learning_rate > 0:
            raise ValueError(f'expected learning_rate above 0, got {self.learning_rate}')
        try:
            object.__setattr__(self, 'optimizer', Optimizer(self.optimizer))
        except ValueError:
            known = ' or '.join(choice.value for choice in Optimizer)
            raise ValueError(f'expected optimizer {known}, got {self.optimizer!r}') from None
        if self.autocast not in (None, 'bfloat16'):
            raise ValueError(f'expected autocast null or bfloat16, got {self.autocast!r}')
        if not self.output:
            raise ValueError('expected output, a folder, got an empty text')
        if self.initial and self.imagenet:
            raise ValueError('expected initial or imagenet, got both')
        self._check_weights()

    @property
    def task(self) -> Task:
        """What the network is for; that of an unknown one is refused as it is built."""
        return TASKS.get(self.network.get('architecture', ''), Task.SEGMENTATION)

    @property
    def distils(self) -> bool:
        """Whether a teacher is listened to in any epoch."""
        return self.distill_weight > 0 or (self.distill_weight_end or 0) > 0

    def distill_weight_in(self, epoch: int) -> float:
        """Give the weight of the teacher in an epoch, from 0."""
        end = self.distill_weight_end
        end = self.distill_weight if end is None else end
        return self.distill_weight + (end - self.distill_weight) * epoch / max(1, self.epochs - 1)

    def _check_task(self) -> None:
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for task, keys in _OF_TASK.items():
            for key in keys if task is not self.task else ():
                if getattr(self, key) != defaults[key]:
                    raise ValueError(
                        f'{key} is for {task.value} alone: {self.network.get("architecture")} is '
                        f'for {self.task.value}'
                    )

    def _check_at_least(self, key: str, minimum: int) -> None:
        value = getattr(self, key)
        if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
            raise ValueError(f'expected {key} of {minimum} or more, got {value!r}')
        if value > (limit := _MAX_SEED if key == 'seed' else _MAX_INT):
            raise ValueError(f'expected {key} of at most {limit}, got {value}')

    def _check_weights(self) -> None:
        known = ARCHITECTURES.get(self.network.get('architecture', ''))
        exits = 0 if known is None else len(known.exit_levels)  # 0: refused as it is built
        if self.network.get('heads') == Heads.NONE:
            exits = 1
        if exits and self.exit_weights is not None and len(self.exit_weights) != exits:
            raise ValueError(
                f'expected exit_weights for {exits} exits, got {len(self.exit_weights)}'
            )
        if known is not None and known.unrolls and self.exit_weights and not self.exit_weights[-1]:
            raise ValueError(
                f'expected exit_weights whose last is above 0: the earlier exits of {known.name} '
                f'train its head alone, got {list(self.exit_weights)}'
            )
        for key in ('exit_weights', 'class_weights'):
            weights: tuple[float, ...] | None = getattr(self, key)
            if weights is not None and not _are_weights(weights):
                raise ValueError(
                    f'expected {key} of at least 0 and at most {_MAX_WEIGHT:g}, '
                    f'not all of them 0, got {list(weights)}'
                )
        if self.class_weights is None:
            if self.class_balance is None and self.task is Task.SEGMENTATION:
                object.__setattr__(self, 'class_balance', _CLASS_BALANCE)
        elif self.class_balance is not None:
            raise ValueError('expected class_weights or class_balance, got both')
        if self.class_balance and not 1 < self.class_balance < math.inf:
            raise ValueError(f'expected class_balance of 0, or above 1, got {self.class_balance}')
        given = self.class_weights
        if self.class_mix and not (max(given) > 1 if given else self.class_balance):
            raise ValueError('class_mix is set: expected class weights above 1, of what is rare')


def _are_weights(values: tuple[float, ...]) -> bool:
    return all(0 <= v <= _MAX_WEIGHT for v in values) and any(v > 0 for v in values)


def read_config(path: str | Path) -> TrainConfig:
    """
    Read a recipe from YAML.

    :raises OSError: if it cannot be opened.
    :raises ValueError: if it is not YAML, for unknown, missing or repeated keys, and for values of
        another type or out of range; says the file and the key.
    """
    values = read_mapping(path)
    try:
        given = fields_of(values, TrainConfig)
        _check_network(given['network'])
        return TrainConfig(**given)
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error


def _check_network(values: Mapping[str, Any]) -> None:
    """Check what can be said of a network before the number of classes is known."""
    given = fields_of(values, NetworkConfig, 'network')
    if (adaptivity := given.get('adaptivity')) is not None and adaptivity.class_thresholds:
        given['class_count'] = len(adaptivity.class_thresholds[0])
    try:
        NetworkConfig(**given)
    except ValueError as error:
        raise ValueError(f'network: {error}') from error


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """
    Say in what two recipes differ, but for keys that change no result.

    :param before: as JSON gives it; keys that it lacks had today's default.
    :param now: likewise, complete.
    """
    defaults = {
        field.name: list(field.default) if isinstance(field.default, tuple) else field.default
        for field in dataclasses.fields(TrainConfig)
        if field.default is not dataclasses.MISSING
    }
    before = {**defaults, **before}
    return [
        f'{key} {before.get(key)!r}, now {value!r}'
        for key, value in now.items()
        if key not in NO_EFFECT and before.get(key) != value
    ]
