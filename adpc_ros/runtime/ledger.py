# SPDX-License-Identifier: Apache-2.0
"""
The frames in flight and what becomes of them: carries out what a scheduler decides.

Engine and simulation share it. They say how a frame is begun and cancelled, and where results go.
There is no thread and no lock here: the owner serialises all calls.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from adpc_ros.network.macs import GI
from adpc_ros.runtime.deferred import Deferred, size_of
from adpc_ros.runtime.plan import ComputedExit
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


class Frame(NamedTuple):
    """
    One image on its way through the runtime.

    ``image`` (H, W, 3) uint8 RGB, decoded once the frame has begun; ``tag`` is the caller's and
    is handed back; ``received_s`` and ``captured_s`` are on the owner's clock.
    """

    frame_id: int
    image: NDArray[np.uint8] | Deferred
    tag: Any
    received_s: float
    captured_s: float


class RenderedExit(NamedTuple):
    """An exit of a frame, ready to be published; ``time_s`` when it was rendered."""

    frame_id: int
    computed: ComputedExit
    time_s: float

    @property
    def gimac(self) -> float:
        """Multiply-accumulates so far, in units of 2**30."""
        return self.computed.macs / GI


@dataclass(frozen=True)
class Result:
    """
    What became of a frame.

    :param frame: as it went in.
    :param decision: what the scheduler decided; a :class:`Drop` with reason FAILED carries
        ``error``. None: the frame goes on.
    :param exit: what to publish, None if the frame failed.
    :param started_s: when the computation began.
    :param decided_s: when this was decided.
    :param level: the urgency in force.
    :param counters: of all frames, up to and including this one.
    """

    frame: Frame
    decision: Publish | Drop | None
    exit: RenderedExit | None
    started_s: float
    decided_s: float
    level: Level
    counters: Counters
    error: Exception | None = None

    @property
    def reason(self) -> StopReason | None:
        """Why the frame ended; None if it goes on."""
        if self.decision is None:
            return None
        return self.decision.reason if isinstance(self.decision, Publish) else StopReason.FAILED


class Ledger:
    """Every frame that has neither a result nor been dropped, and the latest exit."""

    def __init__(
        self,
        policy: Policy,
        now_s: Callable[[], float],
        begin: Callable[[Frame], Iterable[Action]],
        cancel: Callable[[int], Iterable[Action]],
        ended: Callable[[Result], None],
        dropped: Callable[[Frame, DropReason], None],
    ) -> None:
        """
        Start idle.

        :param now_s: the owner's clock, in seconds.
        :param begin: computes a frame from now on; gives what the scheduler decided on that.
        :param cancel: ends the computation of the frame with this id; likewise.
        :param ended: takes the result of a frame that is published or failed.
        :param dropped: takes a frame that gets no result; not one that was rejected.
        """
        self.scheduler = Scheduler(policy)
        self.started_s = 0.0  # of the frame that is computed; kept by the owner
        self.latest: RenderedExit | None = None
        self._now_s = now_s
        self._begin, self._cancel, self._ended, self._dropped = begin, cancel, ended, dropped
        self._frames: dict[int, Frame] = {}
        self._frame_id = 0
        self._error: Exception | None = None

    def __contains__(self, frame_id: int) -> bool:
        """Say whether a frame has neither a result nor been dropped."""
        return frame_id in self._frames

    def frame(self, frame_id: int) -> Frame | None:
        """Give a frame that is in flight, else None."""
        return self._frames.get(frame_id)

    # Events

    def add(self, image: NDArray[np.uint8] | Deferred, tag: Any, captured_s: float) -> int:
        """
        Take a new frame.

        :param image: (H, W, 3) uint8 RGB, or one that is still to be decoded.
        :param tag: handed back with the result.
        :param captured_s: on the owner's clock.
        :return: the frame's id.
        """
        now_s = self._now_s()
        self._frame_id += 1
        frame = Frame(self._frame_id, image, tag, now_s, captured_s)
        self._frames[frame.frame_id] = frame
        self.carry_out(self.scheduler.frame(frame.frame_id, now_s, captured_s, size_of(image)))
        return frame.frame_id

    def reject(self) -> None:
        """Count a frame that could not be handed in."""
        self._frame_id += 1
        self.carry_out(self.scheduler.reject(self._frame_id))

    def decoded(self, frame: Frame) -> None:
        """Take a frame with its pixels in place of the same one without."""
        if frame.frame_id in self._frames:  # else it was dropped meanwhile
            self._frames[frame.frame_id] = frame

    def exit(self, frame: Frame, computed: ComputedExit) -> Result:
        """
        Take an exit that was rendered now.

        :return: a report of it, without decision.
        """
        latest = self.latest = RenderedExit(frame.frame_id, computed, self._now_s())
        report = self._result(frame, None, latest)
        self.carry_out(
            self.scheduler.exit_rendered(
                *(frame.frame_id, computed.exit_index, latest.time_s, computed.mean_confidence)
            )
        )
        return report

    def fail(self, frame_id: int, error: Exception) -> None:
        """Drop a frame as failed, unless it has its result."""
        self._error = error
        self.carry_out(self.scheduler.failed(frame_id))
        self._error = None  # its traceback holds the frame's tensors

    def counters(self) -> Counters:
        """Give a copy of the frame counters."""
        counters = self.scheduler.counters
        return replace(counters, drops=dict(counters.drops))

    # Decisions

    def carry_out(self, actions: Iterable[Action]) -> None:
        """Do what the scheduler decided, in this order, and what follows from it."""
        pending = deque(actions)
        while pending:
            action = pending.popleft()
            if isinstance(action, Start):
                pending.extend(self._begin(self._frames[action.frame_id]))
            elif isinstance(action, Cancel):
                pending.extend(self._cancel(action.frame_id))
            elif isinstance(action, Publish):
                latest = self.latest
                assert latest is not None and latest.frame_id == action.frame_id
                assert latest.computed.exit_index == action.exit_index
                self._ended(self._result(self._frames.pop(action.frame_id), action, latest))
            else:
                frame = self._frames.pop(action.frame_id, None)  # none if it was rejected
                if frame is not None and action.reason is DropReason.FAILED:
                    self._ended(self._result(frame, action, None))
                elif frame is not None:
                    self._dropped(frame, action.reason)

    def _result(
        self, frame: Frame, decision: Publish | Drop | None, latest: RenderedExit | None
    ) -> Result:
        now_s = self._now_s()
        return Result(
            frame,
            decision,
            latest,
            self.started_s,
            now_s,
            self.scheduler.level(now_s),
            self.counters(),
            self._error,
        )
