# SPDX-License-Identifier: Apache-2.0
"""Command line: ``python -m adpc_ros COMMAND``. A command imports what it needs when it runs."""

from __future__ import annotations

from adpc_ros.ros.interrupts import end_at_once

if __name__ == '__main__':
    end_at_once(130)

import argparse
import io
import signal
import sys
from collections.abc import Sequence

from adpc_ros.commands import benchmark, calibrate, convert, evaluate, macs, replay, train

COMMANDS = (macs, train, evaluate, calibrate, convert, benchmark, replay)
USER_ERROR = 2  # exit status, as argparse's
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run a command.

    :param arguments: without the program's name; those of the process if None.
    :return: exit status: the command's own, 0 if it gives none, or 2 if the input was wrong
        (with one line on stderr).
    """
    parser = argparse.ArgumentParser('adpc_ros', description='Anytime semantic segmentation.')
    commands = parser.add_subparsers(required=True, metavar='COMMAND', dest='command')
    for command in COMMANDS:
        command.add(commands)
    options = parser.parse_args(arguments)
    try:
        status: int | None = options.run(options)
    except (ValueError, OSError) as error:  # a CheckpointError is a ValueError
        print(f'adpc_ros: {error}', file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print('adpc_ros: interrupted', file=sys.stderr)
        return INTERRUPTED
    return status or 0


if __name__ == '__main__':
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors='backslashreplace')  # as stderr; file names may be no text
    sys.exit(main())
