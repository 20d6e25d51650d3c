"""Messages to arrays and back, without copying what need not be copied."""

from __future__ import annotations

import array

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image
from std_msgs.msg import Header

LARGEST_PX = 8192  # an edge; a mistaken size must not eat the memory

# channels of each encoding, and which of them are red, green and blue
_ENCODINGS: dict[str, tuple[int, slice | None]] = {
    'rgb8': (3, slice(0, 3)),
    'bgr8': (3, slice(2, None, -1)),
    'rgba8': (4, slice(0, 3)),
    'bgra8': (4, slice(2, None, -1)),
    'mono8': (1, None),
}


class InvalidImage(ValueError):
    """An image message that cannot be segmented; ``kind`` groups messages of the same fault."""

    def __init__(self, kind: str, text: str) -> None:
        """Keep both."""
        super().__init__(text)
        self.kind = kind


def image_to_rgb(message: Image) -> NDArray[np.uint8]:
    """
    View an image message as RGB; nothing is copied.

    :param message: rgb8, bgr8, rgba8, bgra8 or mono8; rows may be padded (``step``).
    :return: (H, W, 3) uint8, RGB, a view of the message's data.
    :raises InvalidImage: for another encoding, a size of zero or beyond
        :data:`LARGEST_PX`, or too little data.
    """
    height, width, step = message.height, message.width, message.step
    if message.encoding not in _ENCODINGS:
        raise InvalidImage(
            f'encoding {message.encoding}',
            f'expected an encoding of {", ".join(_ENCODINGS)}, got {message.encoding!r}',
        )
    channels, order = _ENCODINGS[message.encoding]
    if height == 0 or width == 0:
        raise InvalidImage('size', f'expected an image with pixels, got {height}x{width}')
    if height > LARGEST_PX or width > LARGEST_PX:
        raise InvalidImage(
            'size', f'expected at most {LARGEST_PX} pixels an edge, got {height}x{width}'
        )
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


def array_to_image(values: NDArray[np.uint8], header: Header) -> Image:
    """
    Give a mono8 or rgb8 image message.

    :param values: (H, W) or, for RGB, (H, W, 3) uint8.
    :param header: set as it is.
    """
    message = Image()
    message.header = header
    message.height, message.width = values.shape[:2]
    message.encoding = 'mono8' if values.ndim == 2 else 'rgb8'
    message.step = values[0].size
    data = array.array('B')
    data.frombytes(np.ascontiguousarray(values).data)  # an ndarray assigned is far slower
    message.data = data
    return message
