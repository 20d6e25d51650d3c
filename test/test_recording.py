# SPDX-License-Identifier: Apache-2.0
"""Recordings as they are found: foreign topics, edited metadata, unfinished and broken files."""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
import zstandard
from bags import (
    IMAGE_DEFINITION,
    STORE,
    Call,
    Channel,
    Said,
    Shot,
    grey,
    header,
    ns,
    pair,
    write_bag,
    write_mcap,
)
from mcap.writer import CompressionType, IndexType
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from adpc_ros.drive import BagDrive
from adpc_ros.recording import storage as storage_of
from adpc_ros.recording.files import files_of
from adpc_ros.recording.reader import Recording
from adpc_ros.recording.types import typestore_of
from adpc_ros.replay.source import FrameArrival, Source, UrgencyArrival
from adpc_ros.ros.message_types import RAW_TYPE, URGENCY_TYPE

CAMERA = [Said(10 * i, grey(i)) for i in range(1, 6)]


def values(path: Path) -> list[int]:
    """Give the values of a recording's grey frames, as demo and replay read them."""
    seen = [int(frame.image[0, 0, 0]) for frame in BagDrive(path)]
    arrivals = [a for a in Source(path) if isinstance(a, FrameArrival)]
    assert [int(arrival.image()[0, 0, 0]) for arrival in arrivals] == seen
    assert len(BagDrive(path)) == Source(path).count == len(seen)
    return seen


def folder(path: Path, storage: str = 'MCAP', frames: int = 3, **compression: Any) -> Path:
    """Write a recording of grey frames 1, 2, ..., with its metadata."""
    with Writer(path, version=9, storage_plugin=StoragePlugin[storage]) as writer:
        camera = writer.add_connection('/camera', RAW_TYPE, typestore=STORE)
        for i in range(1, frames + 1):
            writer.write(camera, 10 * i, grey(i % 256))
    return path


def stored(path: Path) -> Path:
    (file,) = (file for file in path.iterdir() if file.suffix in ('.mcap', '.db3'))
    return file


@pytest.fixture(params=['MCAP', 'SQLITE3'])
def storage(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# What is not asked for

FOREIGN = {
    'service event': Channel(
        '/add/_service_event',
        'example_interfaces/srv/AddTwoInts_Event',
        b'service_msgs/ServiceEventInfo info\nexample_interfaces/AddTwoInts_Request[<=1] request',
    ),
    'json': Channel('/state', 'state', b'{"type": "object"}', 'jsonschema', 'json'),
    'protobuf': Channel('/scene', 'foxglove.SceneUpdate', b'\n\xff\x12', 'protobuf', 'protobuf'),
    'ROS 1': Channel('/old', 'sensor_msgs/Image', b'Header header', 'ros1msg', 'ros1'),
    'CRLF': Channel('/a', 'a_msgs/msg/A', b'int32 a\r\nint32 b\r\n'),
    'truncated': Channel('/a', 'a_msgs/msg/A', b'int32 a\nb_msgs/B b\n=====\nMSG: b_ms'),
    'Latin-1': Channel('/a', 'a_msgs/msg/A', 'float32 t  # °C'.encode('latin-1')),
    'BOM': Channel('/a', 'a_msgs/msg/A', b'\xef\xbb\xbfint32 a\n'),
    'hash': Channel('/a', 'a_msgs/msg/A', b'int32 a', metadata={'topic_type_hash': 'RIHS01_0'}),
    'QoS': Channel('/a', 'a_msgs/msg/A', metadata={'offered_qos_profiles': '- {depth: [}'}),
    'same type, other encoding': Channel('/b', encoding='json'),
}


@pytest.mark.parametrize('foreign', FOREIGN.values(), ids=list(FOREIGN))
def test_what_is_not_asked_for_is_passed_over_and_named(tmp_path: Path, foreign: Channel) -> None:
    messages = [Said(5, channel=1), *CAMERA, Said(99, channel=1)]
    path = write_mcap(tmp_path / 'a.mcap', [Channel(), foreign], messages)
    assert values(path) == [1, 2, 3, 4, 5]
    (named,) = Source(path).passed_over
    assert foreign.topic in named and foreign.kind in named
    assert foreign.encoding == 'cdr' or foreign.encoding in named


def test_a_channel_whose_name_is_no_text_is_passed_over(tmp_path: Path) -> None:
    path = write_mcap(tmp_path / 'a.mcap', [Channel(), Channel('/grün')], CAMERA)
    path.write_bytes(path.read_bytes().replace('/grün'.encode(), b'/gr\xfc\xfcn'))
    assert values(path) == [1, 2, 3, 4, 5]
    assert Source(path).passed_over == ['channel 2 (unreadable, no encoding)']


def test_foreign_types_of_an_sqlite_file_are_passed_over(tmp_path: Path) -> None:
    bag = folder(tmp_path / 'bag', 'SQLITE3')
    with sqlite3.connect(stored(bag)) as database:
        database.execute(
            "INSERT INTO topics VALUES (9, '/a', CAST(x'ff' AS TEXT), 'json', '- {', 'RIHS01_0')"
        )
        database.execute("INSERT INTO messages VALUES (99, 9, 5, x'00')")
        database.execute(
            "INSERT INTO message_definitions VALUES (9, 'a', 'x', CAST(x'ff' AS TEXT), '')"
        )
    assert values(bag) == [1, 2, 3]
    assert Source(bag).passed_over == ['/a (\ufffd, json)']


def test_one_topic_of_two_types_gives_its_images(tmp_path: Path) -> None:
    other = Channel(kind='std_msgs/msg/String', definition=b'string data')
    path = write_mcap(tmp_path / 'a.mcap', [Channel(), other], [Said(1, channel=1), *CAMERA])
    assert values(path) == [1, 2, 3, 4, 5]


# The type that is asked for

IDL = b"""module sensor_msgs { module msg { struct Image {
std_msgs::msg::Header header; uint32 height; uint32 width; string encoding; uint8 is_bigendian;
uint32 step; sequence<uint8> data; }; }; };"""
WITH_FIELD = IMAGE_DEFINITION.replace(b'uint8[] data', b'uint8[] data\nuint8 more')
HASH = STORE.hash_rihs01(RAW_TYPE)


@pytest.mark.parametrize(
    ('camera', 'warning'),
    [
        (Channel(definition=b''), ''),
        (Channel(definition=b'', definition_format=''), ''),
        (Channel(definition=IMAGE_DEFINITION.replace(b'\n', b'\r\n')), ''),
        (Channel(definition=b'\xef\xbb\xbf' + IMAGE_DEFINITION), ''),
        (Channel(definition='# °\n'.encode('latin-1') + IMAGE_DEFINITION), ''),
        (Channel(definition=IDL, definition_format='ros2idl'), ''),
        (Channel(metadata={'topic_type_hash': HASH}), ''),
        (Channel(metadata={'topic_type_hash': 'RIHS01_0'}), 'its hash is not of its definition'),
        (Channel(definition=IMAGE_DEFINITION[:60]), 'lacks the field'),
        (Channel(definition=b'uint32 height\nuint32 wid'), 'lacks the field header'),
        (Channel(definition=b'?!'), 'its definition is broken'),
        (Channel(definition_format='jsonschema'), 'expected ros2msg or ros2idl'),
        (Channel(definition=WITH_FIELD, metadata={'topic_type_hash': HASH}), 'of the known one'),
    ],
)
def test_the_known_type_is_taken_where_the_definition_is_missing_or_broken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, camera: Channel, warning: str
) -> None:
    path = write_mcap(tmp_path / 'a.mcap', [camera], CAMERA)
    assert [int(frame.image[0, 0, 0]) for frame in BagDrive(path)] == [1, 2, 3, 4, 5]
    assert warning in caplog.text and bool(caplog.text) == bool(warning)
    assert not warning or 'topic /camera (sensor_msgs/msg/Image)' in caplog.text


def test_a_definition_that_is_cut_anywhere_gives_the_same_message() -> None:
    for end in range(0, len(IMAGE_DEFINITION), 5):
        cut = IMAGE_DEFINITION[:end]
        camera = storage_of.Channel(1, '/camera', RAW_TYPE, 'cdr', cut, 'ros2msg', '', 1)
        store = typestore_of(camera, Path('a.mcap'))
        message: Any = store.deserialize_cdr(grey(7, 12), RAW_TYPE)
        assert (message.header.frame_id, message.header.stamp.nanosec) == ('front', 12), end
        assert (message.encoding, set(message.data.tolist())) == ('rgb8', {7}), end


def test_a_type_with_more_fields_is_read_by_its_own_definition(tmp_path: Path) -> None:
    messages = [Said(said.time_ns, said.data + b'\1') for said in CAMERA]
    path = write_mcap(tmp_path / 'a.mcap', [Channel(definition=WITH_FIELD)], messages)
    assert values(path) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize('definition', [b'', b'uint8 level\nbuiltin_interfaces/Dura'])
def test_urgency_is_read_without_its_definition(tmp_path: Path, definition: bytes) -> None:
    urgency = STORE.types[URGENCY_TYPE](
        header=header(7), level=2, deadline=pair('Duration', 10**8), hold=pair('Duration', 0)
    )
    data = bytes(STORE.serialize_cdr(urgency, URGENCY_TYPE))
    channels = [Channel(), Channel('/urgency', URGENCY_TYPE, definition)]
    path = write_mcap(tmp_path / 'a.mcap', channels, [*CAMERA, Said(60, data, 1)])
    (found,) = (a for a in Source(path) if isinstance(a, UrgencyArrival))
    assert found == (60, 2, 0.1, 0.0, 7)


def test_a_camera_in_another_encoding_is_named(tmp_path: Path) -> None:
    path = write_mcap(tmp_path / 'a.mcap', [Channel(encoding='json')], CAMERA)
    words = f"/camera ({RAW_TYPE}): expected messages encoded as cdr, got 'json'"
    with pytest.raises(ValueError, match=re.escape(words)):
        Source(path)


def test_urgency_in_another_encoding_is_passed_over_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = Channel('/urgency', URGENCY_TYPE, encoding='protobuf')
    source = Source(write_mcap(tmp_path / 'a.mcap', [Channel(), other], CAMERA))
    assert source.passed_over == [f'/urgency ({URGENCY_TYPE}, protobuf)']
    assert f'not encoded as cdr: /urgency ({URGENCY_TYPE}, protobuf)' in caplog.text


# Metadata


def edited(**changes: Any) -> Callable[[Path], None]:
    def edit(bag: Path) -> None:
        file = bag / 'metadata.yaml'
        document = yaml.safe_load(file.read_text())
        document['rosbag2_bagfile_information'].update(changes)
        file.write_text(yaml.safe_dump(document))

    return edit


def with_topic(**changes: Any) -> Callable[[Path], None]:
    def edit(bag: Path) -> None:
        file = bag / 'metadata.yaml'
        document = yaml.safe_load(file.read_text())
        (topic,) = document['rosbag2_bagfile_information']['topics_with_message_count']
        topic['topic_metadata'].update(changes)
        topic['message_count'] = 0
        file.write_text(yaml.safe_dump(document))

    return edit


def renamed(bag: Path) -> None:
    stored(bag).rename(stored(bag).with_stem('other'))


EDITS: dict[str, Callable[[Path], None]] = {
    'no storage': edited(storage_identifier=''),
    'another storage': edited(storage_identifier='rocksdb'),
    'no counts': edited(message_count=0, files=[], duration={}, starting_time={}),
    'no topics': edited(topics_with_message_count=[]),
    'QoS of others': with_topic(offered_qos_profiles=[{'history': 'keep_all', 'depth': 3}]),
    'QoS that is none': with_topic(offered_qos_profiles='- {depth: ['),
    'another hash': with_topic(type_description_hash='RIHS01_0'),
    'another folder': lambda bag: edited(relative_file_paths=[f'old/{stored(bag).name}'])(bag),
    'renamed file': renamed,
    'no files': edited(relative_file_paths=[]),
    'missing': lambda bag: (bag / 'metadata.yaml').unlink(),
    'empty': lambda bag: (bag / 'metadata.yaml').write_bytes(b'') and None,
    'cut off': lambda bag: (bag / 'metadata.yaml').write_text('a: {b: ') and None,
}


@pytest.mark.parametrize('edit', EDITS.values(), ids=list(EDITS))
def test_what_the_files_hold_counts_and_not_the_metadata(
    tmp_path: Path, storage: str, edit: Callable[[Path], None]
) -> None:
    bag = folder(tmp_path / 'bag', storage)
    edit(bag)
    assert values(bag) == [1, 2, 3]


@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        ('', 'expected keys and values, got null'),
        ('\na: {b: ', 'line 2: expected YAML in UTF-8: '),
        ('x: 2001-99-99', "line 1: expected YAML in UTF-8: '2001-99-99' is no timestamp: "),
        ('x: !!int x', "line 1: expected YAML in UTF-8: 'x' is no int"),
        ('[' * 5000, 'line 1: expected YAML in UTF-8: at most 100 levels'),
        ('rosbag2_bagfile_information: 3', 'rosbag2_bagfile_information: expected keys and'),
        *(
            (f'rosbag2_bagfile_information: {{relative_file_paths: {names}}}', words)
            for names, words in (
                ('7', 'relative_file_paths: expected a list, got 7'),
                ('[]', 'relative_file_paths: expected names of files, got none'),
                ('[/]', "relative_file_paths: expected names of files, got '/'"),
                ('["\\0.mcap"]', 'relative_file_paths: expected names of files, got '),
                (f'[{"a" * 5000}.mcap]', 'relative_file_paths: expected names of files, got '),
            )
        ),
    ],
    ids=lambda value: value[:40],
)
def test_broken_metadata_is_warned_of_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str, reason: str
) -> None:
    bag = folder(tmp_path / 'bag', 'MCAP')
    (bag / 'metadata.yaml').write_text(content)
    assert files_of(bag) == [stored(bag)]
    (warning,) = caplog.messages
    assert warning.startswith(f'{bag}/metadata.yaml: no metadata to go by: {reason}')
    assert warning.endswith(f': taking {stored(bag).name}') and len(warning.splitlines()) == 1


def test_a_missing_file_of_a_recording_is_named(tmp_path: Path) -> None:
    bag = folder(tmp_path / 'bag')
    edited(relative_file_paths=['bag.mcap', 'bag_1.mcap'])(bag)
    with pytest.raises(ValueError, match=r'bag: metadata\.yaml names bag_1\.mcap: expected it'):
        Recording(bag)


def test_parts_of_a_recording_are_merged_by_time(
    tmp_path: Path, storage: str, caplog: pytest.LogCaptureFixture
) -> None:
    whole = folder(tmp_path / 'whole', storage, 12)
    end = stored(whole).suffix
    bag = tmp_path / 'bag'
    bag.mkdir()
    for i in range(11):  # bag_10 comes last, and part 0 reaches into part 1
        part = [1, 3] if i == 0 else [2] if i == 1 else [i + 2]
        file = bag / f'bag_{i}{end}'
        if storage == 'MCAP':
            write_mcap(file, [Channel()], [Said(10 * n, grey(n)) for n in part])
            continue
        shutil.copy(stored(whole), file)
        with sqlite3.connect(file) as database:
            numbers = ', '.join(str(10 * n) for n in part)
            database.execute(f'DELETE FROM messages WHERE timestamp NOT IN ({numbers})')
    assert values(bag) == list(range(1, 13))
    assert 'no metadata.yaml to go by: taking bag_0' in caplog.text
    shutil.copy(stored(whole), bag / f'another{end}')
    with pytest.raises(ValueError, match='expected metadata.yaml or a single recording'):
        Recording(bag)


@pytest.mark.parametrize('mode', ['FILE', 'MESSAGE'])
@pytest.mark.parametrize('with_metadata', [True, False])
def test_compressed_recordings_are_read(
    tmp_path: Path, storage: str, mode: str, with_metadata: bool
) -> None:
    bag = tmp_path / 'bag'
    writer = Writer(bag, version=9, storage_plugin=StoragePlugin[storage])
    writer.set_compression(CompressionMode[mode], CompressionFormat.ZSTD)
    with writer:
        camera = writer.add_connection('/camera', RAW_TYPE, typestore=STORE)
        for said in CAMERA:
            writer.write(camera, said.time_ns, said.data)
    if not with_metadata:
        (bag / 'metadata.yaml').unlink()
    assert values(bag) == [1, 2, 3, 4, 5]


# Unfinished, without index, out of order

COMPRESSIONS = list(CompressionType)


@pytest.mark.parametrize('compression', COMPRESSIONS)
@pytest.mark.parametrize('chunk_size', [1, 2**20])
def test_an_unfinished_file_is_read_to_its_end_with_a_warning(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    compression: CompressionType,
    chunk_size: int,
) -> None:
    noise = [bytes(grey(i, size=(64, 64))) for i in range(1, 6)]
    path = write_mcap(
        tmp_path / 'a.mcap',
        [Channel()],
        [Said(10 * i, data) for i, data in enumerate(noise)],
        chunk_size=chunk_size,
        compression=compression,
    )
    data, found = path.read_bytes(), []
    for size in range(len(data) - 1, 100, -max(1, len(data) // 40)):
        path.write_bytes(data[:size])
        caplog.clear()
        try:
            found.append([int(frame.image[0, 0, 0]) for frame in BagDrive(path)])
        except ValueError as error:
            assert 'expected an image topic' in str(error) or 'found no message' in str(error)
            found.append([])
        assert f'mcap recover {path}' in caplog.text
    assert found[0] == [1, 2, 3, 4, 5] and all(f == [1, 2, 3, 4, 5][: len(f)] for f in found)
    lengths = [len(f) for f in found]
    assert lengths == sorted(lengths, reverse=True)
    if chunk_size == 1 or compression is CompressionType.NONE:
        assert {1, 2, 3, 4} <= set(lengths)


@pytest.mark.parametrize(
    'options',
    [
        {},
        {'use_chunking': False},
        {'index_types': IndexType.NONE},
        {'index_types': IndexType.CHUNK},
        {'use_statistics': False},
        {'repeat_channels': False},
        {'repeat_schemas': False},
        {'repeat_channels': False, 'repeat_schemas': False, 'use_statistics': False,
         'index_types': IndexType.NONE, 'use_summary_offsets': False},
    ],
)  # fmt: skip
@pytest.mark.parametrize('chunk_size', [1, 150, 2**20])
def test_messages_come_in_order_of_log_time_whatever_index_there_is(
    tmp_path: Path, options: dict[str, Any], chunk_size: int, caplog: pytest.LogCaptureFixture
) -> None:
    times = [30, 10, 50, 20, 40, 20]  # the later of two at one time was written later
    messages = [Said(time, grey(i)) for i, time in enumerate(times)]
    other = [Said(time, channel=1) for time in (1, 99)]
    path = write_mcap(
        tmp_path / 'a.mcap',
        [Channel(), Channel('/b', 'a_msgs/msg/A', b'int32 a')],
        [*other, *messages],
        chunk_size=chunk_size,
        **options,
    )
    assert values(path) == [1, 3, 5, 0, 4, 2]
    assert not caplog.text


def test_an_index_that_does_not_cover_the_file_is_not_trusted(tmp_path: Path) -> None:
    from mcap.data_stream import RecordBuilder
    from mcap.records import Statistics

    def record(count: int, by_channel: dict[int, int]) -> bytes:
        builder = RecordBuilder()
        Statistics(0, 1, by_channel, 1, count, 50, 10, 0, 1).write(builder)
        return builder.end()

    path = write_mcap(tmp_path / 'a.mcap', [Channel()], CAMERA)
    data = path.read_bytes()
    assert record(5, {1: 5}) in data
    path.write_bytes(data.replace(record(5, {1: 5}), record(0, {1: 0})))
    assert values(path) == [1, 2, 3, 4, 5]


def test_a_broken_chunk_is_named_by_its_place(tmp_path: Path) -> None:
    for compression in COMPRESSIONS:
        path = write_mcap(tmp_path / 'a.mcap', [Channel()], CAMERA, compression=compression)
        data = bytearray(path.read_bytes())
        data[len(data) // 4] ^= 255
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r'broken recording: chunk at byte \d+: .*recover'):
            BagDrive(path)


def test_an_unfinished_sqlite_file_is_read_with_its_log(tmp_path: Path) -> None:
    bag = folder(tmp_path / 'bag', 'SQLITE3')
    source = stored(bag)
    database = sqlite3.connect(source)
    database.execute('PRAGMA journal_mode=WAL')
    database.execute('INSERT INTO messages VALUES (99, 1, 99, ?)', (grey(9),))
    database.commit()
    killed = tmp_path / 'killed'
    killed.mkdir()
    for end in ('', '-wal'):  # as they lie there while it is recorded
        shutil.copy(f'{source}{end}', f'{killed / source.name}{end}')
    database.close()
    before = source.read_bytes()
    assert values(killed) == [1, 2, 3, 9]
    assert source.read_bytes() == before


@pytest.mark.parametrize('share', [0.3, 0.7, 0.99])
def test_a_truncated_sqlite_file_is_an_error(tmp_path: Path, share: float) -> None:
    file = stored(folder(tmp_path / 'bag', 'SQLITE3', 300))
    data = file.read_bytes()
    file.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match=r'bag\.db3: broken recording: .* sqlite3 .*recover'):
        BagDrive(file)


def test_what_is_no_recording_is_said(tmp_path: Path) -> None:
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'list').mkdir()
    (tmp_path / 'list' / 'metadata.yaml').write_text('rosbag2_bagfile_information: {}')
    contents = {
        'zero.mcap': (b'', 'got an empty file'),
        'zero.db3': (b'', 'got an empty file'),
        'text.mcap': (b'text', 'got neither MCAP nor SQLite'),
        'old.bag': (b'#ROSBAG V2.0\n', 'a bag of ROS 1'),
        'bad.mcap.zstd': (b'\x28\xb5\x2f\xfd' + bytes([255] * 20), 'broken recording'),
        'zipped.mcap': (zstandard.compress(b'text'), 'got neither MCAP nor SQLite'),
        'none.db3': (b'SQLite format 3\0' + bytes(100), 'broken recording'),
    }
    for name, (data, _) in contents.items():
        (tmp_path / name).write_bytes(data)
    said = {name: words for name, (_, words) in contents.items()}
    said |= dict.fromkeys(['empty', 'list'], 'found none of these in the folder')
    for name, words in said.items():
        with pytest.raises(ValueError, match=rf'{name}.*{words}'):
            Recording(tmp_path / name)
    with pytest.raises(ValueError, match='expected a rosbag2 recording .*got a device or pipe'):
        Recording('/dev/null')
    with sqlite3.connect(tmp_path / 'no_tables.db3') as database:
        database.execute('CREATE TABLE a (b)')
    with pytest.raises(ValueError, match='expected the table messages and topics'):
        Recording(tmp_path / 'no_tables.db3')


# Times


@pytest.mark.parametrize('use_chunking', [True, False])
def test_times_before_the_epoch_and_far_beyond_are_read(
    tmp_path: Path, use_chunking: bool
) -> None:
    receipts = [-(2**63), -9, -5, 3, 2**63 - 1]
    stamps = [-1_500_000_000, -1, 0, 2**31 * 10**9, -(2**31) * 10**9]
    messages = [
        Said(time, grey(i, stamp)) for i, (time, stamp) in enumerate(zip(receipts, stamps))
    ]
    path = write_mcap(
        tmp_path / 'a.mcap', [Channel()], reversed(messages), use_chunking=use_chunking
    )
    frames = [a for a in Source(path) if isinstance(a, FrameArrival)]
    assert [frame.time_ns for frame in frames] == receipts
    assert [frame.stamp_ns for frame in frames] == stamps


def test_recordings_of_all_kinds_agree(tmp_path: Path) -> None:
    events = [Shot(0), Call(5, 2), Shot(10), Shot(20, encoding='png')]
    found = []
    for name in ('MCAP', 'SQLITE3'):
        source = Source(write_bag(tmp_path / name, events))
        found.append([(type(arrival), arrival.time_ns) for arrival in source])
    assert found[0] == found[1]
    assert [time_ns for _, time_ns in found[0]] == [ns(at) for at in (0, 5, 10, 20)]
