# SPDX-License-Identifier: Apache-2.0
"""A live replay: the bag in real time through a real node, over DDS, on this machine only."""

from __future__ import annotations

import dataclasses
import json
import time
from collections import defaultdict, deque
from pathlib import Path
from typing import Any

from adpc_ros.graph.processes import Processes, python
from adpc_ros.replay.expectation import UNANSWERED
from adpc_ros.replay.output import OutputBag, read_output
from adpc_ros.replay.records import FrameRecord, record_of
from adpc_ros.replay.run import Replayed, Urgent
from adpc_ros.replay.source import FrameArrival, Source, nanoseconds
from adpc_ros.ros.decoding import decoded
from adpc_ros.ros.parameters import Parameters

GRAPH = 'adpc_ros.replay.graph'
_SETTLE_S = 0.5  # for the recorder to take what is under way


def replay_live(
    source: Source, weights: Path, parameters: Parameters, out: OutputBag, network: str
) -> Replayed:
    """
    Run node, recorder and player until the player has played the bag.

    The node's clock is the bag's (use_sim_time), so that stamps are kept and ages are true. A
    frame that the node says nothing of counts as dropped, 'unanswered': of its drops the node
    gives the number only, and a frame may be lost on its way.

    :param weights: of the node.
    :param out: says where to write; not opened here.
    :param network: identity of the weights.
    :raises ChildProcessError: if one of the processes fails.
    """
    first = next(arrival for arrival in source if isinstance(arrival, FrameArrival))
    try:
        height, width = decoded(first.image()).shape[:2]
    except ValueError:
        height, width = parameters.warmup_height, parameters.warmup_width
    chosen = dataclasses.replace(
        parameters,
        weights=str(weights.resolve()),
        autostart=True,
        compressed_input=False,  # what the player sends, whatever the bag holds
        urgency_type='urgency',
        warmup_height=height,
        warmup_width=width,
    )
    with Processes() as processes:
        described, sent = (processes.folder / name for name in ('source.json', 'sent.json'))
        described.write_text(json.dumps(source.described()))
        values = dataclasses.asdict(chosen)  # JSON is YAML, and 1.0 stays a float
        given = (f'{name}:={json.dumps(value)}' for name, value in values.items())
        processes.start_node('use_sim_time:=true', *given)
        recorder = python(GRAPH, 'recorder', out.path.resolve(), out.namespace, *out.topics)
        processes.start('recorder', recorder)
        processes.start('player', python(GRAPH, 'player', described, sent))
        processes.wait_for('player')
        time.sleep(_SETTLE_S)
        processes.stop()
        played = json.loads(sent.read_text())
    urgencies = [Urgent(time_ns, level) for time_ns, level in played['urgencies']]
    last, records = _records(played['frames'], out)
    how = 'live, the node gave no status'
    if last is not None:
        how = (
            f'live, the node received {last.frames_received}, segmented '
            f'{last.frames_segmented}, dropped {last.frames_dropped}'
        )
    return Replayed(records, urgencies, network, how, source.passed_over)


def _records(sent: list[tuple[int, int]], out: OutputBag) -> tuple[Any, list[FrameRecord]]:
    """Join what was sent with what was said of it, by stamp and then in order."""
    said: dict[int, deque[tuple[int, Any]]] = defaultdict(deque)
    last = None
    for time_ns, last in read_output(out.path, 'output/status', out.namespace):
        said[nanoseconds(last.header.stamp)].append((time_ns, last))
    records = []
    for number, (received_ns, stamp_ns) in enumerate(sent):
        if said[stamp_ns]:
            time_ns, status = said[stamp_ns].popleft()
            records.append(record_of(number, received_ns, stamp_ns, time_ns, status))
        else:
            records.append(FrameRecord(number, received_ns, stamp_ns, received_ns, UNANSWERED))
    return last, records
