# SPDX-License-Identifier: Apache-2.0
"""
What an anytime network is worth over time: to a deadline nobody knows, and to a moving world.

Times are simulated from measured ones, with the scheduler that the node has.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from adpc_ros.runtime.scheduler import Action, Cancel, Policy, Scheduler, Start


class Output(NamedTuple):
    """An exit that was rendered at ``time_s``; frames count from 0, exits from 1."""

    time_s: float
    frame: int
    exit_index: int


def mean_over_deadlines(miou: Sequence[float], exit_s: Sequence[float], horizon_s: float) -> float:
    """
    Give the mean accuracy at a deadline that falls anywhere before a horizon with equal chance.

    :param miou: of each exit, 0 to 1; before the first exit there is nothing, which counts as 0.
    :param exit_s: when each exit is there, in seconds from the start of the frame.
    :param horizon_s: the latest deadline.
    :return: (1 / horizon) times the integral of the accuracy that is there by then.
    """
    ends = [*exit_s[1:], math.inf]
    held = [max(0.0, min(end, horizon_s) - start) for start, end in zip(exit_s, ends)]
    return sum(m * seconds for m, seconds in zip(miou, held)) / horizon_s


def rendered_exits(exit_s: Sequence[Sequence[float]], period_s: float) -> list[Output]:
    """
    Simulate a stream of frames: what is rendered when, if a newer frame preempts the older one.

    :param exit_s: of each frame, when each exit is there, in seconds from its start.
    :param period_s: from one frame to the next; frame k arrives at k periods.
    :return: outputs in order of time.
    """
    scheduler = Scheduler(Policy(len(exit_s[0])))
    outputs: list[Output] = []
    arrived, frame, started_s, done = 0, None, 0.0, 0
    while True:
        arrival_s = arrived * period_s if arrived < len(exit_s) else math.inf
        exit_at_s = math.inf if frame is None else started_s + exit_s[frame][done]
        now_s = min(arrival_s, exit_at_s)
        if now_s == math.inf:
            return outputs
        actions: list[Action]
        if frame is not None and exit_at_s <= arrival_s:
            done += 1
            outputs.append(Output(now_s, frame, done))
            actions = scheduler.exit_rendered(frame, done, now_s)
            if done == len(exit_s[frame]):
                actions += scheduler.idle(frame, now_s)
                frame = None
        else:
            actions = scheduler.frame(arrived, now_s, now_s)
            arrived += 1
        for action in actions:  # what a cancelled frame makes room for comes at the end
            if isinstance(action, Cancel):
                frame = None
                actions += scheduler.idle(action.frame_id, now_s)
            elif isinstance(action, Start):
                frame, started_s, done = action.frame_id, now_s, 0


def latest_at_arrival(
    outputs: Sequence[Output], frame_count: int, period_s: float
) -> list[Output | None]:
    """
    Give what a user has in hand whenever a new frame arrives, to be judged against that frame.

    :param outputs: in order of time.
    :return: for each frame the latest output; None before the first one.

    Source: arXiv:2005.10420 (streaming perception).
    """
    held: list[Output | None] = []
    latest: Output | None = None
    following = iter([*outputs, Output(math.inf, -1, -1)])
    upcoming = next(following)
    for frame in range(frame_count):
        while upcoming.time_s <= frame * period_s:
            latest, upcoming = upcoming, next(following)
        held.append(latest)
    return held
