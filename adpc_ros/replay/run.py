# SPDX-License-Identifier: Apache-2.0
"""A replay from its bag to its output bag, simulated."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray

from adpc_ros.network.checkpoint import Checkpoint
from adpc_ros.progress import ProgressBar
from adpc_ros.replay.output import OutputBag
from adpc_ros.replay.records import FrameRecord, record_of
from adpc_ros.replay.simulation import Simulation
from adpc_ros.replay.source import (
    Arrival,
    CalibrationArrival,
    FrameArrival,
    Source,
    UrgencyArrival,
)
from adpc_ros.ros import publication
from adpc_ros.ros.parameters import Parameters
from adpc_ros.ros.publication import PROGRESS, Fields, Network, label_info_fields
from adpc_ros.runtime.cores import core_count
from adpc_ros.runtime.images import confident_threshold
from adpc_ros.runtime.ledger import Result
from adpc_ros.runtime.make_plan import make_plan
from adpc_ros.runtime.memory import budget_of
from adpc_ros.runtime.scheduler import DropReason

log = logging.getLogger(__name__)

Values = Iterator[tuple[str, NDArray[Any] | Fields]]  # topics and what is published there


class Urgent(NamedTuple):
    """An urgency message: when it was received, in nanoseconds, and its level's name."""

    time_ns: int
    level: str


class Replayed(NamedTuple):
    """
    What a replay gave.

    ``records`` are of all frames in order of receipt, ``urgencies`` all messages; ``how`` says in
    a few words what computed, ``network`` is the identity of the weights. ``passed_over`` names
    the topics of the bag that were not read, with their types.
    """

    records: list[FrameRecord]
    urgencies: list[Urgent]
    network: str
    how: str
    passed_over: list[str]


def simulate(
    source: Source,
    checkpoint: Checkpoint,
    parameters: Parameters,
    exit_s: Sequence[float],
    out: OutputBag,
    quiet: bool = False,
) -> Replayed:
    """
    Replay under the simulated clock and write the output bag; nothing but records is kept.

    :param parameters: the node's; of them, ``weights``, ``autostart`` and the size of the warm-up
        are not looked at.
    :param exit_s: seconds that each exit takes after the one before.
    :param out: written and closed.
    :param quiet: show no progress, on a terminal neither.
    :raises ValueError: if the durations do not fit the network, or the bag turns out to be broken.
    """
    threads = parameters.threads or core_count()
    torch.set_num_threads(threads)
    dtype: torch.dtype = getattr(torch, parameters.precision)
    plan = make_plan(checkpoint.network, parameters.device, dtype, threads)
    policy = parameters.policy(plan.exit_count, checkpoint.advised_exit)
    network = Network(
        checkpoint.identity,
        checkpoint.classes,
        plan.exit_count,
        confident_threshold(checkpoint.network.config),
        checkpoint.advised_exit,
    )
    records: dict[int, FrameRecord] = {}
    urgencies: list[Urgent] = []
    calibrations: deque[CalibrationArrival] = deque()  # that in force, and those to come
    other: list[Exception] = []

    def seconds(time_ns: int) -> float:
        return (time_ns - source.start_ns) / 1e9

    def publish(frame: FrameArrival, time_ns: int, values: Values) -> Any:
        messages = {
            topic: out.publish(topic, time_ns, value, frame.stamp_ns, frame.frame_id)
            for topic, value in values
        }
        return messages.get('output/status')

    def on_result(result: Result, time_ns: int) -> None:
        frame: FrameArrival = result.frame.tag
        while len(calibrations) > 1 and calibrations[1].time_ns <= time_ns:
            calibrations.popleft()
        known = calibrations and calibrations[0].time_ns <= time_ns
        given = publication.results(
            *(result, lambda: seconds(time_ns), network, parameters),
            calibrations[0].message if known else None,
        )
        status = publish(frame, time_ns, said_once(given))
        records[frame.number] = record_of(
            frame.number, frame.time_ns, frame.stamp_ns, time_ns, status
        )

    def said_once(values: Values) -> Values:
        try:
            yield from values
        except publication.OtherCamera as error:
            if not other:
                log.warning('no camera_info is published: %s (said once)', error)
            other.append(error)

    def on_exit(result: Result, time_ns: int) -> None:
        given = publication.progress(result, lambda: seconds(time_ns), network, parameters)
        publish(result.frame.tag, time_ns, given)

    def on_drop(frame: FrameArrival, reason: DropReason, time_ns: int) -> None:
        records[frame.number] = FrameRecord(
            frame.number, frame.time_ns, frame.stamp_ns, time_ns, reason.value
        )

    def arrivals() -> Iterator[Arrival]:
        with ProgressBar(desc='replay', total=source.count, disable=quiet) as progress:
            for arrival in source:
                if isinstance(arrival, UrgencyArrival):
                    urgencies.append(Urgent(arrival.time_ns, arrival.level.name))
                if isinstance(arrival, CalibrationArrival):
                    calibrations.append(arrival)
                    continue
                yield arrival
                if isinstance(arrival, FrameArrival):
                    progress.update()

    try:
        simulation = Simulation(
            *(plan, policy, exit_s, source.start_ns, on_result, on_drop, parameters.adaptive),
            budget_of(plan, parameters.frame_memory_mib, parameters.device),
            on_exit if set(PROGRESS) <= set(out.topics) else None,
        )
        with out:
            names = label_info_fields(network)
            out.publish('output/label_info', source.start_ns, names, source.start_ns)
            simulation.run(arrivals())
        takes = ' + '.join(f'{1e3 * seconds:g}' for seconds in exit_s)
        how = f'simulated, exits in {takes} ms; {plan.description}, {threads} threads'
    finally:
        plan.close()
    return Replayed(
        [records[number] for number in sorted(records)],
        urgencies,
        checkpoint.identity,
        how,
        source.passed_over,
    )
