# SPDX-License-Identifier: Apache-2.0
"""
The engine under a simulated clock: the scheduler's decisions, each exit costing a given time.

What is decided depends on the times of the events alone, so it is the same on every machine.
Masks are computed as far as they are asked for, in no simulated time beside the given one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from adpc_ros.replay.source import FAR_OFF_S, Arrival, FrameArrival, UrgencyArrival, stamp_text
from adpc_ros.ros.decoding import admitted
from adpc_ros.runtime.deferred import Deferred
from adpc_ros.runtime.ledger import Frame, Ledger, Result
from adpc_ros.runtime.memory import Budget
from adpc_ros.runtime.plan import ComputedExit, Plan
from adpc_ros.runtime.scheduler import Action, DropReason, Policy

log = logging.getLogger(__name__)

_LOOK_NS = 2_000_000  # while a frame is computed, the clock is looked at this often

ResultSink = Callable[[Result, int], None]
DropSink = Callable[[FrameArrival, DropReason, int], None]


@dataclass
class _Running:
    frame: Frame
    exits: Iterator[ComputedExit | None] | None  # None until the first exit is due
    due_ns: list[int]  # of the exits that are still to come
    look_ns: int


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
        self._ledger = Ledger(
            *(policy, lambda: self._now_s, self._begin, self._cancel, self._end, self._drop)
        )
        self._scheduler = self._ledger.scheduler
        self._now_ns = start_ns
        self._warned = False
        self._running: _Running | None = None

    def run(self, arrivals: Iterable[Arrival]) -> None:
        """
        Let everything arrive, then the last frame end.

        :param arrivals: in order of their times.
        """
        for arrival in arrivals:
            self._advance(arrival.time_ns)
            self._now_ns = arrival.time_ns
            if isinstance(arrival, UrgencyArrival):
                self._ledger.carry_out(
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
        try:
            image = arrival.image()
            if self._budget is not None:
                image = admitted(image, self._budget)
        except ValueError as error:
            _say_invalid(arrival, error)
            self._ledger.reject()
            self._on_drop(arrival, DropReason.INVALID, self._now_ns)
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
        # the tag does not hold the message, whose bytes are no longer needed
        tag = arrival._replace(message=None, data=b'')
        self._ledger.add(image, tag, self._seconds(captured_ns))

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
                self._ledger.carry_out(self._scheduler.tick(self._now_s))
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
            self._ledger.fail(frame.frame_id, error)
            self._let_go()
            return
        done = self._ledger.exit(frame, computed)
        if self._on_exit is not None:
            self._on_exit(done, self._now_ns)
        if self._running is running and not running.due_ns:
            self._let_go()

    def _let_go(self) -> None:
        assert self._running is not None
        frame_id, self._running = self._running.frame.frame_id, None
        self._ledger.carry_out(self._scheduler.idle(frame_id, self._now_s))

    # What the ledger asks for

    def _begin(self, frame: Frame) -> list[Action]:
        if isinstance(frame.image, Deferred):
            try:
                frame = frame._replace(image=frame.image.decode())
            except ValueError as error:
                _say_invalid(frame.tag, error)
                dropped = self._scheduler.failed(frame.frame_id, DropReason.INVALID)
                return [*dropped, *self._scheduler.idle(frame.frame_id, self._now_s)]
            self._ledger.decoded(frame)
        self._ledger.started_s = self._now_s
        due_ns = [self._now_ns + after_ns for after_ns in self._after_ns]
        self._running = _Running(frame, None, due_ns, self._now_ns + _LOOK_NS)
        return []

    def _cancel(self, frame_id: int) -> list[Action]:
        self._running = None  # what its generator has not done is never done
        return self._scheduler.idle(frame_id, self._now_s)

    def _end(self, result: Result) -> None:
        self._on_result(result, self._now_ns)

    def _drop(self, frame: Frame, reason: DropReason) -> None:
        self._on_drop(frame.tag, reason, self._now_ns)


def _say_invalid(frame: FrameArrival, error: ValueError) -> None:
    log.warning('frame %d dropped: %s', frame.number, error)
