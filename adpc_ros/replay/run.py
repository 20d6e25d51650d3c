"""A replay from its bag to its output bag, simulated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from tqdm import tqdm

from adpc_ros.network.checkpoint import Checkpoint
from adpc_ros.replay.output import OutputBag
from adpc_ros.replay.records import FrameRecord, record_of
from adpc_ros.replay.simulation import Simulation
from adpc_ros.replay.source import Arrival, FrameArrival, Source, UrgencyArrival
from adpc_ros.ros import publication
from adpc_ros.ros.parameters import Parameters
from adpc_ros.ros.publication import Network
from adpc_ros.runtime.cores import core_count
from adpc_ros.runtime.engine import Result
from adpc_ros.runtime.images import confident_threshold
from adpc_ros.runtime.make_plan import make_plan
from adpc_ros.runtime.memory import budget_of
from adpc_ros.runtime.scheduler import DropReason


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
) -> Replayed:
    """
    Replay under the simulated clock and write the output bag; nothing but records is kept.

    :param parameters: the node's; of them, ``weights``, ``autostart`` and the size of the warm-up
        are not looked at.
    :param exit_s: seconds that each exit takes after the one before.
    :param out: written and closed.
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

    def seconds(time_ns: int) -> float:
        return (time_ns - source.start_ns) / 1e9

    def on_result(result: Result, time_ns: int) -> None:
        frame: FrameArrival = result.frame.tag
        status = None
        for topic, value in publication.results(
            result, lambda: seconds(time_ns), network, parameters
        ):
            message = out.publish(topic, time_ns, value, frame)
            status = message if topic == 'output/status' else status
        records[frame.number] = record_of(
            frame.number, frame.time_ns, frame.stamp_ns, time_ns, status
        )

    def on_drop(frame: FrameArrival, reason: DropReason, time_ns: int) -> None:
        records[frame.number] = FrameRecord(
            frame.number, frame.time_ns, frame.stamp_ns, time_ns, reason.value
        )

    def arrivals() -> Iterator[Arrival]:
        with tqdm(total=source.count, desc='replay', disable=None) as progress:
            for arrival in source:
                if isinstance(arrival, UrgencyArrival):
                    urgencies.append(Urgent(arrival.time_ns, arrival.level.name))
                yield arrival
                if isinstance(arrival, FrameArrival):
                    progress.update()

    try:
        simulation = Simulation(
            *(plan, policy, exit_s, source.start_ns, on_result, on_drop, parameters.adaptive),
            budget_of(plan, parameters.frame_memory_mib, parameters.device),
        )
        with out:
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
