# SPDX-License-Identifier: Apache-2.0
"""The pinhole camera of the street, and the line that the street follows."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

NEAR_M = 0.35  # nothing closer to the camera is drawn


@dataclass(frozen=True)
class Bend:
    """
    The centre line of the street: plan x as a sine of plan z, both in metres.

    Street coordinates are x (to the right of the centre line) and s (along it, equal to plan z).
    """

    amplitude: float
    period: float
    phase: float

    def x(self, s: Floats | float) -> Floats:
        """Plan x of the centre line at ``s``, metres."""
        return np.asarray(
            self.amplitude * np.sin(np.asarray(s) * (2 * math.pi / self.period) + self.phase)
        )

    def heading(self, s: float) -> float:
        """Angle of the centre line to the z axis at ``s``, radians, positive to the right."""
        turn = 2 * math.pi / self.period
        return math.atan(self.amplitude * turn * math.cos(s * turn + self.phase))


@dataclass(frozen=True)
class Camera:
    """
    A pinhole camera that yaws; its pitch is a shift of the horizon, so that columns stay upright.

    ``width``, ``height`` and ``focal`` are in pixels, ``horizon`` is the row (from the top) of
    the horizon, ``x``, ``y`` and ``z`` the place in metres (right, up, ahead), ``yaw`` in radians,
    positive to the right.
    """

    width: int
    height: int
    focal: float
    horizon: float
    x: float
    y: float
    z: float
    yaw: float

    def scaled(self, factor: int) -> Camera:
        """Give the same view with ``factor`` times as many pixels each way."""
        return replace(
            self,
            width=self.width * factor,
            height=self.height * factor,
            focal=self.focal * factor,
            horizon=self.horizon * factor,
        )

    def turn(self, points: Floats) -> Floats:
        """
        Bring points from the plan into the camera's frame.

        :param points: (..., 3) of plan x, height, plan z in metres.
        :return: (..., 3) of right, height above the camera, depth in metres.
        """
        return np.asarray((points - self.eye) @ self._matrix)

    @cached_property
    def eye(self) -> Floats:
        """Place of the camera: plan x, height, plan z."""
        return np.array((self.x, self.y, self.z))

    @cached_property
    def _matrix(self) -> Floats:
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        return np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])

    def project(self, points: Floats) -> Floats:
        """
        Project points of the camera's frame.

        :param points: (..., 3) of right, up, depth in metres, depth above zero.
        :return: (..., 2) of column and row in pixels.
        """
        flat = points[..., :2] * (np.array((self.focal, -self.focal)) / points[..., 2:])
        flat += (self.width / 2, self.horizon)
        return np.asarray(flat)


def clip_near(points: Floats) -> Floats:
    """
    Cut off what lies behind the near plane.

    :param points: (N, 3) corners of a convex polygon in the camera's frame.
    :return: (M, 3) corners of what is left, M = 0 if nothing is.
    """
    depth = points[:, 2]
    if depth.min() >= NEAR_M:
        return points
    kept = []
    for index in range(len(points)):
        here, there = points[index - 1], points[index]
        if (here[2] < NEAR_M) != (there[2] < NEAR_M):
            kept.append(here + (there - here) * ((NEAR_M - here[2]) / (there[2] - here[2])))
        if there[2] >= NEAR_M:
            kept.append(there)
    return np.array(kept).reshape(-1, 3)
