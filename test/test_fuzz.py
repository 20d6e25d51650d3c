# SPDX-License-Identifier: Apache-2.0
"""
Whatever comes in, nothing but the documented errors comes out.

``ADPC_FUZZ=N`` tries N inputs for each kind and not some hundred, ``ADPC_FUZZ_SEED=S`` others
than the usual ones.
"""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from bags import Call, Info, Shot, write_bag
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from networks import random_network
from PIL import Image
from sensor_msgs.msg import CameraInfo, PointCloud2, PointField
from shared import ROOT

from adpc_ros.bag import BagDrive
from adpc_ros.class_file import read_classes
from adpc_ros.image_files import read_image
from adpc_ros.labels import CAMVID
from adpc_ros.learning.config import read_config
from adpc_ros.network import checkpoint
from adpc_ros.points.projection import Labels
from adpc_ros.replay import expectation
from adpc_ros.replay.settings import parameters
from adpc_ros.replay.source import FrameArrival, Source
from adpc_ros.ros.camera_info import mask_calibration
from adpc_ros.ros.cloud_conversions import camera_of, label_cloud, read_cloud
from adpc_ros.ros.decoding import ENCODINGS, InvalidImage, compressed_to_rgb, decoded, raw_to_rgb

TRIES = int(os.environ.get('ADPC_FUZZ', 600))
SEED = int(os.environ.get('ADPC_FUZZ_SEED', 0))


def fuzz(test: Callable[..., None]) -> Callable[..., None]:
    """Try a test that was given its inputs."""
    chosen = settings(
        max_examples=TRIES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    return seed(SEED)(chosen(test))


BYTES = st.integers(0, 255)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Leave out warnings: there are as many as inputs."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@st.composite
def broken(draw: Callable[..., Any], *valid: bytes) -> bytes:
    """Give valid bytes with some overwritten, put in, left out, or cut off."""
    data = bytearray(draw(st.sampled_from(valid)))
    for _ in range(draw(st.integers(0, 6))):
        place = draw(st.integers(0, max(len(data) - 1, 0)))
        change = draw(st.sampled_from(['one', 'some', 'put', 'out', 'cut']))
        if change == 'one':
            data[place : place + 1] = bytes([draw(BYTES)])
        elif change == 'some':
            new = draw(st.binary(min_size=1, max_size=8))
            data[place : place + len(new)] = new
        elif change == 'put':
            data[place:place] = draw(st.binary(min_size=1, max_size=8))
        elif change == 'out':
            del data[place : place + draw(st.integers(1, 64))]
        else:
            del data[place:]
    return bytes(data)


WORDS = [
    '',
    '0',
    '-1',
    '1e3',
    '1e400',
    '.nan',
    '~',
    'no',
    '[1, 2]',
    '{a: 1}',
    '"',
    "'",
    '&a',
    '*a',
]


@st.composite
def broken_text(draw: Callable[..., Any], *valid: str) -> bytes:
    """Give valid YAML in which values, keys or bytes are others."""
    lines = draw(st.sampled_from(valid)).splitlines()
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(lines) - 1))
        key, colon, _ = lines[place].partition(':')
        change = draw(st.sampled_from(['value', 'key', 'twice', 'out', 'indent', 'deep']))
        if change == 'value':
            lines[place] = f'{key}{colon} {draw(st.sampled_from(WORDS))}'
        elif change == 'key':
            lines[place] = f'{draw(st.sampled_from(WORDS))}: {draw(st.sampled_from(WORDS))}'
        elif change == 'twice':
            lines.insert(place, lines[place])
        elif change == 'out' and len(lines) > 1:
            del lines[place]
        elif change == 'deep':
            depth = draw(st.sampled_from([3, 50, 2000]))
            lines[place] = f'{key}{colon} ' + draw(st.sampled_from(['[', '{a: '])) * depth
        else:
            lines[place] = ' ' * draw(st.integers(0, 6)) + lines[place].lstrip()
    text = '\n'.join(lines) + '\n'
    encoding = draw(st.sampled_from(['utf-8', 'utf-8', 'utf-16', 'utf-8-sig', 'latin-1']))
    return draw(broken(text.encode(encoding, 'replace'))) if draw(st.booleans()) else text.encode()


def picture(mode: str, kind: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    image = Image.fromarray(pixels)
    if mode == 'I;16':
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    elif mode != 'RGB':
        image = image.convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


PICTURES = [
    picture(mode, kind)
    for mode, kind in [
        *(('RGB', 'PNG'), ('L', 'PNG'), ('P', 'PNG'), ('1', 'PNG'), ('RGBA', 'PNG')),
        *(('I;16', 'PNG'), ('RGB', 'JPEG'), ('L', 'JPEG'), ('CMYK', 'JPEG')),
    ]
]
EDGES = st.sampled_from([0, 1, 2, 3, 16, 24, 8192, 8193, 2**31, 2**32 - 1])


@fuzz
@given(
    st.sampled_from([*ENCODINGS, '8UC3', 'RGB8', 'rgb8\0', '']),
    EDGES,
    EDGES,
    st.sampled_from([0, 1, 7, 24, 48, 72, 96, 2**32 - 1]),
    st.integers(0, 3000),
    st.booleans(),
)
def test_raw_images(
    encoding: str, height: int, width: int, step: int, length: int, big_endian: bool
) -> None:
    message = SimpleNamespace(
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=int(big_endian),
        step=step,
        data=np.arange(length).astype(np.uint8),
    )
    try:
        image = decoded(raw_to_rgb(message))
    except InvalidImage:
        return
    assert image.shape == (height, width, 3) and image.dtype == np.uint8


@fuzz
@given(broken(*PICTURES), st.sampled_from(['jpeg', 'bayer_rggb8; png compressed ', '', '\0;']))
def test_compressed_images(data: bytes, said: str) -> None:
    message = SimpleNamespace(format=said, data=np.frombuffer(data, np.uint8))
    try:
        deferred = compressed_to_rgb(message)
        image = deferred.decode()
    except InvalidImage:
        return
    assert image.shape == (*deferred.size, 3) and image.dtype == np.uint8


@st.composite
def clouds(draw: Callable[..., Any]) -> PointCloud2:
    size = st.sampled_from([0, 1, 2, 5, 2**16, 2**32 - 1])
    small = st.integers(0, 40)
    fields = [
        PointField(
            name=draw(st.sampled_from(['x', 'y', 'z', 'intensity', 'class_id', ''])),
            offset=draw(st.one_of(small, st.just(2**32 - 1))),
            datatype=draw(st.sampled_from([7, 7, 7, 8, 2, 0, 255])),
            count=draw(st.sampled_from([1, 1, 1, 0, 3, 2**32 - 1])),
        )
        for _ in range(draw(st.integers(0, 5)))
    ]
    if draw(st.booleans()):
        fields[:3] = [
            PointField(name=name, offset=4 * i, datatype=7, count=1)
            for i, name in enumerate('xyz')
        ]
    cloud = PointCloud2(height=draw(size), width=draw(size), fields=fields)
    cloud.point_step = draw(st.sampled_from([0, 4, 12, 16, 32, 2**32 - 1]))
    cloud.row_step = draw(st.sampled_from([0, 12, 24, 60, 2**32 - 1]))
    cloud.is_bigendian = draw(st.booleans())
    rows = min(cloud.height, 5) * min(cloud.width, 5) * min(cloud.point_step, 32)
    cloud.data = draw(st.one_of(st.just(bytes(rows)), st.binary(max_size=200)))
    return cloud


@fuzz
@given(clouds())
def test_clouds(message: PointCloud2) -> None:
    try:
        cloud = read_cloud(message)
        count = len(cloud.coordinates[0])
        labels = Labels(np.zeros(count, np.uint8), np.zeros(count, np.float32))
        labelled = label_cloud(message, cloud, labels, 'class_id', 'confidence')
    except ValueError:
        return
    assert labelled.height * labelled.width == count
    assert len(labelled.data) == count * labelled.point_step


NUMBERS = st.sampled_from([0.0, 1.0, -1.0, 400.0, 1e-300, 1e300, float('nan'), float('inf')])


@fuzz
@given(
    st.sampled_from(
        ['plumb_bob', 'rational_polynomial', 'equidistant', 'FISHEYE ', 'radtan', 'x']
    ),
    st.lists(NUMBERS, max_size=15),
    st.lists(NUMBERS, min_size=9, max_size=9),
    st.tuples(*[st.sampled_from([0, 1, 2, 480, 640, 2**32 - 1])] * 8),
)
def test_calibrations(
    model: str, coefficients: list[float], k: list[float], sizes: tuple[int, ...]
) -> None:
    info = CameraInfo(distortion_model=model, d=coefficients, k=k)
    info.height, info.width, info.binning_x, info.binning_y = sizes[:4]
    info.roi.x_offset, info.roi.y_offset, info.roi.height, info.roi.width = sizes[4:]
    for use in (lambda: camera_of(info), lambda: mask_calibration(info, (480, 640), 2)):
        try:
            use()
        except ValueError:
            pass


@pytest.fixture(scope='module')
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp('fuzz')


@pytest.fixture(scope='module')
def weights(place: Path) -> bytes:
    path = place / 'valid.safetensors'
    checkpoint.save(path, random_network(0, architecture='coarse_tiny'), CAMVID, {})
    return path.read_bytes()


@fuzz
@given(st.data())
def test_weights(place: Path, weights: bytes, data: st.DataObject) -> None:
    head = 8 + int.from_bytes(weights[:8], 'little')
    if data.draw(st.booleans()):  # of the description, as long as before or not
        changed = data.draw(broken(weights[8:head]))
        given_bytes = len(changed).to_bytes(8, 'little') + changed + weights[head:]
    else:
        given_bytes = data.draw(broken(weights))
    path = place / 'given.safetensors'
    path.write_bytes(given_bytes)
    try:
        loaded = checkpoint.load(path)
    except ValueError as error:
        assert 'given.safetensors' in str(error)
        return
    assert all(bool(t.isfinite().all()) for t in loaded.network.state_dict().values())


CLASSES = """\
name: street
names: [road, car, sky]
unlabelled: [255]
"""
EXPECTED = """\
received: 3
min_exit: 2
frames:
- {stamp: '1.000000000', exit: 4, reason: FINISHED}
- {stamp: '2.000000000', dropped: superseded}
"""


@pytest.mark.parametrize(
    'read, valid',
    [
        (lambda path: parameters(path, {}), [ROOT / 'config' / 'adpc.param.yaml']),
        (read_classes, [CLASSES]),
        (expectation.load, [EXPECTED]),
        (read_config, sorted((ROOT / 'config' / 'train').glob('c*.yaml'))[:4]),
    ],
    ids=['parameters', 'classes', 'expectation', 'recipe'],
)
def test_yaml(place: Path, read: Callable[[Path], Any], valid: list[Path | str]) -> None:
    texts = [text if isinstance(text, str) else text.read_text() for text in valid]
    path = place / 'given.yaml'

    @fuzz
    @given(broken_text(*texts))
    def try_it(data: bytes) -> None:
        path.write_bytes(data)
        try:
            read(path)
        except ValueError as error:
            assert 'given.yaml' in str(error)

    try_it()


@fuzz
@given(broken(*PICTURES))
def test_label_and_image_files(place: Path, data: bytes) -> None:
    (place / 'classes.yaml').write_text(CLASSES)
    table = read_classes(place / 'classes.yaml')
    path = place / 'given.png'
    path.write_bytes(data)
    for read in (table.read, read_image):
        try:
            values = read(path)
        except ValueError as error:
            assert 'given.png' in str(error)
        else:
            assert values.dtype == np.uint8


@pytest.fixture(scope='module')
def bags(place: Path) -> dict[str, bytes]:
    events = [Info(0), Shot(1), Call(2, 1, 10), Shot(40, encoding='png', topic='/other'), Shot(80)]
    return {
        suffix: next(write_bag(place / storage, events, storage).glob(f'*{suffix}')).read_bytes()
        for storage, suffix in (('MCAP', '.mcap'), ('SQLITE3', '.db3'))
    }


METADATA = """\
rosbag2_bagfile_information:
  version: 9
  storage_identifier: mcap
  relative_file_paths:
  - bag.mcap
  duration: {nanoseconds: 79000000}
  message_count: 3
  topics_with_message_count: []
"""


@fuzz
@given(broken_text(METADATA))
def test_metadata_of_bags(place: Path, bags: dict[str, bytes], data: bytes) -> None:
    folder = place / 'folder'
    folder.mkdir(exist_ok=True)
    (folder / 'bag.mcap').write_bytes(bags['.mcap'])
    (folder / 'metadata.yaml').write_bytes(data)
    assert len(BagDrive(folder, '/camera')) == 2


@fuzz
@given(st.data())
def test_bags(place: Path, bags: dict[str, bytes], data: st.DataObject) -> None:
    suffix = data.draw(st.sampled_from(sorted(bags)))
    path = place / f'given{suffix}'
    path.write_bytes(data.draw(broken(bags[suffix])))
    try:
        for frame in BagDrive(path, '/camera'):
            assert frame.image.ndim == 3
    except ValueError as error:
        assert 'given' in str(error)
    try:
        for arrival in Source(path, '/camera'):
            if isinstance(arrival, FrameArrival):
                try:
                    decoded(arrival.image())
                except InvalidImage:
                    pass
    except ValueError as error:
        assert 'given' in str(error)
