# SPDX-License-Identifier: Apache-2.0
"""What replay.launch.py starts beside the node; a stand-in plays and records, as ros2 would."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ros2_stand_in
from bags import Info, Shot, ns, write_bag
from graph import NodeProcess
from networks import random_network

from adpc_ros.labels import CAMVID
from adpc_ros.network import checkpoint
from adpc_ros.recording.reader import Recording

FRAMES = 16
CAMERA = '/adpc/input/image'
AT_MS = [250.0 * i for i in range(FRAMES)]
OUTPUTS = [f'/adpc/output/{name}' for name in ('mask', 'confidence', 'status')]


@pytest.fixture(scope='module')
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('replay')
    return write_bag(
        folder / 'drive', [Info(0.0), *(Shot(at_ms, topic=CAMERA) for at_ms in AT_MS)]
    )


@pytest.fixture(autouse=True)
def ros2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / 'bin'
    folder.mkdir()
    ros2_stand_in.install(folder)
    monkeypatch.setenv('PATH', f'{folder}:{os.environ["PATH"]}')
    tests = Path(__file__).parent
    monkeypatch.setenv('PYTHONPATH', f'{tests}:{os.environ.get("PYTHONPATH", "")}')


def command(bag: Path, output: Path, *options: str) -> list[str]:
    return [
        *(sys.executable, '-m', 'adpc_ros.replay.launched', '--bag', str(bag)),
        *('--output', str(output), '--node', '/adpc', '--image', CAMERA),
        *('--outputs', *OUTPUTS, '--record', '/diagnostics', *options),
    ]


def replay(bag: Path, output: Path, *options: str) -> tuple[int, str]:
    """Give exit status and what was said."""
    done = subprocess.run(
        command(bag, output, *options), capture_output=True, text=True, timeout=100
    )
    return done.returncode, done.stderr


@pytest.fixture(scope='module')
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    folder = tmp_path_factory.mktemp('node')
    path = folder / 'tiny.safetensors'
    checkpoint.save(path, random_network(0), CAMVID, {})
    with NodeProcess(folder, f'weights:={path}', 'use_sim_time:=true') as running:
        yield running


def stamps(bag: Path, name: str) -> list[int]:
    recording = Recording(bag)
    topics = [topic for topic in recording.topics if topic.name == name]
    decoded = (recording.decode(topic, data) for topic, _, data in recording.messages(topics))
    return [m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for m in decoded]


@pytest.mark.usefixtures('node')
def test_no_frame_is_lost_though_the_recorder_is_late(
    bag: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('STAND_IN_LATE_S', '2')
    status, said = replay(bag, tmp_path / 'out')
    assert status == 0, said
    assert f'{FRAMES} frames received, {FRAMES} masks; recorded in' in said
    for topic in OUTPUTS:
        assert stamps(tmp_path / 'out', topic) == [ns(at_ms) for at_ms in AT_MS]


@pytest.mark.usefixtures('node')
@pytest.mark.parametrize(
    'trouble, message',
    [
        ('player', 'the player failed with status 4'),
        ('recorder', 'the recorder failed with status 3'),
        ('crash', 'the player failed with status 5'),
        ('silence', 'no mask was recorded, though the node gave 16'),
    ],
)
def test_a_player_or_recorder_that_fails_is_said_and_the_others_end(
    trouble: str, message: str, bag: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('STAND_IN', trouble)
    status, said = replay(bag, tmp_path / 'out', '--rate', '2')
    assert status == 1 and message in said and 'Traceback' not in said, said


@pytest.mark.usefixtures('node')
@pytest.mark.parametrize(
    'encoding, message',
    [
        ('nonsense', 'no mask: the node received 3 frames of /adpc/input/image, and all were'),
        ('png', 'the node expects sensor_msgs/msg/Image, the bag has sensor_msgs/msg/Compr'),
    ],
)
def test_a_replay_without_a_mask_fails(encoding: str, message: str, tmp_path: Path) -> None:
    shots = [Shot(200.0 * i, topic=CAMERA, encoding=encoding) for i in range(3)]
    status, said = replay(write_bag(tmp_path / 'bag', shots), tmp_path / 'out')
    assert status == 1 and message in said, said


@pytest.mark.usefixtures('node')
def test_a_bag_may_be_over_before_the_call_that_begins_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('STAND_IN', 'slow call')
    bag = write_bag(tmp_path / 'bag', [Shot(0, topic=CAMERA)])
    status, said = replay(bag, tmp_path / 'out')
    assert status == 0 and '1 frames received, 1 masks' in said, said


def test_a_node_that_goes_away_is_said(node: NodeProcess, bag: Path, tmp_path: Path) -> None:
    with (tmp_path / 'log').open('w') as log:
        running = subprocess.Popen(command(bag, tmp_path / 'out', '--rate', '0.2'), stderr=log)
    until_s = time.monotonic() + 60
    while 'the bag is played' not in (tmp_path / 'log').read_text():
        assert time.monotonic() < until_s and running.poll() is None
        time.sleep(0.1)
    node.stop()
    assert running.wait(60) == 1
    assert 'the node /adpc is gone' in (tmp_path / 'log').read_text()


def test_a_node_that_is_not_there_is_said(bag: Path, tmp_path: Path) -> None:
    status, said = replay(bag, tmp_path / 'out', '--timeout', '3', '--node', '/nobody')
    assert status == 1
    assert 'not all is there to begin within 3 s: the node /nobody has not subscribed' in said


@pytest.mark.parametrize(
    'wrong, message',
    [
        ({'output': '.'}, 'output: expected no file or folder of this name, got .'),
        ({'bag': '/nowhere'}, 'bag: expected a bag (folder, .mcap or .db3 file) at /nowhere'),
        ({'image': '/front'}, 'topic /front is not in the bag; image topics: /adpc/input/image'),
        ({'rate': '-1'}, '--rate: expected a number above 0, got -1.0'),
    ],
)
def test_what_can_be_known_before_is_said_before(
    wrong: dict[str, str], message: str, bag: Path, tmp_path: Path
) -> None:
    options = [word for name, value in wrong.items() for word in (f'--{name}', value)]
    status, said = replay(bag, tmp_path / 'out', *options)
    assert status != 0 and message in said and 'Traceback' not in said, said
    assert not (tmp_path / 'out').exists()
