# SPDX-License-Identifier: Apache-2.0
"""
Run a process of a graph: ``python -m adpc_ros.graph MODULE ARGUMENT...`` calls MODULE's main().

An interrupt ends it without a traceback, also while the module is loaded, which takes seconds.
"""

from __future__ import annotations

import importlib
import sys

from adpc_ros.ros.interrupts import end_at_once

INTERRUPTED = 130  # status of what did not come to its end

if __name__ == '__main__':
    end_at_once()
    module = importlib.import_module(sys.argv[1])
    del sys.argv[0]
    try:
        sys.exit(module.main())
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except TimeoutError as error:
        sys.exit(f'adpc_ros: {error}')
