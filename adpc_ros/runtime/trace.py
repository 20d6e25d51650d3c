# SPDX-License-Identifier: Apache-2.0
"""
Where the time goes: spans of what threads did, written as a trace for Perfetto and Chrome.

Nothing of this is in the way of what is not traced: a plan and callbacks are wrapped when the
environment variable :data:`VARIABLE` names a file, and else used as they are.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from adpc_ros.network.adaptivity import ActiveMap
from adpc_ros.runtime.ledger import Frame, Result
from adpc_ros.runtime.plan import ComputedExit, Plan

VARIABLE = 'ADPC_TRACE'
MAX_SPANS = 200_000  # that are kept, some ten minutes; later ones are counted

P = ParamSpec('P')
T = TypeVar('T')


class Span(NamedTuple):
    """What a thread did; times in seconds on the monotonic clock."""

    name: str
    thread: int
    start_s: float
    end_s: float
    about: dict[str, Any]


class Trace:
    """Keeps spans in memory and writes them at the end; from any thread."""

    def __init__(self, path: Path, limit: int = MAX_SPANS) -> None:
        """
        Make the file, still empty.

        :param limit: of the number of spans.
        :raises ValueError: if it cannot be written.
        """
        try:
            path.write_text('')
        except OSError as error:
            raise ValueError(f'{VARIABLE}: cannot write to {path}: {error.strerror}') from error
        self._path, self._limit = path, limit
        self._lock = threading.Lock()
        self._spans: list[Span] = []
        self._threads: dict[int, str] = {}
        self._left_out = 0

    def add(self, name: str, start_s: float, end_s: float, **about: Any) -> None:
        """
        Keep a span of the calling thread.

        :param about: what else is known of it, as values for JSON.
        """
        thread = threading.get_ident()
        with self._lock:
            if len(self._spans) >= self._limit:
                self._left_out += 1
                return
            self._threads.setdefault(thread, threading.current_thread().name)
            self._spans.append(Span(name, thread, start_s, end_s, about))

    def timed(self, name: str | Callable[P, str], function: Callable[P, T]) -> Callable[P, T]:
        """
        Give a function that does the same and keeps how long it took.

        :param name: of its spans, or what gives the name from the arguments.
        """

        def timed(*arguments: P.args, **named: P.kwargs) -> T:
            start_s = time.monotonic()
            try:
                return function(*arguments, **named)
            finally:
                called = name if isinstance(name, str) else name(*arguments, **named)
                self.add(called, start_s, time.monotonic())

        return timed

    def results(
        self, publish: Callable[[Result], None], stamp_ns: Callable[[Frame], int]
    ) -> Callable[[Result], None]:
        """
        Give what publishes results and keeps, with that, when what happened to the frame.

        :param stamp_ns: gives a frame's stamp in nanoseconds, by which others know it.
        """

        def traced(result: Result) -> None:
            start_s, frame, done = time.monotonic(), result.frame, result.exit
            try:
                publish(result)
            finally:
                self.add(
                    *('result', start_s, time.monotonic()),
                    frame=frame.frame_id,
                    stamp_ns=stamp_ns(frame),
                    exit=done.computed.exit_index if done else 0,
                    reason=result.reason.name if result.reason is not None else '',
                    captured_us=1e6 * frame.captured_s,
                    received_us=1e6 * frame.received_s,
                    started_us=1e6 * result.started_s,
                    decided_us=1e6 * result.decided_s,
                )

        return traced

    def write(self) -> None:
        """Write the file: an object with ``traceEvents``, times in microseconds."""
        with self._lock:
            spans, threads = list(self._spans), dict(self._threads)
            left_out = self._left_out
        process = os.getpid()
        events = [_named('process_name', process, 0, 'adpc node')]
        events += [_named('thread_name', process, ident, name) for ident, name in threads.items()]
        for span in spans:
            events.append(
                {
                    'name': span.name,
                    'ph': 'X',
                    'pid': process,
                    'tid': span.thread,
                    'ts': 1e6 * span.start_s,
                    'dur': 1e6 * (span.end_s - span.start_s),
                    'args': span.about,
                }
            )
            if span.name == 'result':
                about = span.about
                events += waiting('worker', process, about, 'received_us', about['started_us'])
                events += waiting('outbox', process, about, 'decided_us', 1e6 * span.start_s)
        content = {'traceEvents': events, 'otherData': {'spans left out': left_out}}
        self._path.write_text(json.dumps(content))


def from_environment(environment: Mapping[str, str] = os.environ) -> Trace | None:
    """
    Give the trace that the environment asks for, None if it asks for none.

    :raises ValueError: if its file cannot be written.
    """
    path = environment.get(VARIABLE)
    return Trace(Path(path)) if path else None


def waiting(
    of: str, process: int, about: Mapping[str, Any], since: str, until_us: float
) -> list[dict[str, Any]]:
    """
    Give the two events of a frame's waiting, which belongs to no thread.

    :param of: what is waited for.
    :param about: of the frame's result.
    :param since: the key in it of the time when it began.
    """
    same = {
        'name': f'wait for the {of}',
        'cat': 'frame',
        'id': about['frame'],
        'pid': process,
        'tid': 0,
    }
    return [same | {'ph': 'b', 'ts': about[since]}, same | {'ph': 'e', 'ts': until_us}]


def _named(kind: str, process: int, thread: int, name: str) -> dict[str, Any]:
    return {'name': kind, 'ph': 'M', 'pid': process, 'tid': thread, 'args': {'name': name}}


class _TracedPlan:
    """A plan that keeps its calls; everything else is as with the plan itself."""

    def __init__(self, plan: Plan, trace: Trace) -> None:
        self._plan, self._trace = plan, trace

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plan, name)

    def segment(
        self,
        image: NDArray[np.uint8],
        adaptive: bool = True,
        active_maps: list[ActiveMap] | None = None,
    ) -> Iterator[ComputedExit | None]:
        """Segment an image, as :meth:`adpc_ros.runtime.plan.Plan.segment`."""
        add, now = self._trace.add, time.monotonic
        steps = self._plan.segment(image, adaptive, active_maps)
        gave_exit: dict[int, tuple[float, float]] = {}  # the call that gave it, from and to
        done = object()
        begun_s = now()
        try:
            while True:
                called_s = now()
                step = next(steps, done)
                back_s = now()
                returned_s = min(max(getattr(self._plan, 'returned_s', back_s), called_s), back_s)
                add('compute', called_s, returned_s)
                if returned_s < back_s:
                    add('back to Python', returned_s, back_s)
                if step is done:
                    break
                exit_ = cast('ComputedExit | None', step)
                if exit_ is not None:
                    gave_exit[exit_.exit_index] = called_s, returned_s
                try:
                    yield exit_
                finally:
                    add('look' if exit_ is None else 'exit', back_s, now())
            self._add_renders(gave_exit)
        finally:
            add('segment', begun_s, now())

    def _add_renders(self, gave_exit: dict[int, tuple[float, float]]) -> None:
        """Put what rendering took at the end of the calls that gave the exits."""
        for step in self._plan.step_times():
            call = gave_exit.get(step.exit_index)
            if call is not None and step.name.endswith('.output'):
                called_s, returned_s = call
                self._trace.add('render', max(called_s, returned_s - step.seconds), returned_s)


def traced_plan(plan: Plan, trace: Trace) -> Plan:
    """
    Give a plan that does the same, and keeps when it computed and came back.

    A plan may have ``returned_s``, when its latest call was over on the monotonic clock, before
    it had Python's lock again. What follows is then kept apart as *back to Python*.
    """
    return cast(Plan, _TracedPlan(plan, trace))
