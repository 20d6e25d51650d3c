# SPDX-License-Identifier: Apache-2.0
"""What the last seconds were like: rates, latencies, exits, drops; and whether that is well."""

from __future__ import annotations

import enum
import math
import threading
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from adpc_ros.percentiles import PERCENTILES, percentiles
from adpc_ros.runtime.scheduler import Counters, DropReason, StopReason
from adpc_ros.runtime.watchdog import Health

WINDOW_S = 10.0
MAX_RESULTS = 4096  # that are kept; a camera would need 400 frames a second to have more
_FEWEST = 5  # frames, below which no share is judged


class Outcome(NamedTuple):
    """
    What became of one frame.

    ``time_s`` when it was published, on the monotonic clock; ``latency_s`` since its stamp;
    ``exit_index`` 0 if it failed; ``late`` if its deadline was missed.
    """

    time_s: float
    latency_s: float
    exit_index: int
    reason: StopReason
    late: bool


class _Share(NamedTuple):
    time_s: float
    exit_index: int
    share: float


class _Sample(NamedTuple):
    time_s: float
    counters: Counters


@dataclass(frozen=True)
class Summary:
    """
    The window in numbers.

    ``span_s`` is what the rates (Hz) are taken over, at most :data:`WINDOW_S` and a sample's
    distance; ``received`` frames and ``drops`` are of that time. ``latencies_s`` belong to
    :data:`PERCENTILES`, None without a mask. ``exits`` and ``reasons`` count results, of which
    ``late`` missed their deadline. ``active_shares`` (0 to 1) say for each exit what the next one
    still computed, on average. ``silent_s`` is the time without a new frame.
    """

    span_s: float = 0.0
    input_hz: float = 0.0
    output_hz: float = 0.0
    received: int = 0
    drops: dict[DropReason, int] = field(default_factory=dict)
    latencies_s: tuple[float, ...] | None = None
    exits: dict[int, int] = field(default_factory=dict)
    reasons: dict[StopReason, int] = field(default_factory=dict)
    late: int = 0
    active_shares: dict[int, float] = field(default_factory=dict)
    silent_s: float = 0.0

    @property
    def results(self) -> int:
        """How many frames have a result."""
        return sum(self.reasons.values())

    @property
    def drop_share(self) -> float:
        """How many of the frames got no mask while the runtime was at work, 0 to 1."""
        dropped = sum(n for reason, n in self.drops.items() if reason is not DropReason.INACTIVE)
        return dropped / self.received if self.received else 0.0


class Window:
    """
    Counts what happens and forgets what is older than :data:`WINDOW_S`; from any thread.

    Times are on the monotonic clock and do not go back.
    """

    def __init__(self) -> None:
        """Know nothing."""
        self._lock = threading.Lock()
        self._outcomes: deque[Outcome] = deque(maxlen=MAX_RESULTS)
        self._shares: deque[_Share] = deque(maxlen=MAX_RESULTS)
        self._samples: deque[_Sample] = deque(maxlen=MAX_RESULTS)
        self._heard_s = math.inf

    def begin(self, now_s: float, counters: Counters) -> None:
        """Forget everything; what was counted before does not belong to the window."""
        with self._lock:
            self._outcomes.clear()
            self._shares.clear()
            self._samples = deque([_Sample(now_s, counters)], maxlen=MAX_RESULTS)
            self._heard_s = now_s

    def result(self, outcome: Outcome) -> None:
        """Count a frame's result."""
        with self._lock:
            self._outcomes.append(outcome)

    def exit(self, time_s: float, exit_index: int, active_share: float) -> None:
        """Count an exit, published or not, and what the next one will compute (0 to 1)."""
        with self._lock:
            self._shares.append(_Share(time_s, exit_index, active_share))

    def sample(self, now_s: float, counters: Counters) -> None:
        """Take note of the frame counters; to be done once in a while."""
        with self._lock:
            if self._samples and counters.received > self._samples[-1].counters.received:
                self._heard_s = now_s
            self._samples.append(_Sample(now_s, counters))
            # the newest of those that are too old stays: rates need a beginning
            while len(self._samples) > 2 and self._samples[1].time_s <= now_s - WINDOW_S:
                self._samples.popleft()

    def summary(self, now_s: float) -> Summary:
        """Say what the last seconds were like."""
        since_s = now_s - WINDOW_S
        with self._lock:
            outcomes = [o for o in self._outcomes if o.time_s > since_s]
            shares = [s for s in self._shares if s.time_s > since_s]
            samples = list(self._samples)
            silent_s = max(now_s - self._heard_s, 0.0)
        summary = Summary(
            latencies_s=percentiles([o.latency_s for o in outcomes if o.exit_index]),
            exits=dict(sorted(Counter(o.exit_index for o in outcomes if o.exit_index).items())),
            reasons=dict(sorted(Counter(o.reason for o in outcomes).items())),
            late=sum(o.late for o in outcomes),
            active_shares=_means(shares),
            silent_s=silent_s,
        )
        if len(samples) < 2 or samples[-1].time_s <= samples[0].time_s:
            return summary
        first, last = samples[0], samples[-1]
        span_s = last.time_s - first.time_s
        received = last.counters.received - first.counters.received
        segmented = last.counters.segmented - first.counters.segmented
        before = first.counters.drops
        return replace(
            summary,
            span_s=span_s,
            input_hz=received / span_s,
            output_hz=segmented / span_s,
            received=received,
            drops={r: n - before[r] for r, n in last.counters.drops.items()},
        )


def _means(shares: list[_Share]) -> dict[int, float]:
    exits = sorted({s.exit_index for s in shares})
    of = {i: [s.share for s in shares if s.exit_index == i] for i in exits}
    return {i: sum(values) / len(values) for i, values in of.items()}


class Grade(enum.IntEnum):
    """How well it is, as in ``diagnostic_msgs/DiagnosticStatus``."""

    OK = 0
    WARN = 1
    ERROR = 2


@dataclass(frozen=True)
class Thresholds:
    """
    From where on it is not well any more.

    :param stale_s: without a new frame, in seconds; infinite never.
    :param latency_s: of the slowest twentieth of the masks, in seconds; infinite never.
    :param drop_share: of the frames that got no mask, 0 to 1; 1 never.
    :param late_share: of the results that missed their deadline, 0 to 1; 1 never.
    """

    stale_s: float = math.inf
    latency_s: float = math.inf
    drop_share: float = 1.0
    late_share: float = 1.0


def judge(
    summary: Summary, health: Health, thresholds: Thresholds, now_s: float
) -> tuple[Grade, str]:
    """
    Judge an active runtime.

    :param now_s: on the monotonic clock, as ``health.restarted_s``.
    :return: the worst grade, and everything that is wrong; what the rate is if nothing is.
    """
    errors, warnings = [], []
    if health.hung:
        errors.append('the worker hangs')
    if now_s - health.restarted_s < WINDOW_S:
        errors.append(f'the worker was replaced {now_s - health.restarted_s:.0f} s ago')
    if summary.silent_s > thresholds.stale_s:
        warnings.append(f'no image for {summary.silent_s:.0f} s')
    slow_s = summary.latencies_s[PERCENTILES.index(95)] if summary.latencies_s else 0.0
    if slow_s > thresholds.latency_s:
        warnings.append(f'latency {slow_s:.3f} s, above {thresholds.latency_s:g} s')
    if summary.received >= _FEWEST and summary.drop_share > thresholds.drop_share:
        warnings.append(f'{summary.drop_share:.0%} of the frames dropped')
    if summary.results >= _FEWEST and summary.late / summary.results > thresholds.late_share:
        warnings.append(f'{summary.late / summary.results:.0%} of the results late')
    if failed := summary.reasons.get(StopReason.FAILED, 0):
        warnings.append(f'frames failed: {failed}')
    if errors or warnings:
        return Grade.ERROR if errors else Grade.WARN, '; '.join(errors + warnings)
    return Grade.OK, f'{summary.output_hz:.1f} masks per second'
