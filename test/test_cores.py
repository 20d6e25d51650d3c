# SPDX-License-Identifier: Apache-2.0
"""Compute threads stay on their cores, and nothing else does."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from graph import NodeProcess
from networks import random_network
from test_memory import machine

from adpc_ros.commands.options import use_threads
from adpc_ros.labels import CAMVID
from adpc_ros.network import checkpoint
from adpc_ros.runtime import cores
from adpc_ros.runtime.compile import compile_network
from adpc_ros.runtime.cores import core_count, on_cores
from adpc_ros.runtime.engine import Engine

ALL = os.sched_getaffinity(0)
LAST = {max(ALL)}
several = pytest.mark.skipif(len(ALL) < 2, reason='only one core')


def threads(process: str = 'self') -> dict[int, set[int]]:
    """Give the cores of every thread of a process, by its id."""
    tasks = [int(task) for task in os.listdir(f'/proc/{process}/task')]
    return {task: os.sched_getaffinity(task) for task in tasks}


@several
def test_threads_of_plan_and_engine_stay_on_the_cores_and_the_caller_does_not() -> None:
    cpu = pytest.importorskip('adpc_ros.runtime.cpu')
    before = threads()
    with on_cores(LAST):
        assert core_count() == 1
        plan = cpu.CpuPlan(compile_network(random_network(0)), threads=3)
    done = threading.Event()
    engine = Engine(plan, on_result=lambda _: done.set(), cores=LAST)
    assert os.sched_getaffinity(0) == ALL
    started = threads().keys() - before.keys()
    assert len(started) == 4, 'two of the plan, the worker, which is its third, and the publisher'
    publisher = engine._outbox._thread.native_id
    assert {engine._worker.thread.native_id, publisher} < started
    assert {thread for thread in started if threads()[thread] == ALL} == {publisher}
    assert all(threads()[thread] == LAST for thread in started - {publisher})
    assert {thread: cores for thread, cores in threads().items() if thread in before} == before
    engine.submit(np.zeros((64, 64, 3), np.uint8))
    assert done.wait(20)
    engine.close()
    plan.close()


V2 = {
    'sys/fs/cgroup/a/cpu.max': '150000 100000\n',
    'sys/fs/cgroup/a/b/cpu.max': 'max 100000\n',
    'sys/fs/cgroup/a/b/c/cpu.max': '20000 50000\n',
    'sys/fs/cgroup/wide/cpu.max': '640000 100000\n',
    'sys/fs/cgroup/odd/cpu.max': '300000 0\n',
}
V1 = {
    'sys/fs/cgroup/cpu/cpu.cfs_quota_us': '200000\n',  # of a container, at the top of what it sees
    'sys/fs/cgroup/cpu/cpu.cfs_period_us': '100000\n',
    'sys/fs/cgroup/cpu/a/cpu.cfs_quota_us': '-1\n',
    'sys/fs/cgroup/cpu/a/cpu.cfs_period_us': '100000\n',
    'sys/fs/cgroup/cpu/b/cpu.cfs_quota_us': '199999\n',
    'sys/fs/cgroup/cpu/b/cpu.cfs_period_us': '100000\n',
}


@pytest.mark.parametrize(
    'group, files, expected',
    [
        ('', {}, 4),
        ('0::/a\n', V2, 1),  # a core and a half: with two threads all would be stopped at times
        ('0::/a/b\n', V2, 1),  # the limit lies above
        ('0::/a/b/c\n', V2, 1),  # not 0
        ('0::/wide\n', V2, 4),  # a quota beyond the cores
        ('0::/odd\n', V2, 4),
        ('0::/elsewhere\n', V2, 4),
        ('0::/\n', {'sys/fs/cgroup/cpu.max': '350000 100000\n'}, 3),
        ('4:cpu,cpuacct:/docker/x\n5:memory:/b\n', V1, 2),
        ('4:cpu:/a\n', V1, 2),
        ('4:cpu:/b\n0::/b\n', V1, 1),
        ('4:cpuset:/b\n', V1, 4),
    ],
)
def test_no_more_cores_than_the_quota_of_the_container(
    group: str,
    files: dict[str, str],
    expected: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: {1, 3, 5, 7})
    assert core_count(machine(tmp_path, 1, group, files)) == expected


def test_commands_take_no_more_threads_than_there_are_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(5)
        monkeypatch.setattr(cores, 'core_count', lambda: 3)
        use_threads(None)
        assert torch.get_num_threads() == 3
        torch.set_num_threads(2)  # as OMP_NUM_THREADS may say
        use_threads(None)
        assert torch.get_num_threads() == 2
        use_threads(4)
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


def test_a_plan_of_more_threads_than_any_machine_has_cores_is_the_same() -> None:
    cpu = pytest.importorskip('adpc_ros.runtime.cpu')
    scores = []
    for count in (1, 160):
        plan = cpu.CpuPlan(compile_network(random_network(0)), threads=count)
        list(plan.segment(np.zeros((64, 64, 3), np.uint8)))
        scores.append(plan.logits())
        plan.close()
    assert torch.equal(*scores)


def test_no_cores_are_all_cores() -> None:
    with on_cores(()):
        assert os.sched_getaffinity(0) == ALL
        thread = threading.Thread(target=lambda: None)
        thread.start()
        thread.join()
    assert os.sched_getaffinity(0) == ALL


@several
def test_the_caller_has_its_cores_back_after_an_error() -> None:
    with pytest.raises(RuntimeError), on_cores(LAST):
        raise RuntimeError
    assert os.sched_getaffinity(0) == ALL


def test_a_core_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(ValueError, match='cores: expected some of .*, got -1, 4096'):
        with on_cores([0, 4096, -1]):
            pass
    assert os.sched_getaffinity(0) == ALL


def configured(node: NodeProcess) -> None:
    deadline_s = time.monotonic() + 60
    while 'camvid classes' not in node.log():
        assert node.process.poll() is None and time.monotonic() < deadline_s, node.log()
        time.sleep(0.1)


@several
def test_the_nodes_callbacks_and_the_middleware_keep_all_cores(tmp_path: Path) -> None:
    path = tmp_path / 'tiny.safetensors'
    checkpoint.save(path, random_network(0), CAMVID, {})
    with NodeProcess(tmp_path, f'weights:={path}', f'cores:=[{max(LAST)}]', 'threads:=3') as node:
        configured(node)
        process = node.process.pid
        found = threads(str(process))
        assert found.pop(process) == ALL
        # worker and watchdog, two more of the plan, and those of PyTorch that packed the weights
        assert len([cores for cores in found.values() if cores == LAST]) >= 4
        assert len([cores for cores in found.values() if cores == ALL]) > 4
        assert node.stop() == 0


def test_a_node_says_which_cores_there_are(tmp_path: Path) -> None:
    path = tmp_path / 'tiny.safetensors'
    checkpoint.save(path, random_network(0), CAMVID, {})
    with NodeProcess(tmp_path, f'weights:={path}', 'cores:=[4096]') as node:
        assert node.process.wait(60) == 1
        assert 'cannot configure: cores: expected some of 0' in node.log()
