# SPDX-License-Identifier: Apache-2.0
"""Bars are for terminals; a log gets few lines."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

from shared import ROOT

CODE = """
import adpc_ros.progress as progress
progress.LINE_S = 0.05
import time
for _ in progress.ProgressBar(range(400), 'work', 400): time.sleep(0.001)
with progress.ProgressBar(total=10, desc='steps') as bar: bar.update(4)
for _ in progress.ProgressBar(range(3), 'hidden', disable=True): pass
"""


def test_a_log_has_a_line_now_and_then_and_one_at_the_end() -> None:
    done = subprocess.run(
        [sys.executable, '-c', CODE], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    *between, last, steps = done.stderr.splitlines()
    assert (last[:16], steps[:14]) == ('work: 400 of 400', 'steps: 4 of 10')
    assert 1 <= len(between) <= 40 and all(line.startswith('work: ') for line in between)
    assert '\r' not in done.stderr and '%|' not in done.stderr and 'hidden' not in done.stderr


def test_a_terminal_has_a_bar() -> None:
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack('4H', 24, 80, 0, 0))
    process = subprocess.Popen([sys.executable, '-c', CODE], cwd=ROOT, stderr=writer)
    os.close(writer)
    shown = b''
    while chunk := _read(reader):
        shown += chunk
    assert process.wait(60) == 0
    assert b'work: 100%|' in shown and b'\r' in shown


def _read(reader: int) -> bytes:
    try:
        return os.read(reader, 65536)
    except OSError:  # the other end is closed
        return b''
