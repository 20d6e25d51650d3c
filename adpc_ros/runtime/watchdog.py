# SPDX-License-Identifier: Apache-2.0
"""
Replacement of a worker that hangs in its plan, or has died.

A thread that hangs cannot be killed. Its frame is given up, and if it does not come back after
that, another worker with another plan takes its place, once that plan has computed an image of the
frame's size; the old one is left where it is.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar, cast

from adpc_ros.runtime.plan import Plan

log = logging.getLogger(__name__)

LOOKS = 5  # without progress, one after the other, until a worker counts as hung
MAX_STUCK = 3  # abandoned workers that still hang; beyond these no other one is made

T = TypeVar('T')


class WorkerHung(RuntimeError):
    """What befell a frame whose worker made no progress."""


@dataclass(frozen=True)
class Watch:
    """
    How long a worker may make no progress, and how its plan is made anew.

    :param limit_s: in seconds; more than the plan's longest unit of work takes (native: a chunk;
        PyTorch: a step), also with the first image of a size, for which memory is taken.
    :param remake: gives another plan, as the first one was made; called in the watchdog's thread.
    :raises ValueError: if the limit is not above 0.
    """

    limit_s: float
    remake: Callable[[], Plan]

    def __post_init__(self) -> None:
        if not self.limit_s > 0:
            raise ValueError(f'expected limit_s > 0, got {self.limit_s}')


class Health(NamedTuple):
    """
    How the worker is.

    ``hung`` while it makes no progress; ``restarts`` since the start, the latest one at
    ``restarted_s`` on the monotonic clock (minus infinity for none); ``stuck`` workers were
    abandoned and still hang, each with a plan's memory.
    """

    hung: bool = False
    restarts: int = 0
    restarted_s: float = -math.inf
    stuck: int = 0


class Worker:
    """A thread with a plan of its own, whose work is counted."""

    def __init__(self, plan: Plan, work: Callable[[Worker], None]) -> None:
        """
        Be ready to start.

        :param work: what the thread does; given this object.
        """
        self.plan = plan
        self.steps = 0  # done so far
        self.computing = False
        self.thread = threading.Thread(target=work, args=(self,), name='adpc_worker', daemon=True)

    @property
    def progress(self) -> tuple[int, int]:
        """Something that changes with every unit of work, also within a step."""
        return self.steps, self.plan.progress

    @contextmanager
    def step(self) -> Iterator[None]:
        """Have the time watched that is spent within."""
        self.computing = True
        try:
            yield
        finally:
            self.computing = False
            self.steps += 1

    def steps_of(self, work: Iterator[T]) -> Iterator[T]:
        """Give what an iterator gives; the time that it takes for each is watched."""
        while True:
            with self.step():
                done = next(work, self)
            if done is self:
                return
            yield cast(T, done)


class Watched(Protocol):
    """What the watchdog asks of the engine."""

    def worker_awaited(self) -> Worker | None:
        """Give the worker if something is due from it, or if it is dead; else None."""

    def give_up(self, worker: Worker, error: WorkerHung) -> None:
        """Interrupt the worker and drop its frame as failed, unless it has its result."""

    def warming(self, plan: Plan) -> Iterator[object]:
        """Make a plan ready for frames as the latest one, while the iterator is advanced."""

    def replace(self, worker: Worker, progress: tuple[int, int], plan: Plan) -> bool:
        """
        Let a new worker with this plan go on in a worker's place.

        :param progress: of the worker, when it was given up.
        :return: False if it came back, or if the engine was closed: then nothing was done.
        """


class Stall:
    """
    Says when something stands still.

    It counts looks and not seconds: a process that was stopped (a debugger, a container that was
    paused) finds a long time gone by when it goes on, and yet nothing hangs.
    """

    def __init__(self) -> None:
        """Have seen nothing yet."""
        self._last: object = None
        self._same = 0

    def look(self, progress: object) -> int:
        """
        Look once more.

        :param progress: something that changes with every step; None while nothing is awaited.
        :return: how many looks, one after the other, have seen nothing new.
        """
        if progress is None or progress != self._last:
            self._last, self._same = progress, 0
        else:
            self._same += 1
        return self._same


class Watchdog:
    """A thread that looks at the engine's worker from time to time."""

    def __init__(self, watch: Watch, engine: Watched) -> None:
        """Start to look."""
        self._watch, self._engine = watch, engine
        self._look_s = watch.limit_s / LOOKS
        self._ended = threading.Event()
        self._hung = False
        self._restarts = 0
        self._restarted_s = -math.inf
        self._abandoned: list[Worker] = []
        self._thread = threading.Thread(target=self._run, name='adpc_watchdog', daemon=True)
        self._thread.start()

    def end(self) -> None:
        """End the thread; a plan that it is making is freed when it is done."""
        self._ended.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(self._look_s)

    def health(self) -> Health:
        """Say how the worker is; from any thread."""
        stuck = sum(worker.thread.is_alive() for worker in self._abandoned)
        return Health(self._hung, self._restarts, self._restarted_s, stuck)

    def _run(self) -> None:
        stall = Stall()
        while not self._ended.wait(self._look_s):
            worker = self._engine.worker_awaited()
            looks = stall.look(worker and (worker, worker.progress))
            if looks == 0:
                self._hung = False
            elif looks % LOOKS == 0:
                assert worker is not None
                self._hung = True
                try:
                    self._restart(worker)
                except Exception:  # out of memory, say: tried again while it hangs
                    log.exception('the worker cannot be replaced')

    def _restart(self, worker: Worker) -> None:
        progress = worker.progress
        dead = not worker.thread.is_alive()
        why = 'died' if dead else f'made no progress for {self._watch.limit_s:g} s'
        log.error('the worker %s: its frame is dropped', why)
        self._engine.give_up(worker, WorkerHung(f'the worker {why}'))
        if not dead and (self._ended.wait(self._look_s) or worker.progress != progress):
            return  # it came back
        if self.health().stuck >= MAX_STUCK:
            log.error('%d workers hang: no other one is started', MAX_STUCK)
            return
        plan = self._watch.remake()
        replaced = False
        try:
            replaced = self._warm_up(plan, worker, progress) and self._engine.replace(
                worker, progress, plan
            )
        finally:
            if not replaced:
                plan.close()
        if not replaced:
            return
        self._abandoned = [w for w in self._abandoned if w.thread.is_alive()] + [worker]
        self._restarts += 1
        self._restarted_s = time.monotonic()
        log.error(
            'the worker was replaced%s',
            '' if dead else ': the old one still hangs, and its memory with it',
        )

    def _warm_up(self, plan: Plan, worker: Worker, progress: tuple[int, int]) -> bool:
        """
        Let a plan compute an image, so that its first frame is no slower than others.

        That may take longer than the limit, and is not watched: meanwhile the worker counts as
        hung.

        :return: False if the worker came back meanwhile, or all is at its end.
        """
        steps, done = self._engine.warming(plan), object()
        step: object = None
        while step is not done:
            plan.run_until(time.monotonic() + self._look_s)
            step = next(steps, done)
            if self._ended.is_set() or worker.progress != progress:
                return False
        plan.run_until(math.inf)
        return True
