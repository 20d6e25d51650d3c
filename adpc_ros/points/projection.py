# SPDX-License-Identifier: Apache-2.0
"""Class and confidence for points: project them into the mask's image and look there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from adpc_ros.points.camera import Camera

UNLABELLED = 255
NEAREST_M = 1e-3  # along the optical axis; nearer, and behind, there is no image
_CHUNK = 16384  # points at a time: what is worked on stays in the second-level cache


class Transform(NamedTuple):
    """
    From the cloud's frame to the camera's optical frame: p -> rotation p + translation.

    ``rotation`` is (3, 3), ``translation`` (3,) in metres, both float64. In the optical frame x
    points right, y down and z away from the camera.
    """

    rotation: NDArray[np.float64]
    translation: NDArray[np.float64]


class Labels(NamedTuple):
    """
    What points received.

    ``class_ids`` is (N,) uint8, 255 for points that the image does not show; ``confidence`` is
    (N,) float32 in [0, 1], 0 for those.
    """

    class_ids: NDArray[np.uint8]
    confidence: NDArray[np.float32]


def transform_of(translation: Sequence[float], quaternion: Sequence[float]) -> Transform:
    """
    Give a transform from what ROS states.

    :param translation: x, y, z in metres.
    :param quaternion: x, y, z, w; it is normalised.
    :raises ValueError: for a number that is not finite, or a quaternion far from unit length.
    """
    numbers = (*translation, *quaternion)
    length = math.sqrt(sum(value * value for value in quaternion))
    if not all(map(math.isfinite, numbers)) or not 0.99 < length < 1.01:
        raise ValueError(f'expected x y z and a unit quaternion qx qy qz qw, got {numbers}')
    x, y, z, w = (value / length for value in quaternion)
    rotation = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return Transform(np.array(rotation), np.array(translation, np.float64))


def label_points(
    points: Sequence[NDArray[Any]] | NDArray[Any],
    transform: Transform,
    camera: Camera,
    mask: NDArray[np.uint8],
    confidence: NDArray[Any],
) -> Labels:
    """
    Give each point the class and confidence of the pixel that it is projected to.

    Nothing tells whether a point is seen: one that is hidden gets the class of what hides it.

    :param points: x, y and z, each (N,) float32 or float64 in metres, in the cloud's frame; views
        with any stride will do (``array.T`` of an (N, 3) array). float64 is transformed as such.
    :param transform: from there to the camera's optical frame.
    :param camera: intrinsics, distortion and image size.
    :param mask: (h, w) uint8, class ids of that image at any scale.
    :param confidence: (h, w) uint8, 0-255 for 0-1, or float32 in [0, 1].
    :raises ValueError: if mask and confidence differ in size.
    """
    if mask.shape != confidence.shape:
        raise ValueError(
            f'expected mask and confidence of one size, got {mask.shape}, {confidence.shape}'
        )
    xs, ys, zs = points
    count = len(xs)
    class_ids = np.full(count, UNLABELLED, np.uint8)
    sureness = np.zeros(count, np.float32)
    height, width = mask.shape
    flat_mask, flat_confidence = mask.reshape(-1), confidence.reshape(-1)
    limit = camera.distortion.limit
    # from the plane z = 1 to the mask: u = x_scale x + x_shift, whole at a pixel's left edge
    x_ratio, y_ratio = width / camera.size[1], height / camera.size[0]
    x_scale, y_scale = camera.focal[0] * x_ratio, camera.focal[1] * y_ratio
    x_shift = (camera.centre[0] - camera.origin[0] + 0.5) * x_ratio
    y_shift = (camera.centre[1] - camera.origin[1] + 0.5) * y_ratio
    widest = max(values.dtype.itemsize for values in (xs, ys, zs))
    precision = np.float64 if widest > 4 else np.float32
    rotation = transform.rotation.astype(precision)
    translation = transform.translation.astype(precision)[:, None]
    packed = np.empty((3, min(count, _CHUNK)), precision)
    # points at infinity, or no numbers, end as comparisons that are false
    with np.errstate(all='ignore'):
        for start in range(0, count, _CHUNK):
            here = slice(start, start + _CHUNK)
            chunk = packed[:, : min(_CHUNK, count - start)]
            for row, values in zip(chunk, (xs, ys, zs)):
                row[:] = values[here]
            x, y, z = seen = (rotation @ chunk + translation).astype(np.float32, copy=False)
            index = np.flatnonzero(z > NEAREST_M)
            if len(index) < len(z):
                x, y, z = seen.take(index, axis=1)
            x /= z
            y /= z
            if limit < math.inf:
                near = np.flatnonzero(x * x + y * y <= limit)
                if len(near) < len(x):
                    x, y, index = x.take(near), y.take(near), index.take(near)
            u, v = camera.distortion.apply(x, y)
            u *= x_scale
            u += x_shift
            v *= y_scale
            v += y_shift
            inside = np.flatnonzero((u >= 0) & (u < width) & (v >= 0) & (v < height))
            if len(inside) < len(u):
                u, v, index = u.take(inside), v.take(inside), index.take(inside)
            pixel = v.astype(np.intp)  # numpy's own index type: any other is converted again
            pixel *= width
            pixel += u.astype(np.int32)
            index += start
            class_ids[index] = flat_mask.take(pixel)
            sureness[index] = flat_confidence.take(pixel)
    if confidence.dtype == np.uint8:
        sureness *= np.float32(1 / 255)
    return Labels(class_ids, sureness)
