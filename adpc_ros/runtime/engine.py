"""
The preemptible runtime: a worker thread that executes a plan, ruled by the scheduler.

Frames and urgency go in from any thread; results come out through a callback, in frame order and
one at a time, from whichever thread the result is due in.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from adpc_ros.network.macs import GI
from adpc_ros.runtime.deferred import Deferred, size_of
from adpc_ros.runtime.images import Rendered
from adpc_ros.runtime.plan import Plan
from adpc_ros.runtime.scheduler import (
    Action,
    Cancel,
    Counters,
    Drop,
    DropReason,
    Level,
    Policy,
    Publish,
    Scheduler,
    Start,
    StopReason,
)
from adpc_ros.runtime.watchdog import Health, Watch, Watchdog, Worker, WorkerHung

log = logging.getLogger(__name__)

END_S = 5.0  # that a worker has to end in when the engine is closed


class Frame(NamedTuple):
    """
    One image on its way through the engine.

    ``image`` (H, W, 3) uint8 RGB, decoded once the frame has begun; ``tag`` is the caller's and
    is handed back; ``received_s`` and ``captured_s`` are on the engine's clock.
    """

    frame_id: int
    image: NDArray[np.uint8] | Deferred
    tag: Any
    received_s: float
    captured_s: float


class RenderedExit(NamedTuple):
    """
    An exit, ready to be published.

    ``rendered`` holds class ids and confidence; ``mean_confidence`` and ``confident_share``
    (pixels at or above the threshold), both of that calibrated confidence, are in [0, 1];
    ``gimac`` is spent so far; ``active_share`` is what the next exit will still compute;
    ``time_s`` when it was rendered.
    """

    frame_id: int
    exit_index: int
    rendered: Rendered
    mean_confidence: float
    confident_share: float
    gimac: float
    active_share: float
    time_s: float


@dataclass(frozen=True)
class Result:
    """
    What became of a frame.

    :param frame: as it went in.
    :param decision: what the scheduler decided; a :class:`Drop` with reason FAILED carries
        ``error``. None: the frame goes on.
    :param exit: what to publish, None if the frame failed.
    :param started_s: when the computation began.
    :param level: the urgency in force.
    :param counters: of all frames, up to and including this one.
    """

    frame: Frame
    decision: Publish | Drop | None
    exit: RenderedExit | None
    started_s: float
    level: Level
    counters: Counters
    error: Exception | None = None

    @property
    def reason(self) -> StopReason | None:
        """Why the frame ended; None if it goes on."""
        if self.decision is None:
            return None
        return self.decision.reason if isinstance(self.decision, Publish) else StopReason.FAILED


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
    ) -> None:
        """
        Start the worker, idle.

        :param plan: what to compute.
        :param policy: what frames may spend; None sets no limits.
        :param on_result: called once for each frame that is published or failed, in order, never
            by two threads at once.
        :param on_exit: called by the worker for every exit, with a result without decision;
            after the frame's result if it has one by then.
        :param adaptive: False computes every position.
        :param watch: what counts as a hung worker, which is replaced then; None leaves it alone.
        :raises ValueError: if the policy is for another number of exits.
        """
        self._on_result, self._on_exit = on_result, on_exit
        self._adaptive = adaptive
        policy = policy or Policy(plan.exit_count)
        if policy.exit_count != plan.exit_count:
            raise ValueError(
                f'expected a policy for {plan.exit_count} exits, got {policy.exit_count}'
            )
        self._scheduler = Scheduler(policy)
        self._lock = threading.Lock()  # around everything below
        self._wake = threading.Condition(self._lock)
        self._frames: dict[int, Frame] = {}
        self._frame_id = 0
        self._started: int | None = None  # the latest frame that was, or is due to be, begun
        self._due: int | None = None
        self._started_s = 0.0
        self._cancelled = False
        self._closed = False
        self._latest: RenderedExit | None = None
        self._error: Exception | None = None
        self._outbox: deque[Result] = deque()
        self._publishing = threading.RLock()  # never taken while _lock is held
        self._worker = Worker(plan, self._work)
        self._worker.thread.start()
        self._watchdog = Watchdog(watch, self) if watch is not None else None

    @property
    def plan(self) -> Plan:
        """What is computed; another one after the worker was replaced."""
        return self._worker.plan

    def warm_up(self, size: tuple[int, int]) -> None:
        """
        Compute a black image in the caller's thread, so that memory and kernels are ready.

        Call it before you submit the first frame.

        :param size: (H, W) in pixels.
        """
        for _ in self.plan.segment(np.zeros((*size, 3), np.uint8), self._adaptive):
            pass

    def submit(
        self, image: NDArray[np.uint8] | Deferred, tag: Any = None, age_s: float = 0.0
    ) -> int:
        """
        Submit the newest frame and return at once; the worker publishes a frame that this stops.

        :param image: (H, W, 3) uint8 RGB; not copied, so it must not be written to any more. Or
            one that is still to be decoded; if that fails, it counts as rejected.
        :param tag: handed back with the result.
        :param age_s: time since the frame was captured, in seconds.
        :return: the frame's id.
        :raises RuntimeError: if the engine is closed.
        """
        with self._lock:
            if self._closed:
                raise RuntimeError('the engine is closed')
            now_s = time.monotonic()
            self._frame_id += 1
            frame = Frame(self._frame_id, image, tag, now_s, now_s - age_s)
            self._frames[frame.frame_id] = frame
            captured_s, size = frame.captured_s, size_of(image)
            self._carry_out(self._scheduler.frame(frame.frame_id, now_s, captured_s, size))
        return frame.frame_id

    def reject(self) -> None:
        """Count a frame that could not be handed in."""
        with self._lock:
            self._frame_id += 1
            self._carry_out(self._scheduler.reject(self._frame_id))

    def change_policy(self, policy: Policy, adaptive: bool) -> None:
        """
        Take another policy from the next frame on; the running one ends under its own.

        :param adaptive: False computes every position.
        :raises ValueError: if the policy is for another number of exits.
        """
        with self._lock:
            self._scheduler.change_policy(policy)
            self._adaptive = adaptive

    def urgency(
        self, level: Level, deadline_s: float = 0.0, hold_s: float = 0.0, stamp: Any = None
    ) -> None:
        """
        Change the urgency; if that stops the running frame, its result is out on return.

        Parameters as in :meth:`adpc_ros.runtime.scheduler.Scheduler.urgency`.
        """
        with self._lock:
            now_s = time.monotonic()
            self._carry_out(self._scheduler.urgency(level, now_s, deadline_s, hold_s, stamp))
        self._flush()

    def latest(self) -> RenderedExit | None:
        """Give the latest rendered exit of any frame."""
        with self._lock:
            return self._latest

    def counters(self) -> Counters:
        """Give a copy of the frame counters."""
        with self._lock:
            return self._copy_counters()

    def stop(self) -> None:
        """
        Drop what waits and what runs, and return to ROUTINE; the engine can be used again at once.

        Results that were decided before are out on return.
        """
        with self._lock:
            self._carry_out(self._scheduler.stop())
        self._flush()

    def health(self) -> Health:
        """Say how the worker is; without a watch it is never called ill."""
        return self._watchdog.health() if self._watchdog is not None else Health()

    def close(self) -> bool:
        """
        Stop, and end the worker thread; does nothing the second time.

        Do not call it from ``on_result``: the worker may be waiting for that.

        :return: False if the worker hangs: it is left behind, and its plan must not be touched.
        """
        with self._lock:
            self._carry_out(self._scheduler.stop())
            self._closed = True
            self._wake.notify_all()
        self._flush()
        if self._watchdog is not None:
            self._watchdog.end()
        thread = self._worker.thread
        if threading.current_thread() is thread:
            return True
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
        with self._lock:
            if worker is not self._worker or self._started is None:
                return
            self._cancelled = True
            worker.plan.interrupt()
            self._fail(self._started, error)
        self._flush(END_S)

    def replace(self, worker: Worker, steps: int, plan: Plan) -> bool:
        """Let a new worker with this plan go on, unless the other came back or all is closed."""
        with self._lock:
            if self._closed or worker is not self._worker or worker.steps != steps:
                return False
            self._worker = Worker(plan, self._work)
            self._due = None
            if self._started is not None:
                self._carry_out(self._scheduler.idle(self._started, time.monotonic()))
            self._worker.thread.start()
        self._flush(END_S)
        return True

    # Under the lock

    def _carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Start):
                self._due = self._started = action.frame_id
                self._wake.notify_all()  # an abandoned worker may wait, too
            elif isinstance(action, Cancel):
                self._cancelled = True
                self.plan.interrupt()
            elif isinstance(action, Publish):
                latest = self._latest
                assert latest is not None
                assert latest[:2] == (action.frame_id, action.exit_index)
                self._put(self._frames.pop(action.frame_id), action, latest)
            else:
                frame = self._frames.pop(action.frame_id, None)  # none if it was rejected
                if frame is not None and action.reason is DropReason.FAILED:
                    self._put(frame, action, None)

    def _fail(self, frame_id: int, error: Exception) -> None:
        self._error = error
        self._carry_out(self._scheduler.failed(frame_id))
        self._error = None  # its traceback holds the frame's tensors

    def _put(self, frame: Frame, decision: Publish | Drop, latest: RenderedExit | None) -> None:
        self._outbox.append(self._result(frame, decision, latest))

    def _result(
        self, frame: Frame, decision: Publish | Drop | None, latest: RenderedExit | None
    ) -> Result:
        level = self._scheduler.level(time.monotonic())
        counters = self._copy_counters()
        return Result(frame, decision, latest, self._started_s, level, counters, self._error)

    def _copy_counters(self) -> Counters:
        counters = self._scheduler.counters
        return replace(counters, drops=dict(counters.drops))

    # Outside the lock

    def _flush(self, wait_s: float = -1) -> None:
        """
        Hand out results in order. A second caller waits, so that its result is out on return.

        :param wait_s: how long at most, -1 for ever; what is left then, the next flush hands out.
        """
        while self._publishing.acquire(timeout=wait_s):
            try:
                if not self._outbox:
                    return
                result = self._outbox.popleft()
                try:
                    self._on_result(result)
                except Exception:
                    log.exception('publishing frame %d failed', result.frame.frame_id)
            finally:
                self._publishing.release()

    # The worker

    def _work(self, worker: Worker) -> None:
        while True:
            with self._lock:
                while self._due is None and not self._closed and worker is self._worker:
                    self._wake.wait()
                if self._due is None or worker is not self._worker:
                    break
                frame_id, self._due = self._due, None
                self._cancelled = self._closed
                self._started_s = time.monotonic()
                frame = self._frames.get(frame_id)
            try:
                if frame is not None:  # else it was dropped before it began
                    frame = self._decoded(worker, frame)
                if frame is not None:
                    self._segment(worker, frame)
            except Exception as error:
                log.exception('segmenting frame %d failed', frame_id)
                with self._lock:
                    self._fail(frame_id, error)
            del frame
            with self._lock:  # of an abandoned worker's frame the scheduler knows nothing more
                self._carry_out(self._scheduler.idle(frame_id, time.monotonic()))
            self._flush()
        if worker is not self._worker:
            log.warning('a worker that hung has come back: its memory is freed')
            worker.plan.close()

    def _decoded(self, worker: Worker, frame: Frame) -> Frame | None:
        """Give the frame with its pixels, None if it has none."""
        if not isinstance(frame.image, Deferred):
            return frame
        try:
            with worker.step():
                frame = frame._replace(image=frame.image.decode())
        except ValueError:
            with self._lock:
                self._carry_out(self._scheduler.failed(frame.frame_id, DropReason.INVALID))
            return None
        with self._lock:
            if frame.frame_id in self._frames:  # else it was dropped meanwhile
                self._frames[frame.frame_id] = frame
        return frame

    def _segment(self, worker: Worker, frame: Frame) -> None:
        assert not isinstance(frame.image, Deferred)
        run_until = getattr(worker.plan, 'run_until', lambda time_s: None)
        run_until(time.monotonic() + 0.002)
        for computed in worker.steps_of(worker.plan.segment(frame.image, self._adaptive)):
            run_until(time.monotonic() + 0.002)
            if self._stopped(worker):
                return
            if computed is None:
                continue
            rendered = RenderedExit(
                frame.frame_id,
                computed.exit_index,
                computed.rendered,
                computed.mean_confidence,
                computed.confident_share,
                computed.macs / GI,
                computed.active_share,
                time.monotonic(),
            )
            with self._lock:
                if self._cancelled or worker is not self._worker:
                    return
                self._latest = rendered
                done = self._result(frame, None, rendered) if self._on_exit else None
                self._carry_out(
                    self._scheduler.exit_rendered(
                        frame.frame_id,
                        rendered.exit_index,
                        rendered.time_s,
                        rendered.mean_confidence,
                    )
                )
            self._flush()
            if self._on_exit is not None and done is not None:
                try:
                    self._on_exit(done)
                except Exception:
                    log.exception('reporting an exit of frame %d failed', frame.frame_id)

    def _stopped(self, worker: Worker) -> bool:
        """Look at the clock and at the cancel flag."""
        with self._lock:
            if worker is not self._worker:  # it hung, and another has its place
                return True
            actions = self._scheduler.tick(time.monotonic())
            self._carry_out(actions)
            cancelled = self._cancelled
        if actions:
            self._flush()
        return cancelled
