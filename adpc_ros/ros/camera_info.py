# SPDX-License-Identifier: Apache-2.0
"""The camera's geometry, as the mask sees it."""

from __future__ import annotations

from typing import Any, NamedTuple


class Region(NamedTuple):
    """A part of the calibrated image, in its pixels: the first one, and the size."""

    x: int
    y: int
    width: int
    height: int


def region_of(info: Any) -> Region:
    """
    Give the part of the calibrated image that the camera sends: its region of interest, or all.

    :param info: of the camera; an edge of 0 in its region stands for the whole edge.
    :raises ValueError: if the region does not lie within the calibrated image.
    """
    roi = info.roi
    x, y, width, height = roi.x_offset, roi.y_offset, roi.width, roi.height
    region = Region(x, y, width or info.width, height or info.height)
    if x + region.width > info.width or y + region.height > info.height:
        raise ValueError(
            f'expected a region of interest within the {info.height}x{info.width} pixels '
            f'of camera_info, got {height}x{width} at row {y}, column {x}'
        )
    return region


def mask_calibration(info: Any, size: tuple[int, int], scale: int) -> dict[str, Any]:
    """
    Give the calibration of a mask from that of its camera.

    Binning and region of interest are worked into K and P and then taken out, so that the result
    describes the mask's own pixels, also to those who read nothing but K. Where a mask's pixel
    (x, y) is the image's (scale x, scale y), the division by ``scale`` is exact. P's principal
    point moves with the raw region, as in image_geometry.

    :param info: sensor_msgs/CameraInfo of the camera, by its fields, in its calibrated
        resolution; K or P of zeros (not calibrated) stays so.
    :param size: (H, W) of the image in pixels.
    :param scale: pixels of the image for one of the mask, along an edge.
    :return: fields of another such message, with the mask's size.
    :raises ValueError: if the image cannot be of that camera by its size, or the camera's region
        of interest is none.
    """
    binning_x, binning_y = max(info.binning_x, 1), max(info.binning_y, 1)
    region = region_of(info)
    image = region.height // binning_y, region.width // binning_x
    if image != size:
        raise ValueError(
            f'expected camera_info of a {size[0]}x{size[1]} image, got one of '
            f'{image[0]}x{image[1]} (size {info.height}x{info.width}, '
            f'region {info.roi.height}x{info.roi.width}, binning {binning_y}x{binning_x})'
        )
    k, p = ([float(value) for value in matrix] for matrix in (info.k, info.p))
    for matrix, columns in ((k, 3), (p, 4)):
        if matrix[0] == 0:
            continue
        matrix[2] -= region.x
        matrix[columns + 2] -= region.y
        for column in range(columns):
            matrix[column] /= binning_x * scale
            matrix[columns + column] /= binning_y * scale
    return {
        'height': -(-size[0] // scale),
        'width': -(-size[1] // scale),
        'distortion_model': info.distortion_model,
        'd': [float(value) for value in info.d],
        'k': k,
        'r': [float(value) for value in info.r],
        'p': p,
    }
