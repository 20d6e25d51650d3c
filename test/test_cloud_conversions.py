"""Clouds, masks and camera_info as arrays, and labelled clouds as messages."""

from __future__ import annotations

import array
import math
from typing import Any

import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField, RegionOfInterest

from adpc_ros.points.camera import Distortion, Model
from adpc_ros.points.projection import Labels
from adpc_ros.ros.cloud_conversions import (
    InvalidCameraInfo,
    InvalidCloud,
    camera_of,
    image_to_confidence,
    image_to_mask,
    label_cloud,
    read_cloud,
)
from adpc_ros.ros.decoding import InvalidImage

KINDS = {
    'i1': PointField.INT8,
    'u1': PointField.UINT8,
    'u2': PointField.UINT16,
    'f4': PointField.FLOAT32,
    'f8': PointField.FLOAT64,
}
# x, y, z, ring and intensity as drivers lay them out, and as none should
LAYOUTS = {
    'usual': (16, [('x', 'f4', 0), ('y', 'f4', 4), ('z', 'f4', 8), ('intensity', 'f4', 12)]),
    'odd': (23, [('ring', 'u2', 0), ('z', 'f4', 3), ('x', 'f4', 9), ('y', 'f4', 17)]),
    'doubles': (32, [('x', 'f8', 0), ('y', 'f8', 8), ('z', 'f8', 16), ('t', 'f8', 24)]),
}


def cloud_of(
    layout: str = 'usual',
    size: tuple[int, int] = (1, 50),
    padding: int = 0,
    big: bool = False,
) -> tuple[PointCloud2, np.ndarray]:
    """Give a cloud of random bytes with numbers in its fields, and its points."""
    step, fields = LAYOUTS[layout]
    order = '>' if big else '<'
    random = np.random.default_rng(4)
    kind = np.dtype(
        {
            'names': [name for name, _, _ in fields],
            'formats': [order + kind for _, kind, _ in fields],
            'offsets': [offset for _, _, offset in fields],
            'itemsize': step,
        }
    )
    row_step = step * size[1] + padding
    data = random.integers(0, 256, size[0] * row_step, np.uint8)
    points = np.ndarray(size, kind, data, 0, (row_step, step))
    for name, _, _ in fields:
        points[name] = random.integers(0, 1000, size)
    message = PointCloud2(height=size[0], width=size[1], point_step=step, row_step=row_step)
    message.is_bigendian, message.is_dense = big, True
    message.fields = [
        PointField(name=name, offset=offset, datatype=KINDS[kind], count=1)
        for name, kind, offset in fields
    ]
    message.data = array.array('B', data.tobytes())
    message.header.frame_id = 'lidar'
    return message, points.reshape(-1)


@pytest.mark.parametrize('big', [False, True])
@pytest.mark.parametrize('size, padding', [((1, 50), 0), ((5, 10), 0), ((5, 10), 7)])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_a_labelled_cloud_has_all_it_had_and_two_fields(
    layout: str, size: tuple[int, int], padding: int, big: bool
) -> None:
    message, points = cloud_of(layout, size, padding, big)
    before = bytes(message.data)
    cloud = read_cloud(message)
    for name, values in zip('xyz', cloud.coordinates):
        assert values.tolist() == points[name].tolist()
    ids = np.arange(50, dtype=np.uint8)
    result = label_cloud(
        message, cloud, Labels(ids, ids.astype(np.float32) / 50), 'label', 'confidence'
    )
    assert bytes(message.data) == before
    assert result.header == message.header and result.is_dense and result.is_bigendian == big
    assert (result.height, result.width) == size
    assert result.point_step % 4 == 0 and result.row_step == result.point_step * size[1]
    assert len(result.data) == result.row_step * size[0]
    assert list(result.fields[: len(message.fields)]) == list(message.fields)
    confidence, label = result.fields[-2:]
    assert (label.name, label.datatype, label.count) == ('label', PointField.UINT8, 1)
    assert (confidence.name, confidence.datatype) == ('confidence', PointField.FLOAT32)
    assert confidence.offset % 4 == 0 and confidence.offset >= message.point_step
    rows = np.frombuffer(result.data, np.uint8).reshape(50, result.point_step)
    steps, row_step = message.point_step, message.row_step
    for i, row in enumerate(rows):  # each point's own bytes, also those between its fields
        start = i // size[1] * row_step + i % size[1] * steps
        assert row[:steps].tobytes() == before[start : start + steps]
    assert rows[:, label.offset].tolist() == ids.tolist()
    kind = '>f4' if big else '<f4'
    floats = rows[:, confidence.offset : confidence.offset + 4].copy().view(kind).ravel()
    assert floats == pytest.approx(ids / 50)


def test_one_row_needs_no_row_step() -> None:
    message, points = cloud_of()
    message.row_step = 0
    assert read_cloud(message).coordinates[0].tolist() == points['x'].tolist()


@pytest.mark.parametrize(
    'fields, text',
    [
        ({'width': 0}, 'expected a cloud with points'),
        ({'height': 0}, 'expected a cloud with points'),
        ({'point_step': 0}, 'point_step > 0'),
        ({'height': 2, 'row_step': 3}, 'row_step >= width'),
        ({'width': 51}, 'expected 816 bytes'),
        ({'width': 2**31, 'height': 2**31, 'row_step': 2**32 - 1}, 'row_step >= width'),
        ({'point_step': 8, 'row_step': 400}, 'field z within point_step 8'),
        ({'fields': []}, 'expected a field x'),
        (
            {'fields': [PointField(name=n, offset=0, datatype=PointField.INT16) for n in 'xyz']},
            'FLOAT32',
        ),
    ],
)
def test_what_is_no_cloud_is_an_error(fields: dict[str, Any], text: str) -> None:
    message, _ = cloud_of()
    for name, value in fields.items():
        setattr(message, name, value)
    with pytest.raises(InvalidCloud, match=text):
        read_cloud(message)


def test_a_field_that_is_there_already_is_not_overwritten() -> None:
    message, _ = cloud_of()
    cloud = read_cloud(message)
    labels = Labels(np.zeros(50, np.uint8), np.zeros(50, np.float32))
    with pytest.raises(InvalidCloud, match='no field named intensity'):
        label_cloud(message, cloud, labels, 'intensity', 'confidence')
    twice = label_cloud(message, cloud, labels, 'label', 'confidence')
    again = label_cloud(twice, read_cloud(twice), labels, 'label_left', 'confidence_left')
    assert len(again.fields) == 8


def test_sensor_msgs_py_reads_what_is_published() -> None:
    reason = 'sensor_msgs_py comes with an installed ROS 2, there is no wheel'
    point_cloud2 = pytest.importorskip('sensor_msgs_py.point_cloud2', reason=reason)
    message, points = cloud_of('odd', (5, 10), 7)
    ids = np.arange(50, dtype=np.uint8)
    labels = Labels(ids, ids.astype(np.float32) / 50)
    result = label_cloud(message, read_cloud(message), labels, 'label', 'confidence')
    read = point_cloud2.read_points(result)
    assert read['label'].tolist() == ids.tolist()
    assert read['confidence'] == pytest.approx(ids / 50)
    for name in ('x', 'y', 'z', 'ring'):
        assert read[name].tolist() == points[name].tolist()


def image(encoding: str, values: np.ndarray, padding: int = 0) -> Image:
    rows = values.view(np.uint8).reshape(len(values), -1)
    message = Image(height=values.shape[0], width=values.shape[1], encoding=encoding)
    message.step = rows.shape[1] + padding
    message.data = array.array('B', np.pad(rows, ((0, 0), (0, padding))).tobytes())
    return message


@pytest.mark.parametrize('padding', [0, 3])
def test_masks_and_confidences_are_viewed(padding: int) -> None:
    ids = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for encoding in ('mono8', '8UC1'):
        assert np.array_equal(image_to_mask(image(encoding, ids, padding)), ids)
        assert np.array_equal(image_to_confidence(image(encoding, ids, padding)), ids)
    floats = ids.astype('<f4') / 12
    assert np.array_equal(image_to_confidence(image('32FC1', floats, padding)), floats)
    big = image('32FC1', floats.astype('>f4'), padding)
    big.is_bigendian = 1
    assert np.array_equal(image_to_confidence(big), floats)


@pytest.mark.parametrize(
    'fields, text',
    [
        ({'encoding': 'rgb8'}, "got 'rgb8'"),
        ({'encoding': '32FC1'}, 'got .32FC1'),
        ({'width': 0}, 'expected 1 to 8192'),
        ({'height': 2**31}, 'expected 1 to 8192'),
        ({'step': 3}, 'step >= 4'),
        ({'height': 4}, 'expected 16 bytes'),
    ],
)
def test_what_is_no_mask_is_an_error(fields: dict[str, Any], text: str) -> None:
    message = image('mono8', np.zeros((3, 4), np.uint8))
    for name, value in fields.items():
        setattr(message, name, value)
    with pytest.raises(InvalidImage, match=text):
        image_to_mask(message)


def info(**fields: Any) -> CameraInfo:
    message = CameraInfo(height=480, width=640, distortion_model='plumb_bob')
    message.k = [500.0, 0.0, 320.0, 0.0, 510.0, 240.0, 0.0, 0.0, 1.0]
    message.d = [0.1, 0.2, 0.3, 0.4, 0.5]
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def test_a_camera_info_gives_a_camera() -> None:
    camera = camera_of(info())
    assert (camera.focal, camera.centre, camera.size) == ((500, 510), (320, 240), (480, 640))
    assert camera.distortion == Distortion(Model.PLUMB_BOB, (0.1, 0.2, 0.3, 0.4, 0.5))
    assert all(type(value) is float for value in camera.distortion.coefficients)
    region = RegionOfInterest(x_offset=10, y_offset=20, width=200, height=100)
    part = camera_of(info(roi=region, binning_x=2, binning_y=2))
    assert (part.size, part.origin) == ((100, 200), (10, 20))


@pytest.mark.parametrize(
    'model, coefficients, expected',
    [
        ('', [], Model.NONE),
        ('plumb_bob', [], Model.NONE),
        ('plumb_bob', [0.0] * 5, Model.NONE),
        ('whatever', [0.0] * 12, Model.NONE),
        ('plumb_bob', [0.1] * 4, Model.PLUMB_BOB),
        ('rational_polynomial', [0.1] * 8, Model.RATIONAL_POLYNOMIAL),
        ('equidistant', [0.0] * 4, Model.EQUIDISTANT),
    ],
)
def test_distortion_models_are_known_by_name(
    model: str, coefficients: list[float], expected: Model
) -> None:
    camera = camera_of(info(distortion_model=model, d=coefficients))
    assert camera.distortion.model is expected


@pytest.mark.parametrize(
    'fields, text',
    [
        ({'k': [0.0] * 9}, 'calibrated camera'),
        ({'k': [500.0, 1.0, 320.0, 0.0, 510.0, 240.0, 0.0, 0.0, 1.0]}, 'fx 0 cx'),
        ({'k': [500.0, 0.0, math.nan, 0.0, 510.0, 240.0, 0.0, 0.0, 1.0]}, 'focal lengths'),
        ({'height': 0}, 'image with pixels'),
        ({'distortion_model': 'thin_prism'}, 'expected a distortion model of plumb_bob'),
        ({'distortion_model': 'equidistant'}, 'expected 4 coefficients, got 5'),
        ({'d': [0.1]}, 'expected 5 coefficients, got 1'),
        ({'d': [math.nan] * 5}, 'expected numbers'),
    ],
)
def test_what_is_no_camera_is_an_error(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidCameraInfo, match=text):
        camera_of(info(**fields))
