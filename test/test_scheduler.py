# SPDX-License-Identifier: Apache-2.0
"""The policy, event by event, and its invariants over random orders of events."""

from __future__ import annotations

import copy
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adpc_ros.runtime.scheduler import (
    Cancel,
    Drop,
    DropReason,
    Level,
    Policy,
    Publish,
    Scheduler,
    Start,
    StopReason,
)


def published(actions: list) -> Publish:
    (publish,) = [a for a in actions if isinstance(a, Publish)]
    return publish


DEFAULT = Policy(4)


def started(policy: Policy = DEFAULT, exits: int = 0, at_s: float = 0.1) -> Scheduler:
    """Give a scheduler that runs frame 1 and has some of its exits, each after ``at_s``."""
    scheduler = Scheduler(policy)
    assert scheduler.frame(1, 0.0, 0.0) == [Start(1)]
    for index in range(1, exits + 1):
        assert scheduler.exit_rendered(1, index, index * at_s) == []
    return scheduler


def test_a_frame_runs_to_its_last_exit_when_nothing_happens() -> None:
    scheduler = started(exits=3)
    (publish,) = scheduler.exit_rendered(1, 4, 0.4)
    assert (publish.exit_index, publish.reason) == (4, StopReason.FINISHED)
    assert publish.event_s is None and publish.deadline_s == math.inf
    assert scheduler.idle(1, 0.4) == []
    assert scheduler.in_flight() == 0


def test_next_frame_preempts_at_the_latest_exit() -> None:
    scheduler = started(exits=2)
    publish, cancel = scheduler.frame(2, 0.25, 0.24)
    assert (publish.exit_index, publish.reason) == (2, StopReason.NEXT_FRAME)
    assert publish.event_s == 0.25
    assert cancel == Cancel(1)
    assert scheduler.idle(1, 0.26) == [Start(2)]


def test_next_frame_waits_for_min_exit() -> None:
    scheduler = started(Policy(4, min_exit=2), exits=1)
    assert scheduler.frame(2, 0.15, 0.15) == []
    publish = published(scheduler.exit_rendered(1, 2, 0.2))
    assert (publish.exit_index, publish.reason) == (2, StopReason.NEXT_FRAME)
    assert publish.event_s == 0.15


def test_the_newest_frame_wins() -> None:
    scheduler = started()
    assert scheduler.frame(2, 0.01, 0.0) == []
    assert scheduler.frame(3, 0.02, 0.0) == [Drop(2, DropReason.SUPERSEDED)]
    assert published(scheduler.exit_rendered(1, 1, 0.1)).frame_id == 1
    assert scheduler.idle(1, 0.1) == [Start(3)]


def test_critical_publishes_at_once_and_overrides_min_exit() -> None:
    scheduler = started(Policy(4, min_exit=4), exits=1)
    publish, cancel = scheduler.urgency(Level.CRITICAL, 0.15, stamp='stamp')
    assert (publish.exit_index, publish.reason) == (1, StopReason.URGENT)
    assert (publish.urgency_stamp, publish.event_s) == ('stamp', 0.15)
    assert cancel == Cancel(1)


def test_critical_before_the_first_exit_ends_the_frame_at_its_first_exit() -> None:
    scheduler = started(Policy(4, min_exit=3, urgent_max_exit=2))
    assert scheduler.urgency(Level.CRITICAL, 0.05, stamp='stamp') == []
    publish = published(scheduler.exit_rendered(1, 1, 0.1))
    assert (publish.exit_index, publish.reason) == (1, StopReason.URGENT)
    assert (publish.urgency_stamp, publish.event_s) == ('stamp', 0.05)


def test_a_repeated_critical_cuts_nothing_and_extends_the_hold() -> None:
    scheduler = started(Policy(4, urgent_max_exit=3))
    scheduler.urgency(Level.CRITICAL, 0.0, hold_s=1.0)
    scheduler.exit_rendered(1, 1, 0.1)
    scheduler.idle(1, 0.1)
    assert scheduler.frame(2, 0.2, 0.2) == [Start(2)]
    assert scheduler.exit_rendered(2, 1, 0.3) == []
    assert scheduler.urgency(Level.CRITICAL, 0.9, hold_s=1.0) == []
    assert scheduler.level(1.5) is Level.CRITICAL
    assert scheduler.level(1.9) is Level.ROUTINE
    assert scheduler.exit_rendered(2, 2, 1.0) == []
    publish = published(scheduler.exit_rendered(2, 3, 1.1))
    assert (publish.exit_index, publish.reason) == (3, StopReason.EXIT_LIMIT)
    assert publish.urgency_stamp is None


def test_critical_when_idle_changes_the_level_only() -> None:
    scheduler = Scheduler(Policy(4))
    assert scheduler.urgency(Level.CRITICAL, 0.0) == []
    assert scheduler.frame(1, 0.1, 0.1) == [Start(1)]
    assert published(scheduler.exit_rendered(1, 1, 0.2)).reason is StopReason.EXIT_LIMIT


def test_critical_after_its_hold_preempts_again() -> None:
    scheduler = Scheduler(Policy(4))
    scheduler.urgency(Level.CRITICAL, 0.0, hold_s=0.5)
    scheduler.frame(1, 1.0, 1.0)
    assert scheduler.exit_rendered(1, 1, 1.1) == []
    assert published(scheduler.urgency(Level.CRITICAL, 1.2)).reason is StopReason.URGENT


def learnt(policy: Policy, durations_s: list[float]) -> Scheduler:
    """Give an idle scheduler that has seen a frame whose exits took these times."""
    scheduler = Scheduler(policy)
    scheduler.frame(1, 0.0, 0.0)
    now_s = 0.0
    for index, duration_s in enumerate(durations_s, start=1):
        now_s += duration_s
        scheduler.exit_rendered(1, index, now_s)
    scheduler.idle(1, now_s)
    return scheduler


def test_elevated_stops_before_an_exit_that_would_be_late() -> None:
    scheduler = learnt(Policy(4), [0.1, 0.1, 0.1, 0.3])
    scheduler.urgency(Level.ELEVATED, 10.0, deadline_s=0.5)
    scheduler.frame(2, 10.0, 10.0)
    assert scheduler.exit_rendered(2, 1, 10.1) == []
    assert scheduler.exit_rendered(2, 2, 10.2) == []
    publish = published(scheduler.exit_rendered(2, 3, 10.3))
    assert (publish.exit_index, publish.reason) == (3, StopReason.DEADLINE)
    assert publish.deadline_s == pytest.approx(10.5)


def test_elevated_in_mid_exit_stops_a_frame_that_would_be_late() -> None:
    scheduler = learnt(Policy(4), [0.1, 0.1, 0.1, 0.3])
    scheduler.frame(2, 10.0, 10.0)
    for index in (1, 2, 3):
        assert scheduler.exit_rendered(2, index, 10.0 + index / 10) == []
    publish = published(scheduler.urgency(Level.ELEVATED, 10.35, deadline_s=0.5, stamp='s'))
    assert (publish.exit_index, publish.reason) == (3, StopReason.DEADLINE)
    assert publish.urgency_stamp == 's'


def test_a_deadline_already_past_runs_to_min_exit_and_is_missed() -> None:
    scheduler = Scheduler(Policy(4, min_exit=2, elevated_deadline_s=0.05))
    scheduler.urgency(Level.ELEVATED, 0.0)
    scheduler.frame(1, 1.0, 0.0)
    assert scheduler.exit_rendered(1, 1, 1.1) == []
    publish = published(scheduler.exit_rendered(1, 2, 1.2))
    assert publish.reason is StopReason.DEADLINE
    assert publish.deadline_s == pytest.approx(0.05), 'missed'


def test_a_tick_ends_a_frame_that_overruns_its_deadline() -> None:
    scheduler = started(Policy(4, deadline_s=0.5), exits=1)
    assert scheduler.tick(0.49) == []
    publish = published(scheduler.tick(0.496))  # a little is left for publication
    assert (publish.exit_index, publish.reason) == (1, StopReason.DEADLINE)


def test_the_next_look_is_when_a_running_frame_will_be_late() -> None:
    scheduler = Scheduler(Policy(4, min_exit=2, deadline_s=0.5, elevated_deadline_s=0.3))
    assert scheduler.next_look_s(0.0) == math.inf, 'nothing runs'
    scheduler.frame(1, 0.0, 0.0)
    scheduler.exit_rendered(1, 1, 0.1)
    assert scheduler.next_look_s(0.1) == math.inf, 'no deadline stops it before min_exit'
    scheduler.exit_rendered(1, 2, 0.2)
    assert scheduler.next_look_s(0.2) == pytest.approx(0.495, abs=2e-6)
    scheduler.urgency(Level.ELEVATED, 0.21)
    assert scheduler.next_look_s(0.21) == pytest.approx(0.295, abs=2e-6)
    scheduler.urgency(Level.ELEVATED, 0.22, hold_s=0.05)
    assert scheduler.next_look_s(0.22) == pytest.approx(0.495, abs=2e-6), 'the hold ends before'
    scheduler.published(0.02)
    assert scheduler.next_look_s(0.23) == pytest.approx(0.48, abs=2e-6)
    assert published(scheduler.tick(scheduler.next_look_s(0.23))).reason is StopReason.DEADLINE
    assert scheduler.next_look_s(0.5) == math.inf


def test_what_publication_takes_is_followed_at_once_up_and_slowly_down_within_bounds() -> None:
    def kept_free_s() -> float:
        return 0.5 - scheduler.next_look_s(0.1)

    scheduler = started(Policy(4, deadline_s=0.5), exits=1)
    assert kept_free_s() == pytest.approx(0.005, abs=2e-6)
    for took_s, expected_s in ((0.02, 0.02), (0.01, 0.019), (3.0, 0.05), (0.04, 0.049)):
        scheduler.published(took_s)
        assert kept_free_s() == pytest.approx(expected_s, abs=2e-6)
    for _ in range(100):
        scheduler.published(0.0)
    assert kept_free_s() == pytest.approx(0.001, abs=2e-6)
    scheduler.published(0.04)
    scheduler.stop()
    scheduler.idle(1, 0.2)
    scheduler.frame(2, 0.0, 0.0, size=(9, 9))  # another size: as at the start
    scheduler.exit_rendered(2, 1, 0.1)
    assert kept_free_s() == pytest.approx(0.005, abs=2e-6)


def test_a_frame_is_late_as_soon_as_publication_is_found_to_be_slow() -> None:
    scheduler = started(Policy(4, deadline_s=0.5), exits=1)
    scheduler.published(0.045)
    assert scheduler.next_look_s(0.46) == 0.46
    assert published(scheduler.tick(0.46)).reason is StopReason.DEADLINE


def test_another_image_size_forgets_the_expected_durations() -> None:
    scheduler = learnt(Policy(4, deadline_s=0.5), [0.1, 0.1, 0.1, 0.1])
    scheduler.frame(2, 10.0, 10.0, size=(9, 9))
    for index in (1, 2, 3):
        assert scheduler.exit_rendered(2, index, 10.0 + 0.15 * index) == []


def test_target_confidence_and_max_exit_end_a_frame() -> None:
    scheduler = started(Policy(4, target_confidence=0.9, max_exit=3))
    assert scheduler.exit_rendered(1, 1, 0.1, 0.9) == []
    publish = published(scheduler.exit_rendered(1, 2, 0.2, 0.91))
    assert publish.reason is StopReason.CONFIDENT
    scheduler = started(Policy(4, max_exit=3), exits=2)
    assert published(scheduler.exit_rendered(1, 3, 0.3)).reason is StopReason.EXIT_LIMIT
    scheduler = started(Policy(4, target_confidence=0.9, min_exit=2))
    assert scheduler.exit_rendered(1, 1, 0.1, 0.95) == []


def test_urgency_never_lifts_the_limit() -> None:
    scheduler = Scheduler(Policy(4, max_exit=2, urgent_max_exit=4))
    scheduler.urgency(Level.CRITICAL, 0.0)
    scheduler.frame(1, 0.1, 0.1)
    assert scheduler.exit_rendered(1, 1, 0.2) == []
    publish = published(scheduler.exit_rendered(1, 2, 0.3))
    assert (publish.exit_index, publish.reason) == (2, StopReason.EXIT_LIMIT)


def test_a_limit_is_named_before_a_newer_frame() -> None:
    scheduler = started(Policy(4, min_exit=2, max_exit=2), exits=1)
    scheduler.frame(2, 0.15, 0.15)
    assert published(scheduler.exit_rendered(1, 2, 0.2)).reason is StopReason.EXIT_LIMIT


def test_urgency_is_named_on_a_network_with_a_single_exit() -> None:
    scheduler = Scheduler(Policy(1))
    scheduler.frame(1, 0.0, 0.0)
    scheduler.urgency(Level.CRITICAL, 0.05, stamp='stamp')
    publish = published(scheduler.exit_rendered(1, 1, 0.1))
    assert (publish.reason, publish.urgency_stamp) == (StopReason.URGENT, 'stamp')


def run_frame(
    scheduler: Scheduler, frame_id: int, at_s: float, ends_s: list[float]
) -> tuple[Publish, float]:
    """
    Run a frame whose exits end at these times, looking at the clock every 5 ms.

    Gives the result, and when it came, in seconds after the frame.
    """
    assert scheduler.frame(frame_id, at_s, at_s) == [Start(frame_id)]
    now_s, index = at_s, 0
    while True:
        now_s += 0.005
        actions = scheduler.tick(now_s)
        if not actions and now_s >= at_s + ends_s[index] - 1e-9:
            index += 1
            actions = scheduler.exit_rendered(frame_id, index, now_s)
        if actions:
            scheduler.idle(frame_id, now_s)
            return published(actions), now_s - at_s


def test_an_exit_that_never_meets_the_deadline_is_seldom_tried() -> None:
    scheduler = Scheduler(Policy(4, deadline_s=0.3))
    in_time = 0
    for frame_id in range(1, 201):
        at_s = float(frame_id)
        publish, took_s = run_frame(scheduler, frame_id, at_s, [0.1, 0.2, 0.25, 0.6])
        assert (publish.exit_index, publish.reason) == (3, StopReason.DEADLINE)
        in_time += took_s < 0.26  # at its third exit, not at the deadline
    assert 180 < in_time < 200, 'tried now and then'


def test_one_slow_frame_does_not_lock_an_exit_out() -> None:
    scheduler = Scheduler(Policy(4, deadline_s=0.5))
    run_frame(scheduler, 1, 0.0, [0.1, 0.2, 0.3, 0.48])
    exits = [
        run_frame(scheduler, frame_id, float(frame_id), [0.03, 0.06, 0.3, 0.4])[0].exit_index
        for frame_id in range(2, 60)
    ]
    assert exits[0] == 4
    scheduler._expected_s[3] = 0.4  # as after a hiccup
    exits = [
        run_frame(scheduler, frame_id, float(frame_id), [0.03, 0.06, 0.3, 0.4])[0].exit_index
        for frame_id in range(60, 200)
    ]
    assert exits[0] == 3 and exits[-1] == 4


def test_a_faster_sample_counts_slowly_and_a_slower_one_at_once() -> None:
    scheduler = learnt(Policy(4), [0.1, 0.1, 0.1, 0.1])
    scheduler.frame(2, 1.0, 1.0)
    for index in range(1, 5):
        scheduler.exit_rendered(2, index, 1.0 + 0.05 * index)
    assert scheduler._expected_s == pytest.approx([0.095] * 4)
    scheduler.idle(2, 1.2)
    scheduler.frame(3, 2.0, 2.0)
    scheduler.exit_rendered(3, 1, 2.3)
    assert scheduler._expected_s[0] == pytest.approx(0.3)


def test_elevated_takes_the_tighter_deadline_and_its_own_default() -> None:
    scheduler = started(Policy(4, deadline_s=0.3, elevated_deadline_s=0.2), exits=1)
    scheduler.urgency(Level.ELEVATED, 0.1, deadline_s=9.0)
    assert scheduler.tick(0.28) == []
    assert published(scheduler.tick(0.3)).deadline_s == pytest.approx(0.3)
    scheduler = started(Policy(4, elevated_deadline_s=0.2), exits=1)
    scheduler.urgency(Level.ELEVATED, 0.1, deadline_s=9.0)
    scheduler.urgency(Level.ELEVATED, 0.11)
    assert published(scheduler.tick(0.2)).deadline_s == pytest.approx(0.2)


def test_a_stamp_in_the_future_does_not_put_off_the_deadline() -> None:
    scheduler = Scheduler(Policy(4, deadline_s=0.3))
    scheduler.frame(1, 0.0, captured_s=5.0)
    scheduler.exit_rendered(1, 1, 0.1)
    assert published(scheduler.tick(0.3)).deadline_s == pytest.approx(0.3)


def test_a_shorter_hold_in_a_later_message_counts() -> None:
    scheduler = Scheduler(Policy(4))
    scheduler.urgency(Level.CRITICAL, 0.0, hold_s=5.0)
    scheduler.urgency(Level.CRITICAL, 0.1, hold_s=0.2)
    assert scheduler.level(0.2) is Level.CRITICAL
    assert scheduler.level(0.4) is Level.ROUTINE


def test_stop_drops_all_cancels_and_returns_to_routine() -> None:
    scheduler = started(exits=1, policy=Policy(4, min_exit=2))
    scheduler.frame(2, 0.15, 0.15)
    scheduler.urgency(Level.ELEVATED, 0.16, deadline_s=9.0)
    assert scheduler.stop() == [
        Drop(2, DropReason.INACTIVE),
        Drop(1, DropReason.INACTIVE),
        Cancel(1),
    ]
    assert scheduler.level(0.2) is Level.ROUTINE
    assert scheduler.idle(1, 0.2) == []
    assert scheduler.in_flight() == 0


def test_a_failure_drops_the_frame_and_the_next_one_starts() -> None:
    scheduler = started(exits=1)
    assert scheduler.failed(1) == [Drop(1, DropReason.FAILED)]
    assert scheduler.frame(2, 0.2, 0.2) == []
    assert scheduler.idle(1, 0.2) == [Start(2)]


def test_a_failure_after_publication_costs_nothing() -> None:
    scheduler = started(exits=2)
    scheduler.urgency(Level.CRITICAL, 0.25)
    assert scheduler.failed(1) == []
    assert scheduler.counters.dropped == 0


def test_stale_and_invalid_frames_are_counted() -> None:
    scheduler = Scheduler(Policy(4, max_age_s=0.2))
    assert scheduler.frame(1, 1.0, 0.7) == [Drop(1, DropReason.STALE)]
    assert scheduler.reject(2) == [Drop(2, DropReason.INVALID)]
    assert scheduler.frame(3, 1.0, 0.9) == [Start(3)]
    assert (scheduler.counters.received, scheduler.counters.dropped) == (3, 2)


def test_exits_after_the_seal_are_discarded() -> None:
    scheduler = started(exits=1)
    scheduler.frame(2, 0.2, 0.2)
    assert scheduler.exit_rendered(1, 2, 0.21) == []
    assert scheduler.counters.segmented == 1


def test_another_policy_counts_from_the_next_frame_on() -> None:
    scheduler = started(Policy(4, min_exit=2, max_exit=3), exits=1)
    scheduler.change_policy(Policy(4, min_exit=1, max_exit=1, target_confidence=0.0))
    assert scheduler.frame(2, 0.15, 0.15) == [], 'the running frame keeps its min_exit'
    publish, _ = scheduler.exit_rendered(1, 2, 0.2, 1.0)
    assert (publish.exit_index, publish.reason) == (2, StopReason.NEXT_FRAME)
    assert scheduler.idle(1, 0.21) == [Start(2)]
    publish, _ = scheduler.exit_rendered(2, 1, 0.3)
    assert publish.reason == StopReason.EXIT_LIMIT


def test_another_deadline_while_elevated_counts_from_the_next_frame_on() -> None:
    scheduler = started(Policy(4, elevated_deadline_s=10.0), exits=1)
    scheduler.urgency(Level.ELEVATED, 0.1)
    scheduler.change_policy(Policy(4, elevated_deadline_s=0.05))
    assert scheduler.tick(1.0) == []
    for index in (2, 3, 4):
        scheduler.exit_rendered(1, index, 1.0)
    scheduler.idle(1, 1.0)
    assert scheduler.frame(2, 2.0, 2.0) == [Start(2)]
    publish, _ = scheduler.exit_rendered(2, 1, 2.06)
    assert publish.reason == StopReason.DEADLINE


def test_a_policy_for_other_exits_is_an_error() -> None:
    with pytest.raises(ValueError, match='expected a policy for 4 exits, got 3'):
        started().change_policy(Policy(3))


def test_a_frame_that_proves_to_be_no_image_counts_as_invalid() -> None:
    scheduler = started()
    assert scheduler.failed(1, DropReason.INVALID) == [Drop(1, DropReason.INVALID)]
    assert scheduler.idle(1, 0.1) == []
    assert scheduler.counters.drops[DropReason.INVALID] == 1


@pytest.mark.parametrize(
    'values',
    [
        {'min_exit': 0},
        {'min_exit': 3, 'max_exit': 2},
        {'max_exit': 5},
        {'urgent_max_exit': 5},
        {'target_confidence': 1.1},
        {'deadline_s': 0.0},
        {'max_age_s': math.nan},
    ],
)
def test_a_policy_out_of_range_is_an_error(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match='expected'):
        Policy(4, **values)


policies = st.integers(1, 4).flatmap(
    lambda low: st.builds(
        Policy,
        st.just(4),
        min_exit=st.just(low),
        max_exit=st.integers(low, 4),
        deadline_s=st.sampled_from([0.05, 0.3, math.inf]),
        target_confidence=st.sampled_from([0.5, 1.0]),
        elevated_deadline_s=st.sampled_from([0.01, 0.2]),
        urgent_max_exit=st.integers(1, 4),
        max_age_s=st.sampled_from([0.1, math.inf]),
    )
)
events = st.lists(
    st.tuples(
        st.floats(0, 0.2),
        st.one_of(
            st.tuples(st.just('frame'), st.floats(-0.3, 0.3), st.integers(1, 2)),
            st.tuples(
                st.just('urgency'),
                st.sampled_from(Level),
                st.sampled_from([0.0, 0.02, 0.4]),
                st.sampled_from([0.0, 0.1]),
            ),
            st.tuples(st.just('exit'), st.floats(0, 1)),
            st.tuples(st.just('worker'), st.just(True)),
            st.tuples(st.just('failed')),
            st.tuples(st.just('reject')),
            st.tuples(st.just('tick')),
            st.tuples(st.just('published'), st.floats(0, 0.1)),
            st.tuples(st.just('stop')),
        ),
    ),
    max_size=80,
)


class World:
    """A worker and an observer around a scheduler, which check what must always hold."""

    def __init__(self, policy: Policy) -> None:
        self.scheduler = Scheduler(policy)
        self.now_s = 0.0
        self.frame_id = 0
        self.computing: int | None = None  # what the worker has in hand
        self.exits = 0
        self.cancelled = False
        self.results: list[int] = []
        self.dropped: list[int] = []

    def take(self, actions: list) -> None:
        for action in actions:
            if isinstance(action, Start):
                assert self.computing is None, 'started while the worker was busy'
                assert action.frame_id not in self.dropped + self.results
                self.computing, self.exits, self.cancelled = action.frame_id, 0, False
            elif isinstance(action, Cancel):
                assert action.frame_id == self.computing
                self.cancelled = True
            elif isinstance(action, Publish):
                assert action.frame_id == self.computing
                assert action.exit_index == self.exits >= 1, 'not the latest rendered exit'
                assert action.exit_index <= self.scheduler.policy.max_exit
                assert action.event_s is None or action.event_s <= self.now_s
                if action.reason in (StopReason.NEXT_FRAME, StopReason.DEADLINE):
                    assert action.exit_index >= self.scheduler.policy.min_exit
                self.results.append(action.frame_id)
            else:
                self.dropped.append(action.frame_id)
        counters = self.scheduler.counters
        assert counters.received == self.frame_id
        assert counters.segmented == len(self.results)
        assert counters.dropped == len(self.dropped)
        in_flight = self.scheduler.in_flight()
        assert counters.received == counters.segmented + counters.dropped + in_flight

    def render(self, confidence: float = 0.0) -> None:
        if self.computing is not None and not self.cancelled and self.exits < 4:
            self.exits += 1
            self.take(
                self.scheduler.exit_rendered(self.computing, self.exits, self.now_s, confidence)
            )

    def let_go(self) -> None:
        done = self.cancelled or self.exits == 4
        if self.computing is not None and done:
            frame_id, self.computing = self.computing, None
            self.take(self.scheduler.idle(frame_id, self.now_s))

    def fail(self) -> None:
        if self.computing is not None:
            self.take(self.scheduler.failed(self.computing))
            frame_id, self.computing = self.computing, None
            self.take(self.scheduler.idle(frame_id, self.now_s))

    def event(self, kind: str, *values: float) -> None:
        if kind == 'frame':
            self.frame_id += 1
            captured_s = self.now_s + values[0]
            self.take(self.scheduler.frame(self.frame_id, self.now_s, captured_s, int(values[1])))
        elif kind == 'urgency':
            level, deadline_s, hold_s = values
            self.take(self.scheduler.urgency(Level(level), self.now_s, deadline_s, hold_s))
        elif kind == 'exit':
            self.render(values[0])
        elif kind == 'worker':
            self.let_go()
        elif kind == 'failed':
            self.fail()
        elif kind == 'reject':
            self.frame_id += 1
            self.take(self.scheduler.reject(self.frame_id))
        elif kind == 'published':
            self.scheduler.published(values[0])
        elif kind == 'tick':
            self.take(self.scheduler.tick(self.now_s))
        else:
            self.take(self.scheduler.stop())

    def drain(self) -> None:
        """Let the worker finish; it must not need anything but itself."""
        for _ in range(20):
            self.now_s += 0.05
            self.render()
            self.let_go()


@settings(max_examples=400, deadline=None)
@given(policies, events)
def test_every_frame_gets_one_result_or_one_drop_in_order(policy: Policy, order: list) -> None:
    world = World(policy)
    for pause_s, event in order:
        world.now_s += pause_s
        world.event(*event)
    world.drain()
    assert world.computing is None and world.scheduler.in_flight() == 0, 'deadlock'
    assert sorted(world.results + world.dropped) == list(range(1, world.frame_id + 1))
    assert world.results == sorted(world.results)


@settings(max_examples=100, deadline=None)
@given(policies, st.floats(0.001, 0.05), st.integers(1, 12))
def test_a_camera_faster_than_the_first_exit_starves_nothing(
    policy: Policy, period_s: float, frames_per_exit: int
) -> None:
    world = World(policy)
    for i in range(20 * frames_per_exit * 4):
        world.now_s += period_s
        world.event('frame', 0.0, 1)
        if i % frames_per_exit == 0:
            world.render()
            world.let_go()
    assert len(world.results) >= 20


@settings(max_examples=100, deadline=None)
@given(policies, events)
def test_the_step_up_to_critical_publishes_what_is_there(policy: Policy, order: list) -> None:
    world = World(policy)
    for pause_s, event in order:
        world.now_s += pause_s
        world.event(*event)
    running = world.computing if not world.cancelled and 0 < world.exits < 4 else None
    was_critical = world.scheduler.level(world.now_s) is Level.CRITICAL
    before = len(world.results)
    world.event('urgency', Level.CRITICAL, 0.0, 0.0)
    if running is not None and not was_critical:
        assert world.results[before:] == [running]
    else:
        assert len(world.results) == before


@settings(max_examples=200, deadline=None)
@given(policies, events, st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_a_tick_decides_at_the_next_look_and_not_before(
    policy: Policy, order: list, shares: list[float]
) -> None:
    world = World(policy)
    for pause_s, event in order:
        world.now_s += pause_s
        world.event(*event)
        look_s = world.scheduler.next_look_s(world.now_s)
        assert look_s >= world.now_s
        until_s = min(look_s, world.now_s + 1.0) - 1e-5
        for share in shares:
            if until_s > world.now_s:
                early_s = world.now_s + share * (until_s - world.now_s)
                assert copy.deepcopy(world.scheduler).tick(early_s) == []
        if look_s < math.inf:
            assert copy.deepcopy(world.scheduler).tick(look_s) != []
