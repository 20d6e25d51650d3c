# SPDX-License-Identifier: Apache-2.0
"""Lenses by the names and coefficients that drivers and calibration tools give them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from adpc_ros.points.camera import Distortion, Model

# OpenCV's order is one for all of them: k1 k2 p1 p2, k3, k4 k5 k6, s1 s2 s3 s4, tx ty
_POLYNOMIAL = {'plumb_bob': 5, 'radtan': 5, 'radial_tangential': 5, 'rational_polynomial': 8}
_POLYNOMIAL_COUNTS = (4, 5, 8, 12, 14)
_FISHEYE = ('equidistant', 'equi', 'fisheye', 'kannala_brandt', 'kannala_brandt4')
# parts of names of lenses that are no pinhole, though all their coefficients may be zero
_NEVER_PINHOLE = (
    *('equi', 'fish', 'kannala', 'kb', 'fov', 'theta', 'omni', 'mei', 'unified', 'ucm'),
    *('sphere', 'scaramuzza', 'ocam', 'stereographic', 'orthographic', 'cylind', 'panoram'),
)


def lens_of(name: str, coefficients: Sequence[float]) -> Distortion:
    """
    Give the lens that a camera_info describes.

    plumb_bob and rational_polynomial are one formula, of which so many coefficients are used as
    are not zero. Zeros behind those that a model has say nothing.

    :param name: plumb_bob, radtan, rational_polynomial, or equidistant, fisheye, Kannala_Brandt4;
        in any case, with blanks or hyphens for underscores. Any other name, or none, will do with
        coefficients of zero, if no lens is known by it that bends rays even then.
    :param coefficients: in OpenCV's order.
    :raises ValueError: for another name, too few or too many coefficients, or one that is not
        finite.

    Source: OpenCV's calib3d and fisheye formulas.
    """
    known = re.sub(r'[\s_-]+', '_', name.strip().lower())
    given = [float(value) for value in coefficients]
    if not all(map(math.isfinite, given)):
        raise ValueError(f'{name}: expected numbers, got {given}')
    used = len(given)
    while used and given[used - 1] == 0:
        used -= 1
    if known in _FISHEYE:  # without coefficients it is no pinhole
        counts: tuple[int, ...] = (Model.EQUIDISTANT.count,)
    elif not used and not any(part in known for part in _NEVER_PINHOLE):
        return Distortion()
    elif known in _POLYNOMIAL:
        counts = _POLYNOMIAL_COUNTS
    else:
        raise ValueError(
            f'expected a distortion model of {", ".join((*_POLYNOMIAL, *_FISHEYE))}, '
            f'got {name!r} with coefficients {given}'
        )
    if not any(used <= count <= len(given) for count in counts):
        raise ValueError(
            f'{name}: expected {_POLYNOMIAL.get(known, counts[0])} coefficients, '
            f'got {len(given)}: {given} (numbers of them that are taken: '
            f'{", ".join(map(str, counts))}, and zeros behind)'
        )
    models = (Model.PLUMB_BOB, Model.RATIONAL_POLYNOMIAL, Model.THIN_PRISM)
    model = next((m for m in models if used <= m.count), Model.THIN_PRISM)
    if known in _FISHEYE:
        model = Model.EQUIDISTANT
    return Distortion(model, tuple([*given[:used], *[0.0] * model.count][: model.count]))
