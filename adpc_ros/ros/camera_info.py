"""The camera's geometry, as the mask sees it."""

from __future__ import annotations

from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header


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
    :raises ValueError: if the image cannot be of that camera by its size.
    """
    binning_x, binning_y = max(info.binning_x, 1), max(info.binning_y, 1)
    region = info.roi
    width, height = region.width or info.width, region.height or info.height
    if (height // binning_y, width // binning_x) != size:
        raise ValueError(
            f'expected camera_info of a {size[0]}x{size[1]} image, got one of '
            f'{height // binning_y}x{width // binning_x} (size {info.height}x{info.width}, '
            f'region {region.height}x{region.width}, binning {binning_y}x{binning_x})'
        )
    result = CameraInfo()
    result.header = header
    result.height, result.width = (-(-edge // scale) for edge in size)
    result.distortion_model, result.d, result.r = info.distortion_model, info.d, info.r
    result.k, result.p = info.k.copy(), info.p.copy()
    for matrix, columns in ((result.k, 3), (result.p, 4)):
        if matrix[0] == 0:
            continue
        matrix[2] -= region.x_offset
        matrix[columns + 2] -= region.y_offset
        for column in range(columns):
            matrix[column] /= binning_x * scale
            matrix[columns + column] /= binning_y * scale
    return result
