# SPDX-License-Identifier: Apache-2.0
"""Several processes of one test, joined as torchrun joins them."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import multiprocessing

_SECONDS = 200


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def double_precision() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def in_processes(count: int, functions: list[Callable[[Any], None]], argument: Any) -> None:
    """
    Call some functions, one after the other, in new processes with torchrun's environment.

    All in double precision. An error in one process ends the others, and is raised here.
    """
    calls = [(free_port(), function, argument) for function in functions]
    multiprocessing.spawn(_run, (count, calls), nprocs=count)


def _run(rank: int, count: int, calls: list[tuple[int, Callable[[Any], None], Any]]) -> None:
    faulthandler.dump_traceback_later(_SECONDS, exit=True)  # whoever waits for ever says where
    torch.set_num_threads(1)
    os.environ |= {'RANK': str(rank), 'LOCAL_RANK': str(rank), 'WORLD_SIZE': str(count)}
    os.environ['MASTER_ADDR'] = '127.0.0.1'
    for port, function, argument in calls:
        os.environ['MASTER_PORT'] = str(port)
        with double_precision():
            function(argument)
