# SPDX-License-Identifier: Apache-2.0
"""
Run a process of a graph: ``python -m adpc_ros.graph MODULE ARGUMENT...`` calls MODULE's main().

An interrupt ends it without a traceback, also while the module is loaded, which takes seconds.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from types import FrameType


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(0)  # nothing is open yet, and an exception could be caught by what is imported


INTERRUPTED = 130  # status of what did not come to its end

if __name__ == '__main__':
    signal.signal(signal.SIGINT, _end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # blocked by whoever started it
    module = importlib.import_module(sys.argv[1])
    del sys.argv[0]
    try:
        sys.exit(module.main())
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except TimeoutError as error:
        sys.exit(f'adpc_ros: {error}')
