# SPDX-License-Identifier: Apache-2.0
"""What surrounds a node: processes that end cleanly, cameras that keep to their schedule."""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rclpy
from graph import BEST_EFFORT
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

from adpc_ros.graph import camera as cameras
from adpc_ros.graph.camera import TICK_S, Camera
from adpc_ros.graph.peer import Peer
from adpc_ros.graph.processes import Process, Processes, python
from adpc_ros.graph.recording import nanoseconds
from adpc_ros.graph.schedule import (
    Act,
    Answer,
    Frame,
    Pace,
    Progress,
    Urgent,
    read_acts,
    write_acts,
)

SHELL = ['/bin/sh', '-c']

# Processes


def log_of(error: pytest.ExceptionInfo[ChildProcessError]) -> str:
    """Give what is in the log that an error names, and remove its folder."""
    file = Path(str(error.value).split('its log: ')[1])
    text = file.read_text()
    for log in file.parent.iterdir():
        assert log.suffix == '.log', 'nothing else is kept'
        log.unlink()
    file.parent.rmdir()
    return text


def test_a_process_that_ends_too_early_is_said_and_the_others_end() -> None:
    with pytest.raises(ChildProcessError, match='the first ended too early') as error:
        with Processes({}) as processes:
            (processes.folder / 'images.npz').touch()
            processes.start('first', [*SHELL, 'echo too bad'])
            second = processes.start('second', ['/bin/sleep', '30'])
            start_s = time.monotonic()
            processes.wait_for('second')
    assert time.monotonic() - start_s < 10
    with pytest.raises(ProcessLookupError):
        os.kill(second, 0)
    assert log_of(error) == 'too bad\n'


def test_a_process_that_fails_is_said_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ChildProcessError, match='the only ended with status 3') as error:
        with Processes({}) as processes:
            processes.start('only', [*SHELL, 'echo why; exit 3'])
            processes.wait_for('only')
    assert log_of(error) == 'why\n' == capsys.readouterr().err


def test_nothing_stays_of_processes_that_did_their_work() -> None:
    with Processes({}) as processes:
        processes.start('only', [*SHELL, 'true'])
        processes.wait_for('only')
    assert not processes.folder.exists()


def test_a_node_that_cannot_begin_ends_the_camera_and_its_log_says_why() -> None:
    with pytest.raises(ChildProcessError, match='the node ended too early; its log: ') as error:
        with Processes() as processes:
            processes.start_node('weights:=/nowhere.safetensors')
            processes.play([Act('urgency', Pace.URGENT, count=1)], [np.zeros((8, 8, 3), np.uint8)])
    text = log_of(error)
    assert 'weights not found' in text and 'Traceback' not in text


def test_what_a_background_job_starts_hears_an_interrupt(tmp_path: Path) -> None:
    script = (
        'import signal; from pathlib import Path; from adpc_ros.graph.processes import Process\n'
    )
    script += 'signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell sets it\n'
    script += f"only = Process('only', ['/bin/sleep', '60'], Path({str(tmp_path / 'log')!r}))\n"
    script += 'only.interrupt(); print(only.end(), signal.getsignal(signal.SIGINT).name)\n'
    said = subprocess.check_output([sys.executable, '-c', script], text=True, timeout=50)
    assert said.split() == [str(-signal.SIGINT), 'SIG_IGN']


def test_a_terminated_command_ends_its_processes(tmp_path: Path) -> None:
    script = 'from adpc_ros.graph.processes import Processes\n'
    script += 'with Processes({}) as processes:\n'
    script += "    print(processes.start('only', ['/bin/sleep', '60']), flush=True)\n"
    script += "    processes.wait_for('only')\n"
    command = Process('command', [sys.executable, '-c', script], tmp_path / 'log')
    until_s = time.monotonic() + 60
    while not (text := command.log().strip()):
        assert time.monotonic() < until_s
        time.sleep(0.05)
    command.interrupt(signal.SIGTERM)
    assert command.end() == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(text), 0)


@pytest.mark.parametrize('after_s', [0, 0.2, 0.5, 1, 1.5, 3])
def test_a_recorder_ends_cleanly_whenever_it_is_interrupted(
    tmp_path: Path, after_s: float
) -> None:
    command = python('adpc_ros.graph.recorder', tmp_path / 'heard.npz')
    recorder = Process('recorder', command, tmp_path / 'log')
    time.sleep(after_s)
    maps = Path(f'/proc/{recorder.process.pid}/maps').read_text()
    recorder.interrupt()
    assert recorder.end() == 0 and recorder.log() == ''
    segments = set(re.findall(r'/dev/shm/fastrtps_[0-9a-f]{16}\b', maps))
    assert not [segment for segment in segments if Path(segment).exists()]


def test_cameras_and_recorders_do_without_torch() -> None:
    modules = ('graph.camera', 'graph.recorder', 'replay.graph', 'benchmark.stream_planner')
    script = f'import sys, {", ".join(f"adpc_ros.{name}" for name in modules)}\n'
    subprocess.run(
        [sys.executable, '-c', f"{script}assert 'torch' not in sys.modules"], check=True
    )


# Schedules


def test_acts_survive_their_file(tmp_path: Path) -> None:
    acts = [
        Act('one', Pace.STEADY, 2.0, rate_hz=30.0, load=(2.0, math.inf)),
        Act('two', Pace.ONE_BY_ONE, count=3),
    ]
    write_acts(tmp_path / 'acts.json', acts)
    assert read_acts(tmp_path / 'acts.json') == acts


def test_a_steady_rate_is_fitted_to_what_the_node_can_do() -> None:
    slower = Act('slower', Pace.STEADY, 2.0, rate_hz=10.0, load=(0.0, 0.5))
    faster = Act('faster', Pace.STEADY, 2.0, rate_hz=10.0, load=(2.0, math.inf))
    assert [slower.rate(whole_s) for whole_s in (0.01, 0.1, 0.25)] == [10.0, 5.0, 2.0]
    assert Act('as it is', Pace.STEADY, 2.0, rate_hz=10.0).rate(0.0) == 10.0  # not measured
    assert [faster.rate(whole_s) for whole_s in (0.25, 0.1)] == [10.0, 20.0]
    *frames, last = slower.events(0.25)
    assert frames == [Frame(i / 2, 'slower') for i in range(4)] and not last.needed


def test_urgency_comes_at_some_instant_of_each_computation() -> None:
    first, *events = Act('urgency', Pace.URGENT, count=50).events(whole_s=0.2)
    assert isinstance(first, Progress) and len(events) == 200
    for frame, critical, answer, routine in zip(*(events[i::4] for i in range(4))):
        assert isinstance(frame, Frame) and isinstance(answer, Answer)
        assert 0.02 <= critical.at_s - frame.at_s <= 0.2
        assert [critical.level, routine.level] == [2, 0]


def test_an_act_has_as_many_frames_as_its_time_takes() -> None:
    assert Act('a', Pace.URGENT, 3.0, count=20).frames(whole_s=0.1) == 30
    assert Act('a', Pace.URGENT, 3.0, count=50).frames(whole_s=0.1) == 50
    assert Act('a', Pace.ONE_BY_ONE, 3.0).frames(whole_s=0.1) is None
    began_s = time.monotonic()
    assert list(Act('a', Pace.ONE_BY_ONE, 0.05).events(0.0))[:2] == [Frame(0.0, 'a'), Answer()]
    assert 0.05 <= time.monotonic() - began_s < 1


@pytest.mark.parametrize(
    'act, message',
    [
        ({'pace': Pace.STEADY, 'seconds': 1.0}, 'act a: expected rate_hz > 0, got 0.0'),
        ({'pace': Pace.URGENT, 'count': -1}, 'act a: expected seconds and count >= 0'),
    ],
)
def test_an_act_that_cannot_be_played_is_refused(act: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Act('a', **act)


# The camera


@pytest.fixture
def peer() -> Iterator[Peer]:
    context = rclpy.Context()
    rclpy.init(context=context)
    peer = Peer('peer', context=context)
    yield peer
    peer.close()
    rclpy.shutdown(context=context)


def test_a_camera_stamps_its_images_and_sends_others_as_they_are(peer: Peer) -> None:
    images = [np.full((4, 6, 3), value, np.uint8) for value in (10, 20)]
    camera, seen = Camera(peer, images), []
    peer.node.create_subscription(Image, '/adpc/input/image', seen.append, BEST_EFFORT)
    assert peer.wait(camera.image.get_subscription_count, 10)
    given = Image(height=1, width=1, encoding='mono8', step=1, data=[7])
    given.header.stamp.sec = 5
    ticks: list[float] = []
    schedule = [
        Frame(0.0, 'a'),
        Frame(0.1, 'a'),
        Frame(0.2, 'b'),
        Frame(0.3, 'c', given, 5 * 10**9),
    ]
    began_s = time.monotonic()
    camera.play([*schedule, Urgent(0.4, 2)], tick=ticks.append)
    assert 0.4 <= time.monotonic() - began_s < 5
    assert peer.wait(lambda: len(seen) == 4, 10)
    sent_ns = [frame['stamp_ns'] for frame in camera.frames]
    assert [nanoseconds(image.header.stamp) for image in seen] == [*sent_ns, 5 * 10**9]
    assert abs(time.time_ns() - sent_ns[0]) < 10**10 and sent_ns[2] - sent_ns[0] > 0.15e9
    assert [set(image.data) for image in seen] == [{10}, {20}, {10}, {7}]
    assert [frame['act'] for frame in camera.frames] == ['a', 'a', 'b']
    assert ticks == sorted(ticks) and {0.0, 0.1, 0.2, 0.3, 0.4} <= set(ticks)
    assert len(ticks) > 0.2 / TICK_S
    urgency = camera.urgencies[0]
    assert (urgency['frame_ns'], urgency['exit_ready']) == (5 * 10**9, False)


def test_a_camera_sends_the_image_that_is_asked_for_until_it_is_closed(peer: Peer) -> None:
    message = Image(height=1, width=2, encoding='mono8', step=2, data=[7, 8])
    message.header.frame_id = 'own'
    reliable, seen = QoSProfile(depth=5), []
    camera = Camera(peer, [np.zeros((4, 6, 3), np.uint8), message], quality=reliable)
    subscription = peer.node.create_subscription(Image, '/adpc/input/image', seen.append, reliable)
    assert peer.wait(camera.image.get_subscription_count, 10)
    camera.play([Frame(0.0, 'a', image=1), Frame(0.0, 'a', image=1), Frame(0.0, 'a', image=0)])
    assert peer.wait(lambda: len(seen) == 3, 10)
    assert [len(image.data) for image in seen] == [2, 2, 72]
    assert [image.header.frame_id for image in seen] == ['own', 'own', 'camera']
    assert [frame['image'] for frame in camera.frames] == [1, 1, 0]
    camera.close()
    assert peer.wait(lambda: not subscription.get_publisher_count(), 10)


def test_a_camera_without_a_node_says_so(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cameras, '_FIND_S', 0.1)
    camera = Camera(peer, [np.zeros((4, 6, 3), np.uint8)])
    with pytest.raises(TimeoutError, match='the node was not found'):
        camera.find_node(recorder=False)
    camera.play([Frame(0.0, 'a'), Answer(0.1, needed=False)])
    with pytest.raises(TimeoutError, match='the node gave no mask within'):
        camera.play([Frame(0.0, 'a'), Answer(0.1)])


def test_processes_that_run_at_the_same_time_have_domains_of_their_own() -> None:
    code = """
from adpc_ros.ros.domain import take_domain
print(*map(take_domain, (7, 7, 8)), flush=True)
input()
"""
    both = [
        subprocess.Popen(
            [sys.executable, '-c', code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    taken = [process.stdout.readline().split() for process in both if process.stdout]
    for process in both:
        process.communicate('\n', timeout=60)
    assert taken[0][0] == taken[0][1], 'it is taken once'
    assert len({*taken[0], *taken[1]}) == 4
    assert all(1 <= int(domain) <= 100 for domains in taken for domain in domains)
