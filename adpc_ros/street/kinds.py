# SPDX-License-Identifier: Apache-2.0
"""Class ids of what stands in the street: the classes of CamVid."""

from __future__ import annotations

from enum import IntEnum


class Kind(IntEnum):
    """A class of :data:`adpc_ros.labels.CAMVID`, in its order."""

    SKY = 0
    BUILDING = 1
    POLE = 2
    ROAD = 3
    PAVEMENT = 4
    TREE = 5
    SIGN = 6
    FENCE = 7
    CAR = 8
    PEDESTRIAN = 9
    BICYCLIST = 10
