# SPDX-License-Identifier: Apache-2.0
"""Image messages become the pixels they mean, without a copy where they can be viewed."""

from __future__ import annotations

import array
import importlib.util
import io
import struct
import sys
import types
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image as Pillow
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from adpc_ros.ros.conversions import array_to_image
from adpc_ros.ros.decoding import (
    InvalidImage,
    compressed_to_rgb,
    decoded,
    is_turned,
    raw_to_rgb,
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
    np.testing.assert_array_equal(raw_to_rgb(message(pixels, encoding, padding)), RGB)


def test_grey_is_given_to_all_channels() -> None:
    grey = RGB[:, :, 0]
    got = raw_to_rgb(message(grey[:, :, None], 'mono8', padding=1))
    np.testing.assert_array_equal(got, np.repeat(grey[:, :, None], 3, axis=2))


@pytest.mark.parametrize('encoding', ['rgb8', 'bgr8'])
def test_nothing_is_copied(encoding: str) -> None:
    image = message(RGB, encoding)
    view = raw_to_rgb(image)
    assert np.shares_memory(view, np.frombuffer(image.data, np.uint8))


@pytest.mark.parametrize(
    'fields, expected',
    [
        ({'width': 0}, 'expected an image with pixels, got 5x0'),
        ({'step': 20}, 'expected step >= 21 .*, got 20'),
        (
            {'data': array.array('B', bytes(104))},
            r'expected 105 bytes \(5 rows of step 21\), got 104',
        ),
    ],
)
def test_what_is_wrong_is_said(fields: dict[str, object], expected: str) -> None:
    image = message(RGB, 'rgb8')
    for name, value in fields.items():
        setattr(image, name, value)
    with pytest.raises(InvalidImage, match=expected):
        raw_to_rgb(image)


def encoded(pixels: np.ndarray, kind: str, **options: object) -> CompressedImage:
    buffer = io.BytesIO()
    Pillow.fromarray(pixels).save(buffer, kind, **options)
    return CompressedImage(format=kind.lower(), data=buffer.getvalue())


def claiming(width: int, height: int) -> bytes:
    """Give a small PNG whose head claims another size."""
    data = bytearray(encoded(RGB, 'PNG').data.tobytes())
    data[16:24] = struct.pack('>II', width, height)
    data[29:33] = struct.pack('>I', zlib.crc32(data[12:29]))
    return bytes(data)


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
            encoded(np.zeros((1, 9000), np.uint8), 'PNG').data.tobytes(),
            'expected at most 8192 pixels an edge, got 1x9000',
        ),
        (claiming(9000, 12000), 'expected at most 8192 pixels an edge, got 12000x9000'),
        (claiming(20000, 20000), 'expected at most 8192 pixels an edge, got far more'),
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


COLOUR = np.array([200, 100, 50], np.uint8)
_PLACES = {'rggb': (0, 1, 1, 2), 'bggr': (2, 1, 1, 0), 'gbrg': (1, 2, 0, 1), 'grbg': (1, 0, 2, 1)}


def mosaic(pattern: str) -> np.ndarray:
    """Give 6x8 pixels of one colour as a Bayer sensor sees them."""
    cell = COLOUR[list(_PLACES[pattern])].reshape(2, 2)
    return np.tile(cell, (3, 4))[:, :, None]


@pytest.mark.parametrize('bits, big_endian', [(8, 0), (16, 0), (16, 1)])
@pytest.mark.parametrize('pattern', _PLACES)
def test_a_bayer_image_has_the_colour_that_the_sensor_saw(
    pattern: str, bits: int, big_endian: int
) -> None:
    pixels = mosaic(pattern)
    if bits == 16:
        pixels = (pixels.astype(np.uint16) * 257).astype('>u2' if big_endian else '<u2')
    image = message(pixels.view(np.uint8), f'bayer_{pattern}{bits}', padding=2)
    image.width, image.is_bigendian = 8, big_endian
    rgb = decoded(raw_to_rgb(image))
    assert rgb.shape == (6, 8, 3) and rgb.dtype == np.uint8
    np.testing.assert_array_equal(rgb[2:4, 2:6], np.broadcast_to(COLOUR, (2, 4, 3)))


@pytest.mark.parametrize('big_endian', [0, 1])
@pytest.mark.parametrize(
    'encoding, pixels',
    [
        ('rgb16', RGB),
        ('bgr16', RGB[:, :, ::-1]),
        ('rgba16', np.concatenate([RGB, ALPHA], axis=2)),
        ('bgra16', np.concatenate([RGB[:, :, ::-1], ALPHA], axis=2)),
        ('mono16', RGB[:, :, :1]),
    ],
)
def test_of_16_bits_the_upper_ones_count(
    encoding: str, pixels: np.ndarray, big_endian: int
) -> None:
    wide = (pixels.astype(np.uint16) * 257).astype('>u2' if big_endian else '<u2')
    image = message(wide.view(np.uint8), encoding, padding=1)
    image.width, image.is_bigendian = 7, big_endian
    expected = np.repeat(RGB[:, :, :1], 3, axis=2) if encoding == 'mono16' else RGB
    np.testing.assert_array_equal(decoded(raw_to_rgb(image)), expected)


@pytest.mark.parametrize(
    'encoding, y_at, u_at, v_at',
    [
        ('yuv422', (1, 3), 0, 2),
        ('uyvy', (1, 3), 0, 2),
        ('yuv422_yuy2', (0, 2), 1, 3),
        ('yuyv', (0, 2), 1, 3),
    ],
)
def test_packed_yuv_has_its_colour(
    encoding: str, y_at: tuple[int, int], u_at: int, v_at: int
) -> None:
    quad = np.zeros(4, np.uint8)
    quad[list(y_at)], quad[u_at], quad[v_at] = 81, 90, 240  # red in BT.601's range for video
    image = message(np.tile(quad, (4, 3))[:, :, None].reshape(4, 6, 2), encoding, padding=4)
    rgb = decoded(raw_to_rgb(image)).astype(int)
    assert rgb.shape == (4, 6, 3) and np.abs(rgb - (255, 0, 0)).max() <= 2


@pytest.mark.parametrize('encoding, chroma', [('nv12', (90, 240)), ('nv21', (240, 90))])
def test_yuv_in_planes_has_its_colour(encoding: str, chroma: tuple[int, int]) -> None:
    rows = np.full((6, 6), 81, np.uint8)
    rows[4:] = np.tile(chroma, 3)
    image = message(rows[:, :, None], encoding, padding=2)
    image.height = 4
    rgb = decoded(raw_to_rgb(image)).astype(int)
    assert rgb.shape == (4, 6, 3) and np.abs(rgb - (255, 0, 0)).max() <= 2


@pytest.mark.parametrize(
    'encoding, size, expected',
    [
        ('yuv422', (4, 5, 2), 'expected even edges for yuv422, got 4x5'),
        ('nv12', (3, 4, 1), 'expected even edges for nv12, got 3x4'),
        ('nv12', (4, 4, 1), r'expected 24 bytes \(6 rows of step 4\), got 16'),
        ('mono16', (4, 4, 1), r'expected step >= 8 \(width 4 in mono16\), got 4'),
    ],
)
def test_what_does_not_fit_its_encoding_is_said(
    encoding: str, size: tuple[int, ...], expected: str
) -> None:
    with pytest.raises(InvalidImage, match=expected):
        raw_to_rgb(message(np.zeros(size, np.uint8), encoding))


@pytest.mark.parametrize('encoding', ['8UC3', '16UC1', '32FC1', 'nv24', ''])
@pytest.mark.skipif(
    importlib.util.find_spec('cv_bridge') is not None, reason='cv_bridge is installed'
)
def test_an_encoding_that_needs_cv_bridge_says_so(encoding: str) -> None:
    expected = f"'{encoding}' needs the package cv_bridge .* expected one of rgb8, .*, nv21"
    with pytest.raises(InvalidImage, match=expected) as caught:
        raw_to_rgb(message(RGB[:, :, :1], encoding))
    assert caught.value.kind == f'encoding {encoding}'


@pytest.mark.parametrize('channels', [1, 3, 4])
def test_a_deep_png_comes_out_as_8_bits(channels: int) -> None:
    import cv2

    pixels = RGB[:, :, 0] if channels == 1 else RGB[:, :, ::-1]
    if channels == 4:
        pixels = np.concatenate([pixels, ALPHA], axis=2)
    data = cv2.imencode('.png', pixels.astype(np.uint16) * 257)[1].tobytes()
    rgb = compressed_to_rgb(CompressedImage(format='16UC1; png', data=data)).decode()
    expected = np.repeat(RGB[:, :, :1], 3, axis=2) if channels == 1 else RGB
    np.testing.assert_array_equal(rgb, expected)


@pytest.mark.parametrize('said', ['bayer_grbg8', 'bayer_grbg16'])
@pytest.mark.parametrize('deep', [False, True])
def test_a_compressed_bayer_image_has_its_colours(said: str, deep: bool) -> None:
    pixels = mosaic('grbg')[:, :, 0]  # a JPEG of 16 bits has 8
    image = encoded(pixels.astype(np.uint16) * 257 if deep else pixels, 'PNG')
    image.format = f'{said}; png compressed '
    rgb = compressed_to_rgb(image).decode()
    assert rgb.shape == (6, 8, 3)
    np.testing.assert_array_equal(rgb[2:4, 2:6], np.broadcast_to(COLOUR, (2, 4, 3)))


def test_an_orientation_is_seen_and_not_applied() -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6
    turned = encoded(RGB, 'PNG', exif=exif.tobytes())
    assert is_turned(turned) and not is_turned(encoded(RGB, 'PNG'))
    np.testing.assert_array_equal(compressed_to_rgb(turned).decode(), RGB)


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
    image = raw_to_rgb(message(RGB[:, :, :1], 'nv24'))
    assert isinstance(image, Deferred) and image.size == (5, 7) and asked == []
    assert image.decode() is RGB
    assert asked == [('nv24', 'rgb8')]


def test_what_cv_bridge_cannot_convert_is_an_invalid_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(image: Image, desired_encoding: str) -> np.ndarray:
        raise TypeError('buffer is too small')

    for convert, expected in (
        (fail, "cannot turn 'nv24' into rgb8: buffer is too small"),
        (
            lambda image, desired_encoding: RGB[1:],
            r"cannot turn 'nv24' into rgb8: got \(4, 7, 3\) uint8, expected \(5, 7, 3\)",
        ),
    ):
        monkeypatch.setitem(sys.modules, 'cv_bridge', cv_bridge_that(convert))
        image = raw_to_rgb(message(RGB[:, :, :2], 'nv24'))
        with pytest.raises(InvalidImage, match=expected):
            image.decode()


@pytest.mark.parametrize('encoding, channels', [('mono16', 2), ('bayer_rggb8', 1), ('yuv422', 2)])
def test_cv_bridge_makes_the_same_of_what_cameras_send(encoding: str, channels: int) -> None:
    bridge = pytest.importorskip('cv_bridge').CvBridge()
    noise = np.random.default_rng(0).integers(0, 256, (6, 8, channels), np.uint8)
    image = message(noise, encoding)
    theirs = bridge.imgmsg_to_cv2(image, desired_encoding='rgb8')
    assert np.abs(decoded(raw_to_rgb(image)).astype(int) - theirs).max() <= 1


def test_extra_data_after_the_last_row_does_no_harm() -> None:
    image = message(RGB, 'rgb8')
    image.data.extend(b'more')
    np.testing.assert_array_equal(raw_to_rgb(image), RGB)


def test_arrays_become_messages_and_come_back() -> None:
    header = Header(frame_id='camera')
    image = array_to_image(RGB, header)
    assert (image.encoding, image.step, image.header) == ('rgb8', 21, header)
    np.testing.assert_array_equal(raw_to_rgb(image), RGB)
    image = array_to_image(RGB[:, ::2, 0], header)
    assert (image.encoding, image.height, image.width, image.step) == ('mono8', 5, 4, 4)
    assert bytes(image.data) == RGB[:, ::2, 0].tobytes()


def test_probabilities_become_a_float_image() -> None:
    values = np.linspace(0, 1, 35, dtype=np.float32).reshape(5, 7)[:, ::2]
    image = array_to_image(values, Header())
    assert (image.encoding, image.height, image.width, image.step) == ('32FC1', 5, 4, 16)
    np.testing.assert_array_equal(np.frombuffer(image.data, np.float32).reshape(5, 4), values)
