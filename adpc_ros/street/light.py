# SPDX-License-Identifier: Apache-2.0
"""Weather and light of a street."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from adpc_ros.street.camera import Floats

Tint = tuple[float, float, float]


@dataclass(frozen=True)
class Light:
    """
    The light on a street; colours are factors (1 = as painted) or RGB from 0 to 255.

    ``sun`` is the unit vector to the sun (right, up, ahead), ``direct`` and ``ambient`` what it
    and the sky give, ``zenith`` and ``horizon`` the sky's colours, ``cloud`` the sky's share of
    cloud, ``haze_m`` the distance at which 63 % of a colour is lost in the haze, ``grain`` the
    standard deviation of the sensor's noise.
    """

    sun: Tint
    direct: Tint
    ambient: Tint
    zenith: Tint
    horizon: Tint
    cloud: float
    haze_m: float
    grain: float

    def on(self, normal: Floats | Tint) -> Floats:
        """
        Light on surfaces.

        :param normal: (..., 3) unit normals (right, up, ahead).
        :return: (..., 3) factors for red, green and blue.
        """
        facing = np.asarray(normal)
        lit = np.clip(facing @ np.array(self.sun), 0, None)[..., None]
        sky = (0.72 + 0.28 * facing[..., 1])[..., None]
        return np.asarray(lit * np.array(self.direct) + sky * np.array(self.ambient))

    @cached_property
    def upright(self) -> Floats:
        """Light on slim things as seen along the street: factors for red, green and blue."""
        return 0.65 * self.on((0.0, 0.25, -1.0)) + 0.35 * self.on((0.0, 1.0, 0.0))

    def cast(self, height: float) -> tuple[float, float]:
        """Where the shadow of a point at ``height`` falls: metres to the right, and ahead."""
        along = -height / self.sun[1]
        return self.sun[0] * along, self.sun[2] * along

    def haze(self, depth: Floats | float) -> Floats:
        """Share of a colour that is lost in the haze at a depth in metres; none up to 8 m."""
        return np.asarray(1 - np.exp((8 - np.maximum(depth, 8)) / self.haze_m))

    def haze_at(self, depth: float) -> float:
        """Give :meth:`haze` for a single depth."""
        return 1 - math.exp((8 - max(depth, 8)) / self.haze_m)

    @property
    def shadows(self) -> bool:
        """Whether the sun is strong enough to cast shadows with an edge."""
        return self.direct[1] > 0.35


def make_light(rng: np.random.Generator) -> Light:
    """Choose the weather of a street: sunny, overcast, or a dull late afternoon."""
    azimuth = rng.uniform(-2.6, 2.6)
    elevation = rng.uniform(0.5, 0.95)
    sun = (
        math.sin(azimuth) * math.cos(elevation),
        math.sin(elevation),
        math.cos(azimuth) * math.cos(elevation),
    )
    kind = rng.choice(['sunny', 'overcast', 'dull'], p=[0.5, 0.35, 0.15])
    warm = rng.uniform(0.0, 0.1)
    if kind == 'sunny':
        return Light(
            sun=sun,
            direct=(0.86 + warm, 0.82, 0.74 - warm),
            ambient=(0.56, 0.60, 0.68),
            zenith=(92 + 40 * rng.random(), 142 + 25 * rng.random(), 205 + 15 * rng.random()),
            horizon=(206, 222, 238),
            cloud=rng.uniform(0.1, 0.55),
            haze_m=rng.uniform(230, 420),
            grain=2.2,
        )
    if kind == 'overcast':
        grey = rng.uniform(196, 232)
        return Light(
            sun=sun,
            direct=(0.12, 0.12, 0.11),
            ambient=(0.90, 0.91, 0.94),
            zenith=(grey - 26, grey - 18, grey - 8),
            horizon=(grey + 12, grey + 14, grey + 16),
            cloud=0.9,
            haze_m=rng.uniform(130, 260),
            grain=2.8,
        )
    return Light(
        sun=sun,
        direct=(0.10, 0.08, 0.05),
        ambient=(0.60, 0.63, 0.70),
        zenith=(105, 118, 140),
        horizon=(196, 196, 200),
        cloud=0.75,
        haze_m=rng.uniform(140, 260),
        grain=4.0,
    )
