# SPDX-License-Identifier: Apache-2.0
"""A plan that PyTorch executes, on any device: the fallback, and the baseline of benchmarks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adpc_ros.network.adaptivity import ActiveMap, active_positions
from adpc_ros.network.families import NetworkConfig
from adpc_ros.network.layers import resize
from adpc_ros.runtime.cuda import full_float32
from adpc_ros.runtime.fill import RingMap
from adpc_ros.runtime.images import (
    Rendered,
    confident_threshold,
    inverse_temperatures,
    padded_size,
    render_bands,
    to_input,
)
from adpc_ros.runtime.plan import ComputedExit, StepTime
from adpc_ros.runtime.program import Conv, Program, Step
from adpc_ros.runtime.torch_layers import TorchConv, layer_of

_WORKSPACE = 2  # PyTorch's layers need about as much again as the features


class Done(NamedTuple):
    """
    A step that was executed.

    ``shape`` (1, C, H, W) of its output; ``share`` (0 to 1) of the active positions at that size;
    ``macs`` is the sum of multiply-accumulates so far. ``logits`` (1, K, h, w) float32, after
    carry-over, is given by the step that completes an exit; ``active_share`` (0 to 1) is what the
    next exit will compute of that resolution. ``inverse_temperature`` (1, 1, h, w) float32
    comes with the logits, unless all temperatures are 1.
    """

    step: Step
    shape: tuple[int, ...]
    share: float
    macs: int
    logits: Tensor | None
    active_share: float
    inverse_temperature: Tensor | None = None


class TorchPlan:
    """Executes a program with PyTorch, in its threads."""

    def __init__(
        self,
        program: Program,
        device: str | torch.device = 'cpu',
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """
        Put the parameters where they are needed.

        :param program: what to execute.
        :param device: where it runs.
        :param dtype: of weights and activations, float32 or bfloat16; class scores, thresholds
            and carry-over are in float32 all the same.
        :raises ValueError: for weights that are not finite in that type.
        """
        program.check(dtype)
        self.program = program
        self.device, self.dtype = torch.device(device), dtype
        self._layers = [layer_of(step.operation, self.device, dtype) for step in program.steps]
        self._frees = program.last_reads()
        self._logits: Tensor | None = None
        self._times: list[StepTime] = []
        self._progress = 0
        self._weight_bytes = sum(
            layer.weight.nbytes + layer.bias.nbytes
            for layer in self._layers
            if isinstance(layer, TorchConv)
        )
        self._feature_bytes = 0
        self._size = (0, 0)  # of the image that they are of

    @property
    def config(self) -> NetworkConfig:
        """The network's configuration."""
        return self.program.config

    @property
    def exit_count(self) -> int:
        """Number of exits."""
        return self.config.exit_count

    @property
    def description(self) -> str:
        """What computes, for people."""
        return f'PyTorch {str(self.dtype).removeprefix("torch.")} on {self.device}'

    @property
    def progress(self) -> int:
        """Number of steps done so far; from any thread."""
        return self._progress

    @property
    def memory_bytes(self) -> int:
        """What weights and features take, as :attr:`adpc_ros.runtime.plan.Plan.memory_bytes`."""
        return self._weight_bytes + self._feature_bytes

    @torch.inference_mode()
    def segment(
        self,
        image: NDArray[np.uint8],
        adaptive: bool = True,
        active_maps: list[ActiveMap] | None = None,
    ) -> Iterator[ComputedExit | None]:
        """Segment an image, as :meth:`adpc_ros.runtime.plan.Plan.segment`."""
        x = to_input(image, self.config, self.device)
        size = (image.shape[0], image.shape[1])
        self._logits = None
        if size != self._size:
            self._size, self._feature_bytes = size, self.bytes_for(size)
        times: list[StepTime] = []
        steps = self.execute(x, adaptive, active_maps)
        while True:
            started_s = time.perf_counter()
            done = next(steps, None)
            if done is None:
                break
            took_s = time.perf_counter() - started_s
            step = done.step
            times.append(StepTime(step.name, step.exit_index, done.shape[1:], took_s, done.share))
            yield None
            if done.logits is not None:
                self._logits = done.logits
                yield from render_exit(
                    done.logits,
                    size,
                    self.config,
                    step.exit_index,
                    done.macs,
                    done.active_share,
                    done.inverse_temperature,
                )
        self._times = times

    def bytes_for(self, size: tuple[int, int]) -> int:
        """Give about what an image takes, as :meth:`adpc_ros.runtime.plan.Plan.bytes_for`."""
        height, width = padded_size(size, self.config)
        return _WORKSPACE * self.program.peak_values((height, width)) * self.dtype.itemsize

    def logits(self) -> Tensor:
        """Give the latest class scores, as :meth:`adpc_ros.runtime.plan.Plan.logits`."""
        if self._logits is None:
            raise RuntimeError('no exit yet: expected a segmentation up to its first exit')
        return self._logits

    def close(self) -> None:
        """Free the weights; nothing may be computed afterwards."""
        self._layers = []
        self._weight_bytes = self._feature_bytes = 0

    def interrupt(self) -> None:
        """Do nothing: the running segmentation yields after every step."""

    def run_until(self, time_s: float) -> None:
        """Do nothing: the running segmentation yields after every step."""

    def step_times(self) -> list[StepTime]:
        """Give the last complete segmentation's times; of CUDA, until a step was handed over."""
        return self._times

    def execute(
        self,
        image: Tensor,
        adaptive: bool = True,
        active_maps: list[ActiveMap] | None = None,
    ) -> Iterator[Done]:
        """
        Execute step by step; each step runs when the iterator is advanced.

        :param image: (1, 3, H, W) float32, normalised, on the plan's device; of a padded size.
        :param adaptive: False computes every position.
        :param active_maps: given, one for each exit but the last, these rule the stages after.
        :return: an iterator over the steps; dropping it cancels what is left.
        :raises ValueError: for active maps without adaptivity.
        """
        if active_maps is not None and self.config.adaptivity is None:
            raise ValueError('active maps need a network with adaptivity: it is None')
        if not self._layers:
            raise RuntimeError('the plan is closed')
        adaptivity = self.config.adaptivity if adaptive else None
        image = image.to(self.dtype).contiguous(memory_format=torch.channels_last)
        values: dict[int, Tensor] = {0: image}
        active: RingMap | None = None
        carried: Tensor | None = None
        inverse: Tensor | None = None
        macs = 0
        for step, layer, frees in zip(self.program.steps, self._layers, self._frees):
            with full_float32(self.device):
                y = layer(active, *(values[slot] for slot in step.inputs))
            self._progress += 1
            size = (y.shape[2], y.shape[3])
            share = 1.0 if active is None else active.share(size)
            if isinstance(step.operation, Conv):
                macs += step.operation.macs(size, share)
            for slot in frees:
                del values[slot]
            if not step.gives_exit:
                values[step.output] = y
                yield Done(step, tuple(y.shape), share, macs, None, 1.0)
                continue
            y = y.float()
            if active is not None and carried is not None:
                y = torch.where(active.at(size), y, resize(carried, size))
            carried = y
            inverse = inverse_temperatures(y, self.config, step.exit_index, active, inverse)
            last = step.exit_index == self.config.stage_count
            if not last and active_maps is not None:
                active = RingMap(active_maps[step.exit_index - 1].at(size))
            elif not last and adaptivity is not None:
                threshold = adaptivity.thresholds_of(step.exit_index)
                active = RingMap(active_positions(y, adaptivity.criterion, threshold, active))
            next_share = 1.0 if active is None else active.share(size)
            yield Done(step, tuple(y.shape), share, macs, y, next_share, inverse)


def render_exit(
    logits: Tensor,
    size: tuple[int, int],
    config: NetworkConfig,
    exit_index: int,
    macs: int,
    active_share: float,
    inverse_temperature: Tensor | None,
) -> Iterator[ComputedExit | None]:
    """
    Yield None after each band of an image, then the exit.

    :param logits: (1, K, h, w) float32, after carry-over.
    :param size: (H, W) of the image in pixels.
    :param exit_index: counts stages.
    :param macs: as in :class:`~adpc_ros.runtime.plan.ComputedExit`, and so ``active_share``.
    :param inverse_temperature: of :func:`~adpc_ros.runtime.images.inverse_temperatures`.
    """
    into = Rendered(np.empty(size, np.uint8), np.empty(size, np.uint8))
    total = confident = 0.0
    threshold, scale = confident_threshold(config), config.scale_of(exit_index)
    for band in render_bands(logits, size, into, scale, threshold, inverse_temperature):
        total += band.confidence_sum
        confident += band.confident_pixels
        yield None
    pixels = size[0] * size[1]
    # a base network's only exit is the last stage's
    exit_index = min(exit_index, config.exit_count)
    yield ComputedExit(exit_index, into, total / pixels, confident / pixels, macs, active_share)
