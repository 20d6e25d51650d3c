# SPDX-License-Identifier: Apache-2.0
"""Freed memory is kept for the next frame, and given back on request."""

from __future__ import annotations

import subprocess
import sys
import weakref

import pytest

from adpc_ros.ros.allocator import give_freed_memory_back

LIVES = """
import resource, sys
import numpy as np
from adpc_ros.ros import allocator

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def frame():  # an image, what is made of it, messages
    buffers = [np.ones(6 * 2**20, np.uint8) for _ in range(6)]

if sys.argv[1] == 'kept':
    allocator.keep_freed_memory()
frame()
frame()
before = faults()
for _ in range(10):
    frame()
kept = faults() - before
allocator.give_freed_memory_back()
before = faults()
frame()
print(kept / 10, faults() - before)
"""


def page_faults(how: str) -> tuple[float, float]:
    """Give those of a frame, and those of the first one after all was given back."""
    command = [sys.executable, '-c', LIVES, how]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    frame, after = map(float, output.split())
    return frame, after


def test_frames_reuse_the_memory_of_those_before() -> None:
    usual, _ = page_faults('usual')
    if usual < 100:
        pytest.skip('this C library keeps it anyway')
    kept, after = page_faults('kept')
    assert kept < 10 and after > 100


class Knot:
    """Refers to itself."""

    def __init__(self) -> None:
        self.itself = self


def test_what_refers_to_itself_is_freed_before_memory_is_given_back() -> None:
    knot = weakref.ref(Knot())
    give_freed_memory_back()
    assert knot() is None


HEAPS = """
import ctypes, sys, threading
from adpc_ros.ros import allocator
if sys.argv[1] == 'kept':
    allocator.keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
together = threading.Barrier(4)
def take():
    together.wait()
    for _ in range(1000):
        libc.malloc(1000)
    together.wait()
threads = [threading.Thread(target=take) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc.fdopen.restype = ctypes.c_void_p
libc.malloc_info(0, ctypes.c_void_p(libc.fdopen(1, b'w')))
libc.fflush(None)
"""


def test_all_threads_share_a_heap() -> None:
    heaps = {}
    for how in ('usual', 'kept'):
        command = [sys.executable, '-c', HEAPS, how]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        heaps[how] = done.stdout.count('<heap nr=')
    if heaps['usual'] < 2:
        pytest.skip('this C library has one anyway')
    assert heaps['kept'] == 1
