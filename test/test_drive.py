# SPDX-License-Identifier: Apache-2.0
"""Sources of frames, with real image files, real bags and the synthetic street."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from adpc_ros.drive import BagDrive, FolderDrive, StreetDrive, open_drive
from adpc_ros.labels import CAMVID, IGNORE_ID
from adpc_ros.street.kinds import Kind

RNG = np.random.default_rng(1)
PICTURE = RNG.integers(0, 256, (6, 10, 3), np.uint8)


# Folders


def write_folder(root: Path, names: Iterable[str], labelled: Iterable[str] = ()) -> Path:
    (root / 'image').mkdir(parents=True)
    (root / 'label').mkdir()
    for index, name in enumerate(names):
        Image.fromarray(np.full((4, 6, 3), index, np.uint8)).save(root / 'image' / name)
    for index, name in enumerate(labelled):
        Image.fromarray(np.full((4, 6), index, np.uint8)).save(root / 'label' / name)
    return root / 'image'


def test_folder_gives_images_in_order_of_their_numbers(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, ['f10.png', 'f9.png', 'f100.png'])
    frames = list(FolderDrive(folder, rate_hz=10))
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [1, 0, 2]
    assert [frame.stamp_ns for frame in frames] == [0, 100_000_000, 200_000_000]
    assert all(frame.image.shape == (4, 6, 3) and frame.label is None for frame in frames)


def test_folder_without_labels_has_no_classes(tmp_path: Path) -> None:
    drive = FolderDrive(write_folder(tmp_path, ['a.jpg']))
    assert drive.classes is None
    assert len(drive) == 1


def test_folder_takes_labels_of_the_same_name_and_leaves_others_out(tmp_path: Path) -> None:
    drive = FolderDrive(write_folder(tmp_path, ['a.jpg', 'b.jpg'], ['b.png']))
    without, with_label = drive
    assert drive.classes is CAMVID
    assert without.label is None
    assert with_label.label is not None
    assert with_label.label.dtype == np.uint8


def test_label_values_that_are_no_class_become_unlabelled(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, ['a.png'])
    values = np.tile(np.array([0, 10, 11, 200, 254, 255], np.uint8), (4, 1))
    Image.fromarray(values).save(tmp_path / 'label' / 'a.png')
    (frame,) = FolderDrive(folder)
    assert frame.label is not None
    assert frame.label[0].tolist() == [0, 10] + [IGNORE_ID] * 4


def test_labels_of_camvid_as_it_was_published_are_read(tmp_path: Path) -> None:
    for folder, name in (('701_StillsRaw_full', 'a.png'), ('LabeledApproved_full', 'a_L.png')):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.full((4, 6, 3), (64, 0, 64), np.uint8)).save(tmp_path / folder / name)
    (frame,) = FolderDrive(tmp_path / '701_StillsRaw_full')
    assert frame.label is not None  # a tunnel
    assert set(frame.label.ravel()) == {CAMVID.id_of('building')}


def test_labels_mean_what_their_class_file_says(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, ['a.JPG'])
    ids = np.tile(np.array([0, 1, 7, 1, 24, 9], np.uint8), (4, 1))
    Image.fromarray(np.dstack([ids, ids * 0, ids * 0])).save(tmp_path / 'label' / 'a.png')
    described = 'name: town\nnames: {1: road, 7: wall, 24: line}\nvalues: red\n'
    (tmp_path / 'classes.yaml').write_text(described)
    drive = FolderDrive(folder)
    (frame,) = drive
    assert drive.classes is not None and drive.classes.names == ('road', 'wall', 'line')
    assert frame.label is not None
    assert frame.label[0].tolist() == [IGNORE_ID, 0, 1, 0, 2, IGNORE_ID]


def test_images_and_labels_are_upright(tmp_path: Path) -> None:
    tags = Image.Exif()
    tags[274] = 6  # to be turned by 90 degrees, clockwise
    folder = write_folder(tmp_path, [])
    Image.fromarray(PICTURE).save(folder / 'a.png', exif=tags)
    Image.fromarray(PICTURE[..., 0] % 11).save(tmp_path / 'label' / 'a.png', exif=tags)
    (frame,) = FolderDrive(folder)
    assert np.array_equal(frame.image, np.rot90(PICTURE, -1))
    assert np.array_equal(frame.label, np.rot90(PICTURE[..., 0] % 11, -1))


def test_folder_reads_nothing_before_it_is_asked(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, ['a.png', 'b.png'])
    (folder / 'b.png').write_bytes(b'broken')
    frames = iter(FolderDrive(folder))
    next(frames)
    with pytest.raises(ValueError, match=r'b\.png: expected an image'):
        next(frames)


def test_folder_can_be_run_through_again(tmp_path: Path) -> None:
    drive = FolderDrive(write_folder(tmp_path, ['a.png', 'b.png']))
    first, second = list(drive), list(drive)
    assert all(np.array_equal(a.image, b.image) for a, b in zip(first, second, strict=True))


def test_missing_and_empty_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='folder of images at .*nowhere'):
        FolderDrive(tmp_path / 'nowhere')
    with pytest.raises(FileNotFoundError, match=r'no images found: expected \.jpg \.jpeg \.png'):
        FolderDrive(tmp_path)


def test_a_truncated_image_is_named(tmp_path: Path) -> None:
    Image.fromarray(np.tile(PICTURE, (20, 20, 1))).save(tmp_path / 'a.png')
    data = (tmp_path / 'a.png').read_bytes()
    (tmp_path / 'a.png').write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r'a\.png: expected an image'):
        list(FolderDrive(tmp_path))


@pytest.mark.parametrize(
    ('label', 'complaint'),
    [
        (np.zeros((4, 6, 3), np.uint8), 'ids, grey or of a palette .*, got mode RGB'),
        (np.zeros((4, 5), np.uint8), 'size of its image, 6x4, got 5x4'),
    ],
)
def test_labels_that_do_not_fit_are_named(
    tmp_path: Path, label: np.ndarray, complaint: str
) -> None:
    folder = write_folder(tmp_path, ['a.png'])
    (tmp_path / 'classes.yaml').write_text('name: town\nnames: [road, wall]\n')
    Image.fromarray(label).save(tmp_path / 'label' / 'a.png')
    with pytest.raises(ValueError, match=rf'label.a\.png: expected .*{complaint}'):
        list(FolderDrive(folder))


def test_rate_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='positive rate_hz'):
        FolderDrive(tmp_path, rate_hz=0)


# Bags

RAW, COMPRESSED, TEXT = (
    'sensor_msgs/msg/Image',
    'sensor_msgs/msg/CompressedImage',
    'std_msgs/msg/String',
)


class Message:
    """A message's type and how to make it from a type store."""

    def __init__(self, kind: str, **fields: Any) -> None:
        self.kind = kind
        self.fields = fields

    def build(self, types: Any) -> Any:
        fields = dict(self.fields)
        if self.kind != TEXT:
            stamp = types['builtin_interfaces/msg/Time'](sec=1, nanosec=2)
            fields['header'] = types['std_msgs/msg/Header'](stamp=stamp, frame_id='camera')
        return types[self.kind](**fields)


def raw(encoding: str, data: np.ndarray, step: int | None = None) -> Message:
    height, width = data.shape[:2]
    rows = data.reshape(height, -1)
    step = rows.shape[1] if step is None else step
    padded = np.full((height, step), 99, np.uint8)
    padded[:, : rows.shape[1]] = rows
    return Message(RAW, height=height, width=width, encoding=encoding, is_bigendian=0, step=step,
                   data=padded.ravel())  # fmt: skip


def compressed(picture: np.ndarray, kind: str) -> Message:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind)
    return Message(COMPRESSED, format=kind, data=np.frombuffer(buffer.getvalue(), np.uint8))


def write_bag(
    path: Path, topics: dict[str, list[Message]], storage: str = 'MCAP', interval_ns: int = 50
) -> Path:
    rosbag2 = pytest.importorskip('rosbags.rosbag2')
    typesys = pytest.importorskip('rosbags.typesys')
    store = typesys.get_typestore(typesys.Stores.ROS2_HUMBLE)
    plugin = rosbag2.StoragePlugin[storage]
    with rosbag2.Writer(path, version=9, storage_plugin=plugin) as writer:
        connections = {
            topic: writer.add_connection(topic, messages[0].kind, typestore=store)
            for topic, messages in topics.items()
        }
        for index in range(max(len(messages) for messages in topics.values())):
            for topic, messages in topics.items():
                if index < len(messages):
                    message = messages[index]
                    data = store.serialize_cdr(message.build(store.types), message.kind)
                    writer.write(connections[topic], 1000 + index * interval_ns, data)
    return path


@pytest.fixture(params=['MCAP', 'SQLITE3'])
def storage(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_bag_gives_images_with_their_recording_times(tmp_path: Path, storage: str) -> None:
    pictures = [PICTURE, 255 - PICTURE, PICTURE // 2]
    messages = [raw('rgb8', picture) for picture in pictures]
    drive = BagDrive(write_bag(tmp_path / 'bag', {'/camera': messages}, storage, 40_000_000))
    assert (len(drive), drive.rate_hz, drive.classes) == (3, 25.0, None)
    for _ in range(2):
        frames = list(drive)
        assert [frame.stamp_ns for frame in frames] == [1000, 40_001_000, 80_001_000]
        assert all(frame.label is None for frame in frames)
        assert all(
            np.array_equal(frame.image, picture)
            for frame, picture in zip(frames, pictures, strict=True)
        )


def test_a_single_file_of_a_bag_can_be_read(tmp_path: Path, storage: str) -> None:
    bag = write_bag(tmp_path / 'bag', {'/camera': [raw('rgb8', PICTURE)]}, storage)
    (file,) = [file for file in bag.iterdir() if file.suffix in ('.mcap', '.db3')]
    (frame,) = BagDrive(file)
    assert np.array_equal(frame.image, PICTURE)


@pytest.mark.parametrize(
    ('encoding', 'data', 'expected'),
    [
        ('bgr8', PICTURE[..., ::-1], PICTURE),
        ('rgba8', np.dstack((PICTURE, PICTURE[..., :1])), PICTURE),
        ('bgra8', np.dstack((PICTURE[..., ::-1], PICTURE[..., :1])), PICTURE),
        ('mono8', PICTURE[..., 0], np.repeat(PICTURE[..., :1], 3, 2)),
    ],
)
@pytest.mark.parametrize('padding', [0, 7])
def test_bag_understands_encodings_and_padded_rows(
    tmp_path: Path, encoding: str, data: np.ndarray, expected: np.ndarray, padding: int
) -> None:
    step = data.reshape(len(data), -1).shape[1] + padding
    (frame,) = BagDrive(write_bag(tmp_path / 'bag', {'/camera': [raw(encoding, data, step)]}))
    assert np.array_equal(frame.image, expected)


def test_bag_reads_compressed_images(tmp_path: Path) -> None:
    smooth = np.broadcast_to(np.arange(0, 160, 10, dtype=np.uint8)[:, None], (16, 16, 3))
    messages = [compressed(smooth, 'png'), compressed(smooth, 'jpeg')]
    png, jpeg = BagDrive(write_bag(tmp_path / 'bag', {'/camera/compressed': messages}))
    assert np.array_equal(png.image, smooth)
    assert np.abs(jpeg.image.astype(int) - smooth).max() < 12


def test_bag_takes_colour_before_grey_before_the_unreadable_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    topics = {
        '/a/depth': [raw('16UC1', PICTURE[:, :2])],
        '/b/mask': [raw('mono8', PICTURE[..., 0])],
        '/c/image': [raw('rgb8', PICTURE)],
        '/d/image': [raw('rgb8', PICTURE)],
        '/e/log': [Message(TEXT, data='x')],
    }
    bag = write_bag(tmp_path / 'bag', topics)
    assert BagDrive(bag).topic == '/c/image'
    assert 'taking topic /c/image of: /a/depth, /b/mask, /c/image, /d/image' in caplog.text


def test_bag_takes_the_topic_that_is_asked_for(tmp_path: Path) -> None:
    topics = {'/a': [raw('rgb8', PICTURE)], '/b': [raw('rgb8', 255 - PICTURE)]}
    drive = BagDrive(write_bag(tmp_path / 'bag', topics), '/b')
    (frame,) = drive
    assert np.array_equal(frame.image, 255 - PICTURE)


def test_a_topic_that_is_not_there_is_answered_with_those_that_are(tmp_path: Path) -> None:
    topics = {'/camera': [raw('rgb8', PICTURE)], '/log': [Message(TEXT, data='x')]}
    bag = write_bag(tmp_path / 'bag', topics)
    with pytest.raises(ValueError, match='/rear is not in the bag; image topics: /camera'):
        BagDrive(bag, '/rear')
    with pytest.raises(ValueError, match='/log is std_msgs/msg/String; image topics: /camera'):
        BagDrive(bag, '/log')


def test_a_bag_without_images_says_what_it_has(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / 'bag', {'/log': [Message(TEXT, data='x')]})
    with pytest.raises(ValueError, match='expected an image topic; topics: /log'):
        BagDrive(bag)


def test_a_message_that_is_no_picture_is_named_by_its_time(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / 'bag', {'/camera': [raw('nv24', PICTURE)]})
    with pytest.raises(ValueError, match="/camera: message recorded at 1000 ns: encoding 'nv24'"):
        list(BagDrive(bag))


def test_what_is_no_bag_is_named(tmp_path: Path) -> None:
    pytest.importorskip('rosbags')
    with pytest.raises(FileNotFoundError, match='expected a bag .* at .*nowhere'):
        BagDrive(tmp_path / 'nowhere')
    with pytest.raises(ValueError, match='expected a rosbag2 recording'):
        BagDrive(tmp_path)
    for name in ('broken.mcap', 'broken.db3', 'broken.txt'):
        (tmp_path / name).write_bytes(b'not a bag at all')
        with pytest.raises(ValueError, match=rf'{name}: expected a rosbag2 recording'):
            BagDrive(tmp_path / name)


def test_a_missing_rosbags_package_is_said_plainly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ('rosbags', 'rosbags.highlevel'):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match='needs the package rosbags: pip install rosbags'):
        BagDrive(tmp_path)


# The street


@pytest.fixture(scope='module')
def street() -> StreetDrive:
    return StreetDrive()


def test_street_is_the_same_each_time(street: StreetDrive) -> None:
    again = StreetDrive()
    for index in (0, 77, 149):
        first, second, third = street.frame(index), street.frame(index), again.frame(index)
        assert first.image.tobytes() == second.image.tobytes() == third.image.tobytes()
        assert first.label is not None
        assert second.label is not None
        assert third.label is not None
        assert first.label.tobytes() == second.label.tobytes() == third.label.tobytes()


def test_street_frames_have_the_size_type_and_times_that_were_asked_for() -> None:
    for size in ((360, 480), (97, 131), (64, 200), (200, 64)):
        drive = StreetDrive(frame_count=3, size=size, rate_hz=10)
        frames = list(drive)
        assert len(drive) == len(frames) == 3
        assert [frame.stamp_ns for frame in frames] == [0, 100_000_000, 200_000_000]
        for frame in frames:
            assert (frame.image.shape, frame.image.dtype) == ((*size, 3), np.uint8)
            assert frame.label is not None
            assert (frame.label.shape, frame.label.dtype) == (size, np.uint8)


def test_street_frame_is_what_the_iteration_gives(street: StreetDrive) -> None:
    frames = iter(street)
    for index in range(3):
        ours, theirs = street.frame(index), next(frames)
        assert ours.stamp_ns == theirs.stamp_ns
        assert np.array_equal(ours.image, theirs.image)


def test_street_shows_every_class_and_no_other_value(street: StreetDrive) -> None:
    pixels = np.zeros(256, np.int64)
    for index in range(0, 150, 15):
        label = street.frame(index).label
        assert label is not None
        pixels += np.bincount(label.ravel(), minlength=256)
    assert pixels[CAMVID.count :].sum() == 0
    assert pixels[: CAMVID.count].min() > 300


def test_street_moves_a_little_from_frame_to_frame(street: StreetDrive) -> None:
    images = [street.frame(index).image.astype(float) for index in (40, 41, 100)]
    step, far = (np.abs(images[0] - image).mean() for image in images[1:])
    assert 3 < step < 0.7 * far


def test_street_has_road_below_and_sky_above(street: StreetDrive) -> None:
    label = street.frame(30).label
    assert label is not None
    assert (label[-40:, 200:280] == Kind.ROAD).mean() > 0.9
    assert (label[:30, 200:280] == Kind.SKY).mean() > 0.6


def test_label_edges_are_where_the_picture_changes(street: StreetDrive) -> None:
    frame = street.frame(60)
    assert frame.label is not None
    change = np.abs(np.diff(frame.image.astype(float), axis=1)).sum(2)
    edge = np.diff(frame.label.astype(int), axis=1) != 0
    assert change[edge].mean() > 3 * change[~edge].mean()


def test_streets_of_other_seeds_look_different() -> None:
    views = [StreetDrive(frame_count=1, size=(90, 120), seed=seed).frame(0) for seed in range(4)]
    for index, view in enumerate(views):
        for other in views[:index]:
            assert np.abs(view.image.astype(float) - other.image).mean() > 15


def test_street_kinds_are_the_classes_of_camvid() -> None:
    assert [kind.name.lower() for kind in Kind] == list(CAMVID.names)
    assert StreetDrive(frame_count=1, size=(64, 64)).classes is CAMVID


@pytest.mark.parametrize(
    'wrong', [{'frame_count': 0}, {'size': (16, 480)}, {'rate_hz': 0.0}, {'seed': -1}]
)
def test_street_refuses_what_cannot_be_drawn(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match='expected frame_count >= 1, a size of 32 pixels'):
        StreetDrive(**wrong)


def test_street_has_no_frame_outside_its_length() -> None:
    drive = StreetDrive(frame_count=2, size=(64, 64))
    for index in (-1, 2):
        with pytest.raises(IndexError, match='from 0 to 1'):
            drive.frame(index)


# Opening


def test_open_drive_gives_what_is_asked_for_and_the_street_by_default(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, ['a.png'])
    bag = write_bag(tmp_path / 'bag', {'/camera': [raw('rgb8', PICTURE)]})
    assert isinstance(open_drive(str(folder)), FolderDrive)
    assert isinstance(open_drive(None, str(bag)), BagDrive)
    assert isinstance(open_drive(None, None), StreetDrive)


def test_open_drive_refuses_two_sources() -> None:
    with pytest.raises(ValueError, match='got both'):
        open_drive('folder', 'bag')
