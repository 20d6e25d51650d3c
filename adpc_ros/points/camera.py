# SPDX-License-Identifier: Apache-2.0
"""Camera models: from a point in the optical frame to a pixel, as camera_info describes it."""

from __future__ import annotations

import enum
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import Polynomial
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Model(enum.Enum):
    """
    CameraInfo's distortion models: name, and how many coefficients each has.

    ``THIN_PRISM`` is what OpenCV makes of rational_polynomial with more coefficients: a thin prism
    and a tilted sensor.
    """

    NONE = ('none', 0)
    PLUMB_BOB = ('plumb_bob', 5)
    RATIONAL_POLYNOMIAL = ('rational_polynomial', 8)
    THIN_PRISM = ('rational_polynomial', 14)
    EQUIDISTANT = ('equidistant', 4)

    def __init__(self, label: str, count: int) -> None:
        """Keep both."""
        self.label, self.count = label, count


@dataclass(frozen=True)
class Distortion:
    """
    A lens: where in the image plane a ray goes.

    :param model: which formula.
    :param coefficients: in CameraInfo's order: k1 k2 p1 p2 k3 (plumb_bob), then k4 k5 k6
        (rational_polynomial), then s1 s2 s3 s4 tx ty (thin prism and tilt, in radians);
        k1 k2 k3 k4 (equidistant).
    :raises ValueError: for another number of coefficients, or one that is not finite.

    Source: OpenCV's calib3d and fisheye formulas, which the ROS message refers to.
    """

    model: Model = Model.NONE
    coefficients: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check the coefficients."""
        if len(self.coefficients) != self.model.count:
            raise ValueError(
                f'{self.model.label}: expected {self.model.count} coefficients, '
                f'got {len(self.coefficients)}'
            )
        if not all(map(math.isfinite, self.coefficients)):
            raise ValueError(f'{self.model.label}: expected numbers, got {self.coefficients}')

    @functools.cached_property
    def limit(self) -> float:
        """
        Largest x² + y² on the plane z = 1 for which the formula may be used.

        Up to there it is one to one. Beyond, the polynomial turns back, and points far outside the
        view would be mapped into the image. Infinite where there is no such end.
        """
        if self.model is Model.NONE:
            return math.inf
        c = self.coefficients
        r = Polynomial([0.0, 1.0])
        if self.model is Model.EQUIDISTANT:  # r is the angle
            slope = 1 + 3 * c[0] * r**2 + 5 * c[1] * r**4 + 7 * c[2] * r**6 + 9 * c[3] * r**8
            angle = _first_root(slope)
            return math.tan(angle) ** 2 if angle < math.pi / 2 else math.inf
        k4, k5, k6 = c[5:8] or (0.0, 0.0, 0.0)
        s1, s2, s3, s4 = c[8:12] or (0.0, 0.0, 0.0, 0.0)
        above = 1 + c[0] * r**2 + c[1] * r**4 + c[4] * r**6
        below = 1 + k4 * r**2 + k5 * r**4 + k6 * r**6
        # The radial part's slope is slope / below². The tangential part turns the whole back only
        # where that is less than 7 |p| r, and the prism where it is less than its own slope: with
        # more, the Jacobian stays positive definite. A tilt turns nothing back.
        slope = above * below + r * (above.deriv() * below - above * below.deriv())
        others = (7 * math.hypot(c[2], c[3]) + 2 * math.hypot(s1, s3)) * r
        others += 4 * math.hypot(s2, s4) * r**3
        return min(_first_root(slope - others * below**2), _first_root(below)) ** 2

    def apply(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """
        Distort positions on the plane z = 1.

        :param x: (N,) float, within :attr:`limit`.
        :param y: (N,) float.
        :return: both, distorted; they may be the arrays that came. NaN where a tilted sensor sees
            nothing.
        """
        if self.model is Model.NONE:
            return x, y
        # numpy 1 and 2 alike keep float32 beside Python's floats
        c = self.coefficients
        s = x * x
        s += y * y
        if self.model is Model.EQUIDISTANT:
            radius = np.sqrt(s)
            angle = np.arctan(radius)
            t = angle * angle
            scale = _horner(t, (1.0, *c))
            scale *= angle
            # on the axis both are zero, and the image is at the centre whatever the scale
            scale /= np.maximum(radius, 1e-12, dtype=radius.dtype)
            return x * scale, y * scale
        scale = _horner(s, (1.0, c[0], c[1], c[4]))
        if len(c) > 5:
            scale /= _horner(s, (1.0, *c[5:8]))
        p1, p2 = c[2], c[3]
        if p1 == p2 == 0 and len(c) < 14:
            return x * scale, y * scale
        # x scale + 2 p1 x y + p2 (s + 2 x²) = x (scale + 2 (p1 y + p2 x)) + p2 s; y alike
        scale += (2 * p1) * y
        scale += (2 * p2) * x
        if len(c) < 14:
            return x * scale + p2 * s, y * scale + p1 * s
        s1, s2, s3, s4, *tilt = c[8:]
        x, y = x * scale + s * (p2 + s1 + s2 * s), y * scale + s * (p1 + s3 + s4 * s)
        return _tilted(x, y, *tilt) if any(tilt) else (x, y)


@dataclass(frozen=True)
class Camera:
    """
    A pinhole or fisheye camera; pixel centres have whole coordinates.

    :param focal: (fx, fy) in pixels, more than zero.
    :param centre: (cx, cy) in pixels.
    :param size: (H, W) of the image that the mask covers, in pixels of the calibration.
    :param origin: (x, y) of that image's first pixel in the calibrated image.
    :param distortion: the lens.
    :raises ValueError: for a focal length or size that is not positive, or no number.
    """

    focal: tuple[float, float]
    centre: tuple[float, float]
    size: tuple[int, int]
    origin: tuple[int, int] = (0, 0)
    distortion: Distortion = Distortion()

    def __post_init__(self) -> None:
        """Check the numbers."""
        numbers = (*self.focal, *self.centre)
        if not all(map(math.isfinite, numbers)) or min(self.focal) <= 0:
            raise ValueError(f'expected focal lengths > 0 and a centre, got {numbers}')
        if min(self.size) <= 0:
            raise ValueError(f'expected an image with pixels, got {self.size[0]}x{self.size[1]}')


def _tilted(x: Floats, y: Floats, about_x: float, about_y: float) -> tuple[Floats, Floats]:
    """Project positions onto a sensor that is turned by two angles, as OpenCV does."""
    cos_x, sin_x = math.cos(about_x), math.sin(about_x)
    cos_y, sin_y = math.cos(about_y), math.sin(about_y)
    turn = np.array(  # about x, then about y
        [
            [cos_y, sin_y * sin_x, -sin_y * cos_x],
            [0.0, cos_x, sin_x],
            [sin_y, -cos_y * sin_x, cos_y * cos_x],
        ]
    )
    onto = np.array([[turn[2, 2], 0.0, -turn[0, 2]], [0.0, turn[2, 2], -turn[1, 2]], [0, 0, 1]])
    (a, b, c), (d, e, f), (g, h, i) = (onto @ turn).tolist()
    depth = g * x + h * y + i
    depth[depth <= 0] = np.nan
    return (a * x + b * y + c) / depth, (d * x + e * y + f) / depth


def _first_root(polynomial: Polynomial) -> float:
    """Give the smallest root above zero, infinity if there is none."""
    coefficients = np.trim_zeros(polynomial.coef, 'b')
    roots = np.polynomial.polynomial.polyroots(coefficients)
    # a double root comes out as a pair with a tiny imaginary part
    real = roots.real[(np.abs(roots.imag) <= 1e-6 * np.abs(roots)) & (roots.real > 0)]
    return float(real.min()) if len(real) else math.inf


def _horner(t: Floats, coefficients: Sequence[float]) -> Floats:
    """Evaluate a polynomial, given from the constant on; a new array."""
    result = np.full_like(t, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result *= t
        result += coefficient
    return result
