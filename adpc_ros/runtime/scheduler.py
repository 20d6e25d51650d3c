# SPDX-License-Identifier: Apache-2.0
"""
The whole policy of the anytime runtime: what runs, when it stops, what is published or dropped.

Pure code: events go in, each with its time, and actions come out. No threads, no clock, no data.
The caller serialises events and carries out actions in the order they come. The node and the
replay drive this same scheduler.

The budget of a frame is the paper's B(x, t): it is computed at every event, so that
a newer frame, an urgency message or the clock changes it at once.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

_MEMORY = 0.9  # an expected duration follows a slower sample at once, a faster one slowly
_CUT_SHORT = 1.5  # an exit that a deadline cut is expected to take this much longer than it ran
_DOUBT = 0.99  # what is expected of an exit that was not tried fades until it is tried again
_PUBLISH_S = 0.005  # what publication is expected to take before any was seen
_PUBLISH_RANGE_S = (0.001, 0.05)  # what it is expected to take at least and at most
_LATE_S = 1e-6  # after the last moment in time: it is too late then, whatever is rounded


class Level(enum.IntEnum):
    """Safety urgency, as in ``msg/Urgency.msg``."""

    ROUTINE = 0
    ELEVATED = 1
    CRITICAL = 2


class StopReason(enum.IntEnum):
    """Why a frame ended where it did, as in ``msg/SegmentationStatus.msg``."""

    FINISHED = 0
    NEXT_FRAME = 1
    URGENT = 2
    DEADLINE = 3
    CONFIDENT = 4
    EXIT_LIMIT = 5
    FAILED = 6


class DropReason(str, enum.Enum):
    """Why a frame got no mask."""

    SUPERSEDED = 'superseded'  # a newer frame came before this one was started
    STALE = 'stale'  # older than max_age_s on arrival
    INVALID = 'invalid'  # not an image that can be segmented
    INACTIVE = 'inactive'  # the runtime was stopped
    FAILED = 'failed'  # the computation raised an error


@dataclass(frozen=True)
class Policy:
    """
    What frames may spend.

    :param exit_count: exits of the network.
    :param min_exit: a newer frame or a deadline stops no frame before this exit.
    :param max_exit: no frame goes beyond this exit; None for the last one.
    :param deadline_s: from a frame's stamp to its mask, in seconds; infinite for none.
    :param target_confidence: a frame ends once the mean of its published confidence is above;
        1.0 never.
    :param elevated_deadline_s: like ``deadline_s``, while the urgency is ELEVATED.
    :param urgent_max_exit: like ``max_exit`` and beside it, while the urgency is CRITICAL.
    :param max_age_s: older frames are dropped on arrival, in seconds; infinite for none.
    :raises ValueError: if a value is out of range.
    """

    exit_count: int
    min_exit: int = 1
    max_exit: int = None  # type: ignore[assignment]  # set on construction
    deadline_s: float = math.inf
    target_confidence: float = 1.0
    elevated_deadline_s: float = 0.1
    urgent_max_exit: int = 1
    max_age_s: float = math.inf

    def __post_init__(self) -> None:
        max_exit: int | None = self.max_exit
        object.__setattr__(self, 'max_exit', self.exit_count if max_exit is None else max_exit)
        if not 1 <= self.min_exit <= self.max_exit <= self.exit_count:
            raise ValueError(
                'expected 1 <= min_exit <= max_exit <= exit_count, got '
                f'{self.min_exit}, {self.max_exit}, {self.exit_count}'
            )
        if not 1 <= self.urgent_max_exit <= self.exit_count:
            raise ValueError(
                f'expected urgent_max_exit in 1..{self.exit_count}, got {self.urgent_max_exit}'
            )
        if not 0 <= self.target_confidence <= 1:
            raise ValueError(f'expected target_confidence in [0, 1], got {self.target_confidence}')
        for name in ('deadline_s', 'elevated_deadline_s', 'max_age_s'):
            if not getattr(self, name) > 0:
                raise ValueError(f'expected {name} > 0, got {getattr(self, name)}')


class Start(NamedTuple):
    """Compute this frame; report every exit, then that the worker is idle."""

    frame_id: int


class Cancel(NamedTuple):
    """Stop computing this frame."""

    frame_id: int


class Publish(NamedTuple):
    """
    Publish this frame's exit; nothing else of the frame may be published.

    ``urgency_stamp`` is that of the message that stopped the frame, else None. ``deadline_s`` is
    when the frame should be out, infinite for no deadline. ``event_s`` is the time of the event
    that preempted it, else None.
    """

    frame_id: int
    exit_index: int
    reason: StopReason
    urgency_stamp: Any
    deadline_s: float
    event_s: float | None


class Drop(NamedTuple):
    """This frame gets no mask."""

    frame_id: int
    reason: DropReason


Action = Start | Cancel | Publish | Drop


@dataclass
class Counters:
    """Frames since the start: received = segmented + dropped + in flight."""

    received: int = 0
    segmented: int = 0
    drops: dict[DropReason, int] = field(default_factory=lambda: dict.fromkeys(DropReason, 0))

    @property
    def dropped(self) -> int:
        """Frames that got no mask."""
        return sum(self.drops.values())


class _Waiting(NamedTuple):
    frame_id: int
    captured_s: float
    arrived_s: float
    size: tuple[int, int]


class _Event(NamedTuple):
    time_s: float
    stamp: Any


@dataclass
class _Running:
    frame_id: int
    policy: Policy  # the one it began under
    captured_s: float
    exit_limit: int
    last_s: float  # when it was started or its latest exit was rendered
    exits: int = 0
    urgent: _Event | None = None  # CRITICAL arrived before the first exit
    sealed: bool = False


class Scheduler:
    """The state behind the policy. All times are seconds on one monotonic clock."""

    def __init__(self, policy: Policy) -> None:
        """Start idle, at ROUTINE."""
        self.policy = policy
        self.counters = Counters()
        self._waiting: _Waiting | None = None
        self._running: _Running | None = None  # until the worker reports that it is idle
        self._level = Level.ROUTINE
        self._level_until_s = math.inf
        self._elevated_deadline_s = 0.0  # as the message says; 0 for the policy's
        self._expected_s = [0.0] * policy.exit_count  # to compute each exit after the one before
        self._publish_s = _PUBLISH_S  # expected from a decision until the mask is out
        self._size = (0, 0)

    # Events

    def frame(
        self, frame_id: int, now_s: float, captured_s: float, size: tuple[int, int] = (0, 0)
    ) -> list[Action]:
        """
        Take a new frame; the newest wins.

        :param frame_id: greater than that of every frame before.
        :param captured_s: the frame's stamp on the monotonic clock; if it is in the future,
            deadlines count from arrival.
        :param size: (H, W) of the image; durations are expected anew when it changes.
        """
        self.counters.received += 1
        if now_s - captured_s > self.policy.max_age_s:
            return [self._drop(frame_id, DropReason.STALE)]
        actions: list[Action] = []
        if self._waiting is not None:
            actions.append(self._drop(self._waiting.frame_id, DropReason.SUPERSEDED))
        self._waiting = _Waiting(frame_id, min(captured_s, now_s), now_s, size)
        running = self._running
        if running is None:
            return actions + self._start(now_s)
        if not running.sealed and running.exits >= running.policy.min_exit:
            actions += self._seal(StopReason.NEXT_FRAME, now_s, _Event(now_s, None))
        return actions

    def change_policy(self, policy: Policy) -> None:
        """
        Take another policy from the next frame on; the running one ends under its own.

        :raises ValueError: if it is for another number of exits.
        """
        if policy.exit_count != self.policy.exit_count:
            raise ValueError(
                f'expected a policy for {self.policy.exit_count} exits, got {policy.exit_count}'
            )
        self.policy = policy

    def reject(self, frame_id: int) -> list[Action]:
        """Count a message that is not an image which can be segmented."""
        self.counters.received += 1
        return [self._drop(frame_id, DropReason.INVALID)]

    def urgency(
        self,
        level: Level,
        now_s: float,
        deadline_s: float = 0.0,
        hold_s: float = 0.0,
        stamp: Any = None,
    ) -> list[Action]:
        """
        Change the urgency; the latest message's level is in force.

        Only the step up to CRITICAL preempts, so that a repeated message cuts nothing.

        :param deadline_s: ELEVATED: from a frame's stamp to its mask; 0 takes the policy's.
        :param hold_s: how long the level stays from now; 0 until the next message.
        :param stamp: handed back in :class:`Publish` if this message stops a frame.
        """
        step_up = level is Level.CRITICAL and self.level(now_s) is not Level.CRITICAL
        self._level = level
        self._level_until_s = now_s + hold_s if hold_s > 0 else math.inf
        self._elevated_deadline_s = deadline_s
        running = self._running
        if running is None or running.sealed:
            return []
        event = _Event(now_s, stamp)
        if step_up and running.exits:
            return self._seal(StopReason.URGENT, now_s, event)
        if step_up:
            running.urgent = event
        if level is Level.ELEVATED and self._is_late(running, now_s):
            return self._seal(StopReason.DEADLINE, now_s, event)
        return []

    def exit_rendered(
        self, frame_id: int, exit_index: int, now_s: float, mean_confidence: float = 0.0
    ) -> list[Action]:
        """
        Take note that an exit can be published, and decide whether the frame goes on.

        :param exit_index: from 1, one after the other.
        :param mean_confidence: of the published confidence of the image's pixels, 0 to 1.
        """
        running = self._running
        if running is None or running.frame_id != frame_id:
            return []
        took_s = now_s - running.last_s
        self._expected_s[exit_index - 1] = _followed(self._expected_s[exit_index - 1], took_s)
        running.last_s = now_s
        if running.sealed:
            return []
        running.exits = exit_index
        policy, waiting = running.policy, self._waiting
        if running.urgent is not None:
            return self._seal(StopReason.URGENT, now_s, running.urgent)
        if exit_index == policy.exit_count:
            return self._seal(StopReason.FINISHED, now_s)
        if exit_index >= running.exit_limit:
            return self._seal(StopReason.EXIT_LIMIT, now_s)
        if waiting is not None and exit_index >= policy.min_exit:
            return self._seal(StopReason.NEXT_FRAME, now_s, _Event(waiting.arrived_s, None))
        if self._is_late(running, now_s):
            return self._seal(StopReason.DEADLINE, now_s)
        if mean_confidence > policy.target_confidence and exit_index >= policy.min_exit:
            return self._seal(StopReason.CONFIDENT, now_s)
        return []

    def failed(self, frame_id: int, reason: DropReason = DropReason.FAILED) -> list[Action]:
        """
        Take note that a frame cannot be computed; it is dropped if it is still due.

        :param reason: FAILED, or INVALID if it proved to be no image when it was decoded.
        """
        running = self._running
        if running is None or running.frame_id != frame_id or running.sealed:
            return []
        running.sealed = True
        return [self._drop(frame_id, reason)]

    def idle(self, frame_id: int, now_s: float) -> list[Action]:
        """Take note that the worker has let go of a frame, and start the newest one."""
        running = self._running
        if running is None or running.frame_id != frame_id:
            return []
        actions = [] if running.sealed else self.failed(frame_id)  # it ended without a last exit
        self._running = None
        return actions + self._start(now_s)

    def tick(self, now_s: float) -> list[Action]:
        """Let time pass: a frame whose deadline is over ends with what it has."""
        running = self._running
        if running is not None and not running.sealed and self._is_late(running, now_s):
            return self._seal(StopReason.DEADLINE, now_s)
        return []

    def published(self, took_s: float) -> None:
        """
        Learn what publication takes: that much is kept free before a deadline.

        :param took_s: from the decision until the mask was out, in seconds.
        """
        least_s, most_s = _PUBLISH_RANGE_S
        self._publish_s = min(max(_followed(self._publish_s, took_s), least_s), most_s)

    def stop(self) -> list[Action]:
        """Drop what waits and what runs, and return to ROUTINE."""
        self._level, self._level_until_s = Level.ROUTINE, math.inf
        actions: list[Action] = []
        if self._waiting is not None:
            actions.append(self._drop(self._waiting.frame_id, DropReason.INACTIVE))
            self._waiting = None
        running = self._running
        if running is not None and not running.sealed:
            running.sealed = True
            actions += [
                self._drop(running.frame_id, DropReason.INACTIVE),
                Cancel(running.frame_id),
            ]
        return actions

    # State

    def level(self, now_s: float) -> Level:
        """Give the urgency in force."""
        return self._level if now_s < self._level_until_s else Level.ROUTINE

    def in_flight(self) -> int:
        """Give the number of frames that wait or run and have no result yet."""
        running = self._running
        return (self._waiting is not None) + (running is not None and not running.sealed)

    def next_look_s(self, now_s: float) -> float:
        """
        Give when :meth:`tick` will stop the running frame if no other event comes before.

        Ask again after every event. A tick before that time changes nothing.

        :return: infinity if time alone will not stop it.
        """
        running = self._running
        if running is None or running.sealed or running.exits < running.policy.min_exit:
            return math.inf
        if self._is_late(running, now_s):
            return now_s
        look_s = self._deadline_s(running, now_s) - self._publish_s + _LATE_S
        if look_s >= self._level_until_s:  # the hold is over by then
            look_s = self._deadline_s(running, self._level_until_s) - self._publish_s + _LATE_S
        return look_s

    # Decisions

    def _deadline_s(self, running: _Running, now_s: float) -> float:
        policy = running.policy
        deadline_s = policy.deadline_s
        if self.level(now_s) is Level.ELEVATED:
            elevated_s = self._elevated_deadline_s or policy.elevated_deadline_s
            deadline_s = min(deadline_s, elevated_s)
        return running.captured_s + deadline_s

    def _is_late(self, running: _Running, now_s: float) -> bool:
        """Say whether the frame may stop and its next exit would miss the deadline."""
        if running.exits < running.policy.min_exit:
            return False
        next_exit_s = max(now_s, running.last_s + self._expected_s[running.exits])
        return next_exit_s + self._publish_s > self._deadline_s(running, now_s)

    def _start(self, now_s: float) -> list[Action]:
        waiting = self._waiting
        if waiting is None:
            return []
        if waiting.size != self._size:
            self._size = waiting.size
            self._expected_s = [0.0] * self.policy.exit_count
            self._publish_s = _PUBLISH_S
        critical = self.level(now_s) is Level.CRITICAL
        limit = self.policy.max_exit
        if critical:
            limit = min(limit, self.policy.urgent_max_exit)
        self._waiting = None
        self._running = _Running(waiting.frame_id, self.policy, waiting.captured_s, limit, now_s)
        return [Start(waiting.frame_id)]

    def _seal(self, reason: StopReason, now_s: float, event: _Event | None = None) -> list[Action]:
        running = self._running
        assert running is not None and running.exits and not running.sealed
        running.sealed = True
        if reason is StopReason.DEADLINE:
            self._doubt(running, now_s)
        self.counters.segmented += 1
        publish = Publish(
            running.frame_id,
            running.exits,
            reason,
            event.stamp if event else None,
            self._deadline_s(running, now_s),
            event.time_s if event else None,
        )
        done = reason is StopReason.FINISHED
        return [publish] if done else [publish, Cancel(running.frame_id)]

    def _doubt(self, running: _Running, now_s: float) -> None:
        """Learn from an exit that a deadline cut, or kept from being tried."""
        tried_s, expected_s = now_s - running.last_s, self._expected_s[running.exits]
        if tried_s > expected_s:
            self._expected_s[running.exits] = _CUT_SHORT * tried_s
        elif tried_s == 0:
            self._expected_s[running.exits] = _DOUBT * expected_s

    def _drop(self, frame_id: int, reason: DropReason) -> Drop:
        self.counters.drops[reason] += 1
        return Drop(frame_id, reason)


def _followed(expected_s: float, took_s: float) -> float:
    """Follow a slower sample at once, a faster one slowly."""
    return max(took_s, _MEMORY * expected_s + (1 - _MEMORY) * took_s)
