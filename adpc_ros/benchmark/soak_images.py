# SPDX-License-Identifier: Apache-2.0
"""What the camera of the soak sends: images of several sizes and forms, and what is no image."""

from __future__ import annotations

import array
import io
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from adpc_ros.benchmark.networks import random_image
from adpc_ros.ros.conversions import array_to_image

Size = tuple[int, int]


class Picture(NamedTuple):
    """
    An image message, Image or CompressedImage.

    ``size`` is (H, W) in pixels, None if it is no image. Each has another ``header.frame_id``.
    """

    message: Any
    size: Size | None


def sizes(size: Size) -> list[Size]:
    """Give (H, W) of the camera's images: the largest, the usual one, and others around it."""
    height, width = size
    return [
        (-(-height * 4 // 3), -(-width * 4 // 3)),
        size,
        (height + 1, width - 1),
        (max(height * 2 // 3, 1), max(width * 2 // 3, 1)),
        (height // 4 + 7, width // 4 + 11),
    ]


def pictures(size: Size, compressed: bool) -> list[Picture]:
    """
    Give images of all sizes, the largest first, and then what is no image.

    :param size: the usual one, (H, W) in pixels.
    :param compressed: JPEG and PNG, or else rgb8, bgr8 and mono8.
    """
    make, broken = (_compressed, _no_pictures) if compressed else (_raw, _no_images)
    good = [
        Picture(message, each)
        for seed, each in enumerate(sizes(size))
        for message in make(random_image(each, seed))
    ]
    messages = [picture.message for picture in good]
    found = [*good, *(Picture(message, None) for message in broken(messages[0]))]
    for number, picture in enumerate(found):
        picture.message.header = Header(frame_id=f'camera_{number}')
    return found


def _raw(image: NDArray[np.uint8]) -> list[Any]:
    bgr = array_to_image(np.ascontiguousarray(image[..., ::-1]), Header())
    bgr.encoding = 'bgr8'
    return [array_to_image(image, Header()), bgr, array_to_image(image[..., 0], Header())]


def _no_images(good: Image) -> list[Any]:
    faults: list[dict[str, Any]] = [
        {'data': good.data[:-1]},
        {'data': array.array('B')},
        {'encoding': 'abacus'},
        {'height': 0},
        {'step': 7},
        {'height': 2**32 - 1, 'width': 2**32 - 1},
    ]
    kept = ('height', 'width', 'encoding', 'step', 'data')
    return [Image(**{name: getattr(good, name) for name in kept} | fault) for fault in faults]


def _compressed(image: NDArray[np.uint8]) -> list[Any]:
    found = []
    for kind in ('JPEG', 'PNG'):
        buffer = io.BytesIO()
        Pillow.fromarray(image).save(buffer, kind, compress_level=1)
        found.append(CompressedImage(format=kind.lower(), data=buffer.getvalue()))
    return found


def _no_pictures(good: CompressedImage) -> list[Any]:
    data = bytes(good.data)
    faults = (b'', data[:200], b'GIF89a' + data[6:], bytes(100))
    return [CompressedImage(format='jpeg', data=fault) for fault in faults]
