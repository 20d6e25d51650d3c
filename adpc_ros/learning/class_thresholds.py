# SPDX-License-Identifier: Apache-2.0
"""
Thresholds for each class, sought on what the exits say without masks.

A class that is easy can be skipped early without the harm that the same threshold does to a rare
one. What masks would do is estimated: a position that an exit leaves shows that exit's class, all
others the last one's. So thousands of choices can be compared without computing the network.

Source of the idea: arXiv:2210.15621.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from adpc_ros.labels import IGNORE_ID
from adpc_ros.learning.metrics import mean_iou
from adpc_ros.learning.sample import Sample
from adpc_ros.network.anytime import AnytimeNetwork
from adpc_ros.progress import ProgressBar
from adpc_ros.runtime.images import to_input

_PIXELS = 10_000  # of each image
_NEVER = 255
_MIN_LOSS = 1e-5  # mean IoU; less, or a gain, counts as this

Choice = tuple[tuple[int, ...], ...]
"""For each exit but the last, for each class, the index of a candidate."""


class Answers(NamedTuple):
    """
    What the exits say without masks, at N pixels; E exits.

    ``label`` (N,) uint8 class ids, 255 where unlabelled. ``shown`` (E, N) uint8: each exit's class
    of the pixel. Of each exit but the last, ``judged`` (E - 1, N) uint8 is the predicted class of
    the pixel's position, and ``reached`` (E - 1, N) uint8 the first candidate that the confidence
    exceeds (from this one on the position is masked), 255 if it exceeds none.
    """

    label: NDArray[np.uint8]
    shown: NDArray[np.uint8]
    judged: NDArray[np.uint8]
    reached: NDArray[np.uint8]


@torch.no_grad()
def collect_answers(
    network: AnytimeNetwork,
    samples: Iterable[Sample],
    candidates: Sequence[float],
    progress: bool = True,
) -> Answers:
    """
    Compute every image once, and keep what is said of pixels drawn at random.

    :param network: in evaluation mode, with all its exits.
    :param candidates: thresholds for the top probability, falling.
    """
    device = next(network.parameters()).device
    rng = np.random.default_rng(0)
    rising = torch.tensor(candidates).flip(0)
    parts: list[Answers] = []
    for image, label, _ in ProgressBar(samples, 'class scores', disable=not progress):
        places = rng.permutation(label.size)[:_PIXELS]
        rows, columns = map(torch.from_numpy, np.unravel_index(places, label.shape))
        shown, judged, reached = [], [], []
        x = to_input(image, network.config, device)
        for out in network.exits(x, adaptive=False):
            full = functional.interpolate(out.logits, x.shape[2:], mode='bilinear')[0].cpu()
            shown.append(full[:, rows, columns].argmax(0))
            if out.exit_index == network.config.exit_count:
                break
            cell = x.shape[2] // out.logits.shape[2]
            scores = out.logits[0].cpu()[:, rows // cell, columns // cell]
            judged.append(scores.argmax(0))
            confidence = functional.softmax(scores, 0).amax(0)
            # active while the confidence is at most the threshold
            exceeded = torch.searchsorted(rising, confidence)
            reached.append(torch.where(exceeded > 0, len(candidates) - exceeded, _NEVER))
        found = [torch.stack(each).to(torch.uint8).numpy() for each in (shown, judged, reached)]
        parts.append(Answers(label.ravel()[places], *found))
    joined = [np.concatenate(arrays, axis=-1) for arrays in zip(*parts)]
    return Answers(*joined)


class _Estimate:
    """Accuracy and cost of a choice, kept up to date as one class's candidates change."""

    def __init__(self, answers: Answers, costs: Sequence[float], choice: Choice) -> None:
        self.answers, self.choice = answers, choice
        self.costs = np.append(costs, 0.0)  # what leaving at each exit saves
        self.classes = len(choice[0])
        self.left_at = self._leave(np.s_[:], choice)
        self.matrix = self._confusion(np.s_[:], self.left_at)
        self.concerned = [
            np.flatnonzero((answers.judged == class_id).any(0)) for class_id in range(self.classes)
        ]

    def _leave(self, pixels: NDArray[np.intp] | slice, choice: Choice) -> NDArray[np.uint8]:
        """Give the exit, from 0, whose class each pixel shows in the end."""
        _, shown, judged, reached = self.answers
        left_at = np.full(shown[0, pixels].shape, len(shown) - 1, np.uint8)
        for index in reversed(range(len(judged))):
            limits = np.array(choice[index], np.uint8)
            masked = reached[index, pixels] <= limits[judged[index, pixels]]
            left_at[masked] = index
        return left_at

    def _confusion(
        self, pixels: NDArray[np.intp] | slice, left_at: NDArray[np.uint8]
    ) -> NDArray[np.int64]:
        label, shown = self.answers.label[pixels], self.answers.shown[:, pixels]
        known = label != IGNORE_ID
        predicted = np.take_along_axis(shown, left_at[None].astype(np.intp), 0)[0]
        pairs = label[known].astype(np.int64) * self.classes + predicted[known]
        counts = np.bincount(pairs, minlength=self.classes**2)
        return counts.reshape(self.classes, self.classes)

    def miou(self) -> float:
        return float(mean_iou(self.matrix))

    def change(self, class_id: int, choice: Choice) -> tuple[float, float, NDArray[np.int64]]:
        """Give what another choice for a class saves, what it loses, and its confusion matrix."""
        pixels = self.concerned[class_id]
        before, after = self.left_at[pixels], self._leave(pixels, choice)
        changed = before != after
        pixels, before, after = pixels[changed], before[changed], after[changed]
        saved = (self.costs[after] - self.costs[before]).sum() / len(self.left_at)
        matrix = self.matrix - self._confusion(pixels, before) + self._confusion(pixels, after)
        return float(saved), self.miou() - float(mean_iou(matrix)), matrix

    def take(self, class_id: int, choice: Choice, matrix: NDArray[np.int64]) -> None:
        pixels = self.concerned[class_id]
        self.left_at[pixels] = self._leave(pixels, choice)
        self.matrix, self.choice = matrix, choice


class Move(NamedTuple):
    """A class whose threshold is lowered at some exits, counted from 0."""

    exits: tuple[int, ...]
    class_id: int


class Step(NamedTuple):
    """A move, and the choice that it leads to."""

    move: Move
    choice: Choice


def no_masks(answers: Answers, class_count: int) -> Choice:
    """Give the choice that a way down begins with: the first candidate everywhere."""
    return ((0,) * class_count,) * len(answers.judged)


def descend(
    answers: Answers,
    costs: Sequence[float],
    start: Choice,
    max_loss: float,
    each_exit: bool = False,
    frozen: Container[Move] = (),
) -> list[Step]:
    """
    Lower one class's threshold after the other, the one that saves most for what it loses.

    A class goes to the next candidate that masks anything; one that no exit predicts stays.

    :param costs: of each exit but the last, what is saved where it is the last to be computed;
        in any unit.
    :param start: where to begin.
    :param max_loss: of mean IoU, 0 to 1, as it is estimated, against no masks.
    :param each_exit: lower a class at one exit at a time, not at all of them.
    :param frozen: moves that are not made any more.
    :return: every step of the way.
    """
    exits, classes = range(len(costs)), range(len(start[0]))
    groups = [(index,) for index in exits] if each_exit else [tuple(exits)]
    moves = {
        move: np.unique(answers.reached[list(group)][answers.judged[list(group)] == class_id])
        for group in groups
        for class_id in classes
        if (move := Move(group, class_id)) not in frozen
    }
    min_miou = _Estimate(answers, costs, no_masks(answers, len(classes))).miou() - max_loss
    estimate = _Estimate(answers, costs, start)
    path: list[Step] = []
    while True:
        best: tuple[float, Step, NDArray[np.int64]] | None = None
        for move, reached in moves.items():
            choice = _lower(estimate.choice, move, reached)
            if choice is None:
                continue
            saved, lost, matrix = estimate.change(move.class_id, choice)
            worth = saved / max(lost, _MIN_LOSS)
            if estimate.miou() - lost >= min_miou and (best is None or worth > best[0]):
                best = (worth, Step(move, choice), matrix)
        if best is None:
            return path
        estimate.take(best[1].move.class_id, best[1].choice, best[2])
        path.append(best[1])


def _lower(choice: Choice, move: Move, reached: NDArray[np.uint8]) -> Choice | None:
    """Give the next choice of a move that masks anything; None if there is none."""
    rows = [list(row) for row in choice]
    lower = reached[(reached < _NEVER) & (reached > rows[move.exits[0]][move.class_id])]
    if not len(lower):
        return None
    for index in move.exits:
        rows[index][move.class_id] = int(lower[0])
    return tuple(tuple(row) for row in rows)
