# SPDX-License-Identifier: Apache-2.0
"""What networks are for."""

from __future__ import annotations

import enum


class Task(str, enum.Enum):
    """What the outputs of a network are."""

    SEGMENTATION = 'segmentation'  # class scores for each position
    POSE = 'pose'  # heat maps, one for each joint of a person
