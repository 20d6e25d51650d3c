# SPDX-License-Identifier: Apache-2.0
"""
How long a frame takes with and without masks, beside two dense baselines, taking turns in one run.

The sides: ``eager``, the network as PyTorch runs it (NCHW, float32); ``onednn``, the honest dense
baseline (channels last, BatchNorm folded); ``dense`` and ``masked``, the same native kernels. Of a
family without a program there is no ``onednn``, and the last two are PyTorch, module by module.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from adpc_ros.benchmark.native import plan_of
from adpc_ros.network import checkpoint
from adpc_ros.network.adaptivity import ActiveMap
from adpc_ros.network.anytime import AnytimeNetwork
from adpc_ros.progress import ProgressBar
from adpc_ros.runtime.compile import compile_network, has_program
from adpc_ros.runtime.images import render, to_input
from adpc_ros.runtime.plan import Plan, StepTime
from adpc_ros.runtime.torch_plan import TorchPlan

SLOW_S = 10.0  # an eager pass beyond this is repeated less
SLOW_ROUNDS = 2

Image = NDArray[np.uint8]  # (H, W, 3), RGB


class Pass(NamedTuple):
    """
    One frame from image to rendered masks.

    ``exits_s`` is the time from the start to each exit, in seconds; ``macs`` (cumulative) and
    ``active_shares`` (of each exit, 0 to 1) are empty on the eager side, ``steps`` there, too.
    """

    exits_s: list[float]
    macs: list[int]
    active_shares: list[float]
    steps: list[StepTime]


class Summary(NamedTuple):
    """Median time to each exit, and the extremes of the whole frame, in seconds."""

    exits_s: list[float]
    min_s: float
    max_s: float


Side = Callable[[Image], Pass]


def eager_side(network: AnytimeNetwork) -> Side:
    """Give the network as it is: NCHW, float32, every exit rendered as by the others."""

    @torch.inference_mode()
    def run(image: Image) -> Pass:
        start_s = time.perf_counter()
        x = to_input(image, network.config, torch.device('cpu')).contiguous()
        exits_s = []
        for out in network.exits(x, adaptive=False):
            scale = network.config.scale_of(out.exit_index)
            render(out.logits, (image.shape[0], image.shape[1]), scale)
            exits_s.append(time.perf_counter() - start_s)
        return Pass(exits_s, [], [], [])

    return run


def plan_side(plan: Plan, adaptive: bool, active_maps: list[ActiveMap] | None = None) -> Side:
    """Give a plan, with its own masks if ``adaptive``, or with those given."""

    def run(image: Image) -> Pass:
        exits_s, done = [], []
        start_s = time.perf_counter()
        for computed in plan.segment(image, adaptive, active_maps):
            if computed is not None:
                exits_s.append(time.perf_counter() - start_s)
                done.append(computed)
        shares = [1.0, *(computed.active_share for computed in done[:-1])]
        return Pass(exits_s, [c.macs for c in done], shares, plan.step_times())

    return run


class Sides(NamedTuple):
    """The sides by name, in the order of their turns, and the plan behind the last two."""

    runs: dict[str, Side]
    plan: Plan


def open_sides(
    network: AnytimeNetwork,
    dtype: torch.dtype,
    threads: int,
    active_maps: list[ActiveMap] | None = None,
    without: Sequence[str] = (),
) -> Sides:
    """
    Compile the sides.

    :param dtype: of all sides but ``eager``.
    :param threads: of all sides.
    :param active_maps: rule the stages after the first of ``masked``; None lets the network's
        own do.
    :param without: baselines to leave out, ``eager`` or ``onednn``.
    :raises ValueError: if there are no native kernels.
    """
    torch.set_num_threads(threads)
    plan = plan_of(network, dtype, threads)
    runs: dict[str, Side] = {}
    if 'eager' not in without:
        runs['eager'] = eager_side(network)
    if 'onednn' not in without and has_program(network):
        onednn = TorchPlan(compile_network(network), 'cpu', dtype)
        runs['onednn'] = plan_side(onednn, adaptive=False)
    runs['dense'] = plan_side(plan, adaptive=False)
    runs['masked'] = plan_side(plan, True, active_maps)
    return Sides(runs, plan)


def open_other(
    runs: dict[str, Side], weights: str, dtype: torch.dtype, threads: int
) -> tuple[str, Plan]:
    """
    Add another network, with its own masks, as the side ``against``.

    :param runs: the sides so far.
    :param weights: safetensors file.
    :return: its identity, and its plan, to be closed.
    """
    loaded = checkpoint.load(weights)
    plan = plan_of(loaded.network, dtype, threads)
    runs['against'] = plan_side(plan, True)
    return loaded.identity, plan


def take_turns(runs: dict[str, Side], images: Sequence[Image]) -> dict[str, list[Pass]]:
    """
    Let every side compute every image, one after the other, after a warm-up of each.

    A slow eager side computes the first :data:`SLOW_ROUNDS` images alone.

    :return: the passes of each side.
    """
    passes: dict[str, list[Pass]] = {name: [] for name in runs}

    def rounds() -> Iterator[tuple[str, Image, bool]]:
        yield from ((name, images[0], False) for name in runs)
        for image in images:
            yield from ((name, image, True) for name in runs)

    slow = False
    for name, image, counts in ProgressBar(rounds(), 'benchmark', (len(images) + 1) * len(runs)):
        if name == 'eager' and slow and len(passes[name]) == SLOW_ROUNDS:
            continue
        done = runs[name](image)
        if counts:
            passes[name].append(done)
        elif name == 'eager':
            slow = done.exits_s[-1] > SLOW_S
    return passes


def summary(passes: Sequence[Pass]) -> Summary:
    """Give the medians of one side."""
    exits_s = [statistics.median(times) for times in zip(*(done.exits_s for done in passes))]
    whole_s = [done.exits_s[-1] for done in passes]
    return Summary(exits_s, min(whole_s), max(whole_s))


def gimac_ratios(dense: Sequence[Pass], masked: Sequence[Pass]) -> list[float]:
    """Give, for each exit, the multiply-accumulates of all dense passes over the masked ones'."""
    sums = [np.sum([done.macs for done in passes], axis=0) for passes in (dense, masked)]
    return [float(ratio) for ratio in sums[0] / sums[1]]


def mean_active_shares(masked: Sequence[Pass]) -> list[float]:
    """Give the share of positions that each exit computed, 0 to 1."""
    return [float(share) for share in np.mean([done.active_shares for done in masked], axis=0)]


def shares_by_resolution(
    maps: Sequence[ActiveMap], padded: tuple[int, int], coarsest: int
) -> dict[str, dict[str, float]]:
    """
    Give the active share of each stage at each resolution from 1/4 on, 0 to 1.

    :param maps: of stage 2 and those after it.
    :param padded: (H, W) of the padded image in pixels.
    :param coarsest: resolution to end with, 32 for 1/32.
    """
    height, width = padded
    scales = [2**level for level in range(2, coarsest.bit_length())]
    return {
        f'stage {stage}': {f'1/{n}': at.share((height // n, width // n)) for n in scales}
        for stage, at in enumerate(maps, start=2)
    }


def step_medians(passes: Sequence[Pass]) -> dict[str, tuple[StepTime, float]]:
    """Give each step's latest times by its name, and its median in seconds over the passes."""
    seconds: dict[str, list[float]] = {}
    for done in passes:
        for step in done.steps:
            seconds.setdefault(step.name, []).append(step.seconds)
    return {s.name: (s, statistics.median(seconds[s.name])) for s in passes[-1].steps}
