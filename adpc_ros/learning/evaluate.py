"""Accuracy of every exit on labelled images."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from adpc_ros.learning.metrics import Confusion
from adpc_ros.network.anytime import AnytimeNetwork
from adpc_ros.network.macs import GI, ConvCost, count_maps, exit_costs
from adpc_ros.runtime.images import render, to_input


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
    confusions = [Confusion(network.config.class_count) for _ in range(network.config.exit_count)]
    shares: list[list[float]] = []
    macs: list[list[int]] = []
    costs: dict[tuple[int, int], list[list[ConvCost]]] = {}
    with torch.inference_mode():
        for image, label in tqdm(samples, 'evaluate', disable=not progress):
            frame_shares = []
            maps = []
            x = to_input(image, network.config, device)
            for out, confusion in zip(network.exits(x, adaptive), confusions):
                rendered, _ = render(out.logits, label.shape)
                confusion.add(label, rendered.class_ids)
                maps.append(out.active)
                if out.next_active is not None:
                    size = (out.logits.shape[2], out.logits.shape[3])
                    frame_shares.append(1 - out.next_active.share(size))
            shares.append(frame_shares)
            padded = (x.shape[2], x.shape[3])
            if padded not in costs:
                costs[padded] = exit_costs(network.config, padded)
            macs.append(count_maps(costs[padded], maps))
    if not macs:
        raise ValueError('nothing to evaluate: expected at least one image')
    gimac = np.mean(macs, axis=0) / GI
    return Evaluation(confusions, np.mean(shares, axis=0).tolist(), gimac.tolist())
