# SPDX-License-Identifier: Apache-2.0
"""
Image messages as RGB: the one decoder, of the node, replay, demo and benchmark.

Messages are read by their fields, so that they may be rclpy's or those of ``rosbags``.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from adpc_ros.image_files import as_rgb
from adpc_ros.ros.message_types import COMPRESSED_TYPE
from adpc_ros.runtime.deferred import Deferred, size_of
from adpc_ros.runtime.memory import Budget

LARGEST_PX = 8192  # an edge; a mistaken size must not eat the memory

# channels of each encoding that is viewed, and which of them are red, green and blue
_VIEWED: dict[str, tuple[int, slice | None]] = {
    'rgb8': (3, slice(0, 3)),
    'bgr8': (3, slice(2, None, -1)),
    'rgba8': (4, slice(0, 3)),
    'bgra8': (4, slice(2, None, -1)),
    'mono8': (1, None),
}


class _Layout(NamedTuple):
    """
    An encoding that OpenCV converts.

    ``bits`` and ``channels`` of a pixel; ``code`` names OpenCV's conversion, empty for grey;
    ``rows`` of data for two rows of the image; ``even`` if width (and, with ``rows`` of 3,
    height) must be.
    """

    code: str
    bits: int = 8
    channels: int = 1
    rows: int = 2
    even: bool = False


# OpenCV names a Bayer pattern by the second and third pixel of the second row
_BAYER = {'rggb': 'BayerBG', 'bggr': 'BayerRG', 'gbrg': 'BayerGR', 'grbg': 'BayerGB'}
_CONVERTED = {
    **{
        f'bayer_{pattern}{bits}': _Layout(f'{name}2RGB', bits)
        for pattern, name in _BAYER.items()
        for bits in (8, 16)
    },
    'mono16': _Layout('', 16),
    'rgb16': _Layout('', 16, 3),
    'bgr16': _Layout('BGR2RGB', 16, 3),
    'rgba16': _Layout('RGBA2RGB', 16, 4),
    'bgra16': _Layout('BGRA2RGB', 16, 4),
    'yuv422': _Layout('YUV2RGB_UYVY', channels=2, even=True),
    'uyvy': _Layout('YUV2RGB_UYVY', channels=2, even=True),
    'yuv422_yuy2': _Layout('YUV2RGB_YUYV', channels=2, even=True),
    'yuyv': _Layout('YUV2RGB_YUYV', channels=2, even=True),
    'nv12': _Layout('YUV2RGB_NV12', rows=3, even=True),
    'nv21': _Layout('YUV2RGB_NV21', rows=3, even=True),
}
ENCODINGS = (*_VIEWED, *_CONVERTED)
_FORMATS = ('JPEG', 'PNG')
_GREY = ('L', 'I;16')  # Pillow's modes
_MODES = (*_GREY, '1', 'RGB', 'RGBA', 'LA', 'P', 'PA', 'CMYK', 'YCbCr')
# the size is checked here; not for each frame, as the filters belong to all threads
warnings.filterwarnings('ignore', category=Pillow.DecompressionBombWarning)
_ORIENTATION = 0x0112  # EXIF
TURNED = 'images have an EXIF orientation: masks are of them as stored'


class InvalidImage(ValueError):
    """An image message that cannot be segmented; ``kind`` groups messages of the same fault."""

    def __init__(self, kind: str, text: str) -> None:
        """Keep both."""
        super().__init__(text)
        self.kind = kind


def to_rgb(message: Any, kind: str) -> NDArray[np.uint8] | Deferred:
    """
    View an image message as RGB, or say how it will be decoded.

    :param message: sensor_msgs/Image or CompressedImage.
    :param kind: which of them, :data:`RAW_TYPE` or :data:`COMPRESSED_TYPE`.
    :raises InvalidImage: as :func:`raw_to_rgb` and :func:`compressed_to_rgb` do.
    """
    return compressed_to_rgb(message) if kind == COMPRESSED_TYPE else raw_to_rgb(message)


def decoded(image: NDArray[np.uint8] | Deferred) -> NDArray[np.uint8]:
    """
    Give the pixels of what :func:`to_rgb` returned.

    :return: (H, W, 3) uint8 RGB.
    :raises InvalidImage: for broken data.
    """
    return image.decode() if isinstance(image, Deferred) else image


def admitted(image: NDArray[np.uint8] | Deferred, budget: Budget) -> NDArray[np.uint8] | Deferred:
    """
    Give an image back if it fits the memory.

    :raises InvalidImage: if it does not.
    """
    try:
        budget.check(size_of(image))
    except ValueError as error:
        raise InvalidImage('memory', str(error)) from error
    return image


def raw_to_rgb(message: Any) -> NDArray[np.uint8] | Deferred:
    """
    View an image message as RGB; nothing is copied.

    :param message: sensor_msgs/Image; rows may be padded (``step``). rgb8, bgr8, rgba8, bgra8
        and mono8 are viewed, Bayer, YUV and 16 bits (:data:`ENCODINGS`) decoded by OpenCV; any
        other encoding is left to cv_bridge.
    :return: (H, W, 3) uint8, RGB, a view of the message's data; deferred for what is decoded.
    :raises InvalidImage: for a size of zero or beyond :data:`LARGEST_PX`, too little data, or
        another encoding where cv_bridge is not installed.
    """
    height, width, encoding = message.height, message.width, message.encoding
    _check_size(height, width)
    if encoding in _CONVERTED:
        layout = _CONVERTED[encoding]
        _check_even(message, layout)
        pixels = _rows(message, layout.channels * layout.bits // 8, height * layout.rows // 2)
        big_endian = bool(message.is_bigendian)
        return _deferred(
            (height, width),
            lambda: _converted(pixels, width, layout, big_endian),
            f'encoding {encoding}',
            f'OpenCV cannot turn {encoding!r} into RGB',
        )
    if encoding not in _VIEWED:
        convert = _cv_bridge(encoding)
        return _deferred(
            (height, width),
            lambda: np.asarray(convert(message, desired_encoding='rgb8')),
            f'encoding {encoding}',
            f'cv_bridge cannot turn {encoding!r} into rgb8',
        )
    channels, order = _VIEWED[encoding]
    rows = _rows(message, channels, height)
    view = np.lib.stride_tricks.as_strided(
        rows, (height, width, channels), (rows.strides[0], channels, 1)
    )
    if order is None:
        return np.broadcast_to(view, (height, width, 3))
    return view[:, :, order]


def compressed_to_rgb(message: Any) -> Deferred:
    """
    Look at the head of a compressed image; its pixels are decoded when they are asked for.

    :param message: sensor_msgs/CompressedImage: JPEG, or PNG of 8 or 16 bits, as the data say.
        Drivers disagree about ``format``: only a Bayer pattern is taken from it, for grey data.
        An EXIF orientation is not applied, as image_transport does not either: the mask is of
        the pixels as they are stored, and so is the camera's calibration.
    :raises InvalidImage: for other data, or a size beyond :data:`LARGEST_PX`; when it is decoded,
        for broken data.
    """
    data = memoryview(message.data)
    try:
        picture = Pillow.open(io.BytesIO(data), formats=_FORMATS)
    except Pillow.DecompressionBombError as error:
        raise InvalidImage(
            'size', f'expected at most {LARGEST_PX} pixels an edge, got far more: {error}'
        ) from error
    except Exception as error:  # each of Pillow's readers raises kinds of its own
        raise InvalidImage(
            'compressed',
            f'expected JPEG or PNG, got {len(data)} bytes, format {message.format!r}',
        ) from error
    width, height = picture.size
    _check_size(height, width)
    if picture.mode not in _MODES:
        raise InvalidImage('depth', f'expected 8 or 16 bits, got {picture.format} {picture.mode}')
    pattern = message.format.removeprefix('bayer_')[:4]
    bayer = message.format.startswith('bayer_') and pattern in _BAYER
    code = f'{_BAYER[pattern]}2RGB' if bayer and picture.mode in _GREY else ''

    def decode() -> NDArray[np.uint8]:
        return _to_rgb(np.asarray(picture), code) if code else as_rgb(picture)

    return _deferred((height, width), decode, 'compressed', f'broken {picture.format}')


def is_turned(message: Any, kind: str = COMPRESSED_TYPE) -> bool:
    """Say whether an image asks to be turned for display (EXIF), which is not done."""
    if kind != COMPRESSED_TYPE:
        return False
    try:
        with Pillow.open(io.BytesIO(message.data), formats=_FORMATS) as picture:
            return picture.getexif().get(_ORIENTATION, 1) not in (0, 1)
    except Exception:
        return False


def _check_size(height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise InvalidImage('size', f'expected an image with pixels, got {height}x{width}')
    if height > LARGEST_PX or width > LARGEST_PX:
        raise InvalidImage(
            'size', f'expected at most {LARGEST_PX} pixels an edge, got {height}x{width}'
        )


def _check_even(message: Any, layout: _Layout) -> None:
    height, width = message.height, message.width
    if layout.even and (width % 2 or (layout.rows == 3 and height % 2)):
        raise InvalidImage(
            'size', f'expected even edges for {message.encoding}, got {height}x{width}'
        )


def _rows(message: Any, size: int, rows: int) -> NDArray[np.uint8]:
    """
    View a message's rows without their padding.

    :param size: bytes of a pixel.
    :return: (rows, width x size) uint8.
    :raises InvalidImage: if step or data are too small.
    """
    width, step = message.width, message.step
    if step < width * size:
        raise InvalidImage(
            'step',
            f'expected step >= {width * size} (width {width} in {message.encoding}), got {step}',
        )
    data = np.frombuffer(message.data, np.uint8)
    if len(data) < rows * step:
        raise InvalidImage(
            'data',
            f'expected {rows * step} bytes ({rows} rows of step {step}), got {len(data)}',
        )
    return data[: rows * step].reshape(rows, step)[:, : width * size]


def _deferred(
    size: tuple[int, int], decode: Callable[[], NDArray[np.uint8]], kind: str, problem: str
) -> Deferred:
    """Let a decoder of others fail as an invalid image only, also by giving another image."""

    def checked() -> NDArray[np.uint8]:
        try:
            image = decode()
        except Exception as error:  # each decoder raises its own kinds
            raise InvalidImage(kind, f'{problem}: {error}') from error
        if image.shape != (*size, 3) or image.dtype != np.uint8:
            raise InvalidImage(
                kind, f'{problem}: got {image.shape} {image.dtype}, expected {(*size, 3)} uint8'
            )
        return image

    return Deferred(size, checked)


def _converted(
    rows: NDArray[np.uint8], width: int, layout: _Layout, big_endian: bool
) -> NDArray[np.uint8]:
    """Convert rows of bytes; gives (H, W, 3) uint8 RGB."""
    pixels: NDArray[Any] = np.ascontiguousarray(rows)
    if layout.bits == 16:
        pixels = pixels.view('>u2' if big_endian else '<u2').astype(np.uint16, copy=False)
    if layout.channels > 1:
        pixels = pixels.reshape(len(rows), width, layout.channels)
    return _to_rgb(pixels, layout.code)


def _to_rgb(pixels: NDArray[Any], code: str) -> NDArray[np.uint8]:
    """
    Convert by OpenCV; of 16 bits the upper 8 are kept, as of image files.

    :param pixels: (H, W) or (H, W, C), uint8 or uint16.
    :param code: of OpenCV's conversion; empty for grey.
    """
    if code:
        import cv2

        pixels = cv2.cvtColor(pixels, getattr(cv2, f'COLOR_{code}'))
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    if pixels.ndim == 2:
        pixels = np.broadcast_to(pixels[:, :, None], (*pixels.shape, 3))
    return pixels


def _cv_bridge(encoding: str) -> Callable[..., Any]:
    """Give cv_bridge's conversion, which not every installation has."""
    try:
        from cv_bridge import CvBridge

        convert: Callable[..., Any] = CvBridge().imgmsg_to_cv2
        return convert
    except ImportError as error:  # CvBridge() itself imports cv2
        raise InvalidImage(
            f'encoding {encoding}',
            f'encoding {encoding!r} needs the package cv_bridge ({error}); without it, expected '
            f'one of {", ".join(ENCODINGS)}',
        ) from error
