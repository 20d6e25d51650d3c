"""Image messages become the pixels they mean, without a copy where they can be viewed."""

from __future__ import annotations

import array
import importlib.util
import io
import sys
import types
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image as Pillow
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from adpc_ros.ros.conversions import (
    InvalidImage,
    array_to_image,
    compressed_to_rgb,
    image_to_rgb,
)
from adpc_ros.runtime.deferred import Deferred

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


def encoded(pixels: np.ndarray, kind: str, **options: object) -> CompressedImage:
    buffer = io.BytesIO()
    Pillow.fromarray(pixels).save(buffer, kind, **options)
    return CompressedImage(format=kind.lower(), data=buffer.getvalue())


def test_png_and_jpeg_come_out_as_red_green_blue() -> None:
    np.testing.assert_array_equal(compressed_to_rgb(encoded(RGB, 'PNG')).decode(), RGB)
    grey = compressed_to_rgb(encoded(RGB[:, :, 0], 'PNG')).decode()
    np.testing.assert_array_equal(grey, np.repeat(RGB[:, :, :1], 3, axis=2))
    smooth = np.tile(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], (48, 1, 3))
    smooth[:, :, 2] //= 2
    image = compressed_to_rgb(encoded(smooth, 'JPEG', quality=95, subsampling=0))
    assert image.size == (48, 64)
    assert np.abs(image.decode().astype(int) - smooth).max() <= 4


@pytest.mark.parametrize(
    'data, expected',
    [
        (b'', "expected JPEG or PNG, got 0 bytes, format 'jpeg'"),
        (b'nonsense' * 100, 'expected JPEG or PNG'),
        (encoded(RGB, 'GIF').data.tobytes(), 'expected JPEG or PNG'),
        (
            encoded(RGB[:, :, 0].astype(np.uint16) * 257, 'PNG').data.tobytes(),
            'expected 8 bits for each channel, got PNG I',
        ),
        (
            encoded(np.zeros((1, 9000), np.uint8), 'PNG').data.tobytes(),
            'expected at most 8192 pixels an edge, got 1x9000',
        ),
    ],
)
def test_what_is_no_compressed_image_is_said_before_it_is_decoded(
    data: bytes, expected: str
) -> None:
    with pytest.raises(InvalidImage, match=expected):
        compressed_to_rgb(CompressedImage(format='jpeg', data=data))


@pytest.mark.parametrize('kind', ['JPEG', 'PNG'])
def test_broken_data_are_found_when_they_are_decoded(kind: str) -> None:
    whole = encoded(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8), kind)
    image = compressed_to_rgb(CompressedImage(data=whole.data[:2000]))
    assert image.size == (64, 64)
    with pytest.raises(InvalidImage, match=f'broken {kind}'):
        image.decode()


@pytest.mark.skipif(
    importlib.util.find_spec('cv_bridge') is not None, reason='cv_bridge is installed'
)
def test_an_encoding_that_needs_cv_bridge_says_so() -> None:
    with pytest.raises(InvalidImage, match="'bayer_rggb8' needs the package cv_bridge") as caught:
        image_to_rgb(message(RGB[:, :, :1], 'bayer_rggb8'))
    assert caught.value.kind == 'encoding bayer_rggb8'


def cv_bridge_that(convert: Callable[..., object]) -> types.ModuleType:
    """Give a stand-in for the package."""
    module = types.ModuleType('cv_bridge')
    module.CvBridge = lambda: types.SimpleNamespace(imgmsg_to_cv2=convert)  # type: ignore
    return module


def test_other_encodings_are_left_to_cv_bridge_and_only_if_they_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def convert(image: Image, desired_encoding: str) -> np.ndarray:
        asked.append((image.encoding, desired_encoding))
        return RGB

    monkeypatch.setitem(sys.modules, 'cv_bridge', cv_bridge_that(convert))
    image = image_to_rgb(message(RGB[:, :, :1], 'bayer_rggb8'))
    assert isinstance(image, Deferred) and image.size == (5, 7) and asked == []
    assert image.decode() is RGB
    assert asked == [('bayer_rggb8', 'rgb8')]


def test_what_cv_bridge_cannot_convert_is_an_invalid_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(image: Image, desired_encoding: str) -> np.ndarray:
        raise TypeError('buffer is too small')

    for convert, expected in (
        (fail, "cannot turn 'mono16' into rgb8: buffer is too small"),
        (lambda image, desired_encoding: RGB[1:], r'cv_bridge made \(4, 7, 3\) uint8'),
    ):
        monkeypatch.setitem(sys.modules, 'cv_bridge', cv_bridge_that(convert))
        image = image_to_rgb(message(RGB[:, :, :2], 'mono16'))
        with pytest.raises(InvalidImage, match=expected):
            image.decode()


@pytest.mark.parametrize('encoding, channels', [('mono16', 2), ('bayer_rggb8', 1), ('yuv422', 2)])
def test_cv_bridge_itself_converts_what_cameras_send(encoding: str, channels: int) -> None:
    pytest.importorskip('cv_bridge')
    grey = np.full((6, 8, channels), 128, np.uint8)
    image = image_to_rgb(message(grey, encoding)).decode()
    assert image.shape == (6, 8, 3)
    assert np.abs(image.astype(int) - 128).max() <= 3


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


def test_probabilities_become_a_float_image() -> None:
    values = np.linspace(0, 1, 35, dtype=np.float32).reshape(5, 7)[:, ::2]
    image = array_to_image(values, Header())
    assert (image.encoding, image.height, image.width, image.step) == ('32FC1', 5, 4, 16)
    np.testing.assert_array_equal(np.frombuffer(image.data, np.float32).reshape(5, 4), values)
