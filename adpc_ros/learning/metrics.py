# SPDX-License-Identifier: Apache-2.0
"""Accuracy of masks, and whether their confidence can be believed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adpc_ros.labels import IGNORE_ID


class Confusion:
    """Counts of (labelled class, predicted class) over many images."""

    def __init__(self, class_count: int) -> None:
        """Start with no pixels."""
        self.matrix = np.zeros((class_count, class_count), np.int64)

    def add(self, label: NDArray[np.uint8], predicted: NDArray[np.uint8]) -> None:
        """
        Count the pixels of one image.

        :param label: (H, W) uint8 class ids; ids outside the class set are not judged.
        :param predicted: (H, W) uint8 class ids.
        :raises ValueError: if the shapes differ.
        """
        if label.shape != predicted.shape:
            raise ValueError(f'label is {label.shape}, prediction is {predicted.shape}')
        count = len(self.matrix)
        judged = label < count
        pairs = label[judged].astype(np.int64) * count + predicted[judged]
        self.matrix += np.bincount(pairs, minlength=count * count).reshape(count, count)

    def iou(self) -> NDArray[np.float64]:
        """Give each class's intersection over union, NaN for one that never appears."""
        hit = np.diag(self.matrix).astype(np.float64)
        union = self.matrix.sum(0) + self.matrix.sum(1) - hit
        with np.errstate(invalid='ignore'):
            return np.where(union > 0, hit / union, np.nan)

    def mean_iou(self) -> float:
        """Give the mean over the classes that appear; NaN if none does."""
        return float(mean_iou(self.matrix))


def mean_iou(matrices: NDArray[np.int64] | NDArray[np.float64]) -> NDArray[np.float64]:
    """
    Give the mean intersection over union of each confusion matrix.

    :param matrices: (..., K, K) counts of (labelled class, predicted class).
    :return: (...) in [0, 1], the mean over the classes that appear; NaN if none does.
    """
    hit = np.diagonal(matrices, axis1=-2, axis2=-1).astype(np.float64)
    union = matrices.sum(-2) + matrices.sum(-1) - hit
    appears = union > 0
    total = np.where(appears, hit / np.maximum(union, 1), 0.0).sum(-1)
    with np.errstate(invalid='ignore'):
        return np.asarray(total / appears.sum(-1))


class Difference(NamedTuple):
    """A difference in mean IoU, and the bounds (2.5 and 97.5 %) of what it might be, 0 to 1."""

    value: float
    low: float
    high: float


def bootstrap_difference(
    ours: NDArray[np.int64], theirs: NDArray[np.int64], rounds: int = 2000, seed: int = 0
) -> Difference:
    """
    Compare two networks on the same images: paired bootstrap over these.

    :param ours: (N, K, K) confusion matrix of each of N images.
    :param theirs: likewise, of the same images in the same order.
    :param rounds: how often the images are drawn anew, with replacement.
    :return: our mean IoU less theirs.
    :raises ValueError: if the shapes differ or there is no image.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993 (percentile interval).
    """
    if ours.shape != theirs.shape or len(ours) == 0:
        raise ValueError(
            f'expected the same images and classes, got {ours.shape} and {theirs.shape}'
        )
    count = len(ours)
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), rounds)

    def drawn(matrices: NDArray[np.int64]) -> NDArray[np.float64]:
        return mean_iou((draws @ matrices.reshape(count, -1)).reshape(-1, *matrices.shape[1:]))

    low, high = np.nanquantile(drawn(ours) - drawn(theirs), [0.025, 0.975])
    value = mean_iou(ours.sum(0)) - mean_iou(theirs.sum(0))
    return Difference(float(value), float(low), float(high))


class Bin(NamedTuple):
    """Pixels of similar confidence: their share of all, mean confidence, accuracy (0 to 1)."""

    share: float
    confidence: float
    accuracy: float


class Reliability:
    """Counts of right and wrong pixels for each confidence that a byte can say."""

    def __init__(self) -> None:
        """Start with no pixels."""
        self._pixels = np.zeros(256, np.int64)
        self._right = np.zeros(256, np.int64)

    def add(
        self,
        label: NDArray[np.uint8],
        predicted: NDArray[np.uint8],
        confidence: NDArray[np.uint8],
    ) -> None:
        """
        Count the labelled pixels of one image.

        :param label: (H, W) uint8 class ids, 255 where unlabelled.
        :param predicted: (H, W) uint8 class ids.
        :param confidence: (H, W) uint8, 0 to 255 for 0 to 1, as it is published.
        """
        judged = label != IGNORE_ID
        values = confidence[judged]
        right = label[judged] == predicted[judged]
        self._pixels += np.bincount(values, minlength=256)
        self._right += np.bincount(values[right], minlength=256)

    def bins(self, count: int = 15) -> list[Bin]:
        """Give equal-width bins of confidence, from 0 to 1; empty ones have shares of 0."""
        values = np.arange(256)
        # bins are (low, high], as in the source; the byte 0 belongs to the first
        which = np.maximum(np.ceil(values * count / 255), 1).astype(np.int64) - 1
        pixels = np.bincount(which, self._pixels, count)
        safe = np.maximum(pixels, 1)
        confidence = np.bincount(which, self._pixels * values / 255, count) / safe
        accuracy = np.bincount(which, self._right, count) / safe
        shares = pixels / max(1, pixels.sum())
        return [Bin(*map(float, row)) for row in zip(shares, confidence, accuracy)]

    def ece(self, count: int = 15) -> float:
        """
        Give the expected calibration error, 0 to 1: how far confidence and accuracy are apart.

        :param count: of equal-width bins.

        Source: arXiv:1706.04599, equation 5.
        """
        return sum(b.share * abs(b.accuracy - b.confidence) for b in self.bins(count))
