# SPDX-License-Identifier: Apache-2.0
"""The replay: decisions against timelines worked out by hand, and what is written of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bags import STORE, Call, Shot, ns, write_bag

from adpc_ros.labels import CAMVID
from adpc_ros.network.families import NetworkConfig
from adpc_ros.network.macs import GI
from adpc_ros.replay.output import Messages
from adpc_ros.replay.settings import EXIT_S
from adpc_ros.replay.simulation import Simulation
from adpc_ros.replay.source import PlannedUrgency, Source
from adpc_ros.ros.parameters import Parameters
from adpc_ros.ros.publication import TOPICS, Network, label_info_fields, progress, results
from adpc_ros.runtime.images import Rendered
from adpc_ros.runtime.ledger import Result
from adpc_ros.runtime.plan import ComputedExit
from adpc_ros.runtime.scheduler import DropReason, Level, Policy

EXITS_S = (0.03,) * 4  # 30, 60, 90 and 120 ms after the start
Line = tuple[int, float, Any]


class FakePlan:
    """Four exits in no time; counts those that were asked for, fails where it is told."""

    config = NetworkConfig('hrnet_tiny')
    exit_count = 4
    description = 'fake'

    def __init__(self, fail_at: int = 0, confidence: Sequence[float] = (0.1,) * 4) -> None:
        self.asked: list[int] = []
        self._fail_at, self._confidence = fail_at, confidence

    def segment(self, image: Any, adaptive: bool = True) -> Iterator[ComputedExit | None]:
        self.asked.append(0)
        for i in range(1, 5):
            yield None
            if len(self.asked) == self._fail_at:
                raise RuntimeError('no memory')
            self.asked[-1] = i
            values = np.full(image.shape[:2], i, np.uint8)
            confidence = self._confidence[i - 1]
            yield ComputedExit(i, Rendered(values, values), confidence, 0.5, i * GI, 0.4)


def play(
    tmp_path: Path,
    events: Sequence[Shot | Call],
    planned: Sequence[PlannedUrgency] = (),
    plan: FakePlan | None = None,
    **policy: Any,
) -> tuple[list[Line], list[Result]]:
    """Give (frame, milliseconds, exit and reason or drop) for each end, and the results."""
    source = Source(write_bag(tmp_path / 'bag', events), planned=planned)
    lines: list[Line] = []
    results: list[Result] = []

    def on_result(result: Result, time_ns: int) -> None:
        results.append(result)
        end = (result.exit.computed.exit_index if result.exit else 0, result.reason.name)
        lines.append((result.frame.tag.number, (time_ns - ns(0)) / 1e6, end))

    def on_drop(frame: Any, reason: DropReason, time_ns: int) -> None:
        lines.append((frame.number, (time_ns - ns(0)) / 1e6, reason.value))

    simulation = Simulation(
        plan or FakePlan(), Policy(4, **policy), EXITS_S, source.start_ns, on_result, on_drop
    )
    simulation.run(source)
    return lines, results


def test_a_newer_frame_takes_the_exits_that_are_done(tmp_path: Path) -> None:
    plan = FakePlan()
    lines, results = play(tmp_path, [Shot(0), Shot(100)], plan=plan)
    assert lines == [(0, 100.0, (3, 'NEXT_FRAME')), (1, 220.0, (4, 'FINISHED'))]
    assert plan.asked == [3, 4]  # nothing beyond what was published
    assert [r.counters.received for r in results] == [2, 2]


def test_a_newer_frame_waits_for_the_first_exit(tmp_path: Path) -> None:
    lines, _ = play(tmp_path, [Shot(0), Shot(20)])
    assert lines == [(0, 30.0, (1, 'NEXT_FRAME')), (1, 150.0, (4, 'FINISHED'))]


def test_a_newer_frame_waits_for_min_exit(tmp_path: Path) -> None:
    lines, _ = play(tmp_path, [Shot(0), Shot(40)], min_exit=2)
    assert lines == [(0, 60.0, (2, 'NEXT_FRAME')), (1, 180.0, (4, 'FINISHED'))]


def test_a_frame_that_was_not_begun_is_superseded(tmp_path: Path) -> None:
    lines, results = play(tmp_path, [Shot(0), Shot(10), Shot(20)])
    assert lines == [
        (1, 20.0, 'superseded'),
        (0, 30.0, (1, 'NEXT_FRAME')),
        (2, 150.0, (4, 'FINISHED')),
    ]
    assert results[-1].counters.dropped == 1


def test_an_exit_due_at_an_event_comes_first(tmp_path: Path) -> None:
    lines, _ = play(tmp_path, [Shot(0), Shot(60)])
    assert lines[0] == (0, 60.0, (2, 'NEXT_FRAME'))


def test_critical_publishes_what_is_there_and_limits_what_begins(tmp_path: Path) -> None:
    events = [Shot(0), Call(70, Level.CRITICAL, hold_ms=100), Shot(100), Shot(200)]
    lines, results = play(tmp_path, events)
    assert lines == [
        (0, 70.0, (2, 'URGENT')),
        (1, 130.0, (1, 'EXIT_LIMIT')),
        (2, 320.0, (4, 'FINISHED')),
    ]
    assert results[0].decision.urgency_stamp == ns(70) + 1  # the message's own
    assert [result.level for result in results] == [Level.CRITICAL, Level.CRITICAL, Level.ROUTINE]


def test_planned_urgency_counts_from_the_first_frame(tmp_path: Path) -> None:
    planned = [PlannedUrgency(0.05, Level.CRITICAL, 0.0), PlannedUrgency(0.01, Level.ELEVATED, 0)]
    lines, _ = play(tmp_path, [Shot(500), Shot(700)], planned)
    assert lines == [(0, 550.0, (1, 'URGENT')), (1, 730.0, (1, 'EXIT_LIMIT'))]


def test_a_deadline_is_looked_at_every_2_ms_and_learnt_from(tmp_path: Path) -> None:
    # exit 4 has never been seen: at 96 ms it could not be out by 100, 5 being kept for
    # publication. Having run 6 ms in vain it is expected to take 9, so it is not begun again.
    lines, results = play(tmp_path, [Shot(0), Shot(200)], deadline_s=0.1)
    assert lines == [(0, 96.0, (3, 'DEADLINE')), (1, 290.0, (3, 'DEADLINE'))]
    assert results[0].decision.deadline_s == pytest.approx(0.1)


def test_recorded_urgency_before_the_first_frame_counts(tmp_path: Path) -> None:
    lines, _ = play(tmp_path, [Call(-10, Level.ELEVATED, deadline_ms=70), Shot(0)])
    assert lines == [(0, 66.0, (2, 'DEADLINE'))]


def test_a_sure_frame_ends_early(tmp_path: Path) -> None:
    plan = FakePlan(confidence=(0.5, 0.9, 0.95, 0.99))
    lines, _ = play(tmp_path, [Shot(0)], plan=plan, target_confidence=0.8)
    assert lines == [(0, 60.0, (2, 'CONFIDENT'))]
    assert plan.asked == [2]


def test_a_stamp_before_receipt_counts_as_age(tmp_path: Path) -> None:
    shots = [Shot(0, stamp_ms=-20), Shot(200, stamp_ms=140)]
    lines, results = play(tmp_path, shots, max_age_s=0.05)
    assert lines == [(0, 120.0, (4, 'FINISHED')), (1, 200.0, 'stale')]
    assert results[0].frame.captured_s == pytest.approx(-0.02)


def test_stamps_of_another_clock_and_backward_ones_are_processed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shots = [Shot(0, stamp_ms=-1), Shot(200), Shot(400, stamp_ms=200), Shot(600, stamp_ms=100)]
    with caplog.at_level(logging.WARNING):
        lines, results = play(tmp_path, shots)
    assert [(time_ms, end) for _, time_ms, end in lines] == [
        (120.0 + 200 * i, (4, 'FINISHED')) for i in range(4)
    ]
    assert [r.frame.tag.stamp_ns for r in results] == [0, ns(200), ns(200), ns(100)]
    assert results[0].frame.captured_s == 0.0  # received
    assert caplog.text.count('off the time of receipt') == 1


def test_what_is_no_image_is_invalid_and_what_fails_has_a_status(tmp_path: Path) -> None:
    shots = [Shot(0, encoding='nv24'), Shot(100), Shot(300)]
    lines, results = play(tmp_path, shots, plan=FakePlan(fail_at=1))
    assert lines == [
        (0, 0.0, 'invalid'),
        (1, 130.0, (0, 'FAILED')),
        (2, 420.0, (4, 'FINISHED')),
    ]
    assert str(results[0].error) == 'no memory'
    assert (results[1].counters.received, results[1].counters.dropped) == (3, 2)


def test_durations_must_fit_the_network(tmp_path: Path) -> None:
    for durations in ((0.1,) * 3, (0.1, 0.1, 0.0, 0.1)):
        with pytest.raises(ValueError, match='expected the seconds of 4 exits, each > 0'):
            Simulation(FakePlan(), Policy(4), durations, 0)


def test_the_default_durations_are_those_of_the_document() -> None:
    from shared import ROOT

    *first, last = (f'{seconds:g}' for seconds in EXIT_S)
    assert f'it is {", ".join(first)} and {last} s' in (ROOT / 'docs/replay.md').read_text()


@pytest.mark.parametrize('shots', [[Shot(0), Shot(20)], [Shot(0), Call(50, 2), Shot(500)]])
def test_replay_and_node_write_the_same_messages(tmp_path: Path, shots: list[Shot | Call]) -> None:
    from rclpy.serialization import serialize_message
    from sensor_msgs.msg import CameraInfo
    from std_msgs.msg import Header

    from adpc_ros.ros.conversions import MESSAGES, to_message

    _, ended = play(tmp_path, shots, plan=FakePlan(fail_at=2), deadline_s=0.04, min_exit=3)
    assert {result.reason.name for result in ended} >= {'FAILED'}
    going_on = [replace(result, decision=None) for result in ended if result.exit]
    mine = Messages()
    height, width = next(result.frame.image.shape[:2] for result in ended)
    info = CameraInfo(height=height, width=width, distortion_model='plumb_bob')
    info.d, info.k[0] = [0.1, -0.2, 0.0, 0.0, 0.01], 400.0
    parameters = Parameters(output_scale=2, confidence_encoding='32FC1')
    network = Network('net@1', CAMVID, 4, 0.9, 1)
    compared = set()
    given = [(label_info_fields(network), 'output/label_info')]
    for result in ended:
        topics = results(result, lambda: 0.3, network, parameters, info)
        given += [(value, topic) for topic, value in topics]
    for result in going_on:
        topics = progress(result, lambda: 0.3, network, parameters)
        given += [(value, topic) for topic, value in topics]
    for value, topic in given:
        kind = TOPICS[topic].kind
        if kind in MESSAGES:
            theirs = serialize_message(to_message(value, Header(frame_id='camera')))
            own = mine.store.serialize_cdr(mine.message(value, mine.header(0, 'camera')), kind)
            read = mine.store.deserialize_cdr(theirs, kind)  # padding is whatever was there
            assert bytes(own) == bytes(mine.store.serialize_cdr(read, kind)), topic
            compared.add(topic)
    assert compared >= set(TOPICS) - {'output/label_info'}


def test_the_messages_are_those_that_were_generated() -> None:
    from shared import ROOT

    for name in ('SegmentationStatus', 'Urgency'):
        fields = dict(STORE.fielddefs[f'adpc_ros/msg/{name}'][1])
        assert list(fields) == [
            line.split()[1]
            for line in (ROOT / 'msg' / f'{name}.msg').read_text().splitlines()
            if line.split('#')[0].strip() and '=' not in line.split('#')[0]
        ]
