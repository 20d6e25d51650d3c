# SPDX-License-Identifier: Apache-2.0
"""How the process deals with memory that it has freed."""

from __future__ import annotations

import ctypes
import gc

# mallopt's parameters, and their values in bytes
_TRIM_THRESHOLD, _KEPT = -1, 256 * 2**20
_MMAP_THRESHOLD, _FROM_HEAP = -3, 32 * 2**20  # the most that it takes
_ARENAS, _ONE = -8, 1


def keep_freed_memory() -> None:
    """
    Let malloc keep freed memory for the next frame.

    By default glibc hands large blocks back to the system at once. Then every image, mask and
    serialised message consists of pages that the system has to clear and map anew, which costs
    more than all copies of it. It also has a heap for each thread, whose free memory other threads
    do not use: the node then takes some per cent more or less after each configuration. Threads
    that compute allocate nothing, so one heap is enough. Does nothing where the C library is
    another.
    """
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, _KEPT)
        mallopt(_MMAP_THRESHOLD, _FROM_HEAP)
        mallopt(_ARENAS, _ONE)


def give_freed_memory_back() -> None:
    """
    Return free memory to the system, after a large part was freed.

    Objects that refer to each other, as those around an engine, are freed first: they would stay
    until Python happens to look for such, some configurations of the node later.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
    if trim is not None:
        trim(0)
