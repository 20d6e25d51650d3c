"""Image messages become the pixels they mean, without a copy."""

from __future__ import annotations

import array

import numpy as np
import pytest
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from adpc_ros.ros.conversions import InvalidImage, array_to_image, image_to_rgb

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
ALPHA = np.full((5, 7, 1), 9, np.uint8)


def message(pixels: np.ndarray, encoding: str, padding: int = 0) -> Image:
    """Give a message whose rows end in ``padding`` bytes of rubbish."""
    height, width = pixels.shape[:2]
    rows = pixels.reshape(height, -1)
    rows = np.hstack([rows, np.full((height, padding), 77, np.uint8)])
    return Image(
        height=height,
        width=width,
        encoding=encoding,
        step=rows.shape[1],
        data=array.array('B', rows.tobytes()),
    )


@pytest.mark.parametrize('padding', [0, 3])
@pytest.mark.parametrize(
    'encoding, pixels',
    [
        ('rgb8', RGB),
        ('bgr8', RGB[:, :, ::-1]),
        ('rgba8', np.concatenate([RGB, ALPHA], axis=2)),
        ('bgra8', np.concatenate([RGB[:, :, ::-1], ALPHA], axis=2)),
    ],
)
def test_channels_come_out_as_red_green_blue(
    encoding: str, pixels: np.ndarray, padding: int
) -> None:
    np.testing.assert_array_equal(image_to_rgb(message(pixels, encoding, padding)), RGB)


def test_grey_is_given_to_all_channels() -> None:
    grey = RGB[:, :, 0]
    got = image_to_rgb(message(grey[:, :, None], 'mono8', padding=1))
    np.testing.assert_array_equal(got, np.repeat(grey[:, :, None], 3, axis=2))


@pytest.mark.parametrize('encoding', ['rgb8', 'bgr8'])
def test_nothing_is_copied(encoding: str) -> None:
    image = message(RGB, encoding)
    view = image_to_rgb(image)
    assert np.shares_memory(view, np.frombuffer(image.data, np.uint8))


@pytest.mark.parametrize(
    'fields, expected',
    [
        ({'encoding': 'yuv422'}, "expected an encoding of rgb8, .*, got 'yuv422'"),
        ({'width': 0}, 'expected an image with pixels, got 5x0'),
        ({'step': 20}, 'expected step >= 21 .*, got 20'),
        ({'data': array.array('B', bytes(104))}, r'expected 105 bytes .*, got 104'),
    ],
)
def test_what_is_wrong_is_said(fields: dict[str, object], expected: str) -> None:
    image = message(RGB, 'rgb8')
    for name, value in fields.items():
        setattr(image, name, value)
    with pytest.raises(InvalidImage, match=expected):
        image_to_rgb(image)


def test_extra_data_after_the_last_row_does_no_harm() -> None:
    image = message(RGB, 'rgb8')
    image.data.extend(b'more')
    np.testing.assert_array_equal(image_to_rgb(image), RGB)


def test_arrays_become_messages_and_come_back() -> None:
    header = Header(frame_id='camera')
    image = array_to_image(RGB, header)
    assert (image.encoding, image.step, image.header) == ('rgb8', 21, header)
    np.testing.assert_array_equal(image_to_rgb(image), RGB)
    image = array_to_image(RGB[:, ::2, 0], header)
    assert (image.encoding, image.height, image.width, image.step) == ('mono8', 5, 4, 4)
    assert bytes(image.data) == RGB[:, ::2, 0].tobytes()
