# SPDX-License-Identifier: Apache-2.0
"""Jobs in processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Iterable
from contextlib import ExitStack
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from adpc_ros.fleet.jobs import RETRIES, Job, run_job
from adpc_ros.replay.verdicts import Status, Verdict, verdict

_END_S = 10.0
_SPAWN = multiprocessing.get_context('spawn')


def in_processes(jobs: Iterable[Job], count: int) -> Generator[Verdict, None, None]:
    """
    Run jobs, each in one of some processes.

    A process that is lost is replaced and its job, and no other, is run again; after
    :data:`~adpc_ros.fleet.jobs.RETRIES` the job counts as crashed. All processes end with this
    one, however that ends.

    :param count: processes at once.
    :return: the verdicts in the order in which they come.
    """
    todo = iter(jobs)
    again: list[tuple[Job, int]] = []  # and how often its process was lost
    idle: list[_Worker] = []
    busy: dict[Connection, tuple[_Worker, Job, int]] = {}
    with ExitStack() as stack:
        while True:
            while len(busy) < count:
                job, lost = again.pop() if again else (next(todo, None), 0)
                if job is None:
                    break
                worker = idle.pop() if idle else stack.enter_context(_Worker())
                worker.send(job)
                busy[worker.pipe] = worker, job, lost
            if not busy:
                return
            for pipe in wait(list(busy)):
                assert isinstance(pipe, Connection)
                worker, job, lost = busy.pop(pipe)
                try:
                    found: Verdict = pipe.recv()
                except (EOFError, OSError):
                    status = worker.end()
                    if lost < RETRIES:
                        again.append((job, lost + 1))
                        continue
                    line = f'its process was lost {lost + 1} times, with exit code {status}'
                    found = verdict(job.name, Status.CRASHED, [line])
                else:
                    idle.append(worker)
                yield found


class _Worker:
    """A process that does one job after the other; as a context manager it ends with that."""

    def __init__(self) -> None:
        self.pipe, theirs = _SPAWN.Pipe()
        self._process: SpawnProcess = _SPAWN.Process(target=_work, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()  # so that the pipe ends with the process

    def send(self, job: Job) -> None:
        try:
            self.pipe.send(job)
        except OSError:  # it is lost, which is seen when its verdict is read
            pass

    def end(self) -> int | None:
        """End the process if it still runs; gives its exit code."""
        self._process.kill()
        self._process.join()
        self.pipe.close()
        return self._process.exitcode

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:  # it is idle, and returns when the pipe ends
            self.pipe.close()
            self._process.join(_END_S)
        self.end()


def _work(pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the other process ends this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            job: Job = pipe.recv()
        except EOFError:
            return
        pipe.send(run_job(job))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
