# SPDX-License-Identifier: Apache-2.0
"""Accuracy, cost and honesty of every exit on labelled images."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adpc_ros.labels import IGNORE_ID
from adpc_ros.learning.cascade import Cascade
from adpc_ros.learning.metrics import Confusion, Reliability, mean_iou
from adpc_ros.learning.sample import Sample
from adpc_ros.learning.streaming import latest_at_arrival, rendered_exits
from adpc_ros.network.adaptivity import ActiveMap, Criterion, active_positions
from adpc_ros.network.anytime import AnytimeNetwork
from adpc_ros.network.families import NetworkConfig
from adpc_ros.network.macs import GI
from adpc_ros.progress import ProgressBar
from adpc_ros.runtime.make_plan import make_plan
from adpc_ros.runtime.plan import ComputedExit, Plan

Labelled = Iterable[Sample | tuple[NDArray[np.uint8], NDArray[np.uint8]]]


class Evaluation(NamedTuple):
    """
    What an evaluation gives; E exits, N images, K classes.

    ``per_image`` (E, N, K, K) int64 confusion matrices. ``masked_share`` (0 to 1), the mean share
    of positions at the exit's resolution that are masked after each exit but the last, and
    ``masked_accuracy``, the share of pixels at these positions that are right, NaN if there are
    none; both are empty without masks, the latter also where masks are predicted from features:
    later exits predict all classes anew. ``gimac``, what an image costs up to each exit, in the
    mean; ``exit_s``, (N, E) seconds from its start until each exit is rendered. ``reliability`` of
    each exit. ``streaming_miou`` of the images as a clip: the latest exit judged against each
    new frame; None if no period was given. ``computed_by`` describes the plan.
    """

    per_image: NDArray[np.int64]
    masked_share: list[float]
    masked_accuracy: list[float]
    gimac: list[float]
    exit_s: NDArray[np.float64]
    reliability: list[Reliability]
    streaming_miou: float | None = None
    computed_by: str = ''

    @property
    def confusions(self) -> list[Confusion]:
        """Confusion matrix of each exit over all images."""
        sums = [Confusion(self.per_image.shape[-1]) for _ in self.per_image]
        for confusion, matrices in zip(sums, self.per_image):
            confusion.matrix += matrices.sum(0)
        return sums

    @property
    def miou(self) -> list[float]:
        """Mean intersection over union of each exit, 0 to 1."""
        return [float(value) for value in mean_iou(self.per_image.sum(1))]

    @property
    def ece(self) -> list[float]:
        """Expected calibration error of each exit, 0 to 1."""
        return [reliability.ece() for reliability in self.reliability]

    @property
    def seconds(self) -> list[float]:
        """Median seconds to each exit."""
        return [float(value) for value in np.median(self.exit_s, axis=0)]


def evaluate(
    network: AnytimeNetwork | Sequence[AnytimeNetwork],
    samples: Labelled,
    adaptive: bool = True,
    progress: bool = True,
    period_s: float | None = None,
) -> Evaluation:
    """
    Judge every exit at full size, single scale, without flip.

    :param network: in evaluation mode; of several, plain ones, a cascade is judged.
    :param samples: samples, or pairs of (H, W, 3) uint8 RGB image and (H, W) uint8 label.
    :param adaptive: False computes every position.
    :param period_s: given, the images are also taken as a clip with this many seconds from one
        to the next, and all of its masks are kept meanwhile.
    :raises ValueError: if there are no samples, or a cascade is of networks with masks.
    """
    networks = [network] if isinstance(network, AnytimeNetwork) else network
    plans = [
        make_plan(each, next(each.parameters()).device, threads=torch.get_num_threads())
        for each in networks
    ]
    with contextlib.closing(plans[0] if len(plans) == 1 else Cascade(plans)) as plan:
        return _evaluate(
            plan, ProgressBar(samples, 'evaluate', disable=not progress), adaptive, period_s
        )


class Masked(NamedTuple):
    """After an exit: ``active`` (1, 1, h, w) bool; masked pixels with a label, right ones."""

    active: Tensor
    judged: int
    right: int


def timed_exits(
    plan: Plan | Cascade, image: NDArray[np.uint8], adaptive: bool
) -> Iterator[tuple[ComputedExit, float]]:
    """Yield the exits of an image, each with the seconds of computing so far."""
    segmentation = plan.segment(image, adaptive)
    seconds = 0.0
    while True:
        started_s = time.perf_counter()
        computed = next(segmentation, plan)  # the plan itself stands for the end
        seconds += time.perf_counter() - started_s
        if isinstance(computed, ComputedExit):
            yield computed, seconds
        elif computed is plan:
            return


def masked_after(
    scores: Tensor,
    exit_index: int,
    config: NetworkConfig,
    before: Tensor | None,
    label: NDArray[np.uint8],
    class_ids: NDArray[np.uint8],
) -> Masked:
    """
    Judge the pixels that an exit leaves to no later one.

    :param scores: (1, K, h, w) float, the exit's class scores after carry-over.
    :param config: with adaptivity.
    :param before: (1, 1, h', w') bool, active after the exit before; None for the first.
    :param label: (H, W) uint8 class ids, 255 where unlabelled; ``class_ids`` likewise.
    """
    adaptivity = config.adaptivity
    assert adaptivity is not None
    threshold = adaptivity.thresholds_of(exit_index)
    known = None if before is None else ActiveMap(before)
    active = active_positions(scores, adaptivity.criterion, threshold, known)
    cell = config.scale_of(exit_index)
    rest = ~active[0, 0].cpu().numpy().repeat(cell, 0).repeat(cell, 1)
    judged = rest[: label.shape[0], : label.shape[1]] & (label != IGNORE_ID)
    right = judged & (label == class_ids)
    return Masked(active, int(judged.sum()), int(right.sum()))


def _evaluate(
    plan: Plan | Cascade, samples: Labelled, adaptive: bool, period_s: float | None
) -> Evaluation:
    exits, classes = plan.exit_count, plan.config.class_count
    adaptivity = plan.config.adaptivity if adaptive else None
    masks = adaptivity is not None
    by_scores = adaptivity is not None and adaptivity.criterion is not Criterion.PREDICTED
    reliability = [Reliability() for _ in range(exits)]
    confusions: list[list[NDArray[np.int64]]] = [[] for _ in range(exits)]
    shares: list[list[float]] = []
    judged = np.zeros((2, exits - 1), np.int64)  # masked pixels; those of them that are right
    macs: list[list[int]] = []
    exit_s: list[list[float]] = []
    clip: list[tuple[NDArray[np.uint8], list[NDArray[np.uint8]]]] = []
    for image, label in ((sample[0], sample[1]) for sample in samples):
        computed: list[ComputedExit] = []
        exit_s.append([])
        active: Tensor | None = None
        for i, (done, seconds) in enumerate(timed_exits(plan, image, adaptive)):
            class_ids, confidence = done.rendered
            confusion = Confusion(classes)
            confusion.add(label, class_ids)
            confusions[i].append(confusion.matrix)
            reliability[i].add(label, class_ids, confidence)
            if by_scores and i < exits - 1:
                masked = masked_after(plan.logits(), i + 1, plan.config, active, label, class_ids)
                active = masked.active
                judged[:, i] += masked.judged, masked.right
            computed.append(done)
            exit_s[-1].append(seconds)
        macs.append([done.macs for done in computed])
        shares.append([1 - done.active_share for done in computed[:-1]])
        if period_s is not None:
            clip.append((label, [done.rendered.class_ids for done in computed]))
    if not macs:
        raise ValueError('nothing to evaluate: expected at least one image')
    with np.errstate(invalid='ignore'):
        masked_accuracy = (judged[1] / judged[0]).tolist()
    return Evaluation(
        np.array(confusions),
        np.mean(shares, axis=0).tolist() if masks else [],
        masked_accuracy if by_scores else [],
        (np.mean(macs, axis=0) / GI).tolist(),
        np.array(exit_s),
        reliability,
        None if period_s is None else _streaming_miou(clip, exit_s, period_s, classes),
        plan.description,
    )


def _streaming_miou(
    clip: list[tuple[NDArray[np.uint8], list[NDArray[np.uint8]]]],
    exit_s: list[list[float]],
    period_s: float,
    class_count: int,
) -> float:
    """Judge what is in hand at each frame's arrival; what comes before any output is left out."""
    confusion = Confusion(class_count)
    outputs = rendered_exits(exit_s, period_s)
    for (label, _), held in zip(clip, latest_at_arrival(outputs, len(clip), period_s)):
        if held is not None:
            confusion.add(label, clip[held.frame][1][held.exit_index - 1])
    return confusion.mean_iou()
