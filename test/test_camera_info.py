# SPDX-License-Identifier: Apache-2.0
"""A mask's calibration projects a point to the pixel of the mask that shows it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo

from adpc_ros.ros.camera_info import mask_calibration

K = np.array([[800.0, 0.5, 330.0], [0.0, 820.0, 250.0], [0.0, 0.0, 1.0]])
P = np.hstack([K, [[-96.0], [12.0], [0.0]]])
POINT = np.array([0.4, -0.3, 5.0])


def info(binning: tuple[int, int] = (0, 0), roi: tuple[int, int, int, int] = (0,) * 4):
    """Give a 480x640 camera; ``roi`` as (x, y, width, height), 0 for all of it."""
    result = CameraInfo(height=480, width=640, distortion_model='plumb_bob')
    result.d, result.k, result.p = [0.1, 0.0, 0.0, 0.0, 0.0], K.ravel(), P.ravel()
    result.r = np.eye(3).ravel()
    result.binning_x, result.binning_y = binning
    result.roi.x_offset, result.roi.y_offset, result.roi.width, result.roi.height = roi
    result.header.frame_id = 'another frame'
    return result


def projected(matrix: np.ndarray, point: np.ndarray) -> np.ndarray:
    u, v, w = matrix @ point
    return np.array([u / w, v / w])


@pytest.mark.parametrize('scale', [1, 2, 4])
@pytest.mark.parametrize(
    'binning, roi, size',
    [
        ((0, 0), (0, 0, 0, 0), (480, 640)),
        ((2, 1), (0, 0, 0, 0), (480, 320)),
        ((2, 2), (101, 51, 300, 201), (100, 150)),
    ],
)
def test_points_fall_on_the_pixel_that_shows_them(
    binning: tuple[int, int], roi: tuple[int, int, int, int], size: tuple[int, int], scale: int
) -> None:
    source = info(binning, roi)
    result = SimpleNamespace(**mask_calibration(source, size, scale))
    in_image = (np.array(roi[:2]), np.maximum(binning, 1))  # full resolution to the image's
    for mine, full, point in (
        (np.reshape(result.k, (3, 3)), K, POINT),
        (np.reshape(result.p, (3, 4)), P, np.append(POINT, 1)),
    ):
        pixel = (projected(full, point) - in_image[0]) / in_image[1]
        if mine.shape == (3, 4):  # the last column is no pixel: it moves with the focal length
            np.testing.assert_allclose(mine[:2, 3], P[:2, 3] / in_image[1] / scale)
        np.testing.assert_allclose(projected(mine, point), pixel / scale)
    assert (result.height, result.width) == tuple(-(-edge // scale) for edge in size)
    assert (result.distortion_model, result.d) == (source.distortion_model, list(source.d))
    np.testing.assert_array_equal(result.r, source.r)
    np.testing.assert_array_equal(source.k, K.ravel())  # the input is left alone


def test_a_camera_that_is_not_calibrated_stays_so() -> None:
    source = info((2, 2), (100, 50, 300, 200))
    source.k, source.p = np.zeros(9), np.zeros(12)
    result = mask_calibration(source, (100, 150), 2)
    assert not any(result['k']) and not any(result['p'])


def test_a_calibration_of_another_size_is_an_error() -> None:
    with pytest.raises(ValueError, match='expected camera_info of a 480x640 image, got one of'):
        mask_calibration(info((2, 2)), (480, 640), 1)


@pytest.mark.parametrize('roi', [(400, 0, 300, 200), (0, 300, 300, 200), (8, 0, 0, 0)])
def test_a_region_beyond_the_calibrated_image_is_an_error(roi: tuple[int, int, int, int]) -> None:
    size = (roi[3] or 480, roi[2] or 640)
    with pytest.raises(ValueError, match='a region of interest within the 480x640 pixels'):
        mask_calibration(info(roi=roi), size, 1)
