"""The camera's geometry, as the mask sees it."""

from __future__ import annotations

from typing import NamedTuple

from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header


class Region(NamedTuple):
    """A part of the calibrated image, in its pixels: the first one, and the size."""

    x: int
    y: int
    width: int
    height: int


def region_of(info: CameraInfo) -> Region:
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


def camera_info_of_mask(
    info: CameraInfo, header: Header, size: tuple[int, int], scale: int
) -> CameraInfo:
    """
    Give the calibration of a mask from that of its camera.

    Binning and region of interest are worked into K and P and then taken out, so that the result
    describes the mask's own pixels, also to those who read nothing but K. Where a mask's pixel
    (x, y) is the image's (scale x, scale y), the division by ``scale`` is exact. P's principal
    point moves with the raw region, as in image_geometry.

    :param info: of the camera, in its calibrated resolution; K or P of zeros (not calibrated)
        stays so.
    :param header: of the image.
    :param size: (H, W) of the image in pixels.
    :param scale: pixels of the image for one of the mask, along an edge.
    :return: a new message, with the image's header and the mask's size.
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
    result = CameraInfo()
    result.header = header
    result.height, result.width = (-(-edge // scale) for edge in size)
    result.distortion_model, result.d, result.r = info.distortion_model, info.d, info.r
    result.k, result.p = info.k.copy(), info.p.copy()
    for matrix, columns in ((result.k, 3), (result.p, 4)):
        if matrix[0] == 0:
            continue
        matrix[2] -= region.x
        matrix[columns + 2] -= region.y
        for column in range(columns):
            matrix[column] /= binning_x * scale
            matrix[columns + column] /= binning_y * scale
    return result
