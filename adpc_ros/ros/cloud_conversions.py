# SPDX-License-Identifier: Apache-2.0
"""Point clouds, masks and camera_info to arrays and back, without copying what need not be."""

from __future__ import annotations

import array
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField

from adpc_ros.points.camera import Camera
from adpc_ros.points.lenses import lens_of
from adpc_ros.points.projection import Labels
from adpc_ros.ros.camera_info import region_of
from adpc_ros.ros.decoding import LARGEST_PX, InvalidImage

_COORDINATES = {PointField.FLOAT32: 'f4', PointField.FLOAT64: 'f8'}
_MASK_ENCODINGS = {'mono8': 'u1', '8UC1': 'u1'}
_CONFIDENCE_ENCODINGS = {**_MASK_ENCODINGS, '32FC1': 'f4'}


class InvalidCloud(ValueError):
    """A cloud that cannot be labelled; ``kind`` groups clouds of the same fault."""

    def __init__(self, kind: str, text: str) -> None:
        """Keep both."""
        super().__init__(text)
        self.kind = kind


class InvalidCameraInfo(ValueError):
    """A camera_info that describes no camera that is known here."""


class Cloud(NamedTuple):
    """A cloud's points as they lie in the message, and their coordinates: views of its data."""

    records: NDArray[np.void]  # (N,) of point_step bytes each
    coordinates: tuple[NDArray[Any], NDArray[Any], NDArray[Any]]  # x, y, z: (N,) each


def read_cloud(message: PointCloud2) -> Cloud:
    """
    View the points of a cloud; nothing is copied unless rows are padded.

    :param message: with fields x, y and z of FLOAT32 or FLOAT64 at any offset, in any byte order;
        its other fields may have any form. A cloud without points needs nothing else.
    :raises InvalidCloud: for missing, double or other coordinates, or data of another length
        than width, height and steps say.
    """
    height, width, step = message.height, message.width, message.point_step
    if height == 0 or width == 0:
        nothing = np.empty(0, np.float32)
        return Cloud(np.empty(0, np.dtype((np.void, step))), (nothing, nothing, nothing))
    row_step = message.row_step if height > 1 else width * step  # of one row it says nothing
    if step == 0 or row_step < width * step:
        raise InvalidCloud(
            'step',
            f'expected point_step > 0 and row_step >= width x point_step, '
            f'got {step}, {row_step} for width {width}',
        )
    layout = _layout(message)
    data = np.frombuffer(message.data, np.uint8)
    needed = (height - 1) * row_step + width * step  # the last row's padding may be missing
    if not needed <= len(data) <= max(needed, height * message.row_step):
        raise InvalidCloud(
            'data', f'expected {needed} bytes ({height}x{width} points), got {len(data)}'
        )
    # as bytes first: copying rows apart by fields would leave out what is not x, y or z
    raw: Any = np.dtype((np.void, step))
    rows: NDArray[np.void] = np.ndarray((height, width), raw, data, 0, (row_step, step))
    records = rows.reshape(-1)
    points = records.view(layout)
    return Cloud(records, (points['x'], points['y'], points['z']))


def _layout(message: PointCloud2) -> np.dtype[Any]:
    """Give the place of x, y and z in a point."""
    step, kinds, offsets = message.point_step, [], []
    for name in 'xyz':
        fields = [field for field in message.fields if field.name == name]
        if len(fields) != 1 or fields[0].datatype not in _COORDINATES or fields[0].count > 1:
            found = ', '.join(
                f'{f.name} ({f.datatype}{f", {f.count} times" if f.count > 1 else ""})'
                for f in message.fields
            )
            raise InvalidCloud(
                f'field {name}',
                f'expected a field {name} of FLOAT32 (7) or FLOAT64 (8), got fields {found}',
            )
        field = fields[0]
        kinds.append(('>' if message.is_bigendian else '<') + _COORDINATES[field.datatype])
        offsets.append(field.offset)
        if field.offset + np.dtype(kinds[-1]).itemsize > step:
            raise InvalidCloud(
                'offset',
                f'expected field {name} within point_step {step}, got offset {field.offset}',
            )
    return np.dtype({'names': list('xyz'), 'formats': kinds, 'offsets': offsets, 'itemsize': step})


def label_cloud(
    message: PointCloud2, cloud: Cloud, labels: Labels, label_field: str, confidence_field: str
) -> PointCloud2:
    """
    Give a cloud all that it had and two fields more: class id (UINT8) and confidence (FLOAT32).

    :param message: the cloud; header, size, fields and byte order are taken over.
    :param cloud: its points.
    :param labels: one for each point.
    :param label_field: name of the field for class ids.
    :param confidence_field: name of the field for confidence.
    :raises InvalidCloud: if it has a field of one of these names already.
    """
    taken = {field.name for field in message.fields} & {label_field, confidence_field}
    if taken:
        names = ', '.join(sorted(taken))
        raise InvalidCloud('taken', f'expected no field named {names} yet')
    own = message.point_step
    confidence_at = -(-own // 4) * 4
    label_at = confidence_at + 4
    step = label_at + 4  # the next point's floats are aligned, too
    count = len(cloud.records)
    data = array.array('B', bytes(count * step))
    order = '>' if message.is_bigendian else '<'
    kind: Any = np.dtype(
        {
            'names': ['own', 'confidence', 'label'],
            'formats': [(np.void, own), order + 'f4', 'u1'],
            'offsets': [0, confidence_at, label_at],
            'itemsize': step,
        }
    )
    if count:
        points = np.frombuffer(data, kind)  # array.array is writable, and so is its view
        points['own'] = cloud.records
        points['confidence'] = labels.confidence
        points['label'] = labels.class_ids
    result = PointCloud2()
    result.header = message.header
    result.height, result.width = message.height, message.width
    result.fields = [
        *message.fields,
        PointField(
            name=confidence_field, offset=confidence_at, datatype=PointField.FLOAT32, count=1
        ),
        PointField(name=label_field, offset=label_at, datatype=PointField.UINT8, count=1),
    ]
    result.is_bigendian, result.is_dense = message.is_bigendian, message.is_dense
    result.point_step, result.row_step = step, step * message.width
    result.data = data
    return result


def image_to_mask(message: Image) -> NDArray[np.uint8]:
    """
    View a mask message.

    :param message: mono8 or 8UC1; rows may be padded.
    :return: (H, W) uint8, class ids.
    :raises InvalidImage: for another encoding, no pixels, or too little data.
    """
    return _plane(message, _MASK_ENCODINGS)


def image_to_confidence(message: Image) -> NDArray[Any]:
    """
    View a confidence message.

    :param message: mono8 or 8UC1, 0-255 for 0-1; or 32FC1. Rows may be padded.
    :return: (H, W) uint8 or float32.
    :raises InvalidImage: for another encoding, no pixels, or too little data.
    """
    return _plane(message, _CONFIDENCE_ENCODINGS)


def _plane(message: Image, encodings: dict[str, str]) -> NDArray[Any]:
    height, width, step = message.height, message.width, message.step
    if message.encoding not in encodings:
        raise InvalidImage(
            f'encoding {message.encoding}',
            f'expected an encoding of {", ".join(encodings)}, got {message.encoding!r}',
        )
    if not (0 < height <= LARGEST_PX and 0 < width <= LARGEST_PX):
        raise InvalidImage('size', f'expected 1 to {LARGEST_PX} pixels, got {height}x{width}')
    kind = np.dtype(encodings[message.encoding])
    if kind.itemsize > 1:
        kind = kind.newbyteorder('>' if message.is_bigendian else '<')
    if step < width * kind.itemsize:
        raise InvalidImage('step', f'expected step >= {width * kind.itemsize}, got {step}')
    data = np.frombuffer(message.data, np.uint8)
    if len(data) < height * step:
        raise InvalidImage('data', f'expected {height * step} bytes, got {len(data)}')
    return np.ndarray((height, width), kind, data, strides=(step, kind.itemsize))


def camera_of(message: CameraInfo) -> Camera:
    """
    Give the camera that a camera_info describes.

    The mask may have any scale (``binning`` need not be looked at), and covers the region of
    interest where there is one.

    :param message: of the unrectified image: K and D are used, R and P are not.
    :raises InvalidCameraInfo: for an uncalibrated camera, skewed pixels, no size, a region that
        is not within it, or a lens that :func:`~adpc_ros.points.lenses.lens_of` does not know.
    """
    k = [float(value) for value in message.k]
    if k[0] == 0:
        raise InvalidCameraInfo('expected a calibrated camera, got K of zeros')
    if k[1] or k[3] or k[6] or k[7] or k[8] != 1:
        raise InvalidCameraInfo(f'expected K = [fx 0 cx, 0 fy cy, 0 0 1], got {k}')
    try:
        x, y, width, height = region_of(message)
        return Camera(
            focal=(k[0], k[4]),
            centre=(k[2], k[5]),
            size=(height, width),
            origin=(x, y),
            distortion=lens_of(message.distortion_model, message.d),
        )
    except ValueError as error:
        raise InvalidCameraInfo(str(error)) from None
