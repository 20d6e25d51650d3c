# SPDX-License-Identifier: Apache-2.0
"""Where a frame's time goes: a trace of the node under a camera, and what it adds up to."""

from __future__ import annotations

import json
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from adpc_ros.graph.processes import Processes, python
from adpc_ros.graph.recording import Played
from adpc_ros.graph.schedule import Act, Pace
from adpc_ros.percentiles import spread
from adpc_ros.ros.domain import isolated
from adpc_ros.runtime.trace import VARIABLE

STREAM = 'stream'  # name of the act whose frames are summed up
#: What a frame's latency consists of, one after the other, from stamp to receipt of the mask.
PARTS = (
    'camera to callback',
    'callback',
    'another frame is computed',
    'worker wakes up',
    'before the computation',
    'compute',
    'back to Python',
    'exits and looks',
    'outbox',
    'publish output/mask',
    'mask to subscriber',
)
#: What lies within one of the parts, after the mask, or beside.
OTHERS = (
    'submit',
    'render',
    'publish output/confidence',
    'publish output/status',
    'report',
    'overlay',
    'callback input/urgency',
)
_BUSY = 0.65  # share of the time that frames may take in the stream
_MS = 1e3  # microseconds

Values = dict[str, Any]


class Traced(NamedTuple):
    """What happened: ``events`` of the node's trace, and what was sent and heard."""

    events: list[Values]
    played: Played


def record(
    images: Sequence[NDArray[np.uint8]],
    rate_hz: float,
    duration_s: float,
    weights: Path | None = None,
    parameters: Sequence[str] = (),
    urgencies: int = 10,
) -> Traced:
    """
    Run a node that keeps a trace, a camera and a recorder on this machine, in their own domain.

    :param images: each (H, W, 3) uint8 RGB, sent again and again.
    :param rate_hz: of the camera; less where the node cannot follow.
    :param duration_s: of the stream.
    :param weights: of the node; None for the packaged ones.
    :param parameters: of the node, each as NAME:=VALUE.
    :param urgencies: frames after the stream that are stopped by CRITICAL.
    :raises ChildProcessError: if one of the processes fails.
    """
    height, width = images[0].shape[:2]
    given = [f'weights:={weights.resolve()}'] if weights is not None else []
    acts = [
        Act(STREAM, Pace.STEADY, duration_s, rate_hz=rate_hz, load=(0.0, _BUSY)),
        Act('urgency', Pace.URGENT, count=urgencies),
    ]
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / 'trace.json'
        with Processes(isolated({**os.environ, VARIABLE: str(trace)})) as processes:
            heard = processes.folder / 'heard.npz'
            processes.start_node(
                *given, f'warmup_height:={height}', f'warmup_width:={width}', *parameters
            )
            processes.start('recorder', python('adpc_ros.graph.recorder', heard))
            sent = processes.play(acts, images)
            processes.stop()
            played = Played.read(sent, heard)
        return Traced(json.loads(trace.read_text())['traceEvents'], played)


def frames_of(traced: Traced) -> list[Values]:
    """
    Give the parts of each frame of the stream whose mask was heard.

    :return: of each frame ``stamp_ns``, ``exit``, ``captured_us`` and ``heard_us`` on the trace's
        clock, ``latency_ms``, ``parts_ms`` by name, and ``unexplained_ms``.
    """
    spans = _Spans(traced.events)
    of_stream = {frame['stamp_ns'] for frame in traced.played.frames if frame['act'] == STREAM}
    found = []
    for result in spans.named('result'):
        about = result['args']
        stamp_ns = about['stamp_ns']
        heard_ns = traced.played.received_ns.get(stamp_ns)
        if stamp_ns not in of_stream or heard_ns is None:
            continue
        heard_us = about['captured_us'] + (heard_ns - stamp_ns) / 1e3
        parts_us = _parts_us(spans, result, heard_us)
        if parts_us is None:
            continue
        latency_us = heard_us - about['captured_us']
        found.append(
            {
                **{key: about[key] for key in ('stamp_ns', 'exit', 'reason', 'captured_us')},
                'heard_us': heard_us,
                'latency_ms': latency_us / _MS,
                'parts_ms': {name: part / _MS for name, part in parts_us.items()},
                'unexplained_ms': (latency_us - sum(parts_us.values())) / _MS,
            }
        )
    return found


def summary(traced: Traced) -> Values:
    """
    Say what latencies consist of.

    :return: ``frames``, ``latency_ms``, ``parts`` (of each the spread in milliseconds and
        ``share``, 0 to 1, of all latency), ``unexplained`` likewise, and ``others`` (spreads).
    """
    frames = frames_of(traced)
    whole_ms = sum(frame['latency_ms'] for frame in frames)

    def row(values_ms: list[float]) -> Values:
        return {**spread(values_ms), 'share': sum(values_ms) / whole_ms if whole_ms else None}

    spans = _Spans(traced.events)
    return {
        'frames': len(frames),
        'latency_ms': spread([frame['latency_ms'] for frame in frames]),
        'parts': {name: row([frame['parts_ms'][name] for frame in frames]) for name in PARTS},
        'unexplained': row([frame['unexplained_ms'] for frame in frames]),
        'others': {
            name: spread([span['dur'] / _MS for span in spans.named(name)]) for name in OTHERS
        },
    }


def write(path: Path, traced: Traced) -> None:
    """Write a trace for Perfetto or Chrome: the node's, and the frames' ways beside it."""
    frames = os.getpid()
    events = [*traced.events]
    events.append(
        {'name': 'process_name', 'ph': 'M', 'pid': frames, 'tid': 0, 'args': {'name': 'frames'}}
    )
    for number, frame in enumerate(frames_of(traced)):
        same = {'name': 'stamp to mask', 'cat': 'frame', 'id': number, 'pid': frames, 'tid': 0}
        events.append(same | {'ph': 'b', 'ts': frame['captured_us'], 'args': frame['parts_ms']})
        events.append(same | {'ph': 'e', 'ts': frame['heard_us']})
    path.write_text(json.dumps({'traceEvents': events, 'displayTimeUnit': 'ms'}))


class _Spans:
    """The spans of a trace, by name and in order of their beginning."""

    def __init__(self, events: Sequence[Values]) -> None:
        self._named: dict[str, list[Values]] = defaultdict(list)
        for event in sorted((e for e in events if e['ph'] == 'X'), key=lambda e: float(e['ts'])):
            self._named[event['name']].append(event)

    def named(self, name: str) -> list[Values]:
        return self._named[name]

    def within(self, name: str, start_us: float, end_us: float) -> Iterator[Values]:
        return (s for s in self._named[name] if start_us <= s['ts'] < end_us)

    def at(self, name: str, time_us: float) -> Values | None:
        """Give the span that covers a time."""
        return next((s for s in self._named[name] if s['ts'] <= time_us <= _end(s)), None)


def _parts_us(spans: _Spans, result: Values, heard_us: float) -> dict[str, float] | None:
    """Give the parts of a frame's way in microseconds; None if something of it is missing."""
    about = result['args']
    received, started, decided = (about[f'{k}_us'] for k in ('received', 'started', 'decided'))
    callback = spans.at('callback input/image', received)
    segment = next((s for s in spans.named('segment') if s['ts'] >= started), None)
    masks = list(spans.within('publish output/mask', result['ts'], _end(result)))
    if callback is None or segment is None or not masks or segment['ts'] > decided:
        return None
    before = [_end(s) for s in spans.named('segment') if s['ts'] < started]
    free = min(max([received, *before]), started)

    def spent(*names: str) -> float:
        inside = (s for n in names for s in spans.within(n, segment['ts'], decided))
        return float(sum(min(_end(s), decided) - s['ts'] for s in inside))

    values = (
        callback['ts'] - about['captured_us'],
        received - callback['ts'],
        free - received,
        started - free,
        segment['ts'] - started,
        spent('compute'),
        spent('back to Python'),
        spent('exit', 'look'),
        result['ts'] - decided,
        masks[0]['dur'],
        heard_us - _end(masks[0]),
    )
    return dict(zip(PARTS, map(float, values), strict=True))


def _end(span: Values) -> float:
    return float(span['ts']) + float(span['dur'])
