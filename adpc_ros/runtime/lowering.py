# SPDX-License-Identifier: Apache-2.0
"""
From a program to operations of the native runtime: what is computed where, and what is saved.

Exact rewritings: a linear layer commutes with bilinear upsampling and with concatenation, so that
1x1 convolutions move before them where nothing masked lies between; pooling takes what it needs
of joined branches without the joined map being made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from adpc_ros.network.adaptivity import Criterion
from adpc_ros.runtime import native
from adpc_ros.runtime.program import AveragePool, Conv, Join, Program, Step, SumRelu, Upsample

OCTET = 8
COARSEST = 3  # that can be rendered
COARSEST_FUSED = 3  # coarser maps of inverted residuals are in the cache anyway
MAX_CLASSES = 256
MAX_REACH = 4
CRITERIA = {Criterion.MAX_PROBABILITY: False, Criterion.ENTROPY: True}  # as src/adpc.h takes them


class Unsupported(Exception):
    """The native runtime has no way to compute this network."""


class Slot(NamedTuple):
    """
    A feature map.

    ``level`` is the log2 of its scale. ``parts`` are the channels of maps that lie side by side in
    it, each padded to whole octets; class scores are ``wide`` (always float32).
    """

    level: int
    parts: tuple[int, ...]
    wide: bool = False

    @property
    def channels(self) -> int:
        """Channels in memory, with the padding between parts."""
        if len(self.parts) == 1:
            return self.parts[0]
        return sum(-(-part // OCTET) * OCTET for part in self.parts)


@dataclass(frozen=True, eq=False)
class NativeOp:
    """One operation; fields as in src/adpc.h, tensors float32."""

    kind: int
    step: int
    exit_index: int
    output: int
    input: int = 0
    residual: int = -1
    masked: bool = False
    needed: bool = False
    relu: bool = False
    gives_exit: bool = False
    stride: int = 1
    depthwise: bool = False
    weight: Tensor | None = None
    bias: Tensor | None = None
    shift: Tensor | None = None
    window: Tensor | None = None
    head_weight: Tensor | None = None
    head_bias: Tensor | None = None
    expand_weight: Tensor | None = None
    expand_bias: Tensor | None = None
    sources: tuple[int, ...] = ()
    pooled: bool = False
    concatenate: bool = False


@dataclass
class Lowered:
    """Feature maps and operations; the first two slots are the image and exit 1's scores."""

    slots: list[Slot]
    ops: list[NativeOp] = field(default_factory=list)
    shapes: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Channels and level of what each step gives."""


def lower(program: Program, fuse: bool = True) -> Lowered:
    """
    Lower a program.

    :param fuse: compute inverted residuals of large maps in one operation; in float32 only.
    :raises Unsupported: for what the native runtime cannot compute.
    """
    return _Lowering(program, fuse).result


class _Virtual(NamedTuple):
    """Branches to be joined, or one map to be upsampled, which is left to who reads it."""

    sources: tuple[int, ...]
    level: int


class _Lowering:
    def __init__(self, program: Program, fuse: bool) -> None:
        classes = program.config.class_count
        levels = program.config.sizes.exit_levels
        if not (
            all(native.FINEST <= level <= COARSEST for level in levels)
            and sorted(levels, reverse=True) == list(levels)
            and len(levels) <= native.MAX_EXITS
        ):
            raise Unsupported(
                f'exits at levels {levels}: at most {native.MAX_EXITS} from {COARSEST} to '
                f'{native.FINEST}, none coarser than the one before, are'
            )
        if classes > MAX_CLASSES:
            raise Unsupported(f'{classes} classes, at most {MAX_CLASSES} are')
        adaptivity = program.config.adaptivity
        if adaptivity is not None and adaptivity.criterion not in CRITERIA:
            known = ' and '.join(criterion.value for criterion in CRITERIA)
            raise Unsupported(f'masks by {adaptivity.criterion.value}: {known} are')
        self.levels = levels
        self.scores_level = self.exit_level(program.steps[0].exit_index)
        self.scores = native.SCORES
        self.result = Lowered([Slot(0, (3,)), Slot(self.scores_level, (classes,), True)])
        self.values: dict[int, int | _Virtual] = {0: native.IMAGE}
        self.masked = adaptivity is not None
        self.readers = Counter(slot for step in program.steps for slot in step.inputs)
        steps = list(enumerate(program.steps))
        while steps:
            index, step = steps.pop(0)
            if fuse and (chain := self.inverted(index, program.steps)):
                self.inverted_residual(index, chain)
                del steps[: len(chain) - 1]
                continue
            value = self.values[step.inputs[0]]
            operation = step.operation
            if isinstance(operation, Join):
                sources = tuple(self.real(slot) for slot in step.inputs)
                self.values[step.output] = _Virtual(sources, self.slot(sources[0]).level)
            elif isinstance(operation, Upsample):
                source = self.real(step.inputs[0])
                self.values[step.output] = _Virtual((source,), self.slot(source).level - 1)
            elif isinstance(operation, AveragePool):
                self.pool(index, step)
            elif isinstance(operation, SumRelu):
                self.sum(index, step)
            elif isinstance(value, int):
                self.conv(index, step, operation)
            elif len(value.sources) == 1:
                self.upsampled_conv(index, step, operation, value)
            elif not steps:
                raise Unsupported('joined branches before a single convolution')
            else:
                _, last = steps.pop(0)
                self.joined_head(index, step, operation, last, value)
        self.result.ops[:] = _late_shortcuts(self.result.ops)

    # Slots

    def slot(self, index: int) -> Slot:
        return self.result.slots[index]

    def real(self, slot: int) -> int:
        value = self.values[slot]
        if not isinstance(value, int):
            raise Unsupported('a join or an upsampling that is read by another than a convolution')
        return value

    def new(self, level: int, *parts: int, wide: bool = False) -> int:
        self.result.slots.append(Slot(level, parts, wide))
        return len(self.result.slots) - 1

    def add(self, index: int, step: Step, kind: int, output: int, **fields: object) -> int:
        masked = self.masked and step.exit_index > 1
        op = NativeOp(kind, index, step.exit_index, output, masked=masked, **fields)  # type: ignore[arg-type]
        self.result.ops.append(op)
        slot = self.slot(output)
        self.result.shapes[index] = (sum(slot.parts), slot.level)
        return output

    def exit_level(self, exit_index: int) -> int:
        return self.levels[exit_index - 1]

    def scores_of(self, index: int, step: Step) -> int:
        """Give the slot of an exit's scores; a finer one is filled with what is carried over."""
        level = self.exit_level(step.exit_index)
        if level != self.scores_level:
            before = self.scores
            self.scores = self.new(level, *self.slot(before).parts, wide=True)
            self.scores_level = level
            op = NativeOp(native.RESAMPLE, index, step.exit_index, self.scores, sources=(before,))
            self.result.ops.append(op)
        return self.scores

    # Operations

    def window(self, step: Step, conv: Conv) -> Tensor | None:
        """Give the interpolation's weights, if inactive positions are read at all."""
        if conv.taps is None or step.exit_index == 1 or step.gives_exit:
            return None
        if len(conv.taps) // 2 > MAX_REACH:
            raise Unsupported(f'an interpolation window of {len(conv.taps)} cells')
        return torch.outer(conv.taps, conv.taps)

    def conv(self, index: int, step: Step, conv: Conv) -> None:
        x, *residuals = (self.real(slot) for slot in step.inputs)
        level = self.slot(x).level + conv.stride.bit_length() - 1
        if conv.depthwise:
            self.check_depthwise(step, conv)
        scores = step.gives_exit
        output = self.scores_of(index, step) if scores else self.new(level, len(conv.weight))
        self.values[step.output] = self.add(
            index,
            step,
            native.CONV,
            output,
            input=x,
            residual=residuals[0] if residuals else -1,
            relu=conv.relu,
            gives_exit=step.gives_exit,
            stride=conv.stride,
            depthwise=conv.depthwise,
            weight=conv.weight if conv.depthwise else _spread(conv.weight, self.slot(x).parts),
            bias=conv.bias,
            shift=conv.shift,
            window=self.window(step, conv),
        )

    def inverted(self, index: int, steps: Sequence[Step]) -> list[Step]:
        """Give the steps of an inverted residual of a large map that begins here; or none."""
        for count in (2, 3):  # without and with an expansion
            chain = list(steps[index : index + count])
            convs = [step.operation for step in chain if isinstance(step.operation, Conv)]
            if len(convs) < count or not _is_inverted(convs) or chain[-1].gives_exit:
                continue
            linked = all(
                later.inputs[0] == step.output
                and self.readers[step.output] == len(step.inputs) == 1
                for step, later in zip(chain, chain[1:])
            )
            source = self.values[chain[0].inputs[0]]
            masked = self.masked and chain[0].exit_index > 1
            if not linked or masked or not isinstance(source, int):
                continue
            level = self.slot(source).level + sum(conv.stride.bit_length() - 1 for conv in convs)
            return chain if level <= COARSEST_FUSED else []
        return []

    def inverted_residual(self, index: int, chain: list[Step]) -> None:
        """Compute the chain in one operation; its wide maps are never made as a whole."""
        *expand, depth, project = (step.operation for step in chain)
        assert isinstance(depth, Conv) and isinstance(project, Conv)
        x, *residuals = (self.real(s) for s in (chain[0].inputs[0], *chain[-1].inputs[1:]))
        level = self.slot(x).level
        fields: dict[str, object] = {}
        for wide in expand:
            assert isinstance(wide, Conv)
            fields = {'expand_weight': wide.weight, 'expand_bias': wide.bias + wide.shift}
            self.result.shapes[index] = (len(wide.weight), level)
        level += depth.stride.bit_length() - 1
        self.result.shapes[index + len(expand)] = (len(depth.weight), level)
        self.values[chain[-1].output] = self.add(
            index + len(expand) + 1,
            chain[-1],
            native.INVERTED,
            self.new(level, len(project.weight)),
            input=x,
            residual=residuals[0] if residuals else -1,
            stride=depth.stride,
            weight=depth.weight,
            bias=depth.bias + depth.shift,
            head_weight=project.weight,
            head_bias=project.bias + project.shift,
            **fields,
        )

    def check_depthwise(self, step: Step, conv: Conv) -> None:
        masked = self.masked and step.exit_index > 1
        if masked or len(step.inputs) > 1 or conv.weight.shape[2] not in (3, 5):
            raise Unsupported(
                f'{step.name}: a depthwise convolution with masks, with a residual, or of another '
                'kernel than 3x3 and 5x5'
            )

    def upsampled_conv(self, index: int, step: Step, conv: Conv, upsampled: _Virtual) -> None:
        """Convolve first, since upsampling is linear, unless the result is interpolated."""
        (x,) = upsampled.sources
        if conv.weight.shape[2] != 1 or len(step.inputs) > 1:
            raise Unsupported('an upsampling before anything but a 1x1 convolution')
        if self.window(step, conv) is not None:
            up = self.new(upsampled.level, *self.slot(x).parts)
            self.values[step.inputs[0]] = self.add(index, step, native.RESAMPLE, up, sources=(x,))
            self.conv(index, step, conv)
            return
        wide = step.gives_exit
        small = self.new(self.slot(x).level, len(conv.weight), wide=wide)
        self.add(
            index,
            step,
            native.CONV,
            small,
            input=x,
            needed=True,
            weight=conv.weight,
            bias=conv.bias,
            shift=conv.shift,
        )
        if wide:
            output = self.scores_of(index, step)
        else:
            output = self.new(upsampled.level, len(conv.weight))
        self.values[step.output] = self.add(
            index,
            step,
            native.RESAMPLE,
            output,
            sources=(small,),
            relu=conv.relu,
            gives_exit=step.gives_exit,
        )

    def joined_head(
        self, index: int, step: Step, conv: Conv, last: Step, joined: _Virtual
    ) -> None:
        """Give each branch its part of the first convolution, at its own resolution."""
        head = last.operation
        if (
            not isinstance(head, Conv)
            or not last.gives_exit
            or last.inputs != (step.output,)
            or not (conv.weight.shape[2] == head.weight.shape[2] == 1)
            or not conv.relu
        ):
            raise Unsupported('joined branches before anything but a plain head')
        parts = [self.slot(source).channels for source in joined.sources]
        weights: tuple[Tensor, ...] = torch.split(conv.weight, parts, dim=1)
        added = []
        for source, weight in zip(joined.sources[1:], weights[1:]):
            term = self.new(self.slot(source).level, len(weight))
            self.add(index, step, native.CONV, term, input=source, needed=True, weight=weight)
            added.append(term)
        self.values[last.output] = self.add(
            index + 1,
            last,
            native.HEAD,
            self.scores_of(index + 1, last),
            input=joined.sources[0],
            weight=weights[0],
            bias=conv.bias,
            shift=conv.shift,
            sources=tuple(added),
            gives_exit=True,
            head_weight=head.weight,
            head_bias=head.bias + head.shift,
        )
        self.result.shapes[index] = (len(conv.weight), self.slot(joined.sources[0]).level)

    def pool(self, index: int, step: Step) -> None:
        value = self.values[step.inputs[0]]
        sources = (value,) if isinstance(value, int) else value.sources
        level = self.slot(sources[0]).level + 1
        if not isinstance(value, int) and value.level != level - 1:
            raise Unsupported('pooling after upsampling')
        output = self.new(level, *(part for source in sources for part in self.slot(source).parts))
        self.values[step.output] = self.add(
            index,
            step,
            native.RESAMPLE,
            output,
            sources=sources,
            pooled=True,
            concatenate=True,
        )

    def sum(self, index: int, step: Step) -> None:
        sources = tuple(self.real(slot) for slot in step.inputs)
        own = self.slot(sources[0])
        self.values[step.output] = self.add(
            index,
            step,
            native.RESAMPLE,
            self.new(own.level, *own.parts),
            sources=sources,
            relu=True,
            needed=True,
        )


def _late_shortcuts(ops: list[NativeOp]) -> list[NativeOp]:
    """Put a 1x1 convolution that is a residual only right before the one that adds it."""
    readers = Counter(slot for op in ops for slot in (op.input, op.residual, *op.sources))
    late = {
        op.output: op
        for op in ops
        if _is_pointwise(op) and not op.gives_exit and readers[op.output] == 1
    }
    residuals = {op.residual for op in ops if _is_pointwise(op)}
    ordered: list[NativeOp] = []
    for op in ops:
        if op.output in residuals and late.get(op.output) is op:
            continue
        if op.residual in late and _is_pointwise(op):
            ordered.append(late[op.residual])
        ordered.append(op)
    return ordered


def _is_pointwise(op: NativeOp) -> bool:
    unmasked = op.kind == native.CONV and not op.masked and op.stride == 1
    return unmasked and op.weight is not None and op.weight.shape[2] == 1 and not op.depthwise


def _is_inverted(convs: Sequence[Conv]) -> bool:
    """Tell whether convolutions are those of an inverted residual, with or without expansion."""
    *expand, depth, project = convs
    return (
        depth.depthwise
        and depth.relu
        and depth.weight.shape[2] in (3, 5)
        and not project.relu
        and all(conv.relu for conv in expand)
        and all(
            conv.weight.shape[2] == conv.stride == 1 and not conv.depthwise
            for conv in (*expand, project)
        )
    )


def _spread(weight: Tensor, parts: Sequence[int]) -> Tensor:
    """Give the padding between parts of the input weights of zero."""
    if len(parts) == 1:
        return weight
    pieces: list[Tensor] = []
    for piece in torch.split(weight, list(parts), dim=1):
        gap = -piece.shape[1] % OCTET
        pieces += [piece, piece.new_zeros(len(weight), gap, *weight.shape[2:])]
    return torch.cat(pieces, dim=1)
