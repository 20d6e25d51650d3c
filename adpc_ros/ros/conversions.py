"""Messages to arrays and back, without copying what need not be copied."""

from __future__ import annotations

import array
import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from adpc_ros.runtime.deferred import Deferred

LARGEST_PX = 8192  # an edge; a mistaken size must not eat the memory

# channels of each encoding, and which of them are red, green and blue
_ENCODINGS: dict[str, tuple[int, slice | None]] = {
    'rgb8': (3, slice(0, 3)),
    'bgr8': (3, slice(2, None, -1)),
    'rgba8': (4, slice(0, 3)),
    'bgra8': (4, slice(2, None, -1)),
    'mono8': (1, None),
}
_FORMATS = ('JPEG', 'PNG')
_EIGHT_BITS = ('RGB', 'RGBA', 'L', 'LA', 'P', 'CMYK', 'YCbCr')  # Pillow's modes
_ENCODING_OF = {np.dtype(np.uint8): 'mono8', np.dtype(np.float32): '32FC1'}


class InvalidImage(ValueError):
    """An image message that cannot be segmented; ``kind`` groups messages of the same fault."""

    def __init__(self, kind: str, text: str) -> None:
        """Keep both."""
        super().__init__(text)
        self.kind = kind


def image_to_rgb(message: Image) -> NDArray[np.uint8] | Deferred:
    """
    View an image message as RGB; nothing is copied.

    :param message: rgb8, bgr8, rgba8, bgra8 or mono8; rows may be padded (``step``). Another
        encoding (Bayer, YUV, 16 bit) is left to cv_bridge.
    :return: (H, W, 3) uint8, RGB, a view of the message's data; deferred for another encoding.
    :raises InvalidImage: for a size of zero or beyond :data:`LARGEST_PX`, too little data, or
        another encoding where cv_bridge is not installed.
    """
    height, width, step = message.height, message.width, message.step
    _check_size(height, width)
    if message.encoding not in _ENCODINGS:
        convert = _cv_bridge(message.encoding)
        return Deferred((height, width), lambda: _through_cv_bridge(message, convert))
    channels, order = _ENCODINGS[message.encoding]
    if step < width * channels:
        raise InvalidImage(
            'step',
            f'expected step >= {width * channels} (width {width} in {message.encoding}), '
            f'got {step}',
        )
    data = np.frombuffer(message.data, np.uint8)
    if len(data) < height * step:
        raise InvalidImage(
            'data', f'expected {height * step} bytes (height x step), got {len(data)}'
        )
    rows = data[: height * step].reshape(height, step)[:, : width * channels]
    pixels = np.lib.stride_tricks.as_strided(rows, (height, width, channels), (step, channels, 1))
    if order is None:
        return np.broadcast_to(pixels, (height, width, 3))
    return pixels[:, :, order]


def compressed_to_rgb(message: CompressedImage) -> Deferred:
    """
    Look at the head of a compressed image; its pixels are decoded when they are asked for.

    :param message: JPEG or PNG with 8 bits for each channel, as the data say; ``format`` is not
        read, since drivers disagree about it.
    :raises InvalidImage: for other data, or a size beyond :data:`LARGEST_PX`; when it is decoded,
        for broken data.
    """
    try:
        picture = Pillow.open(io.BytesIO(message.data), formats=_FORMATS)
    except Exception as error:  # each of Pillow's readers raises kinds of its own
        raise InvalidImage(
            'compressed',
            f'expected JPEG or PNG, got {len(message.data)} bytes, format {message.format!r}',
        ) from error
    width, height = picture.size
    _check_size(height, width)
    if picture.mode not in _EIGHT_BITS:
        raise InvalidImage(
            'depth', f'expected 8 bits for each channel, got {picture.format} {picture.mode}'
        )

    def decode() -> NDArray[np.uint8]:
        try:
            return np.asarray(picture.convert('RGB'))
        except Exception as error:
            raise InvalidImage('compressed', f'broken {picture.format}: {error}') from error

    return Deferred((height, width), decode)


def array_to_image(values: NDArray[Any], header: Header) -> Image:
    """
    Give a mono8, rgb8 or 32FC1 image message.

    :param values: (H, W) uint8 or float32 or, for RGB, (H, W, 3) uint8.
    :param header: set as it is.
    """
    encoding = _ENCODING_OF[values.dtype]
    message = Image()
    message.header = header
    message.height, message.width = values.shape[:2]
    message.encoding = encoding if values.ndim == 2 else 'rgb8'
    message.step = values[0].nbytes
    data = array.array('B')
    data.frombytes(np.ascontiguousarray(values).data.cast('B'))  # an ndarray is far slower
    message.data = data
    return message


def _check_size(height: int, width: int) -> None:
    if height == 0 or width == 0:
        raise InvalidImage('size', f'expected an image with pixels, got {height}x{width}')
    if height > LARGEST_PX or width > LARGEST_PX:
        raise InvalidImage(
            'size', f'expected at most {LARGEST_PX} pixels an edge, got {height}x{width}'
        )


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
            f'one of {", ".join(_ENCODINGS)}',
        ) from error


def _through_cv_bridge(message: Image, convert: Callable[..., Any]) -> NDArray[np.uint8]:
    expected = (message.height, message.width, 3)
    try:
        image: NDArray[np.uint8] = np.asarray(convert(message, desired_encoding='rgb8'))
    except Exception as error:  # a broken message raises whatever the buffer does
        raise InvalidImage(
            f'encoding {message.encoding}',
            f'cv_bridge cannot turn {message.encoding!r} into rgb8: {error}',
        ) from error
    if image.shape != expected or image.dtype != np.uint8:
        raise InvalidImage(
            f'encoding {message.encoding}',
            f'cv_bridge made {image.shape} {image.dtype} of {message.encoding!r}, '
            f'expected {expected} uint8',
        )
    return image
