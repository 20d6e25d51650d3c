# SPDX-License-Identifier: Apache-2.0
"""The node for an hour: whatever may happen to it happens; all of it is accounted for."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adpc_ros.benchmark.ros import random_weights
from adpc_ros.benchmark.stream import COUNTERS, kinds, unaccounted, unpaired
from adpc_ros.graph.processes import Footprint, Processes, python
from adpc_ros.graph.recorder import DEPTH, HEARD
from adpc_ros.percentiles import spread
from adpc_ros.runtime.scheduler import StopReason

Values = dict[str, Any]

STATES = ('active', 'inactive', 'unconfigured')
MAX_GROWTH = 0.02  # of the memory
SCALES = (1, 2, 4)  # of the outputs
_FEWEST = 3  # samples of a state to begin and to end with
IMAGE_DEPTH = 200  # of the camera's reliable queue: seconds of frames, on a busy machine
_QUALITY: dict[str, Values] = {
    'input/image.subscription': {'reliability': 'reliable', 'depth': IMAGE_DEPTH},
    **{f'{topic}.publisher': {'depth': DEPTH} for topic in HEARD},
}


def soak(
    size: tuple[int, int],
    duration_s: float,
    seed: int = 0,
    weights: Path | None = None,
    parameters: Sequence[str] = (),
    network: str | None = None,
) -> Values:
    """
    Run a node, and cameras and planners that come and go, in a domain of their own.

    Queues are reliable and long, so that nothing is lost on the way.

    :param size: (H, W) of most frames in pixels; others are smaller or larger by a third.
    :param seed: of everything that happens at random.
    :param weights: of the node; None for the packaged ones.
    :param parameters: of the node, each as NAME:=VALUE.
    :param network: architecture of random weights in place of these.
    :return: what :func:`evaluate` says.
    """
    ended = []
    with Processes() as processes:
        if network is not None:
            weights = random_weights(network, processes.folder)
        out = processes.folder / 'soak.jsonl'
        out.touch()
        node_id = processes.start_node(
            *([f'weights:={weights.resolve()}'] if weights else []),
            f'warmup_height:={size[0]}',
            f'warmup_width:={size[1]}',
            *(
                f'qos_overrides./adpc/{end}.{policy}:={value}'
                for end, policies in _QUALITY.items()
                for policy, value in policies.items()
            ),
            *parameters,
        )
        client = python('adpc_ros.benchmark.soak_client', out, *size, duration_s, node_id, seed)
        processes.start('client', client)
        try:
            processes.wait_for('client')
            processes.stop()
        except ChildProcessError as error:
            ended.append(str(error).partition(';')[0])
        stretches = [json.loads(line) for line in out.read_text().splitlines()]
        return evaluate(stretches, processes.log('node'), ended)


def evaluate(stretches: list[Values], log: str, ended: Sequence[str] = ()) -> Values:
    """
    Add everything up, and say which promises are broken.

    :param stretches: what :mod:`adpc_ros.benchmark.soak_client` wrote.
    :param log: of the node.
    :param ended: how processes failed.
    """
    broken = list(ended)
    for number, stretch in enumerate(stretches, 1):
        broken += [f'stretch {number}: {text}' for text in broken_in(stretch)]
    samples = [sample for stretch in stretches for sample in stretch['samples']]
    footprints, gained = compare(samples)
    if 'active' not in footprints and not ended:
        gained.append('too few samples of memory, threads and files')
    if 'Traceback' in log:
        gained.append('the log has a Traceback')
    counted = [c[-1] for stretch in stretches if (c := _counted(stretch))]
    statuses = [status for stretch in stretches for status in stretch['statuses']]
    received_ns = {int(k): v for stretch in stretches for k, v in stretch['received_ns'].items()}
    exits = Counter(s['exit_index'] for s in statuses)
    reasons = Counter(StopReason(s['stop_reason']).name for s in statuses)
    done = sum((Counter(stretch['done']) for stretch in stretches), Counter[str]())
    lines = re.findall(r'^\[(?:WARN|ERROR|FATAL)\].*?: (.*)$', log, re.MULTILINE)
    return {
        'broken': broken + gained,
        'frames': {
            'sent': sum(len(stretch['sent']) for stretch in stretches),
            **{name.removeprefix('frames_'): sum(c[name] for c in counted) for name in COUNTERS},
            'no image': done['garbage'],
        },
        'exits': {str(index): exits[index] for index in sorted(exits)},
        'stops': dict(reasons.most_common()),
        'stamp_to_mask_ms': spread([(t - stamp) / 1e6 for stamp, t in received_ns.items()]),
        'done': dict(sorted(done.items())),
        'footprints': footprints,
        'samples': samples,
        'warnings': kinds(lines),
    }


def broken_in(stretch: Values) -> list[str]:
    """
    Say what does not add up in a stretch of frames.

    Its ``closing`` is ``answered`` if all frames came to the node and the last one was segmented,
    ``cut`` if the node was deactivated meanwhile, which loses what was under way, and ``gone``
    if it was also cleaned up then, so that it has no counters any more.
    """
    sent = {stamp_ns: (frame_id, size) for stamp_ns, frame_id, size in stretch['sent']}
    statuses = _counted(stretch)
    pairs = [[image[0] for image in stretch[kind]] for kind in ('mask', 'confidence')]
    found = list(stretch['wrong'])
    if stretch['closing'] == 'gone':
        found += unpaired(list(sent), statuses, *pairs)
    else:
        found += unaccounted(list(sent), statuses, *pairs)
    if stretch['closing'] == 'answered' and statuses:
        if (received := statuses[-1]['frames_received']) < len(sent):
            found.append(f'{len(sent)} frames sent, {received} received')
    failed = sum(sent.get(s['stamp_ns'], ('', 0))[1] is not None for s in statuses if _failed(s))
    if failed:
        found.append(f'{failed} frames failed')
    wrong = sum(
        not _belongs(image, sent) for kind in ('mask', 'confidence') for image in stretch[kind]
    )
    if wrong:
        found.append(f'{wrong} masks or confidences have the header or size of no such frame')
    return found


def _counted(stretch: Values) -> list[Values]:
    """Give the statuses of a stretch, whose counters begin with it."""
    before = stretch['before']
    return [s | {name: s[name] - before[name] for name in COUNTERS} for s in stretch['statuses']]


def _failed(status: Values) -> bool:
    return bool(status['stop_reason'] == StopReason.FAILED)


def _belongs(image: Sequence[Any], sent: dict[int, tuple[str, Sequence[int] | None]]) -> bool:
    """Tell whether an output has its frame's header and, but for the scale, its size."""
    stamp_ns, frame_id, *size = image
    of, full = sent.get(stamp_ns, ('', None))
    scaled = [[-(-edge // scale) for edge in full] for scale in SCALES] if full else []
    return frame_id == of and size in scaled


def compare(samples: list[Sequence[Any]]) -> tuple[dict[str, Values], list[str]]:
    """
    Compare the first tenth of the samples of each state with the last one, by their medians.

    :param samples: each a state and its :class:`~adpc_ros.graph.processes.Footprint`; buffers are
        taken before the first.
    :return: by state ``n``, and ``first``, ``last`` and ``max`` of each; and what has grown:
        memory by more than :data:`MAX_GROWTH` (unconfigured there is but what the allocator
        keeps), threads and files at all.
    """
    found: dict[str, Values] = {}
    grown = []
    for state in STATES:
        of = np.array([sample[1] for sample in samples if sample[0] == state], float)
        count = max(_FEWEST, len(of) // 10)
        if len(of) < 2 * count:
            continue
        found[state] = {'n': len(of)}
        for name, values in zip(Footprint._fields, of.T):
            first, last = float(np.median(values[:count])), float(np.median(values[-count:]))
            found[state][name] = {'first': first, 'last': last, 'max': float(values.max())}
            if name == 'memory_mib':
                limit = math.inf if state == 'unconfigured' else first * (1 + MAX_GROWTH)
            else:
                limit = first
            if last > limit:
                grown.append(f'{name} while {state}: {first:g} at first, {last:g} at last')
    return found, grown
