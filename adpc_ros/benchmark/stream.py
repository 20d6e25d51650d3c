# SPDX-License-Identifier: Apache-2.0
"""What the node makes of frames that stream in, with urgency and changed parameters or without."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adpc_ros.benchmark.ros import TINY, random_weights
from adpc_ros.graph.processes import Processes, python
from adpc_ros.graph.schedule import Act, Pace
from adpc_ros.percentiles import spread
from adpc_ros.runtime.scheduler import StopReason

SETTLE_S = 2.0  # for the last frame's messages
COUNTERS = ('frames_received', 'frames_segmented', 'frames_dropped')
_AT_AN_EXIT = (StopReason.FINISHED, StopReason.EXIT_LIMIT, StopReason.CONFIDENT)
_WARM = 10  # memory samples that are left out: buffers are taken by then
_FEWEST = 20  # others, below which memory is not judged
_MAX_GROWTH = 0.05  # of the memory

Values = dict[str, Any]


def stream(
    images: NDArray[np.uint8],
    rate_hz: float,
    duration_s: float,
    weights: Path | None = None,
    parameters: Sequence[str] = (),
    urgency: bool = True,
    changes: bool = False,
    network: str = TINY,
) -> Values:
    """
    Run a node, a camera and a planner on this machine, in a domain of their own.

    :param images: (N, H, W, 3) uint8 RGB, sent again and again.
    :param rate_hz: of the camera, which waits for nothing.
    :param weights: of the node; None for random ones.
    :param parameters: of the node, each as NAME:=VALUE.
    :param urgency: whether CRITICAL comes at random instants.
    :param changes: whether live parameters change at random instants; ELEVATED comes then, too.
    :param network: architecture of the random weights.
    :return: what :func:`evaluate` says.
    :raises ChildProcessError: if one of the processes fails.
    """
    height, width = images.shape[1:3]
    with Processes() as processes:
        weights = weights or random_weights(network, processes.folder)
        heard = processes.folder / 'heard.json'
        node_id = processes.start_node(
            f'weights:={weights.resolve()}',
            f'warmup_height:={height}',
            f'warmup_width:={width}',
            *parameters,
        )
        planner = python('adpc_ros.benchmark.stream_planner', heard, node_id, urgency, changes)
        processes.start('planner', planner)
        act = Act('stream', Pace.STEADY, duration_s, rate_hz=rate_hz)
        sent = processes.play([act], images)
        time.sleep(SETTLE_S)
        processes.stop()
        frames = json.loads(sent.read_text())['frames']
        return evaluate([frame['stamp_ns'] for frame in frames], json.loads(heard.read_text()))


def evaluate(stamps_ns: list[int], heard: Values) -> Values:
    """
    Give rates, times and what does not add up.

    :param stamps_ns: of the frames that the camera sent.
    :param heard: what the planner recorded.
    """
    statuses: list[Values] = heard['statuses']
    received_ns = {int(stamp): value for stamp, value in heard['received_ns'].items()}
    published = [s for s in statuses if s['stamp_ns'] in received_ns]
    span_s = (stamps_ns[-1] - stamps_ns[0]) / 1e9
    last = statuses[-1] if statuses else dict.fromkeys(COUNTERS, 0)
    exits = Counter(s['exit_index'] for s in statuses)
    reasons = Counter(StopReason(s['stop_reason']).name for s in statuses)
    memory = _memory(heard['memory_mib'])
    return {
        'frames': {
            'sent': len(stamps_ns),
            'lost': len(stamps_ns) - last['frames_received'],
            **{name.removeprefix('frames_'): last[name] for name in COUNTERS},
        },
        'unaccounted': unaccounted(stamps_ns, statuses, received_ns, heard['confident_ns'])
        + (['memory grows'] if memory and memory['growth'] > _MAX_GROWTH else []),
        'results_hz': len(published) / span_s,
        'exits': {str(index): exits[index] for index in sorted(exits)},
        'stops': dict(reasons.most_common()),
        'stamp_to_mask_ms': spread(
            [(received_ns[s['stamp_ns']] - s['stamp_ns']) / 1e6 for s in published]
        ),
        'transport_ms': spread(_transport_ms(statuses, received_ns)),
        'urgency_to_mask_ms': spread(
            [
                (received_ns[s['stamp_ns']] - s['urgency_stamp_ns']) / 1e6
                for s in published
                # one of a later exit: an earlier one was ready when the message came
                if s['stop_reason'] == StopReason.URGENT and s['exit_index'] > 1
            ]
        ),
        'service_ms': {name: spread(values) for name, values in heard['service_ms'].items()},
        'refused': heard['refused'],
        'cores': heard['cpu_s'] / heard['observed_s'],
        'memory': memory,
        'warnings': dict(Counter(heard['warnings']).most_common()),
        'diagnoses': kinds(heard['diagnoses']),
    }


def unaccounted(
    stamps_ns: list[int],
    statuses: list[Values],
    mask_ns: Iterable[int],
    confident_ns: Iterable[int],
) -> list[str]:
    """Say what does not add up; empty if everything does."""
    if not statuses:
        return ['no status was received']
    found = []
    received, segmented, dropped = (statuses[-1][name] for name in COUNTERS)
    if received != segmented + dropped:
        found.append(f'{received} frames received, {segmented} segmented, {dropped} dropped')
    if received > len(stamps_ns):
        found.append(f'{len(stamps_ns)} frames sent, {received} received')
    with_mask = sum(bool(s['exit_index']) for s in statuses)
    if with_mask != segmented:
        found.append(f'{segmented} frames segmented, {with_mask} statuses of such')
    return found + unpaired(stamps_ns, statuses, mask_ns, confident_ns)


def unpaired(
    stamps_ns: Iterable[int],
    statuses: list[Values],
    mask_ns: Iterable[int],
    confident_ns: Iterable[int],
) -> list[str]:
    """Say which outputs do not belong together, whatever the node counted."""
    found = []
    of = [s['stamp_ns'] for s in statuses]
    if not set(of) <= set(stamps_ns):
        found.append('statuses of frames that were not sent')
    if of != sorted(set(of)):
        found.append('statuses out of order, or twice')
    with_mask = [s['stamp_ns'] for s in statuses if s['exit_index']]
    for name, stamps in (('masks', list(mask_ns)), ('confidences', list(confident_ns))):
        if stamps != with_mask:
            found.append(f'{len(with_mask)} statuses with a mask, {len(stamps)} {name}')
    return found


def _transport_ms(statuses: list[Values], received_ns: dict[int, int]) -> list[float]:
    """
    Give the time from stamp to mask in which the worker was at neither this frame nor another.

    Only of frames whose mask was published as soon as it was rendered.
    """
    found, free_ns = [], 0.0
    for status in statuses:
        stamp_ns = status['stamp_ns']
        if stamp_ns in received_ns and status['stop_reason'] in _AT_AN_EXIT:
            way_ns = received_ns[stamp_ns] - max(stamp_ns, free_ns)
            found.append(way_ns / 1e6 - 1e3 * status['compute_s'])
        free_ns = stamp_ns + 1e9 * status['latency_s']
    return found


def kinds(messages: list[str]) -> dict[str, int]:
    """Count what the diagnostics complained of, whatever the numbers in it."""
    parts = [part for message in messages for part in message.split('; ')]
    return dict(Counter(re.sub(r'\d[\d.]*', '#', part) for part in parts).most_common())


def _memory(samples_mib: list[float]) -> Values | None:
    """Compare the first tenth with the last, once buffers are taken; None for too few samples."""
    flat = samples_mib[_WARM:]
    if len(flat) < _FEWEST:
        return None
    tenth = len(flat) // 10
    first, last = float(np.median(flat[:tenth])), float(np.median(flat[-tenth:]))
    return {
        'first_mib': first,
        'last_mib': last,
        'max_mib': max(flat),
        'growth': last / first - 1,
    }
