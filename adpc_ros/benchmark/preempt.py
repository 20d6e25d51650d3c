# SPDX-License-Identifier: Apache-2.0
"""How soon work stops: cancellations at random instants, of the plan alone and of an engine."""

from __future__ import annotations

import random
import statistics
import threading
import time
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adpc_ros.progress import ProgressBar
from adpc_ros.runtime.engine import Engine
from adpc_ros.runtime.ledger import Result
from adpc_ros.runtime.plan import Plan
from adpc_ros.runtime.scheduler import Level, StopReason

_WHOLE_FRAMES = 3  # run to the end, to know how long that takes; the first is a warm-up
_PATIENCE_S = 600.0
_INSTANTS_IN_A_FRAME = 100  # at which a long frame is stopped, to go on in most cases
_DROPPED = 0.02  # share of them after which another frame starts at once


class Preemption(NamedTuple):
    """
    One stop.

    ``seconds`` from the request until the computation has stopped, or until the result was handed
    out; ``exit_index`` is the latest exit at that moment.
    """

    seconds: float
    exit_index: int


class _Worker:
    """Computes frame after frame, and stops where it is when it is asked to."""

    def __init__(self, plan: Plan, image: NDArray[np.uint8], seed: int) -> None:
        self._plan, self._image = plan, image
        self._drop = random.Random(seed)
        self._closed = False
        self._wanted, self._idle, self._exit = (threading.Event() for _ in range(3))
        self._stopped: Preemption | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        try:
            while not self._closed:
                self._frame()
        except Exception as error:
            self._error = error
            self._exit.set()
            self._idle.set()

    def _frame(self) -> None:
        exit_index = 0
        self._exit.clear()
        for computed in self._plan.segment(self._image):
            if self._closed:
                return
            if computed is not None:
                exit_index = computed.exit_index
                self._exit.set()
            if self._wanted.is_set():  # every thread of the plan is at rest now
                self._stopped = Preemption(time.monotonic(), exit_index)
                self._wanted.clear()
                self._idle.set()
                if self._drop.random() < _DROPPED:
                    return

    def stop(self) -> Preemption | None:
        """Ask for a stop now; None if that was before the first exit."""
        if not self._exit.wait(_PATIENCE_S):
            raise TimeoutError(f'exit 1 took longer than {_PATIENCE_S:.0f} s')
        self._idle.clear()
        if self._error is not None:
            raise self._error
        sent_s = time.monotonic()
        self._wanted.set()
        self._plan.interrupt()
        if not self._idle.wait(_PATIENCE_S):
            raise TimeoutError(f'the plan did not stop within {_PATIENCE_S:.0f} s')
        if self._error is not None:
            raise self._error
        assert self._stopped is not None
        idle_s, exit_index = self._stopped
        return Preemption(idle_s - sent_s, exit_index) if exit_index else None

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._plan.interrupt()
        self._thread.join()


def stop_plan(
    plan: Plan, image: NDArray[np.uint8], number: int, frame_s: float, seed: int = 0
) -> list[Preemption]:
    """
    Stop a plan at random instants; ``seconds`` end when it has stopped computing.

    After most of them the frame goes on, so that all of a long frame is met; after the others
    it is dropped and a new one starts.

    :param plan: with early exits.
    :param image: (H, W, 3) uint8 RGB, computed again and again.
    :param number: of stops after the first exit; those before are not counted.
    :param frame_s: about how long a frame takes.
    """
    instants = random.Random(seed)
    worker = _Worker(plan, image, seed)
    try:
        found: list[Preemption] = []
        with ProgressBar(total=number, desc='stop') as progress:
            while len(found) < number:
                time.sleep(instants.uniform(0, 2 * frame_s / _INSTANTS_IN_A_FRAME))
                done = worker.stop()
                if done is not None:
                    found.append(done)
                    progress.update()
        return found
    finally:
        worker.close()


class _Trial:
    """Runs one frame at a time through an engine."""

    def __init__(self, plan: Plan, image: NDArray[np.uint8]) -> None:
        self._image, self._exit_count = image, plan.exit_count
        self._first_exit, self._published = threading.Event(), threading.Event()
        self._exits_s: list[float] = []
        self._frame_id = 0
        self._result: tuple[Result, float] | None = None
        self._engine = Engine(plan, None, self._on_result, self._on_exit)

    def _on_exit(self, result: Result) -> None:
        done = result.exit
        assert done is not None
        if done.frame_id != self._frame_id:  # the last frame's report came late
            return
        self._exits_s.append(done.time_s)
        self._first_exit.set()

    def _on_result(self, result: Result) -> None:
        self._result = result, time.monotonic()
        self._published.set()
        if result.error is not None:
            self._first_exit.set()

    def _start(self) -> None:
        self._first_exit.clear()
        self._published.clear()
        self._exits_s = []
        self._frame_id = self._engine.submit(self._image)

    def _ended(self) -> tuple[Result, float]:
        if not self._published.wait(_PATIENCE_S):
            raise TimeoutError(f'a frame took longer than {_PATIENCE_S:.0f} s')
        assert self._result is not None
        if self._result[0].error is not None:
            raise self._result[0].error
        return self._result

    def whole_frame(self) -> tuple[float, float]:
        """Let a frame finish; gives the seconds to its last exit, and from its first to that."""
        started_s = time.monotonic()
        self._start()
        _, ended_s = self._ended()
        while len(self._exits_s) < self._exit_count:  # its last exit is reported after the result
            time.sleep(0.001)
        return ended_s - started_s, self._exits_s[-1] - self._exits_s[0]

    def preempt(self, after_s: float) -> Preemption | None:
        """Send CRITICAL that long after exit 1; None if the frame was done before."""
        self._start()
        if not self._first_exit.wait(_PATIENCE_S):
            raise TimeoutError(f'exit 1 took longer than {_PATIENCE_S:.0f} s')
        time.sleep(after_s)
        sent_s = time.monotonic()
        self._engine.urgency(Level.CRITICAL)
        result, published_s = self._ended()
        self._engine.urgency(Level.ROUTINE)
        if result.reason is not StopReason.URGENT or result.exit is None:
            return None
        return Preemption(published_s - sent_s, result.exit.computed.exit_index)

    def close(self) -> None:
        """End the worker."""
        self._engine.close()


def preempt_engine(
    plan: Plan, image: NDArray[np.uint8], number: int, seed: int = 0
) -> tuple[list[Preemption], float]:
    """
    Send CRITICAL to an engine at instants spread evenly over what follows a frame's first exit.

    :param plan: with early exits.
    :param image: (H, W, 3) uint8 RGB, computed again and again.
    :param number: of frames that are stopped; those that finish before are not counted.
    :return: the stops, whose ``seconds`` end when the result is handed out; and the seconds that
        a whole frame takes.
    """
    instants = random.Random(seed)
    trial = _Trial(plan, image)
    try:
        whole = [trial.whole_frame() for _ in range(_WHOLE_FRAMES)][1:]
        after_first_s = statistics.median(after_s for _, after_s in whole)
        found: list[Preemption] = []
        with ProgressBar(total=number, desc='preempt') as progress:
            while len(found) < number:
                done = trial.preempt(instants.uniform(0, after_first_s))
                if done is not None:
                    found.append(done)
                    progress.update()
        return found, statistics.median(whole_s for whole_s, _ in whole)
    finally:
        trial.close()
