# SPDX-License-Identifier: Apache-2.0
"""What the native library counted and timed, in the terms of the program."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from ctypes import Array, c_double, c_uint8
from typing import NamedTuple

import numpy as np

from adpc_ros.network.macs import conv_macs
from adpc_ros.runtime import native
from adpc_ros.runtime.lowering import Lowered
from adpc_ros.runtime.plan import StepTime
from adpc_ros.runtime.program import Conv, Program


class _ConvKind(NamedTuple):
    """Convolutions that cost the same: ``window`` counts those of the interpolation."""

    level: int
    weights: int
    window: int


class Counts:
    """Multiply-accumulates and times of a program; ``seconds`` are how many times there are."""

    def __init__(self, program: Program, lowered: Lowered) -> None:
        """Count the convolutions of each exit by what makes their cost."""
        self._program, self._lowered = program, lowered
        self._steps = max(op.step for op in lowered.ops) + 1
        self.seconds = self._steps + 1 + 2 * program.config.stage_count
        self._convs: dict[int, Counter[_ConvKind]] = {}
        for i, step in enumerate(program.steps):
            conv = step.operation
            if isinstance(conv, Conv):
                level = lowered.shapes[i][1]
                kind = _ConvKind(level, conv.weight.numel(), len(conv.weight) * conv.window)
                exit_index = step.exit_index if program.config.exit_count > 1 else 1
                self._convs.setdefault(exit_index, Counter())[kind] += 1

    def macs(
        self, results: Sequence[native.ExitResult], size: tuple[int, int], exit_index: int
    ) -> int:
        """
        Count what an exit added, by the paper's convention.

        :param results: of the exits so far.
        :param size: padded, in pixels.
        """
        macs = 0
        for kind, count in self._convs[exit_index].items():
            cost = conv_macs(kind.weights, kind.window, cells_of(size, kind.level))
            macs += count * cost.at(_active_share(results, exit_index, kind.level))
        return macs

    def step_times(
        self,
        results: Sequence[native.ExitResult],
        size: tuple[int, int],
        seconds: Array[c_double],
        winograd: Array[c_uint8],
    ) -> list[StepTime]:
        """
        Say which step took how long.

        :param results: of all exits.
        :param size: padded, in pixels.
        :param seconds: as ``adpc_steps`` gives them, and ``winograd`` with them.
        """
        config, steps = self._program.config, self._program.steps
        times = [StepTime('input', 1, (3, *size), seconds[self._steps], 1.0)]
        exits = sorted({op.exit_index for op in self._lowered.ops if op.gives_exit})
        for result, level, exit_index in zip(results, config.exit_levels, exits):
            for i, (channels, here) in sorted(self._lowered.shapes.items()):
                if steps[i].exit_index == exit_index:
                    shape = (channels, *cells_of(size, here))
                    share = _active_share(results, exit_index, here)
                    kernel = 'winograd' if winograd[i] else ''
                    times.append(
                        StepTime(steps[i].name, exit_index, shape, seconds[i], share, kernel)
                    )
            scores = (config.class_count, *cells_of(size, level))
            for name, offset in (('output', 0), ('gate', config.stage_count)):
                spent = seconds[self._steps + exit_index + offset]
                share = share_of(result, level) if name == 'gate' else 1.0
                times.append(
                    StepTime(f'exit{exit_index}.{name}', exit_index, scores, spent, share)
                )
        return times


def cells_of(size: tuple[int, int], level: int) -> tuple[int, int]:
    """Give the (rows, columns) of a level for a padded size in pixels."""
    return -(-size[0] >> level), -(-size[1] >> level)


def share_of(result: native.ExitResult, level: int) -> float:
    """Give the active share at a level, in the precision of a float32 mean."""
    i = level - native.FINEST
    return float(np.float32(result.active[i]) / np.float32(result.positions[i]))


def _active_share(results: Sequence[native.ExitResult], exit_index: int, level: int) -> float:
    """Give the share of a level's positions that an exit computed, after the exits so far."""
    masked = native.FINEST <= level < native.FINEST + native.LEVELS
    if not masked or exit_index == 1 or len(results) < exit_index - 1:
        return 1.0
    return share_of(results[exit_index - 2], level)
