"""
The engine under a simulated clock: the scheduler's decisions, each exit costing a given time.

What is decided depends on the times of the events alone, so it is the same on every machine.
Masks are computed as far as they are asked for, in no simulated time beside the given one.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from adpc_ros.network.macs import GI
from adpc_ros.replay.source import FAR_OFF_S, Arrival, FrameArrival, UrgencyArrival, stamp_text
from adpc_ros.ros.decoding import admitted
from adpc_ros.runtime.deferred import Deferred, size_of
from adpc_ros.runtime.engine import Frame, RenderedExit, Result
from adpc_ros.runtime.memory import Budget
from adpc_ros.runtime.plan import ComputedExit, Plan
from adpc_ros.runtime.scheduler import (
    Action,
    Cancel,
    Drop,
    DropReason,
    Policy,
    Publish,
    Scheduler,
    Start,
)

log = logging.getLogger(__name__)

_LOOK_NS = 2_000_000  # the engine looks at the clock this often, as over the native plan

ResultSink = Callable[[Result, int], None]
DropSink = Callable[[FrameArrival, DropReason, int], None]


@dataclass
class _Running:
    frame: Frame
    exits: Iterator[ComputedExit | None] | None  # None until the first exit is due
    due_ns: list[int]  # of the exits that are still to come
    look_ns: int
    started_ns: int


class Simulation:
    """
    One run over a drive; an exit that is due at the very time of an event comes before it.

    A cancelled computation ends at once, and publication takes no time.
    """

    def __init__(
        self,
        plan: Plan,
        policy: Policy,
        exit_s: Sequence[float],
        start_ns: int,
        on_result: ResultSink = lambda result, time_ns: None,
        on_drop: DropSink = lambda frame, reason, time_ns: None,
        adaptive: bool = True,
        budget: Budget | None = None,
        on_exit: ResultSink | None = None,
    ) -> None:
        """
        Start idle, at ROUTINE.

        :param plan: computes the exits.
        :param policy: what frames may spend.
        :param exit_s: seconds that each exit takes after the one before.
        :param start_ns: where the seconds of results start.
        :param on_result: called for each frame that is published or fails, with the time in
            nanoseconds; in order.
        :param on_drop: called for each frame that is dropped and did not fail, likewise.
        :param adaptive: False computes every position.
        :param budget: of a frame; None for no limit.
        :param on_exit: called for every exit, with a result without decision; after the frame's
            result if it has one by then.
        :raises ValueError: if there is not one positive duration for each exit.
        """
        if len(exit_s) != plan.exit_count or not all(0 < s < 1e6 for s in exit_s):
            raise ValueError(
                f'expected the seconds of {plan.exit_count} exits, each > 0, got '
                + ', '.join(f'{s:g}' for s in exit_s)
            )
        self._plan, self._adaptive, self._budget = plan, adaptive, budget
        self._after_ns = [round(1e9 * s) for s in accumulate(exit_s)]
        self._start_ns = start_ns
        self._on_result, self._on_drop, self._on_exit = on_result, on_drop, on_exit
        self._scheduler = Scheduler(policy)
        self._now_ns = start_ns
        self._warned = False
        self._frame_id = 0
        self._frames: dict[int, Frame] = {}
        self._running: _Running | None = None
        self._latest: RenderedExit | None = None
        self._error: Exception | None = None

    def run(self, arrivals: Iterable[Arrival]) -> None:
        """
        Let everything arrive, then the last frame end.

        :param arrivals: in order of their times.
        """
        for arrival in arrivals:
            self._advance(arrival.time_ns)
            self._now_ns = arrival.time_ns
            if isinstance(arrival, UrgencyArrival):
                self._carry_out(
                    self._scheduler.urgency(
                        arrival.level,
                        self._now_s,
                        arrival.deadline_s,
                        arrival.hold_s,
                        arrival.stamp_ns,
                    )
                )
            elif isinstance(arrival, FrameArrival):
                self._take(arrival)
        self._advance(None)

    @property
    def _now_s(self) -> float:
        return self._seconds(self._now_ns)

    def _seconds(self, time_ns: int) -> float:
        return (time_ns - self._start_ns) / 1e9

    def _take(self, arrival: FrameArrival) -> None:
        self._frame_id += 1
        try:
            image = arrival.image()
            if self._budget is not None:
                image = admitted(image, self._budget)
        except ValueError as error:
            _say_invalid(arrival, error)
            for action in self._scheduler.reject(self._frame_id):
                assert isinstance(action, Drop)
                self._on_drop(arrival, action.reason, self._now_ns)
            return
        captured_ns = arrival.captured_ns
        if captured_ns != arrival.stamp_ns and not self._warned:
            self._warned = True
            log.warning(
                'the stamp %s is more than %.0f s off the time of receipt: such frames count '
                'as captured when received',
                stamp_text(arrival.stamp_ns),
                FAR_OFF_S,
            )
        captured_s = self._seconds(captured_ns)
        # the tag does not hold the message, whose bytes are no longer needed
        tag = arrival._replace(message=None, data=b'')
        frame = Frame(self._frame_id, image, tag, self._now_s, captured_s)
        self._frames[frame.frame_id] = frame
        self._carry_out(
            self._scheduler.frame(frame.frame_id, self._now_s, captured_s, size_of(image))
        )

    # The computation

    def _advance(self, until_ns: int | None) -> None:
        """Compute until a time, or until there is nothing left to compute."""
        while (running := self._running) is not None:
            is_look = running.look_ns < running.due_ns[0]
            next_ns = running.look_ns if is_look else running.due_ns[0]
            if until_ns is not None and next_ns > until_ns:
                return
            self._now_ns = next_ns
            running.look_ns = next_ns + _LOOK_NS
            if is_look:
                self._carry_out(self._scheduler.tick(self._now_s))
            else:
                running.due_ns.pop(0)
                self._render(running)

    def _render(self, running: _Running) -> None:
        frame = running.frame
        try:
            if running.exits is None:
                assert not isinstance(frame.image, Deferred)  # decoded when it began
                running.exits = iter(self._plan.segment(frame.image, self._adaptive))
            computed = next(done for done in running.exits if done is not None)
        except Exception as error:
            log.exception('segmenting frame %d failed', frame.tag.number)
            self._error = error
            self._carry_out(self._scheduler.failed(frame.frame_id))
            self._let_go()
            return
        self._latest = RenderedExit(
            frame.frame_id,
            computed.exit_index,
            computed.rendered,
            computed.mean_confidence,
            computed.confident_share,
            computed.macs / GI,
            computed.active_share,
            self._now_s,
        )
        done = self._result(frame, None, self._latest) if self._on_exit else None
        self._carry_out(
            self._scheduler.exit_rendered(
                frame.frame_id, computed.exit_index, self._now_s, computed.mean_confidence
            )
        )
        if self._on_exit is not None and done is not None:
            self._on_exit(done, self._now_ns)
        if self._running is running and not running.due_ns:
            self._let_go()

    def _let_go(self) -> None:
        assert self._running is not None
        frame_id, self._running = self._running.frame.frame_id, None
        self._carry_out(self._scheduler.idle(frame_id, self._now_s))

    # Decisions

    def _carry_out(self, actions: Iterable[Action]) -> None:
        pending = deque(actions)
        while pending:
            action = pending.popleft()
            if isinstance(action, Start):
                pending += self._start(action.frame_id)
            elif isinstance(action, Cancel):
                self._running = None  # what its generator has not done is never done
                pending += self._scheduler.idle(action.frame_id, self._now_s)
            elif isinstance(action, Publish):
                assert self._latest is not None
                assert self._latest[:2] == (action.frame_id, action.exit_index)
                self._give(self._frames.pop(action.frame_id), action, self._latest)
            else:
                frame = self._frames.pop(action.frame_id)
                if action.reason is DropReason.FAILED:
                    self._give(frame, action, None)
                else:
                    self._on_drop(frame.tag, action.reason, self._now_ns)

    def _start(self, frame_id: int) -> list[Action]:
        now_ns, frame = self._now_ns, self._frames[frame_id]
        if isinstance(frame.image, Deferred):
            try:
                frame = self._frames[frame_id] = frame._replace(image=frame.image.decode())
            except ValueError as error:
                _say_invalid(frame.tag, error)
                dropped = self._scheduler.failed(frame_id, DropReason.INVALID)
                return [*dropped, *self._scheduler.idle(frame_id, self._now_s)]
        due_ns = [now_ns + after_ns for after_ns in self._after_ns]
        self._running = _Running(frame, None, due_ns, now_ns + _LOOK_NS, now_ns)
        return []

    def _give(self, frame: Frame, decision: Publish | Drop, latest: RenderedExit | None) -> None:
        result = self._result(frame, decision, latest)
        self._error = None
        self._on_result(result, self._now_ns)

    def _result(
        self, frame: Frame, decision: Publish | Drop | None, latest: RenderedExit | None
    ) -> Result:
        assert self._running is not None
        counters = self._scheduler.counters
        return Result(
            frame,
            decision,
            latest,
            self._seconds(self._running.started_ns),
            self._scheduler.level(self._now_s),
            replace(counters, drops=dict(counters.drops)),
            self._error,
        )


def _say_invalid(frame: FrameArrival, error: ValueError) -> None:
    log.warning('frame %d dropped: %s', frame.number, error)
