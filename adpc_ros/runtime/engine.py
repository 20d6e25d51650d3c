# SPDX-License-Identifier: Apache-2.0
"""
The preemptible runtime: a worker thread that executes a plan, ruled by the scheduler.

Frames and urgency go in from any thread. Results come out through a callback, in frame order and
one at a time: from a thread of their own, or from that which the result is due in.

The lock of the engine is held while an event is taken, and never while a callback is called. Who
holds it may take that of the outbox, not the other way round.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adpc_ros.runtime.cores import on_cores
from adpc_ros.runtime.deferred import Deferred, size_of
from adpc_ros.runtime.ledger import Frame, Ledger, RenderedExit, Result
from adpc_ros.runtime.outbox import Outbox
from adpc_ros.runtime.plan import ComputedExit, Plan
from adpc_ros.runtime.scheduler import Action, Counters, DropReason, Level, Policy
from adpc_ros.runtime.watchdog import Health, Watch, Watchdog, Worker, WorkerHung

log = logging.getLogger(__name__)

END_S = 5.0  # that a thread has to end in when the engine is closed


class Engine:
    """Segments the newest frame until its budget is spent."""

    def __init__(
        self,
        plan: Plan,
        policy: Policy | None = None,
        on_result: Callable[[Result], None] = lambda _: None,
        on_exit: Callable[[Result], None] | None = None,
        adaptive: bool = True,
        watch: Watch | None = None,
        afterwards: Callable[[Result], None] | None = None,
        cores: Collection[int] = (),
    ) -> None:
        """
        Start the threads, idle.

        :param plan: what to compute.
        :param policy: what frames may spend; None sets no limits.
        :param on_result: called once for each frame that is published or failed, in order, never
            by two threads at once.
        :param on_exit: called for every exit, with a result without decision; after the frame's
            result if it has one by then. By the publisher's thread alone, perhaps while another
            one calls ``on_result``.
        :param adaptive: False computes every position.
        :param watch: what counts as a hung worker, which is replaced then; None leaves it alone.
        :param afterwards: called by the publisher's thread with a result that is out; a newer
            one takes the place of one that waits for this.
        :param cores: that the worker and the watchdog stay on, as
            :func:`adpc_ros.runtime.cores.on_cores` says; the publisher is free.
        :raises ValueError: if the policy is for another number of exits, or for a core that this
            thread may not use.
        """
        policy = policy or Policy(plan.exit_count)
        if policy.exit_count != plan.exit_count:
            raise ValueError(
                f'expected a policy for {plan.exit_count} exits, got {policy.exit_count}'
            )
        with on_cores(cores):
            pass  # checked before any thread is started
        self._adaptive = adaptive
        self._lock = threading.Lock()  # around everything below
        self._wake = threading.Condition(self._lock)
        self._ledger = Ledger(
            *(policy, time.monotonic, self._begin, self._cancel, self._end, self._drop)
        )
        self._scheduler = self._ledger.scheduler
        self._size = (0, 0)  # of the latest frame
        self._started: int | None = None  # the latest frame that was, or is due to be, begun
        self._due: int | None = None
        self._cancelled = False
        self._closed = False
        self._look_s = math.inf  # when the plan yields so that the clock is looked at
        self._memory_bytes = 0
        self._outbox = Outbox(on_result, on_exit, afterwards, self._published)
        with on_cores(cores):
            self._worker = Worker(plan, self._work)
            self._worker.thread.start()
            self._watchdog = Watchdog(watch, self) if watch is not None else None

    @property
    def plan(self) -> Plan:
        """What is computed; another one after the worker was replaced."""
        return self._worker.plan

    @property
    def memory_bytes(self) -> int:
        """What the plan took in bytes when it was last at rest; it may be computing now."""
        return self._memory_bytes

    def warm_up(self, size: tuple[int, int]) -> None:
        """
        Compute a black image in the caller's thread, so that memory and kernels are ready.

        Call it before you submit the first frame.

        :param size: (H, W) in pixels.
        """
        for _ in _black(self.plan, size, self._adaptive):
            pass
        self._memory_bytes = self.plan.memory_bytes

    def submit(
        self, image: NDArray[np.uint8] | Deferred, tag: Any = None, age_s: float = 0.0
    ) -> int:
        """
        Submit the newest frame and return at once; what this stops, the publisher hands out.

        :param image: (H, W, 3) uint8 RGB; not copied, so it must not be written to any more. Or
            one that is still to be decoded; if that fails, it counts as rejected.
        :param tag: handed back with the result.
        :param age_s: time since the frame was captured, in seconds.
        :return: the frame's id.
        :raises RuntimeError: if the engine is closed.
        """
        with self._event() as now_s:
            if self._closed:
                raise RuntimeError('the engine is closed')
            self._size = size_of(image)
            frame_id = self._ledger.add(image, tag, now_s - age_s)
        self._outbox.wake()
        return frame_id

    def reject(self) -> None:
        """Count a frame that could not be handed in."""
        with self._event():
            self._ledger.reject()

    def change_policy(self, policy: Policy, adaptive: bool) -> None:
        """
        Take another policy from the next frame on; the running one ends under its own.

        :param adaptive: False computes every position.
        :raises ValueError: if the policy is for another number of exits.
        """
        with self._event():
            self._scheduler.change_policy(policy)
            self._adaptive = adaptive

    def urgency(
        self, level: Level, deadline_s: float = 0.0, hold_s: float = 0.0, stamp: Any = None
    ) -> None:
        """
        Change the urgency; if that stops the running frame, its result is out on return.

        It waits for results that were decided before, and for nothing else.
        Parameters as in :meth:`adpc_ros.runtime.scheduler.Scheduler.urgency`.
        """
        with self._outbox.held():  # what this stops is this thread's to hand out
            with self._event() as now_s:
                actions = self._scheduler.urgency(level, now_s, deadline_s, hold_s, stamp)
                self._ledger.carry_out(actions)
            if actions:
                self._outbox.flush()

    def latest(self) -> RenderedExit | None:
        """Give the latest rendered exit of any frame."""
        with self._lock:
            return self._ledger.latest

    def counters(self) -> Counters:
        """Give a copy of the frame counters."""
        with self._lock:
            return self._ledger.counters()

    def stop(self) -> None:
        """
        Drop what waits and what runs, and return to ROUTINE; the engine can be used again at once.

        Results that were decided before are out on return.
        """
        with self._event():
            self._ledger.carry_out(self._scheduler.stop())
        self._outbox.flush()

    def health(self) -> Health:
        """Say how the worker is; without a watch it is never called ill."""
        return self._watchdog.health() if self._watchdog is not None else Health()

    def close(self) -> bool:
        """
        Stop, and end all threads; does nothing the second time.

        Results and reports are out on return. Do not call it from a callback: the worker may be
        waiting for that.

        :return: False if the worker hangs: it is left behind, and its plan must not be touched.
        """
        with self._event():
            self._ledger.carry_out(self._scheduler.stop())
            self._closed = True
            self._wake.notify_all()
        self._outbox.flush()
        self._outbox.end(END_S)
        if self._watchdog is not None:
            self._watchdog.end()
        thread = self._worker.thread
        thread.join(END_S)
        if thread.is_alive():
            log.error('the worker hangs: it is left behind, and its memory with it')
        return not thread.is_alive()

    # For the watchdog

    def worker_awaited(self) -> Worker | None:
        """Give the worker if something is due from it, or if it is dead; else None."""
        with self._lock:
            worker = self._worker
            awaited = worker.computing or self._due is not None or not worker.thread.is_alive()
            return worker if awaited and not self._closed else None

    def give_up(self, worker: Worker, error: WorkerHung) -> None:
        """Interrupt the worker and drop its frame as failed, unless it has its result."""
        with self._event():
            if worker is not self._worker or self._started is None:
                return
            self._cancelled = True
            worker.plan.interrupt()
            self._ledger.fail(self._started, error)
        self._outbox.wake()

    def warming(self, plan: Plan) -> Iterator[object]:
        """Make a plan ready for frames as the latest one, while the iterator is advanced."""
        with self._lock:
            size, adaptive = self._size, self._adaptive
        return _black(plan, size, adaptive)

    def replace(self, worker: Worker, progress: tuple[int, int], plan: Plan) -> bool:
        """Let a new worker with this plan go on, unless the other came back or all is closed."""
        with self._event() as now_s:
            if self._closed or worker is not self._worker or worker.progress != progress:
                return False
            self._worker = Worker(plan, self._work)
            self._look_s = math.inf  # of a new plan
            self._due = None
            if self._started is not None:
                self._ledger.carry_out(self._scheduler.idle(self._started, now_s))
            self._worker.thread.start()
        self._outbox.wake()
        return True

    # Under the lock

    @contextmanager
    def _event(self) -> Iterator[float]:
        """Hold the lock, give the time, and tell the plan when the clock is to be looked at."""
        with self._lock:
            yield time.monotonic()
            look_s = self._scheduler.next_look_s(time.monotonic())
            if look_s != self._look_s:
                self._look_s = look_s
                self.plan.run_until(look_s)

    def _begin(self, frame: Frame) -> list[Action]:
        self._due = self._started = frame.frame_id
        self._wake.notify_all()  # an abandoned worker may wait, too
        return []

    def _cancel(self, frame_id: int) -> list[Action]:
        self._cancelled = True
        self.plan.interrupt()
        return []

    def _end(self, result: Result) -> None:
        self._outbox.put(result)

    def _drop(self, frame: Frame, reason: DropReason) -> None:
        """Do nothing: a frame without a result is counted, and that is all."""

    # The publisher

    def _published(self, took_s: float) -> None:
        with self._event():
            self._scheduler.published(took_s)

    # The worker

    def _work(self, worker: Worker) -> None:
        while (frame_id := self._next(worker)) is not None:
            try:
                self._compute(worker, frame_id)
                if worker is self._worker:
                    self._memory_bytes = worker.plan.memory_bytes
            except Exception as error:
                log.exception('segmenting frame %d failed', frame_id)
                with self._event():
                    self._ledger.fail(frame_id, error)
            self._outbox.wake()
            self._outbox.wait_for_room()
            with self._event() as now_s:
                # of an abandoned worker's frame the scheduler knows nothing more
                self._ledger.carry_out(self._scheduler.idle(frame_id, now_s))
            self._outbox.wake()
        if worker is not self._worker:
            log.warning('a worker that hung has come back: its memory is freed')
            worker.plan.close()

    def _next(self, worker: Worker) -> int | None:
        """Wait for a frame that is due; None if nothing more is this worker's."""
        with self._lock:
            while self._due is None and not self._closed and worker is self._worker:
                self._wake.wait()
            if self._due is None or worker is not self._worker:
                return None
            frame_id, self._due = self._due, None
            self._cancelled = self._closed
            self._ledger.started_s = time.monotonic()
            return frame_id

    def _compute(self, worker: Worker, frame_id: int) -> None:
        with self._lock:
            frame = self._ledger.frame(frame_id)
        if frame is not None:  # else it was dropped before it began
            frame = self._decoded(worker, frame)
        if frame is not None:
            self._segment(worker, frame)

    def _decoded(self, worker: Worker, frame: Frame) -> Frame | None:
        """Give the frame with its pixels, None if it has none."""
        if not isinstance(frame.image, Deferred):
            return frame
        try:
            with worker.step():
                frame = frame._replace(image=frame.image.decode())
        except ValueError:
            with self._event():
                self._ledger.carry_out(self._scheduler.failed(frame.frame_id, DropReason.INVALID))
            return None
        with self._lock:
            self._ledger.decoded(frame)
        return frame

    def _segment(self, worker: Worker, frame: Frame) -> None:
        assert not isinstance(frame.image, Deferred)
        for computed in worker.steps_of(worker.plan.segment(frame.image, self._adaptive)):
            with self._event() as now_s:
                if self._cancelled or worker is not self._worker:
                    return
                if computed is None:
                    self._ledger.carry_out(self._scheduler.tick(now_s))
                else:
                    self._outbox.report(self._ledger.exit(frame, computed))
                cancelled = self._cancelled
            self._outbox.wake()
            if cancelled:
                return


def _black(plan: Plan, size: tuple[int, int], adaptive: bool) -> Iterator[ComputedExit | None]:
    """Segment a black image of (H, W) pixels."""
    return plan.segment(np.zeros((*size, 3), np.uint8), adaptive)
