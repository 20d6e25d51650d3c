# SPDX-License-Identifier: Apache-2.0
"""How many cores there are, and on which of them threads may run."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from adpc_ros.runtime.cgroups import groups_of


def core_count(root: Path = Path('/')) -> int:
    """
    Give the number of cores that this thread may use, within the quota of a container.

    A quota of parts of a core is rounded down, but to 1 at least: when it is spent, the system
    stops the whole container, callbacks and all, for the rest of the period (100 ms as a rule).
    What is left serves the callbacks.

    :param root: of the file system that the kernel's files are read from.
    """
    quotas = (_quota(*group) for group in groups_of('cpu', root))
    return max(1, math.floor(min([len(os.sched_getaffinity(0)), *quotas])))


def _quota(folder: Path, unified: bool) -> float:
    """Give a cgroup's limit in cores, infinite without one."""
    names = ('cpu.max',) if unified else ('cpu.cfs_quota_us', 'cpu.cfs_period_us')
    try:
        quota, period = ' '.join((folder / name).read_text() for name in names).split()
        limit = int(quota) / int(period)  # 'max' is none, and neither is -1
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf
    return limit if limit > 0 else math.inf


@contextmanager
def on_cores(cores: Collection[int]) -> Iterator[None]:
    """
    Keep the caller's thread on these cores for the block, and threads made in it for ever.

    Threads inherit the cores of the one that makes them, and so do those that they make. The
    caller's has its own back afterwards.

    :param cores: their numbers, as the system counts them; empty leaves everything as it is.
    :raises ValueError: for a core that this thread may not use.
    """
    allowed = os.sched_getaffinity(0)  # 0: the calling thread
    if unknown := set(cores) - allowed:
        raise ValueError(f'cores: expected some of {_listed(allowed)}, got {_listed(unknown)}')
    if cores:
        os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def _listed(cores: Collection[int]) -> str:
    return ', '.join(str(core) for core in sorted(cores))
