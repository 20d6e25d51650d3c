"""
A trained network as a flat list of steps, each a small unit of work.

BatchNorm is folded into the convolutions and tensors lie in channels_last order. Executing a plan
gives what the network gives; between two steps the caller may stop, and nothing remains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from adpc_ros.network.adaptivity import (
    ActiveMap,
    MaskedConv2d,
    active_positions,
    fill_taps,
)
from adpc_ros.network.anytime import EXIT_COUNT, AnytimeNetwork
from adpc_ros.network.exits import Heads, join_branches
from adpc_ros.network.hrnet import Bottleneck, resize
from adpc_ros.network.macs import conv_macs
from adpc_ros.runtime.fill import RingMap, fill_, ring_weights

_TAP_MATTERS = 1e-9  # of the largest weight off the centre; less is below float32's resolution

Operation = Callable[..., Tensor]


def _taps_that_matter(taps: Tensor) -> Tensor:
    middle = len(taps) // 2
    reach = middle
    while reach > 1 and taps[middle + reach] < _TAP_MATTERS * taps[middle + 1]:
        reach -= 1
    return taps[middle - reach : middle + reach + 1]


class Folded:
    """A convolution with its BatchNorm, residual sum and ReLU: one step."""

    def __init__(self, conv: MaskedConv2d, norm: nn.BatchNorm2d | None, relu: bool) -> None:
        """
        Fold the normalisation.

        Interpolation is linear and the same for all channels, so that the scale goes into the
        weights; the shift comes after it, at all positions.
        """
        weight = conv.weight.detach().double()
        bias = weight.new_zeros(len(weight)) if conv.bias is None else conv.bias.detach().double()
        shift = torch.zeros_like(bias)
        if norm is not None:
            assert norm.running_mean is not None and norm.running_var is not None
            scale = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
            weight = weight * scale.view(-1, 1, 1, 1)
            shift = norm.bias.detach().double() - norm.running_mean.double() * scale
            bias = bias * scale
        self.weight = weight.float().contiguous(memory_format=torch.channels_last)
        self.bias = (bias + shift).float()
        self.shift = shift.float()
        self.stride, self.padding, self.relu = conv.stride, conv.padding, relu
        self.weights, self.reach, self.window = torch.empty(0), 0, 0
        if hasattr(conv, 'square_dis'):
            taps = _taps_that_matter(fill_taps(conv.Lambda.detach(), conv.square_dis))
            self.weights, self.reach = ring_weights(taps), len(taps) // 2
            self.window = int(conv.square_dis.numel())

    def to(self, device: torch.device) -> Folded:
        """Move the parameters to a device."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value.to(device))
        return self

    def __call__(
        self, active: RingMap | None, x: Tensor, residual: Tensor | None = None
    ) -> Tensor:
        """Map (1, C, H, W) to (1, C', H', W') as convolution, BatchNorm, sum and ReLU do."""
        y = functional.conv2d(x, self.weight, self.bias, self.stride, self.padding)
        size = (y.shape[2], y.shape[3])
        if active is not None and active.share(size) < 1.0:
            y = y.contiguous(memory_format=torch.channels_last)
            y = fill_(y, self.shift, active.ring(size, self.reach), self.weights)
        if residual is not None:
            y = y.add_(residual)
        return y.relu_() if self.relu else y

    def macs(self, y: Tensor, active: ActiveMap | None) -> int:
        """Count the multiply-accumulates that gave ``y``, as :mod:`adpc_ros.network.macs`."""
        size = (y.shape[2], y.shape[3])
        cost = conv_macs(self.weight.numel(), len(self.weight) * self.window, size)
        return cost.at(1.0 if active is None else active.share(size))


@dataclass(frozen=True)
class Step:
    """
    One unit of work.

    :param name: of the layer, as in the network.
    :param exit_index: the exit that it works towards, from 1.
    :param operation: called with the active map and the values of ``inputs``.
    :param inputs: slots that are read; slot 0 is the image.
    :param output: slot that is written.
    :param gives_exit: True if the output is the exit's class scores, before carry-over.
    """

    name: str
    exit_index: int
    operation: Operation
    inputs: tuple[int, ...]
    output: int
    gives_exit: bool = False


class Done(NamedTuple):
    """
    A step that was executed.

    ``macs`` is the sum of multiply-accumulates so far. ``logits`` (1, K, H/4, W/4), after
    carry-over, is given by the step that completes an exit; ``active_share`` (0 to 1) is what the
    next exit will compute of that resolution.
    """

    step: Step
    shape: tuple[int, ...]
    macs: int
    logits: Tensor | None
    active_share: float


class Plan:
    """The steps of a network for images of any size that is a multiple of 32."""

    def __init__(self, network: AnytimeNetwork, device: str | torch.device = 'cpu') -> None:
        """
        Compile a network; later changes of the network do not reach the plan.

        :param network: trained; used in evaluation mode.
        :param device: where the steps run.
        """
        self.config = network.config
        self.device = torch.device(device)
        self.steps = _Compiler(network, self.device).steps
        last_read = {slot: i for i, step in enumerate(self.steps) for slot in step.inputs}
        self._frees: list[list[int]] = [[] for _ in self.steps]
        for slot, i in last_read.items():
            self._frees[i].append(slot)

    @property
    def exit_count(self) -> int:
        """Number of exits."""
        return self.config.exit_count

    def execute(
        self,
        image: Tensor,
        adaptive: bool = True,
        active_maps: list[ActiveMap] | None = None,
    ) -> Iterator[Done]:
        """
        Execute step by step; nothing runs that is not asked for.

        :param image: (1, 3, H, W) float32, normalised, on the plan's device.
        :param adaptive: False computes every position.
        :param active_maps: given, these three rule stages 2, 3 and 4.
        :return: an iterator over the steps; dropping it cancels what is left.
        """
        adaptivity = self.config.adaptivity if adaptive else None
        values: dict[int, Tensor] = {0: image}
        active: RingMap | None = None
        carried: Tensor | None = None
        macs = 0
        for step, frees in zip(self.steps, self._frees):
            y = step.operation(active, *(values[slot] for slot in step.inputs))
            if isinstance(step.operation, Folded):
                macs += step.operation.macs(y, active)
            values[step.output] = y
            for slot in frees:
                del values[slot]
            if not step.gives_exit:
                yield Done(step, tuple(y.shape), macs, None, 1.0)
                continue
            del values[step.output]
            size = (y.shape[2], y.shape[3])
            if active is not None and carried is not None:
                y = torch.where(active.at(size), y, carried)
            carried = y
            if step.exit_index < EXIT_COUNT and active_maps is not None:
                active = RingMap(active_maps[step.exit_index - 1].at(size))
            elif step.exit_index < EXIT_COUNT and adaptivity is not None:
                threshold = adaptivity.thresholds[step.exit_index - 1]
                positions = active_positions(y, adaptivity.criterion, threshold)
                if active is not None:
                    positions &= active.at(size)
                active = RingMap(positions)
            share = 1.0 if active is None else active.share(size)
            yield Done(step, tuple(y.shape), macs, y, share)


class _Compiler:
    """Walks through a network in order of execution and writes down the steps."""

    def __init__(self, network: AnytimeNetwork, device: torch.device) -> None:
        self.steps: list[Step] = []
        self.device = device
        self.names = {module: name for name, module in network.named_modules()}
        self.exit_index = 1 if network.config.heads is not Heads.NONE else EXIT_COUNT
        self.slots = 1
        self.network(network)

    def add(self, name: str, operation: Operation, *inputs: int, gives_exit: bool = False) -> int:
        slot = self.slots
        self.slots += 1
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
        folded = Folded(conv, norm, relu).to(self.device)
        return self.add(self.names[conv], folded, *inputs, gives_exit=gives_exit)

    def sequence(self, layers: nn.Sequential, x: int, gives_exit: bool = False) -> int:
        flat = [m for m in layers.modules() if not isinstance(m, nn.Sequential)]
        for i, layer in enumerate(flat):
            if isinstance(layer, MaskedConv2d):
                after = flat[i + 1 : i + 3]
                norm = after[0] if after and isinstance(after[0], nn.BatchNorm2d) else None
                relu = len(after) > 1 and norm is not None and isinstance(after[1], nn.ReLU)
                last = gives_exit and layer is flat[-1]
                x = self.conv(layer, norm, relu, x, gives_exit=last)
            elif isinstance(layer, (nn.AvgPool2d, nn.Upsample)):
                x = self.add(self.names[layer], _unmasked(layer), x)
        return x

    def network(self, network: AnytimeNetwork) -> None:
        x = self.conv(network.conv1, network.bn1, True, 0)
        x = self.conv(network.conv2, network.bn2, True, x)
        for block in network.layer1:
            assert isinstance(block, Bottleneck)
            shortcut = x if block.downsample is None else self.sequence(block.downsample, x)
            y = self.conv(block.conv1, block.bn1, True, x)
            y = self.conv(block.conv2, block.bn2, True, y)
            x = self.conv(block.conv3, block.bn3, True, y, shortcut)
        branches = [x]
        heads = network.config.heads
        for index in range(1, EXIT_COUNT + 1):
            if index > 1:
                branches = self.stage(network, index, branches)
            if index < EXIT_COUNT and heads is Heads.NONE:
                continue
            joined = branches[0]
            if len(branches) > 1:
                joined = self.add(f'exit{index}.join', _join, *branches)
            head = network.last_layer if index == EXIT_COUNT else getattr(network, f'exit{index}')
            self.sequence(head, joined, gives_exit=True)
            self.exit_index += 1

    def stage(self, network: AnytimeNetwork, stage: int, xs: list[int]) -> list[int]:
        branches = []
        for i, layer in enumerate(getattr(network, f'transition{stage - 1}')):
            source = xs[min(i, len(xs) - 1)]
            branches.append(source if layer is None else self.sequence(layer, source))
        for module in getattr(network, f'stage{stage}'):
            ys = []
            for x, blocks in zip(branches, module.branches):
                for block in blocks:
                    y = self.conv(block.conv1, block.bn1, True, x)
                    x = self.conv(block.conv2, block.bn2, True, y, x)
                ys.append(x)
            branches = []
            for target, layers in enumerate(module.fuse_layers):
                terms = [
                    y if layer is None else self.sequence(layer, y) for y, layer in zip(ys, layers)
                ]
                # the target's own term comes first: it has the size that the others get
                terms.insert(0, terms.pop(target))
                name = f'{self.names[module]}.fuse{target}'
                branches.append(self.add(name, _sum_relu, *terms))
        return branches


def _unmasked(layer: nn.Module) -> Operation:
    return lambda _active, x: layer(x)


def _join(_active: ActiveMap | None, *branches: Tensor) -> Tensor:
    return join_branches(list(branches))


def _sum_relu(_active: ActiveMap | None, own: Tensor, *others: Tensor) -> Tensor:
    size = (own.shape[2], own.shape[3])
    total = own
    for i, other in enumerate(others):
        term = resize(other, size)
        total = total + term if i == 0 else total.add_(term)
    return total.relu_()
