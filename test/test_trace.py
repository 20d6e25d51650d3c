# SPDX-License-Identifier: Apache-2.0
"""Traces: what was done when, that nothing is changed by looking, and that it adds up."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from networks import random_network
from PIL import Image

from adpc_ros.__main__ import main
from adpc_ros.benchmark.networks import random_image
from adpc_ros.benchmark.trace import OTHERS, PARTS, STREAM, Traced, frames_of, summary
from adpc_ros.graph.recording import Played
from adpc_ros.labels import CAMVID
from adpc_ros.network import checkpoint
from adpc_ros.network.adaptivity import Adaptivity
from adpc_ros.runtime.compile import compile_network
from adpc_ros.runtime.torch_plan import TorchPlan
from adpc_ros.runtime.trace import VARIABLE, Trace, from_environment, traced_plan

Event = dict[str, Any]


def written(trace: Trace, path: Path) -> list[Event]:
    trace.write()
    events: list[Event] = json.loads(path.read_text())['traceEvents']
    return events


def spans_by_thread(events: list[Event]) -> dict[tuple[int, int], list[Event]]:
    found = defaultdict(list)
    for event in events:
        if event['ph'] == 'X':
            assert event['dur'] >= 0
            found[event['pid'], event['tid']].append(event)
    return found


def assert_nested(spans: list[Event]) -> None:
    """Each span lies within the one that it begins in; to the resolution of the numbers."""
    open_until: list[float] = []
    for span in sorted(spans, key=lambda s: (s['ts'], -s['dur'])):
        while open_until and open_until[-1] <= span['ts'] + 1e-2:
            open_until.pop()
        end = span['ts'] + span['dur']
        assert not open_until or end <= open_until[-1] + 1e-2, span
        open_until.append(end)


class Returning(TorchPlan):
    """Is back in Python a while after a call was over."""

    returned_s = 0.0

    def segment(self, *arguments: Any) -> Iterator[Any]:
        for step in super().segment(*arguments):
            self.returned_s = time.monotonic()
            time.sleep(0.001)
            yield step


def test_a_traced_plan_gives_the_same_and_keeps_its_calls(tmp_path: Path) -> None:
    program = compile_network(random_network(0, adaptivity=Adaptivity(thresholds=(0.6,) * 3)))
    plan, trace = Returning(program), Trace(tmp_path / 'trace.json')
    traced = traced_plan(plan, trace)
    image = random_image((64, 96), 0)
    expected = [step for step in plan.segment(image) if step is not None]
    given = list(traced.segment(image))
    assert [e.macs for e in expected] == [g.macs for g in given if g is not None]
    assert traced.exit_count == 4 and traced.step_times() == plan.step_times()
    cut = traced.segment(image)
    next(cut)
    cut.close()
    spans = [e for e in written(trace, tmp_path / 'trace.json') if e['ph'] == 'X']
    assert_nested(spans)
    calls = [e['name'] for e in spans]
    assert calls.count('segment') == 2 and calls.count('exit') == 4
    assert calls.count('compute') == len(given) + 2  # the end of the whole one, and the cut one
    assert calls.count('look') == len(given) - 4 + 1
    backs = [e['dur'] for e in spans if e['name'] == 'back to Python']
    assert len(backs) >= len(given) and min(backs[: len(given)]) > 900


def test_spans_are_bounded_and_the_rest_is_counted(tmp_path: Path) -> None:
    trace = Trace(tmp_path / 'trace.json', limit=2)
    double = trace.timed(lambda x: f'double {x}', lambda x: 2 * x)
    assert [double(x) for x in range(5)] == [0, 2, 4, 6, 8]
    events = written(trace, tmp_path / 'trace.json')
    assert [e['name'] for e in events if e['ph'] == 'X'] == ['double 0', 'double 1']
    said = json.loads((tmp_path / 'trace.json').read_text())['otherData']
    assert said == {'spans left out': 3}


def test_there_is_a_trace_only_where_one_is_asked_for(tmp_path: Path) -> None:
    assert from_environment({}) is None and from_environment({VARIABLE: ''}) is None
    assert from_environment({VARIABLE: str(tmp_path / 'trace.json')}) is not None
    with pytest.raises(ValueError, match=f'{VARIABLE}: cannot write to .*nowhere'):
        from_environment({VARIABLE: str(tmp_path / 'nowhere' / 'trace.json')})


def test_the_parts_of_a_latency_are_those_of_its_spans() -> None:
    def span(name: str, start_ms: float, end_ms: float, **about: Any) -> Event:
        times = {'ts': 1e3 * start_ms, 'dur': 1e3 * (end_ms - start_ms)}
        return {'name': name, 'ph': 'X', 'pid': 1, 'tid': 1, 'args': about, **times}

    times = {'captured_us': 0, 'received_us': 4e3, 'started_us': 12e3, 'decided_us': 41e3}
    events = [
        span('segment', -20, 9),  # of the frame before
        span('callback input/image', 1, 5),
        span('segment', 14, 46),
        span('compute', 14, 24),
        span('back to Python', 24, 27),
        span('exit', 27, 29),
        span('compute', 29, 45),  # a newer frame stopped it
        span('result', 43, 49, frame=2, stamp_ns=7, exit=1, reason='NEXT_FRAME', **times),
        span('publish output/mask', 44, 46),
    ]
    played = Played([{'stamp_ns': 7, 'act': STREAM}], [], [], {7: 7 + 48 * 10**6}, {}, {})
    (frame,) = frames_of(Traced(events, played))
    expected = (1, 3, 5, 3, 2, 22, 3, 2, 2, 2, 2)
    assert frame['parts_ms'] == pytest.approx(dict(zip(PARTS, expected, strict=True)))
    assert frame['latency_ms'] == pytest.approx(48)
    assert frame['unexplained_ms'] == pytest.approx(48 - sum(expected))
    found = summary(Traced(events, played))
    assert found['parts']['compute']['share'] == pytest.approx(22 / 48)
    assert found['unexplained']['median'] == pytest.approx(1)
    assert found['others']['render']['n'] == 0


def test_a_trace_of_the_node_is_one_of_spans_that_nest_and_add_up(tmp_path: Path) -> None:
    network = random_network(0, adaptivity=Adaptivity(thresholds=(0.6,) * 3))
    checkpoint.save(tmp_path / 'tiny.safetensors', network, CAMVID, {})
    (tmp_path / 'image').mkdir()
    for i in range(3):
        Image.fromarray(random_image((64, 96), i)).save(tmp_path / 'image' / f'{i}.png')
    out, numbers = tmp_path / 'trace.json', tmp_path / 'numbers.json'
    given = ['--weights', tmp_path / 'tiny.safetensors', '--frames', tmp_path / 'image']
    given += ['--seconds', 2, '--json', numbers]
    assert main(['benchmark', 'trace', str(out), *map(str, given)]) == 0
    events = json.loads(out.read_text())['traceEvents']
    by_thread = spans_by_thread(events)
    threads = {
        (e['pid'], e['tid']): e['args']['name'] for e in events if e['name'] == 'thread_name'
    }
    assert {'MainThread', 'adpc_worker', 'adpc_publisher'} <= set(threads.values())
    assert set(threads) == set(by_thread)
    for spans in by_thread.values():
        assert_nested(spans)
    begins = [e['id'] for e in events if e['ph'] == 'b' and e['name'] == 'stamp to mask']
    found = json.loads(numbers.read_text())
    assert found['frames'] == len(begins) > 10 and found['size'] == [64, 96]
    assert set(found['others']) == set(OTHERS) and found['others']['callback input/urgency']['n']
    shares = [row['share'] for row in (*found['parts'].values(), found['unexplained'])]
    assert sum(shares) == pytest.approx(1) and found['unexplained']['share'] < 0.1
    for name, row in found['parts'].items():
        assert row['n'] == found['frames']
        assert row['median'] >= 0 or name == 'mask to subscriber'
    assert found['parts']['compute']['median'] > 0


def test_weights_that_are_missing_are_said_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(['benchmark', 'trace', str(tmp_path / 't.json'), '--weights', 'nowhere']) == 2
    assert capsys.readouterr().err == 'adpc_ros: weights not found: nowhere\n'
