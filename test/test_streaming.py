# SPDX-License-Identifier: Apache-2.0
"""What an anytime network is worth over time follows from when its exits are there."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adpc_ros.learning.streaming import (
    Output,
    latest_at_arrival,
    mean_over_deadlines,
    rendered_exits,
)


def test_the_mean_over_deadlines_is_the_area_under_the_steps() -> None:
    assert mean_over_deadlines([0.4, 0.8], [1.0, 3.0], 4.0) == pytest.approx((2 * 0.4 + 0.8) / 4)
    assert mean_over_deadlines([0.4, 0.8], [1.0, 3.0], 2.0) == pytest.approx(0.4 / 2)
    assert mean_over_deadlines([0.4, 0.8], [1.0, 3.0], 0.5) == 0.0


def test_a_network_that_keeps_up_renders_every_exit() -> None:
    outputs = rendered_exits([[0.1, 0.2], [0.1, 0.2]], 1.0)
    assert outputs == [
        Output(pytest.approx(time_s), frame, exit_index)
        for time_s, frame, exit_index in ((0.1, 0, 1), (0.2, 0, 2), (1.1, 1, 1), (1.2, 1, 2))
    ]


def test_a_newer_frame_ends_an_older_one_that_has_an_exit() -> None:
    outputs = rendered_exits([[0.6, 3.0], [0.6, 3.0]], 1.0)
    assert [(o.frame, o.exit_index) for o in outputs] == [(0, 1), (1, 1), (1, 2)]
    assert outputs[1].time_s == pytest.approx(1.6)


def test_a_slow_first_exit_is_waited_for_and_the_newest_frame_follows() -> None:
    outputs = rendered_exits([[2.5, 2.6]] * 4, 1.0)
    # frame 0 goes on to its exit at 2.5; frame 2 is the newest then; frame 3 waits for its exit
    assert [(o.frame, o.exit_index) for o in outputs] == [(0, 1), (2, 1), (3, 1), (3, 2)]
    assert [o.time_s for o in outputs[:3]] == pytest.approx([2.5, 5.0, 7.5])


def test_what_is_in_hand_at_an_arrival_is_the_latest_output() -> None:
    outputs = [Output(0.5, 0, 1), Output(0.7, 0, 2), Output(1.0, 1, 1), Output(2.1, 1, 2)]
    held = latest_at_arrival(outputs, 4, 1.0)
    assert held == [None, outputs[2], outputs[2], outputs[3]]


@given(
    st.lists(
        st.lists(st.floats(0.01, 2.0), min_size=3, max_size=3).map(
            lambda steps: list(itertools.accumulate(steps))
        ),
        min_size=1,
        max_size=8,
    )
)
def test_outputs_are_in_order_and_no_frame_waits_while_nothing_runs(
    exit_s: list[list[float]],
) -> None:
    outputs = rendered_exits(exit_s, 1.0)
    assert [o.time_s for o in outputs] == sorted(o.time_s for o in outputs)
    frames = [o.frame for o in outputs]
    assert frames == sorted(frames)
    assert frames[0] == 0 and frames[-1] == len(exit_s) - 1
    for frame in set(frames):
        indices = [o.exit_index for o in outputs if o.frame == frame]
        assert indices == list(range(1, len(indices) + 1))
        first = next(o for o in outputs if o.frame == frame)
        begun_s = first.time_s - exit_s[frame][0]
        assert begun_s >= frame - 1e-9
        # else a newer one went first; an exit comes before an arrival at the same time
        assert begun_s <= frame + 1 + 1e-9 or frame == len(exit_s) - 1
    assert [o.exit_index for o in outputs if o.frame == len(exit_s) - 1] == [1, 2, 3]
