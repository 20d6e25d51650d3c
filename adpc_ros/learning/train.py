"""
Training: all exits at once, resumable, every random draw fixed by the seed.

Source of the recipe's form: arXiv:2104.00749 (four cross-entropies, polynomial decay).
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import yaml
from torch import Tensor, nn
from tqdm import tqdm

from adpc_ros.labels import IGNORE_ID, ClassSet
from adpc_ros.learning.datasets import open_samples
from adpc_ros.learning.evaluate import evaluate
from adpc_ros.learning.losses import exit_losses
from adpc_ros.learning.sample import Sample
from adpc_ros.learning.transforms import augment
from adpc_ros.network import checkpoint
from adpc_ros.network.anytime import AnytimeNetwork

log = logging.getLogger(__name__)


class Samples(Protocol):
    """Labelled images by index."""

    def __len__(self) -> int:
        """Give the number of images."""

    def __getitem__(self, index: int) -> Sample:
        """Read one."""


@dataclass(frozen=True)
class TrainConfig:
    """
    A recipe.

    :param network: keys of :class:`adpc_ros.network.anytime.NetworkConfig`.
    :param data: training images, as :func:`adpc_ros.learning.datasets.open_samples` takes them.
    :param validation: likewise, of the same classes.
    :param output: folder for checkpoints; training resumes from what it finds there.
    :param epochs: passes over the training images.
    :param batch_size: images in a step.
    :param crop: (H, W) of the training window in pixels, multiples of 32.
    :param scales: range of the random resize.
    :param colour: strength of the random colour change, 0 to 1.
    :param learning_rate: at the first step; falls polynomially (power 0.9) to zero.
    :param weight_decay: of AdamW.
    :param adaptive_from: first epoch with confidence adaptivity.
    :param class_balance: c in the class weights 1 / ln(c + share of the class); 0 for none.
    :param synthetic_share: share of samples drawn from procedural streets, 0 to 1.
    :param initial: weights to start from; empty for random ones.
    :param evaluate_every: epochs between validations.
    :param norm_batches: batches over which BatchNorm's statistics are averaged anew before a
        validation, since in a short training the running ones lag behind; 0 for none.
    :param seed: of everything random.
    :raises ValueError: if a value is outside its range.
    """

    network: dict[str, Any]
    data: str
    validation: str
    output: str
    epochs: int
    batch_size: int = 6
    crop: tuple[int, int] = (192, 256)
    scales: tuple[float, float] = (0.5, 1.0)
    colour: float = 0.3
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    adaptive_from: int = 0
    class_balance: float = 1.1
    synthetic_share: float = 0.0
    initial: str = ''
    evaluate_every: int = 5
    norm_batches: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1 or self.evaluate_every < 1:
            raise ValueError(
                'expected epochs, batch_size and evaluate_every of 1 or more, got '
                f'{self.epochs}, {self.batch_size} and {self.evaluate_every}'
            )
        if self.norm_batches < 0:
            raise ValueError(f'expected norm_batches of 0 or more, got {self.norm_batches}')
        if len(self.crop) != 2 or any(edge < 32 or edge % 32 for edge in self.crop):
            raise ValueError(f'expected a crop (H, W) of multiples of 32, got {self.crop}')
        if len(self.scales) != 2 or not 0 < self.scales[0] <= self.scales[1]:
            raise ValueError(f'expected scales (low, high), both positive, got {self.scales}')
        if not (0 <= self.synthetic_share <= 1 and 0 <= self.colour <= 1):
            raise ValueError(
                'expected synthetic_share and colour in [0, 1], got '
                f'{self.synthetic_share} and {self.colour}'
            )


def read_config(path: str | Path) -> TrainConfig:
    """
    Read a recipe from YAML.

    :raises ValueError: if it is not YAML, for unknown or missing keys and for values out of range.
    """
    try:
        values = yaml.safe_load(Path(path).read_text())
    except yaml.YAMLError as error:
        raise ValueError(f'{path}: expected YAML ({error})') from error
    fields = {field.name: field for field in dataclasses.fields(TrainConfig)}
    if not isinstance(values, dict):
        raise ValueError(f'{path}: expected keys and values, got {type(values).__name__}')
    if unknown := values.keys() - fields.keys():
        raise ValueError(f'{path}: unknown keys {sorted(unknown)}: expected {sorted(fields)}')
    required = {k for k, f in fields.items() if f.default is dataclasses.MISSING}
    if missing := required - values.keys():
        raise ValueError(f'{path}: missing keys {sorted(missing)}')
    try:
        for key in ('crop', 'scales'):
            if key in values:
                values[key] = tuple(values[key])
        return TrainConfig(**values)
    except (TypeError, ValueError) as error:
        raise ValueError(f'{path}: {error}') from error


def class_weights(samples: Samples, classes: ClassSet, balance: float) -> list[float] | None:
    """
    Weigh rare classes up.

    :param balance: c in 1 / ln(c + share), scaled to a mean of 1; 0 gives None.

    Source: arXiv:1606.02147, section 5.2.
    """
    if balance == 0:
        return None
    counts = np.zeros(IGNORE_ID + 1, np.int64)
    for index in tqdm(range(len(samples)), 'class shares'):
        counts += np.bincount(samples[index].label.ravel(), minlength=IGNORE_ID + 1)
    share = counts[: classes.count] / max(1, counts[: classes.count].sum())
    weights = 1.0 / np.log(balance + share)
    return [float(w) for w in weights / weights.mean()]


def draw_batches(
    samples: Samples, synthetic: Samples | None, config: TrainConfig, epoch: int
) -> Iterator[list[Sample]]:
    """Yield an epoch's batches; the same epoch always yields the same."""
    order = np.random.default_rng((config.seed, epoch)).permutation(len(samples))
    for first in range(0, len(order) - config.batch_size + 1, config.batch_size):
        batch = []
        for position in range(first, first + config.batch_size):
            rng = np.random.default_rng((config.seed, epoch, position))
            if synthetic is not None and rng.random() < config.synthetic_share:
                sample = synthetic[int(rng.integers(len(synthetic)))]
            else:
                sample = samples[int(order[position])]
            batch.append(augment(sample, config.crop, config.scales, config.colour, rng))
        yield batch


def to_tensors(
    batch: Sequence[Sample], network: AnytimeNetwork, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Give (B, 3, H, W) float32 normalised images and (B, H, W) int64 labels."""
    images = torch.from_numpy(np.stack([s.image for s in batch])).to(device).permute(0, 3, 1, 2)
    mean = torch.tensor(network.config.mean, device=device).view(1, 3, 1, 1)
    std = torch.tensor(network.config.std, device=device).view(1, 3, 1, 1)
    x = ((images / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
    return x, torch.from_numpy(np.stack([s.label for s in batch])).long().to(device)


def train(config: TrainConfig, synthetic: Samples | None = None) -> Path:
    """
    Train, or go on where an earlier run with the same output folder stopped.

    :param synthetic: source of the synthetic share.
    :return: the weights file with the best validation result at the last exit.
    :raises ValueError: if the data are missing, a synthetic share is asked for without source, or
        the earlier run had another recipe or other data.
    """
    if config.synthetic_share and synthetic is None:
        raise ValueError('synthetic_share is set: expected a source of synthetic samples')
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    samples, validation = open_samples(config.data), open_samples(config.validation)
    if samples.classes != validation.classes:
        raise ValueError(
            f'{config.validation}: expected the classes of {samples.classes.name}, '
            f'got those of {validation.classes.name}'
        )
    if len(samples) < config.batch_size:
        raise ValueError(
            f'{config.data}: expected images for a batch of {config.batch_size}, '
            f'got {len(samples)}'
        )
    torch.manual_seed(config.seed)
    network = AnytimeNetwork(
        checkpoint.config_from_dict({**config.network, 'class_count': samples.classes.count})
    )
    if config.initial:
        network.load_state_dict(checkpoint.load(config.initial).network.state_dict())
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(
        network.parameters(), config.learning_rate, weight_decay=config.weight_decay
    )
    steps_per_epoch = len(samples) // config.batch_size
    schedule = torch.optim.lr_scheduler.PolynomialLR(
        optimizer, config.epochs * steps_per_epoch, power=0.9
    )
    first_epoch, best = 0, -1.0
    recipe = json.dumps({**dataclasses.asdict(config), 'data_digest': samples.digest()})
    state_file = output / 'last.pt'
    if state_file.exists():
        state = torch.load(state_file, map_location=device, weights_only=True)
        _check_same(state.get('recipe', ''), recipe, state_file)
        network.load_state_dict(state['network'])
        optimizer.load_state_dict(state['optimizer'])
        schedule.load_state_dict(state['schedule'])
        first_epoch, best = state['epoch'], state['best']
        log.info('resumed after epoch %d', first_epoch)
    weights = class_weights(samples, samples.classes, config.class_balance)
    best_file = output / 'best.safetensors'
    for epoch in range(first_epoch, config.epochs):
        network.train()
        adaptive = network.config.adaptivity is not None and epoch >= config.adaptive_from
        started, losses = time.monotonic(), []
        batches = draw_batches(samples, synthetic, config, epoch)
        for batch in tqdm(batches, f'epoch {epoch + 1}/{config.epochs}', steps_per_epoch):
            image, label = to_tensors(batch, network, device)
            loss = torch.stack(exit_losses(network(image, adaptive), label, weights)).sum()
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        record: dict[str, Any] = {
            'epoch': epoch + 1,
            'loss': float(np.mean(losses)),
            'seconds': time.monotonic() - started,
        }
        if (epoch + 1) % config.evaluate_every == 0 or epoch + 1 == config.epochs:
            if config.norm_batches:
                again = itertools.islice(
                    draw_batches(samples, synthetic, config, epoch), config.norm_batches
                )
                images = (to_tensors(batch, network, device)[0] for batch in again)
                average_norms(network, images, adaptive)
            pairs = (validation[i] for i in range(len(validation)))
            result = evaluate(network.eval(), pairs, adaptive, progress=False)
            record |= {'miou': result.miou, 'masked_share': result.masked_share}
            judged = float(np.nan_to_num(result.miou[-1]))  # nothing to judge by counts as 0
            if judged > best:
                best = judged
                shown = ' '.join(f'{100 * m:.1f}' for m in result.miou)
                info = {
                    'data': config.data,
                    'result': f'mIoU at exits 1-4: {shown} % on {config.validation}',
                    'epoch': str(epoch + 1),
                    'recipe': recipe,
                }
                checkpoint.save(best_file, network, samples.classes, info)
        with open(output / 'log.jsonl', 'a') as file:
            file.write(json.dumps(record) + '\n')
        checkpoint.save(
            output / 'last.safetensors', network, samples.classes, {'epoch': str(epoch + 1)}
        )
        partial = output / 'last.pt.partial'
        torch.save(
            {
                'network': network.state_dict(),
                'optimizer': optimizer.state_dict(),
                'schedule': schedule.state_dict(),
                'epoch': epoch + 1,
                'best': best,
                'recipe': recipe,
            },
            partial,
        )
        partial.replace(state_file)
    return best_file


@torch.no_grad()
def average_norms(network: AnytimeNetwork, images: Iterable[Tensor], adaptive: bool) -> None:
    """
    Replace BatchNorm's running statistics by averages over some batches.

    :param images: each (B, 3, H, W) float, normalised.
    :param adaptive: as the network is trained.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    network.train()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # an average over all batches
    for image in images:
        network(image, adaptive)
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum


def _check_same(earlier: str, recipe: str, path: Path) -> None:
    before, now = json.loads(earlier or '{}'), json.loads(recipe)
    changed = [
        f'{key} {before.get(key)!r}, now {value!r}'
        for key, value in now.items()
        if before.get(key) != value
    ]
    if changed:
        raise ValueError(
            f'{path} is of another recipe ({"; ".join(changed)}): '
            'expected the same, or another output folder'
        )
