# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C at any instant, once or twice: one clean end for every process of the package."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import pytest
from ament_index_python.packages import get_package_prefix
from bags import Shot, write_bag
from networks import random_network

from adpc_ros.labels import CAMVID
from adpc_ros.network import checkpoint
from adpc_ros.ros.domain import take_domain

PROGRAMS = Path(get_package_prefix('adpc_ros')) / 'lib' / 'adpc_ros'
BLOCKS = 'block-signal' in (PROGRAMS / 'segmentation_node').read_text().splitlines()[0]
LATEST_S = 3.0
AGAIN_S = 0.6  # at most until the second one
AT_ONCE = 3  # processes
DOMAINS: SimpleQueue[str] = SimpleQueue()
for _place in range(AT_ONCE):
    DOMAINS.put(str(take_domain(os.getpid() + 33 * (_place + 1))))
SEED = random.randrange(1000)
NOT_ITS_FAULT_S = 0.0 if BLOCKS else 0.5  # while Python itself starts
IDENTITY = '0.0,0.0,0.0,0.0,0.0,0.0,1.0'


def instants(count: int) -> list[tuple[float, float | None]]:
    """Give the seconds until the first signal, all parts of the time alike, and the second."""
    chance = random.Random(SEED)
    step_s = (LATEST_S - NOT_ITS_FAULT_S) / count
    return [
        (
            NOT_ITS_FAULT_S + (i + chance.random()) * step_s,
            chance.uniform(0.0, AGAIN_S) if i % 2 else None,
        )
        for i in range(count)
    ]


def interrupted(command: list[str], first_s: float, again_s: float | None) -> tuple[int, str, str]:
    """Give exit status, what it said and what it left of its shared memory."""
    domain = DOMAINS.get()  # where no other one is, whose memory it would open
    process = subprocess.Popen(
        command,
        env={**os.environ, 'ROS_DOMAIN_ID': domain},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors='replace',
    )
    time.sleep(first_s)
    maps = Path(f'/proc/{process.pid}/maps').read_text()
    process.send_signal(signal.SIGINT)
    if again_s is not None:
        time.sleep(again_s)
        process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    DOMAINS.put(domain)
    segments = set(re.findall(r'/dev/shm/fast\w+_[0-9a-f]{16}\b', maps))
    return process.returncode, said, ' '.join(s for s in segments if Path(s).exists())


@pytest.mark.parametrize('program, status', [('segmentation_node', 0), ('label_points_node', 0)])
def test_a_node_ends_once_and_cleanly_whenever_it_is_interrupted(
    program: str, status: int, tmp_path: Path
) -> None:
    path = tmp_path / 'tiny.safetensors'
    checkpoint.save(path, random_network(0), CAMVID, {})
    command = [str(PROGRAMS / program), '--ros-args']
    if program == 'segmentation_node':
        command += ['-p', f'weights:={path}', '-p', 'threads:=1']
    else:
        command += ['-p', f'extrinsics:=[{IDENTITY}]']
    check(command, status, 12)


def test_a_replay_ends_once_and_cleanly_whenever_it_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ros2 = tmp_path / 'ros2'  # it plays and records for ever
    ros2.write_text('#!/bin/sh\ncase "$*" in *--help) ;; *) exec sleep 60 ;; esac\n')
    ros2.chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}:{os.environ["PATH"]}')
    bag = write_bag(tmp_path / 'bag', [Shot(0.0)])
    command = [str(PROGRAMS / 'replay_bag'), '--bag', str(bag), '--output', str(tmp_path / 'out')]
    command += ['--node', '/adpc', '--image', '/camera', '--outputs', '/a', '/b', '/c']
    check(command, 130, 4)
    assert not (tmp_path / 'out').exists()


def check(command: list[str], status: int, count: int) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        runs = [(each, pool.submit(interrupted, command, *each)) for each in instants(count)]
    for each, run in runs:
        got, said, left = run.result()
        told = f'seed {SEED}, after {each} s: status {got}, left {left!r}\n{said}'
        assert got == status and 'Traceback' not in said and not left, told
        assert 'cannot' not in said and 'rror' not in said, told
