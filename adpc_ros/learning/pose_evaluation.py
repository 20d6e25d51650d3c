# SPDX-License-Identifier: Apache-2.0
"""Accuracy and cost of every exit of a network for poses."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from adpc_ros.learning.batches import normalised
from adpc_ros.learning.heat_maps import apply, cut, invert, peaks, unmirrored, window_matrix
from adpc_ros.learning.people import MIRRORED, People
from adpc_ros.learning.pose_metrics import Pckh
from adpc_ros.network.anytime import AnytimeNetwork, Exit
from adpc_ros.network.macs import GI, count_maps, exit_costs
from adpc_ros.progress import ProgressBar


class PoseEvaluation(NamedTuple):
    """
    What an evaluation gives.

    ``pckh`` of each exit; ``masked_share`` (0 to 1), the mean share of positions that are masked
    after each exit but the last, empty without masks; ``gimac``, what a window costs up to each
    exit, in the mean, without that of the mirrored one.
    """

    pckh: list[Pckh]
    masked_share: list[float]
    gimac: list[float]

    @property
    def means(self) -> list[float]:
        """Mean PCKh of each exit, 0 to 1."""
        return [pckh.mean() for pckh in self.pckh]


@torch.inference_mode()
def evaluate_poses(
    network: AnytimeNetwork,
    people: People,
    size: tuple[int, int],
    adaptive: bool = True,
    flip_test: bool = False,
    progress: bool = True,
) -> PoseEvaluation:
    """
    Judge every exit by the joints that it finds.

    :param network: for poses, in evaluation mode.
    :param people: with a truth for each.
    :param size: (H, W) of the windows in pixels.
    :param adaptive: False computes every position.
    :param flip_test: judge the mean of the heat maps of window and mirrored window, the masks of
        which are its own.
    :raises ValueError: if the network does not take this size, and at heat maps that are not
        finite.
    """
    config, device = network.config, next(network.parameters()).device
    pckh = [Pckh() for _ in range(config.exit_count)]
    costs = exit_costs(config, size)
    macs, shares = [], []
    for index in ProgressBar(range(len(people)), 'evaluate', disable=not progress):
        person = people.people[index]
        assert person.truth is not None
        matrix = window_matrix(person.centre, person.edge, size)
        window = torch.from_numpy(cut(people.image(index), matrix, size).copy())
        image = normalised(window[None], config, device)
        exits: list[Exit] = list(network.exits(image, adaptive))
        maps = [out.logits for out in exits]
        if flip_test:
            mirrored = network.exits(image.flip(3), adaptive)
            maps = [(a + unmirrored(out.logits, MIRRORED)) / 2 for a, out in zip(maps, mirrored)]
        back = invert(matrix)
        for number, (counts, found) in enumerate(zip(pckh, maps), start=1):
            if not found.isfinite().all():
                raise ValueError(f'{person.image}: exit {number}: expected finite heat maps')
            counts.add(apply(back, peaks(found[0].cpu().numpy())), person.truth)
        macs.append(count_maps(costs, [out.active for out in exits]))
        shares.append([_masked(out) for out in exits[1:]])
    masks = adaptive and config.adaptivity is not None
    return PoseEvaluation(
        pckh,
        np.mean(shares, axis=0).tolist() if masks else [],
        (np.mean(macs, axis=0) / GI).tolist(),
    )


def _masked(out: Exit) -> float:
    size = (out.logits.shape[2], out.logits.shape[3])
    return 0.0 if out.active is None else 1 - out.active.share(size)
