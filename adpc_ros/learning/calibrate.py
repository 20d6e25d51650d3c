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
from tqdm import tqdm

from adpc_ros.labels import IGNORE_ID
from adpc_ros.learning.datasets import LabelledImages
from adpc_ros.learning.evaluate import Evaluation, evaluate
from adpc_ros.network.adaptivity import Criterion
from adpc_ros.network.anytime import AnytimeNetwork
from adpc_ros.runtime.images import to_input

#: candidates, from no masks on down
THRESHOLDS = (
    1.0, 0.9995, 0.999, 0.998, 0.995, 0.99, 0.98, 0.97, 0.95, 0.93, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5,
)  # fmt: skip
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
    network: AnytimeNetwork, thresholds: tuple[float, float, float]
) -> AnytimeNetwork:
    """
    Give the same network, parameters shared, with other thresholds.

    :raises ValueError: if it has no adaptivity, or another criterion than the top probability.
    """
    adaptivity = network.config.adaptivity
    if adaptivity is None or adaptivity.criterion is not Criterion.MAX_PROBABILITY:
        raise ValueError('expected a network with masks by top probability (adaptivity)')
    changed = copy.copy(network)
    changed.config = dataclasses.replace(
        network.config, adaptivity=dataclasses.replace(adaptivity, thresholds=thresholds)
    )
    return changed


def calibrate(
    network: AnytimeNetwork,
    samples: LabelledImages,
    most_loss: float = 0.002,
    each_exit: bool = False,
    progress: bool = True,
) -> Calibration:
    """
    Fit thresholds, then temperatures with these thresholds in force.

    :param network: in evaluation mode; is not changed. Without adaptivity only temperatures are
        fitted.
    :param samples: images that the network was not trained on.
    :param most_loss: mean IoU (0 to 1) that masks may cost at the last exit.
    :param each_exit: as in :func:`fit_thresholds`.
    :return: a network with the same parameters and the fitted values in its configuration.
    """
    without_masks = evaluate(network, samples, adaptive=False, progress=progress)
    if network.config.adaptivity is not None:
        least_miou = without_masks.miou[-1] - most_loss
        thresholds = fit_thresholds(network, samples, least_miou, each_exit, progress)
        network = with_thresholds(network, thresholds)
    temperatures = fit_temperatures(network, samples, progress)
    network = copy.copy(network)
    network.config = dataclasses.replace(network.config, temperatures=temperatures)
    with_masks = evaluate(network, samples, progress=progress)
    return Calibration(network, without_masks, with_masks)


def fit_thresholds(
    network: AnytimeNetwork,
    samples: LabelledImages,
    least_miou: float,
    each_exit: bool = False,
    progress: bool = True,
) -> tuple[float, float, float]:
    """
    Search the cheapest thresholds that keep a given accuracy, by descent.

    One threshold for all exits goes down :data:`THRESHOLDS` as far as it can; then, if wanted,
    one exit's after the other, the last first, since its masks rule most of the network.

    :param network: in evaluation mode, with adaptivity.
    :param least_miou: mean IoU of the last exit that must be reached, 0 to 1.
    :param each_exit: also lower each exit's own threshold. It needs many images: some dozens
        allow thresholds that fit these images alone.
    :return: a threshold for each exit but the last; all 1.0 (no masks) if nothing holds.
    :raises ValueError: as :func:`with_thresholds`.
    """
    best = (THRESHOLDS[0],) * 3
    with tqdm(desc='thresholds tried', disable=not progress) as bar:
        for lowered in ((0, 1, 2), (2,), (1,), (0,)) if each_exit else ((0, 1, 2),):
            while True:
                first, second, third = (
                    _next_lower(t) if i in lowered else t for i, t in enumerate(best)
                )
                tried = (first, second, third)
                if tried == best:
                    break
                result = evaluate(with_thresholds(network, tried), samples, progress=False)
                bar.set_postfix_str(
                    f'{tried}: mIoU {100 * result.miou[-1]:.2f} %, GiMAC {result.gimac[-1]:.2f}'
                )
                bar.update()
                if result.miou[-1] < least_miou:
                    break
                best = tried
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
    :return: four temperatures, 1.0 for an exit that computes no labelled pixel.

    Source: arXiv:1706.04599, section 4.2 (least negative log-likelihood).
    """
    device = next(network.parameters()).device
    rng = np.random.default_rng(0)
    stages = network.config.stage_count
    scores: list[list[Tensor]] = [[] for _ in range(stages)]
    labels: list[list[Tensor]] = [[] for _ in range(stages)]
    for sample in tqdm(samples, 'temperatures', len(samples), disable=not progress):
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
