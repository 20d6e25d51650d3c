# SPDX-License-Identifier: Apache-2.0
"""Rates, latencies and shares of the last seconds against numbers worked out by hand."""

from __future__ import annotations

import math
import sys
import threading

import pytest

from adpc_ros.percentiles import percentiles, spread
from adpc_ros.runtime.scheduler import Counters, DropReason, StopReason
from adpc_ros.runtime.watchdog import Health
from adpc_ros.runtime.window import (
    MAX_RESULTS,
    WINDOW_S,
    Grade,
    Outcome,
    Summary,
    Thresholds,
    Window,
    judge,
)

WELL = Health()
STRICT = Thresholds(stale_s=2.0, latency_s=0.2, drop_share=0.5, late_share=0.1)


def counters(received: int, segmented: int, **drops: int) -> Counters:
    counted = Counters(received, segmented)
    counted.drops.update({DropReason(name): count for name, count in drops.items()})
    return counted


def outcome(
    time_s: float,
    latency_s: float = 0.1,
    exit_index: int = 4,
    reason: StopReason = StopReason.FINISHED,
    late: bool = False,
) -> Outcome:
    return Outcome(time_s, latency_s, exit_index, reason, late)


def test_percentiles_are_values_by_nearest_rank() -> None:
    assert percentiles([]) is None
    assert percentiles([0.3]) == (0.3, 0.3, 0.3)
    assert percentiles([4, 1, 3, 2]) == (2, 4, 4)  # ranks 2, 3.8 and 3.96 of 4, rounded up
    assert percentiles(list(range(1, 101))) == (50, 95, 99)
    assert percentiles(list(range(1, 201))) == (100, 190, 198)


def test_reports_spread_values_by_the_same_percentiles() -> None:
    values = [4.0, 1.0, 3.0, 2.126]
    assert spread(values, digits=2) == {'n': 4, 'median': 2.13, 'p95': 4, 'p99': 4, 'max': 4}
    assert spread(values)['median'] == 2.126
    assert spread([]) == {'n': 0, 'median': None, 'p95': None, 'p99': None, 'max': None}


def test_rates_are_counted_frames_over_the_time_between_samples() -> None:
    window = Window()
    window.begin(100.0, counters(7, 5, stale=2))
    for second in range(1, 5):  # 20 frames a second, of which 15 are segmented
        now = counters(7 + 20 * second, 5 + 15 * second, stale=2, superseded=5 * second)
        window.sample(100.0 + second, now)
    summary = window.summary(104.0)
    assert (summary.span_s, summary.input_hz, summary.output_hz) == (4.0, 20.0, 15.0)
    assert summary.received == 80
    assert summary.drops[DropReason.SUPERSEDED] == 20
    assert summary.drops[DropReason.STALE] == 0, 'those from before the window'
    assert summary.drop_share == 0.25


def test_samples_older_than_the_window_do_not_count_but_for_its_beginning() -> None:
    window = Window()
    window.begin(0.0, counters(0, 0))
    for second in range(1, 31):
        received = 10 * min(second, 15)  # the camera stops after 15 s
        window.sample(float(second), counters(received, received))
    summary = window.summary(30.0)
    assert summary.span_s == WINDOW_S
    assert (summary.input_hz, summary.received) == (0.0, 0)
    assert summary.silent_s == 15.0
    window.sample(31.0, counters(151, 150))
    assert window.summary(31.0).silent_s == 0.0
    assert window.summary(31.0).input_hz == 0.1


def test_results_are_counted_by_exit_and_reason_and_forgotten_in_time() -> None:
    window = Window()
    window.begin(0.0, counters(0, 0))
    window.result(outcome(1.0, 9.0, 1, StopReason.URGENT))  # too old at 12 s
    window.result(outcome(3.0, 0.30, 2, StopReason.NEXT_FRAME, late=True))
    window.result(outcome(4.0, 0.10))
    window.result(outcome(5.0, 0.20))
    window.result(outcome(6.0, 5.0, 0, StopReason.FAILED))
    window.exit(1.0, 1, 1.0)
    window.exit(4.0, 1, 0.8)
    window.exit(5.0, 1, 0.6)
    window.exit(5.0, 2, 0.25)
    summary = window.summary(12.0)
    assert summary.exits == {2: 1, 4: 2}
    assert summary.reasons == {
        StopReason.FINISHED: 2,
        StopReason.NEXT_FRAME: 1,
        StopReason.FAILED: 1,
    }
    assert (summary.results, summary.late) == (4, 1)
    assert summary.latencies_s == (0.20, 0.30, 0.30), 'of masks: a failed frame has none'
    assert summary.active_shares == {1: pytest.approx(0.7), 2: 0.25}


def test_nothing_counted_is_nothing_said() -> None:
    window = Window()
    assert window.summary(5.0) == Summary()
    window.begin(5.0, counters(3, 3))
    assert window.summary(5.0) == Summary()
    assert window.summary(8.0).silent_s == 3.0


def test_a_new_beginning_forgets_everything() -> None:
    window = Window()
    window.begin(0.0, counters(0, 0))
    window.result(outcome(1.0))
    window.exit(1.0, 1, 0.5)
    window.sample(1.0, counters(9, 9))
    window.begin(2.0, counters(9, 9))
    assert window.summary(2.0) == Summary()


def test_memory_is_bounded() -> None:
    window = Window()
    window.begin(0.0, counters(0, 0))
    for i in range(2 * MAX_RESULTS):
        window.result(outcome(1.0))
        window.exit(1.0, 1, 0.5)
        window.sample(float(i), counters(i, i))
    assert window.summary(1.0).results == MAX_RESULTS
    assert len(window._samples) <= WINDOW_S + 2
    assert sys.getsizeof(window._outcomes) < 2**16


def test_threads_lose_no_count() -> None:
    window = Window()
    window.begin(0.0, counters(0, 0))

    def count() -> None:
        for _ in range(500):
            window.result(outcome(1.0))
            window.summary(1.0) if _ % 50 == 0 else None

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert window.summary(1.0).results == 2000


@pytest.mark.parametrize(
    'summary, grade, message',
    [
        (Summary(output_hz=9.96), Grade.OK, '10.0 masks per second'),
        (Summary(silent_s=2.0), Grade.OK, '0.0 masks per second'),
        (Summary(silent_s=3.4), Grade.WARN, 'no image for 3 s'),
        (Summary(latencies_s=(0.1, 0.2, 0.9)), Grade.OK, '0.0 masks per second'),
        (Summary(latencies_s=(0.1, 0.3, 0.9)), Grade.WARN, 'latency 0.300 s, above 0.2 s'),
        (
            Summary(received=10, drops={DropReason.SUPERSEDED: 5, DropReason.INACTIVE: 4}),
            Grade.OK,
            '0.0 masks per second',
        ),
        (
            Summary(received=10, drops={DropReason.SUPERSEDED: 5, DropReason.STALE: 1}),
            Grade.WARN,
            '60% of the frames dropped',
        ),
        (Summary(received=4, drops={DropReason.STALE: 4}), Grade.OK, '0.0 masks per second'),
        (Summary(reasons={StopReason.FINISHED: 10}, late=1), Grade.OK, '0.0 masks per second'),
        (
            Summary(reasons={StopReason.DEADLINE: 10}, late=2),
            Grade.WARN,
            '20% of the results late',
        ),
        (Summary(reasons={StopReason.FAILED: 1}), Grade.WARN, 'frames failed: 1'),
    ],
)
def test_what_is_above_its_threshold_is_warned_of(
    summary: Summary, grade: Grade, message: str
) -> None:
    assert judge(summary, WELL, STRICT, 50.0) == (grade, message)


def test_a_worker_that_hangs_or_was_replaced_is_an_error_and_all_is_said() -> None:
    hangs = judge(Summary(silent_s=5), WELL._replace(hung=True), STRICT, 50.0)
    assert hangs == (Grade.ERROR, 'the worker hangs; no image for 5 s')
    replaced = Health(restarts=1, restarted_s=47.0)
    assert judge(Summary(), replaced, STRICT, 50.0) == (
        Grade.ERROR,
        'the worker was replaced 3 s ago',
    )
    assert judge(Summary(), replaced, STRICT, 57.0)[0] is Grade.OK


def test_thresholds_are_off_unless_given() -> None:
    worst = Summary(
        latencies_s=(9.0,) * 3,
        received=10,
        drops={DropReason.STALE: 10},
        reasons={StopReason.DEADLINE: 10},
        late=10,
        silent_s=math.inf,
    )
    assert judge(worst, WELL, Thresholds(), 0.0)[0] is Grade.OK
