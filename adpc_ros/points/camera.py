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
    """CameraInfo's distortion models: name, and how many coefficients each has."""

    NONE = ('none', 0)
    PLUMB_BOB = ('plumb_bob', 5)
    RATIONAL_POLYNOMIAL = ('rational_polynomial', 8)
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
        (rational_polynomial); k1 k2 k3 k4 (equidistant).
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
        k4, k5, k6 = c[5:] or (0.0, 0.0, 0.0)
        above = 1 + c[0] * r**2 + c[1] * r**4 + c[4] * r**6
        below = 1 + k4 * r**2 + k5 * r**4 + k6 * r**6
        # The radial part's slope is slope / below². The tangential part turns the whole back only
        # where that is less than 7 |p| r: with more, the Jacobian stays positive definite.
        slope = above * below + r * (above.deriv() * below - above * below.deriv())
        tangential = 7 * math.hypot(c[2], c[3]) * r * below**2
        return min(_first_root(slope - tangential), _first_root(below)) ** 2

    def apply(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """
        Distort positions on the plane z = 1.

        :param x: (N,) float, within :attr:`limit`.
        :param y: (N,) float.
        :return: both, distorted; they may be the arrays that came.
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
        if len(c) == 8:
            scale /= _horner(s, (1.0, *c[5:]))
        p1, p2 = c[2], c[3]
        if p1 == p2 == 0:
            return x * scale, y * scale
        # x scale + 2 p1 x y + p2 (s + 2 x²) = x (scale + 2 (p1 y + p2 x)) + p2 s; y alike
        scale += (2 * p1) * y
        scale += (2 * p2) * x
        return x * scale + p2 * s, y * scale + p1 * s


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
