# SPDX-License-Identifier: Apache-2.0
"""``python -m adpc_ros replay``: bags in, bags, reports and exit statuses out."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from bags import Brake, Call, Channel, Info, Said, Shot, grey, ns, write_bag, write_mcap
from networks import random_network
from PIL import Image
from rosbags.highlevel import AnyReader

from adpc_ros.__main__ import main
from adpc_ros.labels import CAMVID
from adpc_ros.network import checkpoint
from adpc_ros.network.adaptivity import Adaptivity
from adpc_ros.network.worth import ExitTimes, Worth
from adpc_ros.replay import expectation
from adpc_ros.replay.output import read_output, values_of
from adpc_ros.replay.settings import exit_seconds, parameters, urgency
from adpc_ros.replay.source import nanoseconds
from adpc_ros.ros.message_types import CAMERA_INFO_TYPE, URGENCY_TYPE
from adpc_ros.ros.parameters import Parameters
from adpc_ros.ros.publication import RUNNING
from adpc_ros.runtime.scheduler import StopReason

EVENTS: list[Shot | Call] = [
    *(Shot(at) for at in (0, 10, 20, 140)),
    Call(250, 2, hold_ms=100),
    Shot(300),
]
FLAT = ['--exit-s', '0.03,0.03,0.03,0.03', '--threads', '1']
ENDS = [
    {'exit': 1, 'reason': 'NEXT_FRAME'},
    {'dropped': 'superseded'},
    {'exit': 3, 'reason': 'NEXT_FRAME'},
    {'exit': 3, 'reason': 'URGENT'},
    {'exit': 1, 'reason': 'EXIT_LIMIT'},
]


@pytest.fixture(scope='module')
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp('weights') / 'tiny.safetensors'
    network = random_network(0, adaptivity=Adaptivity(thresholds=(0.6,) * 3))
    checkpoint.save(path, network, CAMVID, {})
    return str(path)


@pytest.fixture(scope='module')
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bag(tmp_path_factory.mktemp('bags') / 'bag', EVENTS)


def replay(bag: Path, out: Path, weights: str, *options: str | Path) -> int:
    return main(
        ['replay', str(bag), '--out', str(out), '--weights', weights, *FLAT, *map(str, options)]
    )


def expect(path: Path, **values: Any) -> Path:
    path.write_text(yaml.safe_dump(values))
    return path


def test_the_output_is_a_bag_of_the_nodes_topics_with_stamps_kept(
    tmp_path: Path, bag: Path, weights: str
) -> None:
    out = tmp_path / 'out.mcap'
    assert replay(bag, out, weights) == 0
    assert [path.name for path in tmp_path.iterdir()] == ['out.mcap']  # nothing beside it
    stamps = [ns(at) for at in (0, 20, 140, 300)]
    published = [ns(at) for at in (30, 140, 250, 330)]
    with AnyReader([out]) as reader:
        assert {c.topic: c.msgtype for c in reader.connections} == {
            '/adpc/output/mask': 'sensor_msgs/msg/Image',
            '/adpc/output/confidence': 'sensor_msgs/msg/Image',
            '/adpc/output/status': 'adpc_ros/msg/SegmentationStatus',
            '/adpc/output/camera_info': 'sensor_msgs/msg/CameraInfo',
            '/adpc/output/label_info': 'vision_msgs/msg/LabelInfo',
        }
        of_frames = [c for c in reader.connections if 'info' not in c.topic]
        for connection in of_frames:
            (qos,) = connection.ext.offered_qos_profiles
            assert qos.reliability.name == 'RELIABLE'
            found = list(reader.messages([connection]))
            assert [time_ns for _, time_ns, _ in found] == published
            for (_, _, data), stamp_ns in zip(found, stamps, strict=True):
                message: Any = reader.deserialize(data, connection.msgtype)
                assert message.header.frame_id == 'front'
                stamp = message.header.stamp
                assert stamp.sec * 10**9 + stamp.nanosec == stamp_ns
                if connection.topic.endswith('mask'):
                    assert (message.encoding, message.height, message.width) == ('mono8', 64, 96)
                    assert values_of(message).max() < CAMVID.count
    statuses = [status for _, status in read_output(out, 'output/status')]
    assert [s.exit_index for s in statuses] == [1, 3, 3, 1]
    assert [s.frames_received for s in statuses] == [3, 4, 4, 5]
    assert [s.frames_dropped for s in statuses] == [1] * 4
    assert statuses[0].preempt_time.nanosec == 10_000_000
    assert statuses[0].network.startswith('tiny@')


@pytest.mark.parametrize('live', [False, True])
def test_scale_encoding_calibration_and_exits_are_written_as_the_node_publishes_them(
    tmp_path: Path, weights: str, live: bool
) -> None:
    events = [Info(0), Shot(1), Shot(300), Info(500, focal=40.0), Shot(600)]
    drive = write_bag(tmp_path / 'drive', events)
    chosen = {'output_scale': 2, 'confidence_encoding': '32FC1'}
    params = expect(tmp_path / 'params.yaml', **{'/**': {'ros__parameters': chosen}})
    out = tmp_path / 'out.mcap'
    options = ['--out', str(out), '--weights', weights, '--params', str(params), '--progress']
    options += ['--live'] if live else FLAT
    assert main(['replay', str(drive), *options]) == 0

    def written(topic: str) -> list[Any]:
        return [message for _, message in read_output(out, topic)]

    masks = written('output/mask')
    assert [(m.height, m.width, m.encoding) for m in masks] == [(32, 48, 'mono8')] * 3
    for message in written('output/confidence'):
        values = values_of(message)
        assert message.encoding == '32FC1' and values.shape == (32, 48)
        assert 0.1 < values.mean() < 1.0 and np.allclose(values * 255, np.rint(values * 255))
    infos = written('output/camera_info')
    assert [(i.height, i.width, i.k[0], i.k[2]) for i in infos] == [
        (32, 48, focal / 2, 24.0) for focal in (80.0, 80.0, 40.0)
    ]
    assert [i.header.stamp for i in infos] == [m.header.stamp for m in masks]
    progress = written('progress/status')
    assert [s.exit_index for s in progress] == [1, 2, 3, 4] * 3
    assert {s.stop_reason for s in progress} == {RUNNING}
    exits = written('progress/mask')
    assert len(exits) == 12
    assert np.array_equal(values_of(exits[3]), values_of(masks[0]))
    if not live:  # from wheels there is no LabelInfo
        (names,) = written('output/label_info')
        assert [c.class_name for c in names.class_map] == list(CAMVID.names)


def test_a_bool_is_an_urgency_where_the_parameters_say_so(
    tmp_path: Path, weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    drive = write_bag(tmp_path / 'drive', [Shot(0), Brake(70, True), Shot(200), Brake(300, False)])
    chosen = {'/**': {'ros__parameters': {'urgency_type': 'bool', 'compressed_input': True}}}
    params = expect(tmp_path / 'params.yaml', **chosen)
    for options, reasons in (
        (['--params', str(params)], ['URGENT', 'EXIT_LIMIT']),
        ([], ['FINISHED', 'FINISHED']),
    ):
        out = tmp_path / 'out.mcap'
        assert replay(drive, out, weights, *options) == 0
        statuses = [status for _, status in read_output(out, 'output/status')]
        assert [StopReason(s.stop_reason).name for s in statuses] == reasons


def test_other_encodings_and_broken_messages_beside_the_camera_are_passed_over(
    tmp_path: Path, weights: str, caplog: pytest.LogCaptureFixture
) -> None:
    drive = write_mcap(
        tmp_path / 'drive.mcap',
        [
            Channel(),
            Channel('/camera_info', CAMERA_INFO_TYPE, b'{}', 'jsonschema', 'json'),
            Channel('/brake', URGENCY_TYPE, b'{}', 'jsonschema', 'json'),
            Channel('/urgency', URGENCY_TYPE, b'', 'ros2msg'),
        ],
        [Said(ns(0), grey(9, ns(0), (64, 96))), *(Said(ns(1), b'{}', i) for i in (1, 2, 3))],
    )
    out = tmp_path / 'out.mcap'
    assert replay(drive, out, weights) == 0
    assert len(list(read_output(out, 'output/mask'))) == 1
    assert caplog.text.count('message ignored: ') == 1
    assert 'topic /urgency (adpc_ros/msg/Urgency): message recorded at' in caplog.text


def test_the_same_drive_gives_the_same_bytes_whatever_holds_it(
    tmp_path: Path, bag: Path, weights: str
) -> None:
    first = tmp_path / 'a' / 'first.mcap'
    assert replay(bag, first, weights) == 0
    png = [e._replace(encoding='png') if isinstance(e, Shot) else e for e in EVENTS]
    others = {
        'again': bag,
        'file': next(bag.glob('*.mcap')),
        'sqlite': write_bag(tmp_path / 'sqlite', EVENTS, 'SQLITE3'),
        'png': write_bag(tmp_path / 'png', png, 'SQLITE3'),
    }
    for name, other in others.items():
        out = tmp_path / f'{name}.mcap'
        assert replay(other, out, weights) == 0
        assert out.read_bytes() == first.read_bytes(), name


def test_masks_are_those_of_the_plan_at_that_exit(tmp_path: Path, bag: Path, weights: str) -> None:
    from adpc_ros.bag import BagDrive
    from adpc_ros.runtime.make_plan import make_plan

    out = tmp_path / 'out.mcap'
    replay(bag, out, weights)
    images = [frame.image for frame in BagDrive(bag)]
    plan = make_plan(checkpoint.load(weights).network, threads=1)
    masks = [values_of(message).copy() for _, message in read_output(out, 'output/mask')]
    for mask, number, exit_index in zip(masks, (0, 2, 3, 4), (1, 3, 3, 1), strict=True):
        exits = [computed for computed in plan.segment(images[number]) if computed is not None]
        assert np.array_equal(mask, exits[exit_index - 1].rendered.class_ids)
    plan.close()


@pytest.fixture(scope='module')
def three_exits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of three exits, of which the first sees no people and each takes 30 ms."""
    path = tmp_path_factory.mktemp('weights') / 'coarse.safetensors'
    worth = Worth('some images', ((0.0,) * 11, (0.5,) * 11, (0.6,) * 11))
    times = ExitTimes((0.03,) * 3, '96x64')
    network = random_network(0, architecture='coarse_tiny')
    checkpoint.save(path, network, CAMVID, {}, worth, times)
    return path


def test_durations_and_exits_are_those_that_the_weights_advise(
    tmp_path: Path,
    bag: Path,
    three_exits: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    out, numbers = tmp_path / 'out.mcap', tmp_path / 'numbers.json'
    command = ['replay', str(bag), '--out', str(out), '--json', str(numbers)]
    command += ['--weights', str(three_exits), '--threads', '1']
    assert main(command) == 0
    ends = [(s.exit_index, s.exit_count) for _, s in read_output(out, 'output/status')]
    assert ends == [(2, 3), (2, 3), (3, 3), (2, 3)]
    stops = json.loads(numbers.read_text())['stops']
    assert stops == {'EXIT_LIMIT': 1, 'FINISHED': 1, 'NEXT_FRAME': 2}
    said = capsys.readouterr().out
    assert 'advised: exit 2 and later (judged on some images)' in said
    assert 'exits in 30 + 30 + 30 ms' in said and 'lets out masks' not in caplog.text
    assert main([*command, '--min-exit', '1', '--urgent-max-exit', '1']) == 0
    ends = [(s.exit_index, s.exit_count) for _, s in read_output(out, 'output/status')]
    assert ends == [(1, 3), (3, 3), (3, 3), (1, 3)]
    assert caplog.text.count('lets out masks of exit 1') == 2


def test_durations_that_nobody_says_are_asked_for(
    tmp_path: Path, bag: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / 'coarse.safetensors'
    checkpoint.save(path, random_network(architecture='coarse_tiny'), CAMVID, {})
    command = ['replay', str(bag), '--out', str(tmp_path / 'o.mcap'), '--weights', str(path)]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert 'expected --exit-s with the seconds of 3 exits' in said
    assert main([*command, '--exit-s', '0.03,0.03,0.03']) == 0


def test_what_came_of_it_can_be_expected_again(
    tmp_path: Path, bag: Path, weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    written, old = tmp_path / 'expected.yaml', tmp_path / 'old.mcap'
    assert replay(bag, old, weights, '--write-expectation', written) == 0
    document = yaml.safe_load(written.read_text())
    assert [{k: v for k, v in f.items() if k != 'stamp'} for f in document['frames']] == ENDS
    assert document['frames'][1]['stamp'] == '1700000000.010000000'
    out = tmp_path / 'out.mcap'
    assert replay(bag, out, weights, '--expect', written, '--against', old) == 0
    assert 'mean 100.000 %, min 100.000 %' in capsys.readouterr().out
    # with twice the time the frame at 140 ms comes to its last exit in no replay
    slower = ['--exit-s', '0.06,0.06,0.06,0.06', '--report', tmp_path / 'report']
    assert replay(bag, out, weights, '--expect', written, '--against', old, *slower) == 1
    said = capsys.readouterr().out
    assert 'not met: frame 1700000000.140000000: expected exit 3, got 1' in said
    html = (tmp_path / 'report' / 'report.html').read_text()
    assert 'Not as expected' in html and '<svg' in html and 'http-equiv' not in html
    report = json.loads((tmp_path / 'report' / 'report.json').read_text())
    assert len(report['per_frame']) == 5
    assert report['agreement']['changes'] and report['unmet']


def test_agreement_and_accuracy_are_judged(
    tmp_path: Path, bag: Path, weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new, numbers = tmp_path / 'old.mcap', tmp_path / 'new.mcap', tmp_path / 'numbers.json'
    assert replay(bag, old, weights, '--max-exit', '1') == 0
    labels = {True: tmp_path / 'by_stamp', False: tmp_path / 'in_order'}
    for (_, message), number, at in zip(
        read_output(old, 'output/mask'), (0, 2, 3, 4), (0, 20, 140, 300)
    ):
        for by_stamp, folder in labels.items():
            folder.mkdir(exist_ok=True)
            name = str(ns(at)) if by_stamp else f'label_{number}'
            Image.fromarray(values_of(message)).save(folder / f'{name}.png')
    Image.fromarray(np.zeros((64, 96), np.uint8)).save(labels[False] / 'label_1.png')  # dropped
    perfect = expect(tmp_path / 'perfect.yaml', min_miou=1.0, min_agreement=1.0)
    for by, folder in (('stamp', labels[True]), ('order', labels[False])):
        judged = ['--labels', folder, '--labels-by', by, '--against', old, '--expect', perfect]
        assert replay(bag, new, weights, '--max-exit', '1', *judged) == 0
    assert replay(bag, new, weights, *judged, '--json', numbers) == 1
    said = capsys.readouterr().out
    assert 'not met: agreement: expected at least 1, got 0.' in said
    assert 'not met: miou: expected at least 1, got 0.' in said
    found = json.loads(numbers.read_text())
    assert 0 < found['agreement']['min'] < found['agreement']['mean'] < 1
    assert found['agreement']['frames'] == 4
    assert [(c['before'][0], c['now'][0]) for c in found['agreement']['changes']] == [
        (1, 1),  # another reason
        (1, 3),
        (1, 3),
    ]


def test_frames_in_one_output_alone_are_named(tmp_path: Path, bag: Path, weights: str) -> None:
    old, new, numbers = tmp_path / 'old.mcap', tmp_path / 'new.mcap', tmp_path / 'numbers.json'
    replay(bag, old, weights)
    fast = ['--exit-s', '0.002,0.002,0.002,0.002', '--against', old, '--json', numbers]
    assert replay(bag, new, weights, *fast) == 0
    agreement = json.loads(numbers.read_text())['agreement']
    assert agreement['only_now'] == ['1700000000.010000000']
    assert (agreement['only_before'], agreement['frames']) == ([], 4)


def test_faults_of_the_input_are_said_in_a_line(
    tmp_path: Path, bag: Path, weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / 'out.mcap'
    two = write_bag(tmp_path / 'two', [Shot(0), Shot(1, topic='/rear')])
    broken = write_mcap(tmp_path / 'broken.mcap', [Channel()], [Said(i, grey(i)) for i in (1, 2)])
    data = bytearray(broken.read_bytes())
    data[len(data) // 4] ^= 255
    broken.write_bytes(data)
    wrong = tmp_path / 'wrong.yaml'
    wrong.write_text('most_latency: 1\n')
    lossy, other = tmp_path / 'lossy', tmp_path / 'other'
    for folder, form in ((lossy, 'JPEG'), (other / 'label', 'PNG')):
        folder.mkdir(parents=True)
        Image.fromarray(np.zeros((64, 96), np.uint8)).save(folder / '0.png', form)
    (other / 'classes.yaml').write_text('name: mine\nnames: [ground, thing]\n')
    cases: Sequence[tuple[Path, Sequence[str | Path], str]] = (
        (tmp_path / 'nowhere', [], 'found nothing'),
        (broken, [], 'broken recording: chunk at byte'),
        (two, [], 'several image topics, choose with --topic: /camera, /rear'),
        (two, ['--topic', '/left'], 'not in the bag; image topics: /camera, /rear'),
        (bag, ['--topic', '/adpc/input/urgency'], 'is adpc_ros/msg/Urgency'),
        (bag, ['--expect', wrong], 'unknown most_latency'),
        (bag, ['--expect', expect(tmp_path / 'a.yaml', min_agreement=1)], 'needs --against'),
        (bag, ['--expect', expect(tmp_path / 'b.yaml', min_miou=1)], 'needs --labels'),
        (bag, ['--against', bag], 'expected /adpc/output/mask'),
        (bag, ['--urgency-at', '1:NOW'], 'expected T[:LEVEL[:HOLD]]'),
        (bag, ['--exit-s', '0.1,0.1'], 'expected the seconds of 4 exits'),
        (bag, ['--params', tmp_path / 'nowhere.yaml'], 'nowhere.yaml'),
        (bag, ['--max-exit', '256'], 'max_exit: expected 0 to 255'),
        (bag, ['--namespace', 'adpc'], 'expected an absolute name'),
        (bag, ['--labels', tmp_path], 'expected a folder of label PNGs'),
        (bag, ['--labels', lossy], '0.png: expected a label PNG (got JPEG, which may be lossy)'),
        (bag, ['--labels', other / 'label'], 'expected the classes of camvid, got those of mine'),
    )
    for source, options, words in cases:
        assert replay(source, out, weights, *options) == 2, words
        said = capsys.readouterr().err.strip()
        assert words in said and said.splitlines()[-1].startswith('adpc_ros: '), (words, said)
    assert replay(bag, tmp_path / 'out.bag', weights) == 2
    own = next(bag.glob('*.mcap'))
    content = own.read_bytes()
    assert replay(bag, own, weights) == 2 and own.read_bytes() == content
    assert not list(tmp_path.glob('.*'))  # no folder left behind


INVALID: list[Shot | Call] = [Shot(0), Shot(200, encoding='nv24'), Shot(400)]
INVALID_AT = '1700000000.200000000'


@pytest.mark.parametrize(
    ('options', 'expected', 'status'),
    [
        ([], None, 1),
        (['--allow-dropped'], None, 0),
        ([], {'dropped': 1}, 0),
        ([], {'received': 3, 'segmented': 2}, 0),
        ([], {'frames': [{'stamp': INVALID_AT, 'dropped': 'invalid'}]}, 0),
        ([], {'frames': [{'stamp': INVALID_AT, 'dropped': 'any'}]}, 0),
        ([], {'frames': [{'stamp': INVALID_AT}]}, 1),
        ([], {'received': 3}, 1),
        (['--allow-dropped'], {'received': 4}, 1),
    ],
)
def test_invalid_frames_change_the_exit_status_unless_they_are_expected(
    tmp_path: Path,
    weights: str,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    expected: dict[str, Any] | None,
    status: int,
) -> None:
    source = write_bag(tmp_path / 'bag', INVALID)
    if expected is not None:
        options = [*options, '--expect', str(expect(tmp_path / 'expected.yaml', **expected))]
    assert replay(source, tmp_path / 'out.mcap', weights, *options) == status
    said = capsys.readouterr().out
    lost = bool(status) and '--allow-dropped' not in options
    assert ('1 frame was invalid or failed' in said) == lost


def test_failed_frames_change_the_exit_status(
    tmp_path: Path, bag: Path, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adpc_ros.replay import simulation

    monkeypatch.setattr(simulation, 'iter', _failing_at(2), raising=False)
    written, out = tmp_path / 'expected.yaml', tmp_path / 'out.mcap'
    assert replay(bag, out, weights, '--write-expectation', written) == 1
    monkeypatch.setattr(simulation, 'iter', _failing_at(2), raising=False)
    ends = yaml.safe_load(written.read_text())['frames']
    assert [end.get('reason') for end in ends].count('FAILED') == 1
    only_frames = expect(tmp_path / 'frames.yaml', frames=ends)
    assert replay(bag, out, weights, '--expect', only_frames) == 0


def _failing_at(number: int) -> Any:
    """Give an ``iter`` for the simulation, with which the n-th frame's computation fails."""
    calls = []

    def of(exits: Any) -> Any:
        calls.append(1)
        if len(calls) == number:
            raise RuntimeError('no memory')
        return iter(exits)

    return of


def test_a_replay_without_a_mask_is_a_fault_of_the_input(
    tmp_path: Path, weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_bag(tmp_path / 'bag', [Shot(at, encoding='nv24') for at in (0, 200)])
    out, numbers, written = (tmp_path / n for n in ('out.mcap', 'n.json', 'expected.yaml'))
    results = ['--json', numbers, '--write-expectation', written, '--report', tmp_path / 'r']
    for option in ([], ['--allow-dropped'], ['--expect', expect(tmp_path / 'e.yaml', dropped=2)]):
        assert replay(source, out, weights, *results, *option) == 2
        assert 'no frame was segmented, of 2: invalid 2' in capsys.readouterr().err
    assert json.loads(numbers.read_text())['drops'] == {'invalid': 2}
    assert replay(source, out, weights, '--expect', written, '--against', out.rename(
        tmp_path / 'old.mcap')) == 0  # fmt: skip


def test_results_that_cannot_be_written_are_said_before_the_work(
    tmp_path: Path,
    bag: Path,
    weights: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from adpc_ros.replay import run

    def worked(*_: Any) -> None:
        raise AssertionError('the work began')

    monkeypatch.setattr(run, 'simulate', worked)
    own, old, out = next(bag.glob('*.mcap')), tmp_path / 'old.mcap', tmp_path / 'out.mcap'
    old.write_bytes(own.read_bytes())
    link, file = tmp_path / 'link.mcap', expect(tmp_path / 'expected.yaml', received=5)
    link.hardlink_to(old)
    existing, folder = tmp_path / 'n.json', tmp_path / 'folder'
    folder.mkdir()
    cases: Sequence[tuple[Path, Sequence[str | Path], str]] = (
        (
            out,
            ['--json', tmp_path / 'no' / 'n.json'],
            f'expected a folder at {tmp_path}/no, found',
        ),
        (out, ['--json', file / 'n.json'], 'found a file'),
        (out, ['--json', folder], f'--json: expected a file to write, got the folder {folder}'),
        (out, ['--json', '/proc/n.json'], '--json: cannot write to /proc/n.json'),
        (out, ['--write-expectation', '/proc/e.yaml'], '--write-expectation: cannot write'),
        (out, ['--report', file], 'expected a folder at'),
        (out, ['--report', '/proc/report'], '--report: cannot write to /proc/report'),
        (Path('/proc/a/out.mcap'), [], '--out: cannot write to /proc/a'),
        (out, ['--json', own], '--json: expected an output beside the input'),
        (out, ['--json', bag / 'metadata.yaml'], 'expected an output beside the input'),
        (out, ['--json', weights], 'expected an output beside the input'),
        (out, ['--expect', file, '--write-expectation', file], 'expected an output beside'),
        (link, ['--against', old], '--out: expected an output beside the input'),
        (out, ['--json', out], f'expected two files, got {out} for both'),
        (out, ['--json', existing, '--write-expectation', existing], 'expected two files'),
        (out, ['--report', folder, '--json', folder / 'report.json'], 'expected two files'),
        (
            out,
            ['--report', folder, '--json', folder / '..' / 'folder' / 'report.html'],
            'two files',
        ),
    )
    before = sorted(tmp_path.rglob('*'))
    for place, options, words in cases:
        assert replay(bag, place, weights, *options) == 2, words
        said = capsys.readouterr().err
        assert words in said, (words, said)
    assert sorted(tmp_path.rglob('*')) == before
    assert replay(bag, tmp_path / 'new' / 'out.mcap', weights, '--json', '/dev/null') == 3
    assert 'the work began' in capsys.readouterr().err


def test_stamps_before_the_epoch_and_far_beyond_are_expected_as_written(
    tmp_path: Path, weights: str
) -> None:
    stamps = [-1_500_000_000, -1, 10**9, 2**31 * 10**9 + 5]
    messages = [
        Said(-(10**9) + i * 10**9, grey(i, stamp, (64, 96))) for i, stamp in enumerate(stamps)
    ]
    source = write_mcap(tmp_path / 'a.mcap', [Channel()], messages)
    written, old = tmp_path / 'expected.yaml', tmp_path / 'old.mcap'
    report = tmp_path / 'report'
    assert replay(source, old, weights, '--write-expectation', written, '--report', report) == 0
    texts = [frame['stamp'] for frame in yaml.safe_load(written.read_text())['frames']]
    assert texts == ['-1.500000000', '-0.000000001', '1.000000000', '2147483648.000000005']
    assert [frame.key[0] for frame in expectation.load(written).frames] == stamps
    assert '<td>-1.500000000</td>' in (report / 'report.html').read_text()
    masks = [(t, nanoseconds(m.header.stamp)) for t, m in read_output(old, 'output/mask')]
    assert masks == [(said.time_ns + 12 * 10**7, at) for said, at in zip(messages, stamps)]
    checks = ['--expect', written, '--against', old]
    labels = tmp_path / 'labels'
    labels.mkdir()
    Image.fromarray(np.zeros((64, 96), np.uint8)).save(labels / '-1500000000.png')
    judged = ['--labels', labels, '--labels-by', 'stamp', '--json', tmp_path / 'n.json']
    assert replay(source, tmp_path / 'out.mcap', weights, *checks, *judged) == 0
    numbers = json.loads((tmp_path / 'n.json').read_text())
    assert numbers['agreement']['min_at'] == '-1.500000000' and numbers['miou'] is not None


def test_what_was_not_finished_or_not_asked_for_is_replayed_and_said(
    tmp_path: Path, weights: str, capsys: pytest.CaptureFixture[str], caplog: Any
) -> None:
    foreign = Channel('/state', 'state', b'{}', 'jsonschema', 'json')
    frames = [Said(10**9 * i, grey(i, size=(64, 96))) for i in range(3)]
    source = write_mcap(tmp_path / 'a.mcap', [Channel(), foreign], frames, chunk_size=1)
    source.write_bytes(source.read_bytes()[:-100])
    numbers = tmp_path / 'n.json'
    assert replay(source, tmp_path / 'out.mcap', weights, '--json', numbers) == 0
    found = json.loads(numbers.read_text())
    assert found['frames']['segmented'] == 3
    assert found['passed_over'] == ['/state (state, json)']
    assert '/state (state, json)' in capsys.readouterr().out
    assert caplog.text.count(f'mcap recover {source}') == 1


def test_several_topics_and_namespaces_can_be_chosen(tmp_path: Path, weights: str) -> None:
    two = write_bag(tmp_path / 'two', [Shot(0), Shot(1, topic='/rear'), Shot(500, topic='/rear')])
    out = tmp_path / 'out.mcap'
    assert replay(two, out, weights, '--topic', '/rear', '--namespace', '/rear/adpc') == 0
    assert len(list(read_output(out, 'output/mask', '/rear/adpc'))) == 2


def test_expectations_are_checked_when_read() -> None:
    for document, words in (
        ([], 'expected keys and values'),
        ({'received': -1}, 'received: expected a number >= 0'),
        ({'min_miou': 55}, 'min_miou: expected 0 to 1'),
        ({'frames': [{'stamp': 12.05}]}, 'nine decimals in quotes'),
        ({'frames': [{'stamp': '--1.000000000'}]}, 'nine decimals in quotes'),
        ({'frames': [{'stamp': '1.000000000', 'reason': 'LATE'}]}, 'expected some of FINISHED'),
        ({'frames': [{'stamp': '1.000000000', 'exits': 1}]}, 'unknown exits'),
        ({'frames': [{'stamp': '1.000000000', 'exit': 1, 'dropped': 'any'}]}, 'not both'),
    ):
        with pytest.raises(ValueError, match=words):
            expectation.parse(document)


def test_former_names_of_expectations_are_still_read() -> None:
    values = {'exit': 2, 'agreement': 0.5, 'mean_agreement': 0.6, 'miou': 0.4}
    limits = {'latency_s': 0.1, 'deadlines_missed': 0}
    former = {f'least_{n}': v for n, v in values.items()}
    former |= {f'most_{n}': v for n, v in limits.items()}
    present = {f'min_{n}': v for n, v in values.items()}
    present |= {f'max_{n}': v for n, v in limits.items()}
    assert former.keys() == expectation.FORMER_NAMES.keys()
    assert expectation.parse(former) == expectation.parse(present)
    assert expectation.parse(present) == expectation.Expectation(**present)
    with pytest.raises(ValueError, match='expected min_exit or least_exit, its former name, not'):
        expectation.parse({'least_exit': 2, 'min_exit': 3})


def test_an_expectation_may_have_numbers_with_an_exponent(tmp_path: Path) -> None:
    file = tmp_path / 'expected.yaml'
    file.write_text('max_latency_s: 15e-2')
    assert expectation.load(file).max_latency_s == 0.15


def test_the_documented_expectation_is_one() -> None:
    from shared import ROOT

    blocks = re.findall('```yaml\n(.*?)```', (ROOT / 'docs' / 'replay.md').read_text(), re.DOTALL)
    expected = expectation.parse(yaml.safe_load(blocks[0]))
    assert expected.frames and expected.needs_agreement
    names = set(yaml.safe_load(blocks[0]))
    assert names == set(expectation.Expectation.__dataclass_fields__)


def test_settings_are_read(tmp_path: Path) -> None:
    measured = tmp_path / 'measured.json'
    measured.write_text(json.dumps({'seconds': [0.1, 0.15, 0.25, 0.3]}))
    assert exit_seconds(str(measured)) == pytest.approx((0.1, 0.05, 0.1, 0.05))
    measured.write_text(json.dumps({'exits': [{'masked_s': s} for s in (0.1, 0.2)]}))
    assert exit_seconds(str(measured)) == pytest.approx((0.1, 0.1))
    measured.write_text(json.dumps({'exits': 3}))
    for text in (str(measured), '0.1,-1', 'nowhere.json'):
        with pytest.raises(ValueError, match='expected'):
            exit_seconds(text)
    assert urgency('1.5')[:] == (1.5, 2, 0.0)
    assert urgency('1:elevated:0.5')[:] == (1.0, 1, 0.5)


def test_the_packaged_parameter_file_holds_the_defaults(caplog: pytest.LogCaptureFixture) -> None:
    from shared import ROOT

    assert parameters(ROOT / 'config' / 'adpc.param.yaml', {}) == Parameters()
    assert caplog.text == ''


DUMP = """
/front/adpc:
  ros__parameters:
    class_names: [road, car]
    cores: [0, 1]
    deadline_s: 2e-1
    min_exit: 2
    qos_overrides:
      /front/adpc/output/mask: {publisher: {depth: 2, reliability: reliable}}
    start_type_description_service: true
    use_sim_time: true
    weights: ''
rear:
  adpc: {ros__parameters: {min_exit: 3, deadlines_s: 0.1}}
"""


def test_a_parameter_file_is_the_nodes_by_its_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / 'dump.yaml'
    file.write_text(DUMP)
    found = parameters(file, {'deadline_s': 0.1}, '/front/adpc')
    assert found == Parameters(cores=(0, 1), deadline_s=0.1, min_exit=2)
    assert caplog.text == ''
    assert parameters(file, {}, '/rear/adpc') == Parameters(min_exit=3)
    assert caplog.messages == ['deadlines_s: no parameter of this node; is deadline_s meant?']
    caplog.clear()
    assert parameters(file, {}) == Parameters()
    assert caplog.messages == [
        f'{file} has no parameters for /adpc, only for /front/adpc, rear/adpc'
    ]


@pytest.mark.parametrize(
    'values, words',
    [
        ('deadline_s: 1', 'deadline_s: expected a number with a point, as 1.0, got 1'),
        ('threads: two', "threads: expected an integer, got 'two'"),
        ('threads: true', 'threads: expected an integer, got True'),
        ('cores: a-b', "cores: expected a list of integers, got 'a-b'"),
        ('cores: [0.0]', 'cores: expected a list of integers, got [0.0]'),
        ('weights: []', 'weights: expected a text, got no value'),
        ('adaptive: 1', 'adaptive: expected true or false, got 1'),
        ('max_exit: 256', 'max_exit: expected 0 to 255, got 256'),
        ('deadline_s: .nan', 'deadline_s: expected 0.0 to 60.0, got nan'),
        ('precision: half', "precision: expected one of float32, bfloat16, got 'half'"),
        ('min_exit:', 'line 1: expected a value of min_exit'),
    ],
)
def test_what_a_node_refuses_is_an_error_with_the_files_path(
    tmp_path: Path, values: str, words: str
) -> None:
    file = tmp_path / 'wrong.yaml'
    file.write_text(f'/**: {{ros__parameters: {{{values}}}}}')
    with pytest.raises(ValueError) as caught:
        parameters(file, {})
    assert str(caught.value).startswith(f'{file}: {words}')


def test_a_live_replay_goes_through_the_node(tmp_path: Path, weights: str) -> None:
    events: list[Shot | Call] = [Shot(at) for at in range(0, 2400, 400)]
    events[4:4] = [Call(1400, 2, hold_ms=500)]
    live = write_bag(tmp_path / 'live', events)
    out, numbers = tmp_path / 'out.mcap', tmp_path / 'numbers.json'
    command = ['replay', str(live), '--out', str(out), '--weights', weights, '--threads', '1']
    assert main([*command, '--live', '--json', str(numbers), '--report', str(tmp_path / 'r')]) == 0
    found = json.loads(numbers.read_text())
    assert found['frames']['received'] == 6
    assert found['frames']['segmented'] > 2  # all of them, but on a busy machine
    statuses = [status for _, status in read_output(out, 'output/status')]
    assert {s.header.stamp.nanosec for s in statuses} <= {at * 10**6 for at in range(0, 1000, 200)}
    assert found['stops'].keys() & {'EXIT_LIMIT', 'URGENT'}
    assert found['urgency'] == {'CRITICAL': 1}
    assert 0 <= found['latency_s']['median'] < 5
    times = [time_ns for time_ns, _ in read_output(out, 'output/mask')]
    assert times == sorted(times) and ns(0) <= times[0] < ns(10_000)
