"""Accuracy of masks: intersection over union, from a confusion matrix over all images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


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
        iou = self.iou()
        return float(np.nanmean(iou)) if np.isfinite(iou).any() else float('nan')
