"""How many cores there are, and on which of them threads may run."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager


def core_count() -> int:
    """Give the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


@contextmanager
def on_cores(cores: Collection[int]) -> Iterator[None]:
    """
    Keep the caller's thread on these cores, and for good the threads that are made meanwhile.

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
