# SPDX-License-Identifier: Apache-2.0
"""What a frame may take is known before anything is allocated."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from networks import random_network

from adpc_ros.runtime.compile import compile_network
from adpc_ros.runtime.cpu import CpuPlan
from adpc_ros.runtime.memory import MIB, Budget, budget_of, free_bytes
from adpc_ros.runtime.torch_plan import TorchPlan

GIB = 2**30


def machine(root: Path, available_kib: int, group: str, files: dict[str, str]) -> Path:
    """Write the kernel's files as a machine has them."""
    contents = {
        'proc/meminfo': f'MemTotal: 9 kB\nMemFree: 1 kB\nMemAvailable: {available_kib} kB\n',
        'proc/self/cgroup': group,
        **files,
    }
    for name, text in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


V2 = {
    'sys/fs/cgroup/a/memory.max': f'{4 * GIB}\n',
    'sys/fs/cgroup/a/memory.current': f'{3 * GIB}\n',
    'sys/fs/cgroup/a/memory.stat': f'anon 5\ninactive_file {GIB}\n',
    'sys/fs/cgroup/a/b/memory.max': 'max\n',
    'sys/fs/cgroup/a/b/memory.current': '7\n',
}
V1 = {
    'sys/fs/cgroup/memory/a/memory.limit_in_bytes': f'{2 * GIB}\n',
    'sys/fs/cgroup/memory/a/memory.usage_in_bytes': f'{GIB}\n',
}


@pytest.mark.parametrize(
    'available_kib, group, files, expected',
    [
        (8 * 2**20, '', {}, 8 * GIB),
        (8 * 2**20, '0::/a/b\n', V2, 2 * GIB),  # the limit lies above; cached files count as free
        (2**20, '0::/a/b\n', V2, GIB),  # the machine has less than the group may take
        (8 * 2**20, '0::/\n', V2, 8 * GIB),
        (8 * 2**20, '4:memory:/a\n5:cpu,cpuacct:/c\n', V1, GIB),
    ],
)
def test_what_is_free_is_the_least_of_machine_and_groups(
    tmp_path: Path, available_kib: int, group: str, files: dict[str, str], expected: int
) -> None:
    assert free_bytes('cpu', machine(tmp_path, available_kib, group, files)) == expected


def test_this_machine_says_what_is_free() -> None:
    assert 10 * MIB < free_bytes() < 2**50


def test_a_frame_beyond_the_budget_is_refused() -> None:
    budget = Budget(100 * MIB, 200.0)
    budget.check((500, 1000))
    expected = 'expected frames of at most 100 MiB (frame_memory_mib), one of 1000x1000 would take'
    with pytest.raises(ValueError, match=re.escape(expected)):
        budget.check((1000, 1000))


@pytest.mark.parametrize('size', [(352, 480), (1000, 700)])
def test_the_native_plan_takes_what_it_said(size: tuple[int, int]) -> None:
    plan = CpuPlan(compile_network(random_network()))
    weights = plan.memory_bytes
    said = plan.bytes_for(size)
    for _ in plan.segment(np.zeros((*size, 3), np.uint8)):
        pass
    assert 0.8 < (plan.memory_bytes - weights) / said < 1.2
    budget = budget_of(plan, 1, 'cpu')
    assert budget.bytes == MIB
    assert 0.7 < budget.bytes_per_pixel * size[0] * size[1] / said < 1.5


def test_of_pytorchs_plan_the_features_are_counted() -> None:
    program = compile_network(random_network())
    plan = TorchPlan(program)
    small, large = plan.bytes_for((64, 64)), plan.bytes_for((640, 640))
    assert 90 < large / small < 110
    stem = 3 * 64 * 64 + 64 * 32 * 32  # at least the image and the first layer's output
    assert small > 4 * stem / 4
