# SPDX-License-Identifier: Apache-2.0
"""
One network under many masks: other criteria, thresholds and windows than it was trained with.

Source: arXiv:2104.00749, figure 5 (criteria), tables 3 (windows) and 4 (in inference only).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from adpc_ros.learning.evaluate import Evaluation, evaluate
from adpc_ros.learning.labelled_images import LabelledImages
from adpc_ros.network.adaptivity import Adaptivity, Criterion
from adpc_ros.network.anytime import AnytimeNetwork
from adpc_ros.network.families import default_adaptivity, with_adaptivity, with_masks

#: what a curve goes over; of top k and random the share masked at last, which grows by equal steps
GRIDS: dict[Criterion, tuple[float, ...]] = {
    Criterion.MAX_PROBABILITY: (0.9995, 0.998, 0.99, 0.97, 0.9, 0.8, 0.6),
    Criterion.ENTROPY: (0.003, 0.01, 0.05, 0.15, 0.3, 0.6, 1.0),
    Criterion.TOP_K: (0.15, 0.3, 0.45, 0.6, 0.75, 0.9),
    Criterion.RANDOM: (0.15, 0.3, 0.45, 0.6, 0.75, 0.9),
    Criterion.PEAK_RESPONSE: (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05),
    Criterion.PREDICTED: (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98),
}


class Choices(NamedTuple):
    """
    What is tried, each with each; empty for what stays as the network has it.

    A criterion that is tried without ``thresholds`` goes over those of :data:`GRIDS`. Each of
    ``thresholds`` is a single one for all exits, or one for each but the last.
    """

    criteria: Sequence[Criterion] = ()
    thresholds: Sequence[tuple[float, ...]] = ()
    windows: Sequence[int] = ()


class Swept(NamedTuple):
    """What came of a setting; ``adaptivity`` is None where every position was computed."""

    adaptivity: Adaptivity | None
    evaluation: Evaluation


def settings(network: AnytimeNetwork, choices: Choices) -> list[Adaptivity]:
    """
    List the masks to try.

    :param network: one without masks starts from the default ones.
    :return: criterion by criterion, each over its thresholds, each of these over the windows.
    :raises ValueError: for masks that the network cannot have.
    """
    exits = network.config.exit_count
    own = network.config.adaptivity or default_adaptivity(network.config.architecture)
    own = own or Adaptivity()  # refused below, with a reason
    found = []
    for criterion in choices.criteria or (own.criterion,):
        thresholds = choices.thresholds
        if choices.criteria and not thresholds:
            thresholds = [_of_grid(criterion, value, exits) for value in GRIDS[criterion]]
        gates = [Adaptivity(criterion, each, own.window) for each in thresholds] or [own]
        found += [
            dataclasses.replace(gate, window=window)
            for gate in gates
            for window in choices.windows or (own.window,)
        ]
    for adaptivity in found:
        with_masks(network.config, adaptivity)  # refuses what cannot be
    return found


def _of_grid(criterion: Criterion, value: float, exit_count: int) -> tuple[float, ...]:
    if not criterion.by_share:
        return (value,)
    return tuple(value * index / (exit_count - 1) for index in range(1, exit_count))


def sweep(
    network: AnytimeNetwork, samples: LabelledImages, tried: Sequence[Adaptivity]
) -> Iterator[Swept]:
    """
    Judge the network without masks, and then under each of several.

    :param network: in evaluation mode; is not changed.
    :param tried: from :func:`settings`.
    :return: an iterator over the results, each computed when it is reached.
    """
    for adaptivity in (None, *tried):
        changed = with_adaptivity(network, adaptivity)
        yield Swept(adaptivity, evaluate(changed, samples, progress=False))
