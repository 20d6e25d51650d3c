# SPDX-License-Identifier: Apache-2.0
"""
A trained network as a flat list of operations, the same for everything that executes it.

BatchNorm is folded into the convolutions, and a residual sum and a ReLU belong to the convolution
that they follow. What a plan makes of it (memory layout, kernels, precision) is the plan's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adpc_ros.network.adaptivity import MaskedConv2d, fill_taps
from adpc_ros.network.anytime import AnytimeNetwork
from adpc_ros.network.families import NetworkConfig
from adpc_ros.network.layers import BasicBlock
from adpc_ros.network.macs import conv_macs

_TAP_MATTERS = 1e-9  # of the largest weight off the centre; less is below float32's resolution


@dataclass(frozen=True, eq=False)
class Conv:
    """
    A convolution with its BatchNorm, residual sum and ReLU; (k - 1) // 2 cells of padding.

    Inputs: x, or x and residual. Output: relu(fill(conv(x) + bias) + shift + residual), where the
    fill is that of the inactive positions.

    :param weight: (Cout, Cin, k, k) float32 on the CPU, times BatchNorm's scale; (C, 1, k, k) of
        a depthwise convolution.
    :param bias: (Cout,) float32, the convolution's own, times BatchNorm's scale.
    :param shift: (Cout,) float32, BatchNorm's, which comes after the interpolation.
    :param stride: in cells.
    :param relu: True with a ReLU at the end.
    :param taps: (2 * reach + 1,) float32, the interpolation weights that matter, as one factor of
        a separable window (:func:`adpc_ros.network.adaptivity.fill_taps`); None for a layer that
        is never masked.
    :param window: cells of the whole interpolation window, 0 without one.
    :param depthwise: True if each channel is filtered by itself.
    """

    weight: Tensor
    bias: Tensor
    shift: Tensor
    stride: int
    relu: bool
    taps: Tensor | None
    window: int
    depthwise: bool = False

    def macs(self, size: tuple[int, int], active_share: float) -> int:
        """
        Count the multiply-accumulates, as :mod:`adpc_ros.network.macs` does.

        :param size: (H, W) of the output in cells.
        :param active_share: of its positions, 0 to 1.
        """
        cost = conv_macs(self.weight.numel(), len(self.weight) * self.window, size)
        return cost.at(active_share)

    def check(self, dtype: torch.dtype) -> None:
        """
        Make sure that all parameters are finite, as they are and in a narrower type.

        :param dtype: float32 or bfloat16.
        :raises ValueError: if they are not; says of which and how many.
        """
        bias = self.bias + self.shift
        taps = bias.new_zeros(0) if self.taps is None else self.taps
        for name, values in (('weight', self.weight), ('bias', bias), ('interpolation', taps)):
            strange = int((~values.to(dtype).isfinite()).sum())
            if strange:
                type_ = str(dtype).removeprefix('torch.')
                raise ValueError(
                    f'expected values that are finite in {type_}, BatchNorm included, got '
                    f'{strange} of {values.numel()} of the {name} NaN or infinite'
                )


@dataclass(frozen=True)
class AveragePool:
    """Halve height and width: the mean of 2x2 cells."""


@dataclass(frozen=True)
class Upsample:
    """Double height and width: bilinear, corners not aligned."""


@dataclass(frozen=True)
class Join:
    """Resize all inputs to the first one's size (bilinear) and concatenate their channels."""


@dataclass(frozen=True)
class SumRelu:
    """Resize all inputs to the first one's size (bilinear), add them up, and apply ReLU."""


Operation = Conv | AveragePool | Upsample | Join | SumRelu


@dataclass(frozen=True)
class Step:
    """
    One unit of work.

    :param name: of the layer, as in the network.
    :param exit_index: the exit that it works towards, from 1.
    :param operation: what is computed.
    :param inputs: slots that are read; slot 0 is the image.
    :param output: slot that is written, by this step alone.
    :param gives_exit: True if the output is the exit's class scores, before carry-over.
    """

    name: str
    exit_index: int
    operation: Operation
    inputs: tuple[int, ...]
    output: int
    gives_exit: bool = False


@dataclass(frozen=True)
class Program:
    """A network's configuration and its steps in order of execution."""

    config: NetworkConfig
    steps: tuple[Step, ...]

    def check(self, dtype: torch.dtype = torch.float32) -> None:
        """
        Make sure that all parameters can be computed with: what is not finite spoils every frame.

        :param dtype: in which they are to be used, float32 or bfloat16.
        :raises ValueError: if they are not finite in it; names the layer.
        """
        for step in self.steps:
            if isinstance(step.operation, Conv):
                try:
                    step.operation.check(dtype)
                except ValueError as error:
                    raise ValueError(f'{step.name}: {error}') from error

    def last_reads(self) -> list[list[int]]:
        """Give, for each step, the slots that no later step reads."""
        last_read = {slot: i for i, step in enumerate(self.steps) for slot in step.inputs}
        frees: list[list[int]] = [[] for _ in self.steps]
        for slot, i in last_read.items():
            frees[i].append(slot)
        return frees

    def peak_values(self, size: tuple[int, int]) -> int:
        """
        Count the values of all features that are there at once, at most.

        :param size: (H, W) of the padded image in pixels.
        """
        shapes = {0: (3, *size)}
        present = peak = math.prod(shapes[0])
        for step, frees in zip(self.steps, self.last_reads()):
            shapes[step.output] = _shape(step.operation, [shapes[slot] for slot in step.inputs])
            present += math.prod(shapes[step.output])
            peak = max(peak, present)
            present -= sum(math.prod(shapes[slot]) for slot in frees)
        return peak


def _shape(operation: Operation, inputs: list[tuple[int, int, int]]) -> tuple[int, int, int]:
    """Give the (C, H, W) of what an operation makes of such inputs."""
    channels, height, width = inputs[0]
    if isinstance(operation, Conv):
        stride = operation.stride
        return len(operation.weight), -(-height // stride), -(-width // stride)
    if isinstance(operation, AveragePool):
        return channels, height // 2, width // 2
    if isinstance(operation, Upsample):
        return channels, 2 * height, 2 * width
    if isinstance(operation, Join):
        channels = sum(shape[0] for shape in inputs)
    return channels, height, width


def _fold(conv: MaskedConv2d, norm: nn.BatchNorm2d | None, relu: bool) -> Conv:
    """
    Fold the normalisation, in double precision.

    Interpolation is linear and the same for all channels, so that the scale goes into the weights;
    the shift comes after it, at all positions.
    """
    weight = conv.weight.detach().cpu().double()
    bias = torch.zeros(len(weight), dtype=torch.float64)
    if conv.bias is not None:
        bias = conv.bias.detach().cpu().double()
    shift = torch.zeros_like(bias)
    if norm is not None:
        assert norm.running_mean is not None and norm.running_var is not None
        variance = norm.running_var.cpu().double()
        scale = norm.weight.detach().cpu().double() / (variance + norm.eps).sqrt()
        shift = norm.bias.detach().cpu().double() - norm.running_mean.cpu().double() * scale
        weight, bias = weight * scale.view(-1, 1, 1, 1), bias * scale
    taps, window = None, 0
    if conv.window_cells:
        taps = _taps_that_matter(fill_taps(conv.Lambda.detach(), conv.square_dis).cpu().float())
        window = conv.window_cells
    depthwise = conv.groups > 1
    if depthwise and not conv.groups == conv.in_channels == conv.out_channels:
        raise ValueError(f'expected a plain or a depthwise convolution, got {conv}')
    return Conv(
        *(weight.float(), bias.float(), shift.float(), conv.stride[0], relu, taps, window),
        depthwise,
    )


def _taps_that_matter(taps: Tensor) -> Tensor:
    middle = len(taps) // 2
    reach = middle
    while reach > 1 and taps[middle + reach] < _TAP_MATTERS * taps[middle + 1]:
        reach -= 1
    return taps[middle - reach : middle + reach + 1].clone()


class Writer:
    """Writes down the steps of a network, in order of execution."""

    def __init__(self, network: AnytimeNetwork) -> None:
        """
        Begin a program.

        :param network: gives the names of layers and the configuration.
        """
        self.steps: list[Step] = []
        self.config = network.config
        self.exit_index = 1
        self._names = {module: name for name, module in network.named_modules()}
        self._slots = 1

    def program(self) -> Program:
        """Give what was written."""
        return Program(self.config, tuple(self.steps))

    def name_of(self, module: nn.Module) -> str:
        """Give a layer's name in the network."""
        name: str = self._names[module]
        return name

    def add(self, name: str, operation: Operation, *inputs: int, gives_exit: bool = False) -> int:
        """Write a step of the exit at hand; gives the slot of its output."""
        slot = self._slots
        self._slots += 1
        self.steps.append(Step(name, self.exit_index, operation, inputs, slot, gives_exit))
        return slot

    def conv(
        self,
        conv: MaskedConv2d,
        norm: nn.BatchNorm2d | None,
        relu: bool,
        *inputs: int,
        gives_exit: bool = False,
    ) -> int:
        """Write a convolution with the BatchNorm that follows it."""
        folded = _fold(conv, norm, relu)
        return self.add(self.name_of(conv), folded, *inputs, gives_exit=gives_exit)

    def sequence(
        self, layers: nn.Module, x: int, residual: int | None = None, gives_exit: bool = False
    ) -> int:
        """
        Write layers that follow one another.

        :param residual: is added by the last of them, a convolution.
        :param gives_exit: the last of them, a convolution, gives an exit's class scores.
        """
        flat = [m for m in layers.modules() if not isinstance(m, nn.Sequential)]
        convs = [m for m in flat if isinstance(m, MaskedConv2d)]
        for i, layer in enumerate(flat):
            if isinstance(layer, MaskedConv2d):
                after = flat[i + 1 : i + 3]
                norm = after[0] if after and isinstance(after[0], nn.BatchNorm2d) else None
                relu = len(after) > 1 and norm is not None and isinstance(after[1], nn.ReLU)
                last = layer is convs[-1]
                inputs = (x,) if residual is None or not last else (x, residual)
                x = self.conv(layer, norm, relu, *inputs, gives_exit=gives_exit and last)
            elif isinstance(layer, nn.AvgPool2d):
                assert layer.kernel_size == 2
                x = self.add(self.name_of(layer), AveragePool(), x)
            elif isinstance(layer, nn.Upsample):
                assert (layer.scale_factor, layer.mode) == (2, 'bilinear')
                x = self.add(self.name_of(layer), Upsample(), x)
        return x

    def block(self, block: BasicBlock, x: int) -> int:
        """Write a residual block."""
        y = self.conv(block.conv1, block.bn1, True, x)
        return self.conv(block.conv2, block.bn2, True, y, x)
