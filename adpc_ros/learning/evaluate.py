"""Accuracy of every exit on labelled images."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from adpc_ros.learning.metrics import Confusion
from adpc_ros.network.anytime import AnytimeNetwork
from adpc_ros.network.macs import GI
from adpc_ros.runtime.plan import Plan, make_plan


class Evaluation(NamedTuple):
    """
    What an evaluation gives.

    ``confusions`` of each exit; ``masked_share`` (0 to 1), the mean share of 1/4-resolution
    positions that are masked after exits 1 to 3 (none without masks); ``gimac``, what an image
    costs up to each exit, in the mean.
    """

    confusions: list[Confusion]
    masked_share: list[float]
    gimac: list[float]

    @property
    def miou(self) -> list[float]:
        """Mean intersection over union of each exit, 0 to 1."""
        return [confusion.mean_iou() for confusion in self.confusions]


def evaluate(
    network: AnytimeNetwork,
    samples: Iterable[tuple[NDArray[np.uint8], NDArray[np.uint8]]],
    adaptive: bool = True,
    progress: bool = True,
) -> Evaluation:
    """
    Judge every exit at full size, single scale, without flip.

    :param network: in evaluation mode.
    :param samples: pairs of (H, W, 3) uint8 RGB image and (H, W) uint8 label, any sizes.
    :raises ValueError: if there are no samples.
    """
    device = next(network.parameters()).device
    with contextlib.closing(make_plan(network, device, threads=torch.get_num_threads())) as plan:
        return _evaluate(plan, samples, adaptive, progress)


def _evaluate(
    plan: Plan,
    samples: Iterable[tuple[NDArray[np.uint8], NDArray[np.uint8]]],
    adaptive: bool,
    progress: bool,
) -> Evaluation:
    confusions = [Confusion(plan.config.class_count) for _ in range(plan.exit_count)]
    masked: list[list[float]] = []
    macs: list[list[int]] = []
    for image, label in tqdm(samples, 'evaluate', disable=not progress):
        exits = [computed for computed in plan.segment(image, adaptive) if computed is not None]
        for computed, confusion in zip(exits, confusions):
            confusion.add(label, computed.rendered.class_ids)
        masked.append([1 - computed.active_share for computed in exits[:-1]])
        macs.append([computed.macs for computed in exits])
    if not macs:
        raise ValueError('nothing to evaluate: expected at least one image')
    gimac = np.mean(macs, axis=0) / GI
    has_masks = adaptive and plan.config.adaptivity is not None
    masked_share = np.mean(masked, axis=0).tolist() if has_masks else []
    return Evaluation(confusions, masked_share, gimac.tolist())
