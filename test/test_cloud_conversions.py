# SPDX-License-Identifier: Apache-2.0
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


def float_field(name: str, count: int = 1) -> PointField:
    return PointField(name=name, offset=0, datatype=PointField.FLOAT32, count=count)


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


@pytest.mark.parametrize('height', [1, 5])
def test_padding_behind_the_last_row_may_be_there_or_not(height: int) -> None:
    message, points = cloud_of(size=(height, 10), padding=7)
    assert read_cloud(message).coordinates[2].tolist() == points['z'].tolist()
    message.data = message.data[:-7]
    assert read_cloud(message).coordinates[2].tolist() == points['z'].tolist()


@pytest.mark.parametrize('count', [0, 1])
def test_a_field_without_a_count_is_one_number(count: int) -> None:
    message, points = cloud_of('odd')
    for field in message.fields:
        field.count = count
    assert read_cloud(message).coordinates[1].tolist() == points['y'].tolist()


@pytest.mark.parametrize('size', [(1, 0), (0, 50), (0, 0), (64, 0)])
@pytest.mark.parametrize('fields', [{}, {'fields': [], 'point_step': 0}], ids=['usual', 'bare'])
def test_a_cloud_without_points_gets_the_fields_alone(
    size: tuple[int, int], fields: dict[str, Any]
) -> None:
    message, _ = cloud_of(size=size)
    for name, value in fields.items():
        setattr(message, name, value)
    cloud = read_cloud(message)
    assert [len(values) for values in cloud.coordinates] == [0, 0, 0]
    labels = Labels(np.empty(0, np.uint8), np.empty(0, np.float32))
    result = label_cloud(message, cloud, labels, 'label', 'confidence')
    assert result.header == message.header
    assert (result.height, result.width, result.row_step) == (*size, result.point_step * size[1])
    assert len(result.data) == 0
    own = [*message.fields]
    assert list(result.fields[:-2]) == own
    added = [(f.name, f.datatype, f.offset) for f in result.fields[-2:]]
    assert added == [
        ('confidence', PointField.FLOAT32, message.point_step),
        ('label', PointField.UINT8, message.point_step + 4),
    ]
    assert result.point_step == message.point_step + 8


@pytest.mark.parametrize(
    'fields, text',
    [
        ({'point_step': 0}, 'point_step > 0'),
        ({'height': 2, 'row_step': 3}, 'row_step >= width'),
        ({'width': 51}, 'expected 816 bytes .1x51 points., got 800'),
        ({'width': 49, 'row_step': 784}, 'expected 784 bytes .1x49 points., got 800'),
        ({'data': array.array('B')}, 'expected 800 bytes .1x50 points., got 0'),
        ({'width': 2**31, 'height': 2**31, 'row_step': 2**32 - 1}, 'row_step >= width'),
        ({'point_step': 8, 'row_step': 400}, 'field z within point_step 8'),
        ({'fields': []}, 'expected a field x'),
        (
            {'fields': [float_field(name) for name in 'xyzx']},
            'got fields x .7., y .7., z .7., x .7.',
        ),
        ({'fields': [float_field(name, count=3) for name in 'xyz']}, 'x .7, 3 times.'),
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


RADIAL = [0.1, -0.2, 0.01, -0.02, 0.03]
RATIO = [*RADIAL, 0.4, -0.05, 0.06]
PRISM = [*RATIO, 0.007, -0.008, 0.009, 0.001]
TILT = [*PRISM, 0.02, -0.03]
FISH = [0.1, -0.02, 0.003, -0.0004]


@pytest.mark.parametrize(
    'model, coefficients, expected, taken',
    [
        ('', [], Model.NONE, []),
        ('', [0.0] * 5, Model.NONE, []),
        ('none', [0.0], Model.NONE, []),
        ('plumb_bob', [], Model.NONE, []),
        ('plumb_bob', [0.0] * 5, Model.NONE, []),
        ('rational_polynomial', [0.0] * 14, Model.NONE, []),
        ('whatever', [0.0] * 12, Model.NONE, []),
        ('plumb_bob', [0.1] * 4, Model.PLUMB_BOB, [0.1, 0.1, 0.1, 0.1, 0.0]),
        ('plumb_bob', RADIAL, Model.PLUMB_BOB, RADIAL),
        ('plumb_bob', [*RADIAL, 0.0, 0.0, 0.0], Model.PLUMB_BOB, RADIAL),
        ('plumb_bob', [*RADIAL, *[0.0] * 7], Model.PLUMB_BOB, RADIAL),
        ('plumb_bob', [*RADIAL, *[0.0] * 9], Model.PLUMB_BOB, RADIAL),
        ('plumb_bob', RATIO, Model.RATIONAL_POLYNOMIAL, RATIO),
        ('plumb_bob', TILT, Model.THIN_PRISM, TILT),
        (' Plumb Bob ', RADIAL, Model.PLUMB_BOB, RADIAL),
        ('radtan', RADIAL[:4], Model.PLUMB_BOB, [*RADIAL[:4], 0.0]),
        ('RadTan', RADIAL, Model.PLUMB_BOB, RADIAL),
        ('rational_polynomial', RADIAL, Model.PLUMB_BOB, RADIAL),
        ('rational_polynomial', RATIO, Model.RATIONAL_POLYNOMIAL, RATIO),
        ('RATIONAL_POLYNOMIAL', [*RATIO, *[0.0] * 4], Model.RATIONAL_POLYNOMIAL, RATIO),
        ('rational-polynomial', [*RATIO, *[0.0] * 6], Model.RATIONAL_POLYNOMIAL, RATIO),
        ('rational_polynomial', PRISM, Model.THIN_PRISM, [*PRISM, 0.0, 0.0]),
        ('rational_polynomial', TILT, Model.THIN_PRISM, TILT),
        ('equidistant', [0.0] * 4, Model.EQUIDISTANT, [0.0] * 4),
        ('equidistant', FISH, Model.EQUIDISTANT, FISH),
        ('equidistant', [*FISH, 0.0], Model.EQUIDISTANT, FISH),
        ('fisheye', [*FISH, *[0.0] * 4], Model.EQUIDISTANT, FISH),
        ('Kannala_Brandt4', [*FISH, 0.0], Model.EQUIDISTANT, FISH),
        ('kannala_brandt', FISH, Model.EQUIDISTANT, FISH),
        ('equi', [0.0] * 4, Model.EQUIDISTANT, [0.0] * 4),
        ('EQUIDISTANT\n', FISH, Model.EQUIDISTANT, FISH),
    ],
)
def test_distortion_models_are_known_by_name(
    model: str, coefficients: list[float], expected: Model, taken: list[float]
) -> None:
    lens = camera_of(info(distortion_model=model, d=coefficients)).distortion
    assert (lens.model, list(lens.coefficients)) == (expected, taken)


def test_an_edge_of_the_region_that_is_zero_is_the_whole_edge() -> None:
    region = RegionOfInterest(x_offset=10, width=200)
    part = camera_of(info(roi=region))
    assert (part.size, part.origin) == ((480, 200), (10, 0))
    whole = RegionOfInterest(width=640, height=480, do_rectify=True)
    assert camera_of(info(roi=whole)) == camera_of(info())


@pytest.mark.parametrize(
    'fields, text',
    [
        ({'k': [0.0] * 9}, 'calibrated camera'),
        ({'k': [500.0, 1.0, 320.0, 0.0, 510.0, 240.0, 0.0, 0.0, 1.0]}, 'fx 0 cx'),
        ({'k': [500.0, 0.0, 320.0, 0.0, 510.0, 240.0, 0.0, 0.0, 0.0]}, 'fx 0 cx'),
        ({'k': [500.0, 0.0, 320.0, 0.0, 0.0, 240.0, 0.0, 0.0, 1.0]}, 'focal lengths > 0'),
        ({'k': [500.0, 0.0, math.nan, 0.0, 510.0, 240.0, 0.0, 0.0, 1.0]}, 'focal lengths'),
        ({'k': [math.nan] * 9}, 'fx 0 cx'),
        ({'height': 0}, 'image with pixels'),
        ({'width': 0}, 'image with pixels'),
        (
            {'roi': RegionOfInterest(x_offset=500, width=200, height=100)},
            'within the 480x640 pixels of camera_info, got 100x200 at row 0, column 500',
        ),
        ({'roi': RegionOfInterest(y_offset=8)}, 'within the 480x640 .* got 0x0 at row 8'),
        ({'distortion_model': 'thin_prism'}, 'expected a distortion model of plumb_bob'),
        ({'distortion_model': ''}, "of plumb_bob.*equidistant.* got '' with coefficients .0.1"),
        ({'distortion_model': 'fov', 'd': [0.0] * 5}, "expected a .* model .* got 'fov'"),
        ({'distortion_model': 'equidistant'}, 'expected 4 coefficients, got 5'),
        ({'distortion_model': 'equidistant', 'd': []}, 'expected 4 coefficients, got 0'),
        ({'distortion_model': 'fisheye', 'd': [0.1] * 3}, 'fisheye: expected 4 .* got 3'),
        ({'d': [0.1]}, 'expected 5 coefficients, got 1'),
        ({'d': [0.1] * 6}, 'expected 5 coefficients, got 6: .*4, 5, 8, 12, 14'),
        ({'d': [0.1] * 15}, 'expected 5 coefficients, got 15'),
        ({'distortion_model': 'rational_polynomial', 'd': [0.1] * 7}, 'expected 8 .* got 7'),
        ({'d': [math.nan] * 5}, 'expected numbers'),
        ({'d': [0.0, 0.0, 0.0, 0.0, math.nan]}, 'plumb_bob: expected numbers'),
        ({'d': [math.inf, *[0.0] * 7]}, 'plumb_bob: expected numbers'),
    ],
)
def test_what_is_no_camera_is_an_error(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidCameraInfo, match=text):
        camera_of(info(**fields))
