# SPDX-License-Identifier: Apache-2.0
"""
Fitted after training, on images that training has not seen: temperatures and thresholds.

A temperature divides an exit's class scores so that its confidence says how often it is right; a
threshold says from which raw confidence on later exits skip a position.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from adpc_ros.labels import IGNORE_ID
from adpc_ros.learning.class_thresholds import Move, collect_answers, descend, no_masks
from adpc_ros.learning.evaluate import Evaluation, evaluate
from adpc_ros.learning.labelled_images import LabelledImages
from adpc_ros.network.adaptivity import Adaptivity, Criterion
from adpc_ros.network.anytime import AnytimeNetwork
from adpc_ros.network.families import with_adaptivity
from adpc_ros.progress import ProgressBar
from adpc_ros.runtime.images import to_input

#: candidates, from no masks on down
THRESHOLDS = (
    1.0, 0.9995, 0.999, 0.998, 0.995, 0.99, 0.98, 0.97, 0.95, 0.93, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5,
)  # fmt: skip
_TOLERANCE = 2.0  # the estimated loss may be so many times the allowed one
_TRIES = 30  # evaluations that thresholds for each class may take
_PIXELS = 20_000  # of each image, for temperatures
_HIGHEST = 20.0  # temperature, and the inverse of the lowest: guesses alone would make it infinite


class Calibration(NamedTuple):
    """
    What was fitted, and what it does on the images it was fitted on.

    ``without_masks`` and ``with_masks`` judge all positions computed, and thresholds in force.
    """

    network: AnytimeNetwork
    without_masks: Evaluation
    with_masks: Evaluation


def with_thresholds(
    network: AnytimeNetwork,
    thresholds: tuple[float, ...],
    class_thresholds: tuple[tuple[float, ...], ...] = (),
) -> AnytimeNetwork:
    """
    Give the same network, parameters shared, with other thresholds.

    :param thresholds: as :class:`Adaptivity` has them; ``class_thresholds`` likewise.
    :raises ValueError: if it has no adaptivity, or another criterion than the top probability.
    """
    adaptivity = network.config.adaptivity
    if adaptivity is None or adaptivity.criterion is not Criterion.MAX_PROBABILITY:
        found = 'none' if adaptivity is None else f'masks by {adaptivity.criterion.value}'
        raise ValueError(f'expected a network with masks by top probability, got {found}')
    return with_adaptivity(
        network,
        dataclasses.replace(adaptivity, thresholds=thresholds, class_thresholds=class_thresholds),
    )


def calibrate(
    network: AnytimeNetwork,
    samples: LabelledImages,
    max_loss: float = 0.002,
    each_exit: bool = False,
    each_class: bool = False,
    progress: bool = True,
) -> Calibration:
    """
    Fit thresholds, then temperatures with these thresholds in force.

    :param network: in evaluation mode; is not changed. Without adaptivity only temperatures are
        fitted.
    :param samples: images that the network was not trained on.
    :param max_loss: mean IoU (0 to 1) that masks may cost at the last exit.
    :param each_exit: as in :func:`fit_thresholds`.
    :param each_class: also fit a threshold for each class, and keep these if they save more.
    :return: a network with the same parameters and the fitted values in its configuration.
    :raises ValueError: as :func:`with_thresholds`.
    """
    if network.config.adaptivity is not None:  # refuses what cannot be searched
        with_thresholds(network, network.config.adaptivity.thresholds)
    without_masks = evaluate(network, samples, adaptive=False, progress=progress)
    if network.config.adaptivity is not None:
        min_miou = without_masks.miou[-1] - max_loss
        thresholds = fit_thresholds(network, samples, min_miou, each_exit, progress)
        network = with_thresholds(network, thresholds)
        if each_class:
            network = fit_class_thresholds(
                network, samples, without_masks, max_loss, each_exit, progress
            )
    temperatures = fit_temperatures(network, samples, progress)
    network = copy.copy(network)
    network.config = dataclasses.replace(network.config, temperatures=temperatures)
    with_masks = evaluate(network, samples, progress=progress)
    return Calibration(network, without_masks, with_masks)


def fit_thresholds(
    network: AnytimeNetwork,
    samples: LabelledImages,
    min_miou: float,
    each_exit: bool = False,
    progress: bool = True,
) -> tuple[float, ...]:
    """
    Search the cheapest thresholds that keep a given accuracy, by descent.

    One threshold for all exits goes down :data:`THRESHOLDS` as far as it can; then, if wanted,
    one exit's after the other, the last first, since its masks rule most of the network.

    :param network: in evaluation mode, with adaptivity.
    :param min_miou: mean IoU of the last exit that must be reached, 0 to 1.
    :param each_exit: also lower each exit's own threshold. It needs many images: some dozens
        allow thresholds that fit these images alone.
    :return: a threshold for each exit but the last; all 1.0 (no masks) if nothing holds.
    :raises ValueError: as :func:`with_thresholds`.
    """
    exits = range(network.config.exit_count - 1)
    best = (THRESHOLDS[0],) * len(exits)
    groups = [tuple(exits)]
    if each_exit:
        groups += [(i,) for i in reversed(exits)]
    with ProgressBar(desc='thresholds tried', disable=not progress) as bar:
        for lowered in groups:
            while True:
                tried = tuple(_next_lower(t) if i in lowered else t for i, t in enumerate(best))
                if tried == best:
                    break
                result = evaluate(with_thresholds(network, tried), samples, progress=False)
                bar.set_postfix_str(
                    f'{tried}: mIoU {100 * result.miou[-1]:.2f} %, GiMAC {result.gimac[-1]:.2f}'
                )
                bar.update()
                if result.miou[-1] < min_miou:
                    break
                best = tried
    return best


def fit_class_thresholds(
    network: AnytimeNetwork,
    samples: LabelledImages,
    without_masks: Evaluation,
    max_loss: float,
    each_exit: bool = False,
    progress: bool = True,
) -> AnytimeNetwork:
    """
    Search the cheapest thresholds for each class that keep a given accuracy.

    An estimate gives a way down from no masks, one class at a time; how far it can be gone is
    found by bisection, with the masks themselves. The class that went too far stays, and the
    others go on.

    :param network: in evaluation mode, with adaptivity.
    :param without_masks: of the same network and images.
    :param max_loss: mean IoU that masks may cost at the last exit, 0 to 1.
    :param each_exit: a class may have another threshold at each exit. It needs many images.
    :return: the network with these thresholds; as it was given, if they save no more than its own.
    :raises ValueError: as :func:`with_thresholds`.
    """
    thresholds = (network.config.adaptivity or Adaptivity()).thresholds
    with_thresholds(network, thresholds)  # refuses what cannot be searched
    best, cost = network, evaluate(network, samples, progress=progress).gimac[-1]
    answers = collect_answers(network, samples, THRESHOLDS, progress)
    costs = [without_masks.gimac[-1] - up_to_here for up_to_here in without_masks.gimac[:-1]]
    reached, frozen = no_masks(answers, network.config.class_count), set[Move]()
    tries = 0
    with ProgressBar(desc='class thresholds tried', total=_TRIES, disable=not progress) as bar:
        while tries < _TRIES:
            path = descend(answers, costs, reached, _TOLERANCE * max_loss, each_exit, frozen)
            low, high = 0, len(path)  # steps that hold, and that may hold
            while low < high and tries < _TRIES:
                tries += 1
                middle = (low + high + 1) // 2
                values = [[THRESHOLDS[i] for i in row] for row in path[middle - 1].choice]
                tried = with_thresholds(network, thresholds, tuple(map(tuple, values)))
                result = evaluate(tried, samples, progress=False)
                bar.set_postfix_str(
                    f'mIoU {100 * result.miou[-1]:.2f} %, GiMAC {result.gimac[-1]:.2f}'
                )
                bar.update()
                if result.miou[-1] < without_masks.miou[-1] - max_loss:
                    high = middle - 1
                    continue
                low = middle
                if result.gimac[-1] < cost:
                    best, cost = tried, result.gimac[-1]
            if low:
                reached = path[low - 1].choice
            if low == len(path):
                break
            frozen.add(path[low].move)
    return best


def _next_lower(threshold: float) -> float:
    """Give the next candidate; the last one stays."""
    return THRESHOLDS[min(THRESHOLDS.index(threshold) + 1, len(THRESHOLDS) - 1)]


@torch.no_grad()
def fit_temperatures(
    network: AnytimeNetwork, samples: LabelledImages, progress: bool = True
) -> tuple[float, ...]:
    """
    Fit each exit's temperature to the pixels that this exit computes, masks in force.

    :param network: in evaluation mode.
    :return: a temperature for each stage, 1.0 for an exit that computes no labelled pixel.

    Source: arXiv:1706.04599, section 4.2 (least negative log-likelihood).
    """
    device = next(network.parameters()).device
    rng = np.random.default_rng(0)
    stages = network.config.stage_count
    scores: list[list[Tensor]] = [[] for _ in range(stages)]
    labels: list[list[Tensor]] = [[] for _ in range(stages)]
    for sample in ProgressBar(samples, 'temperatures', len(samples), disable=not progress):
        places = np.flatnonzero(sample.label.ravel() != IGNORE_ID)
        places = rng.permutation(places)[:_PIXELS]
        rows, columns = map(torch.from_numpy, np.unravel_index(places, sample.label.shape))
        label = torch.from_numpy(sample.label[rows, columns]).long()
        image = to_input(sample.image, network.config, device)
        for out in network.exits(image):
            full = functional.interpolate(out.logits, image.shape[2:], mode='bilinear')
            cells = (out.logits.shape[2], out.logits.shape[3])
            computed = torch.ones(len(places), dtype=torch.bool)
            if out.active is not None:
                scale = image.shape[2] // cells[0]
                computed = out.active.at(cells)[0, 0].cpu()[rows // scale, columns // scale]
            scores[out.exit_index - 1].append(full[0].cpu()[:, rows, columns].T[computed])
            labels[out.exit_index - 1].append(label[computed])
    fitted = [
        _temperature(torch.cat(s), torch.cat(t)) if s else 1.0 for s, t in zip(scores, labels)
    ]
    return tuple(fitted)


def _temperature(scores: Tensor, label: Tensor) -> float:
    """Minimise the negative log-likelihood over the logarithm of the temperature."""
    if len(label) == 0:
        return 1.0
    log_t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_t], max_iter=50, line_search_fn='strong_wolfe')

    def closure() -> float:
        optimizer.zero_grad()
        with torch.enable_grad():
            loss = functional.cross_entropy(scores * torch.exp(-log_t).float(), label)
        torch.autograd.backward(loss)
        return loss.item()

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return min(max(math.exp(log_t.item()), 1 / _HIGHEST), _HIGHEST)
