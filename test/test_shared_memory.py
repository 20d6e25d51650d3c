# SPDX-License-Identifier: Apache-2.0
"""Shared memory of Fast DDS: which profile counts, and what is said where it cannot work."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from graph import Client, NodeProcess
from networks import random_network
from shared import ROOT

from adpc_ros.graph.processes import NODE, python
from adpc_ros.labels import CAMVID
from adpc_ros.network import checkpoint
from adpc_ros.ros.packaged import FASTDDS_PROFILE, packaged
from adpc_ros.ros.shared_memory import PROFILE_VARIABLES, Room, complaint, segment_bytes

MIB = 2**20
PROFILE = packaged(FASTDDS_PROFILE)
MOUNT = 'mount -t tmpfs -o size=40m tmpfs /dev/shm'


def test_the_packaged_profile_asks_for_64_mib() -> None:
    assert segment_bytes(PROFILE) == 64 * MIB


@pytest.mark.parametrize('variable', PROFILE_VARIABLES)
@pytest.mark.parametrize(
    'room, said',
    [
        (Room(1024 * MIB, 512 * MIB, 64 * MIB), ''),
        (Room(128 * MIB, 0, 64 * MIB), ''),  # camera and node have theirs
        (Room(64 * MIB, 60 * MIB, 0), '/dev/shm has 64 MiB, of which 60 are free'),
        (Room(64 * MIB, 0, 64 * MIB), 'each process needs 64 MiB'),  # none for the camera
        (Room(1024 * MIB, 10 * MIB, 0), '--shm-size=256m'),  # full
        (Room(0, 0, 0), '/dev/shm has 0 MiB'),
    ],
)
def test_too_little_room_is_said_with_what_to_do(variable: str, room: Room, said: str) -> None:
    text = complaint({variable: str(PROFILE)}, room)
    assert said in text and bool(said) == bool(text)


def test_a_profile_that_is_missing_broken_or_without_shared_memory(tmp_path: Path) -> None:
    room = Room(0, 0, 0)
    missing = complaint({}, room)
    assert f'use {PROFILE} here' in missing and all(name in missing for name in PROFILE_VARIABLES)
    assert complaint({'FASTDDS_BUILTIN_TRANSPORTS': 'LARGE_DATA'}, room) == ''
    given = {PROFILE_VARIABLES[0]: str(tmp_path / 'profile.xml')}
    assert 'profile.xml: No such file or directory' in complaint(given, room)
    path = tmp_path / 'profile.xml'
    path.write_text('nothing')
    assert 'expected a profile of Fast DDS (XML), got: syntax error' in complaint(given, room)
    path.write_text(PROFILE.read_text().replace('67108864', 'much'))
    assert "segment_size: expected bytes, got 'much'" in complaint(given, room)
    path.write_text(PROFILE.read_text().replace('<type>SHM', '<type>TCPv4'))
    assert complaint(given, room) == ''


def test_both_variables_are_set_wherever_one_is() -> None:
    for file in ('env.sh', 'README.md', 'docs/integration.md', 'config/fastdds_shared_memory.xml'):
        text = (ROOT / file).read_text()
        assert all(name in text for name in PROFILE_VARIABLES), file
    assert {os.environ[name] for name in PROFILE_VARIABLES} == {str(PROFILE)}


@pytest.fixture(scope='module')
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('weights') / 'tiny.safetensors'
    checkpoint.save(path, random_network(0), CAMVID, {})
    return path


def test_a_node_with_too_little_shared_memory_says_so(tmp_path: Path, weights: Path) -> None:
    inside = ['unshare', '--mount', 'sh', '-c']
    if subprocess.run([*inside, MOUNT], capture_output=True).returncode:
        pytest.skip('mounting needs rights that are missing here')
    command = [*inside, f'{MOUNT} && exec "$@"', 'sh', *python(NODE)]
    with NodeProcess(tmp_path, f'weights:={weights}', command=command) as node:
        until_s = time.monotonic() + 90
        while '/dev/shm has 40 MiB' not in node.log():
            assert time.monotonic() < until_s and not node.ended, node.log()
            time.sleep(0.1)
        assert node.stop() == 0


def test_the_diagnostics_say_it_too(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here, that the profile is missing."""
    client, heard = Client(), []
    client.node.create_subscription(DiagnosticArray, '/diagnostics', heard.append, 10)
    for name in PROFILE_VARIABLES:
        monkeypatch.delenv(name)
    try:
        with NodeProcess(tmp_path, f'weights:={weights}') as node:
            client.wait(lambda: heard and 'Shared memory' in str(heard[-1]), 90)
            (status,) = heard[-1].status
            (said,) = (v.value for v in status.values if v.key == 'Shared memory')
            assert status.level == DiagnosticStatus.WARN and said in status.message
            assert node.log().count(said) == 1
    finally:
        client.close()
