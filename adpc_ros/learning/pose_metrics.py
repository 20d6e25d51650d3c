# SPDX-License-Identifier: Apache-2.0
"""
PCKh, the share of joints that are found within half of a head of where they are.

Source: Andriluka et al. 2014 (MPII); head sizes, joints and their mean as in its evalMPII and in
the released HRNet for poses (arXiv:1902.09212).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adpc_ros.learning.people import JOINTS, Truth

_HEAD = 0.6  # of the diagonal of the head's box
_WITHIN = 0.5  # of the head
_LEFT_OUT = ('pelvis', 'thorax')  # of the mean
_SIDES = ('shoulder', 'elbow', 'wrist', 'hip', 'knee', 'ankle')


class Pckh:
    """Counts of joints that were judged, and of those that were found."""

    def __init__(self) -> None:
        """Start with nobody."""
        self.judged = np.zeros(JOINTS.count, np.int64)
        self.found = np.zeros(JOINTS.count, np.int64)

    def add(self, places: NDArray[np.float64], truth: Truth) -> None:
        """
        Count the joints of one person.

        :param places: (J, 2) float, predicted (x, y) in pixels of the image, counted from 0.
        """
        distance = np.linalg.norm(places - truth.joints.places, axis=1)
        known = truth.joints.known
        self.judged += known
        self.found += known & (distance <= _WITHIN * _HEAD * truth.head)

    def by_joint(self) -> NDArray[np.float64]:
        """Give the share of each joint that is found, 0 to 1; NaN where none was judged."""
        with np.errstate(invalid='ignore'):
            return np.asarray(self.found / self.judged)

    def by_part(self) -> dict[str, float]:
        """Give the shares as they are published: of the head, and means of left and right."""
        shares = self.by_joint()
        sides = {
            part: [JOINTS.id_of(f'{side} {part}') for side in ('left', 'right')] for part in _SIDES
        }
        head = {'head': float(shares[JOINTS.id_of('head top')])}
        return head | {part: float(shares[ids].mean()) for part, ids in sides.items()}

    def mean(self) -> float:
        """Give the share of all joints but pelvis and thorax, 0 to 1; NaN if none was judged."""
        counted = [name not in _LEFT_OUT for name in JOINTS.names]
        judged = self.judged[counted].sum()
        return float(self.found[counted].sum() / judged) if judged else float('nan')
