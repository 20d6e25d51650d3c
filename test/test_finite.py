# SPDX-License-Identifier: Apache-2.0
"""What is not finite is refused when it is loaded, and fails a frame when it is computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from networks import random_image, random_network
from test_plan import CASES, picture

from adpc_ros.network.anytime import AnytimeNetwork
from adpc_ros.runtime import native, torch_plan
from adpc_ros.runtime.compile import compile_network
from adpc_ros.runtime.cpu import CpuPlan
from adpc_ros.runtime.engine import Engine, Result
from adpc_ros.runtime.images import Rendered
from adpc_ros.runtime.make_plan import make_plan
from adpc_ros.runtime.plan import ComputedExit, Plan
from adpc_ros.runtime.program import Conv, Program
from adpc_ros.runtime.scheduler import StopReason
from adpc_ros.runtime.torch_plan import TorchPlan

PLANS: dict[str, Callable[[Program], Plan]] = {'torch': TorchPlan}
for name in native.instruction_sets():
    PLANS[name] = partial(CpuPlan, threads=2, instruction_set=name)
    PLANS[f'{name}_bfloat16'] = partial(PLANS[name], dtype=torch.bfloat16)
CLASS = 7  # the only one that is spoiled


def spoiled(network: AnytimeNetwork, exit_index: int, score: float) -> Program:
    """Give a program in which one exit's scores of one class are this, whatever the image."""
    program = compile_network(network)
    steps = []
    for step in program.steps:
        if step.gives_exit and step.exit_index == exit_index:
            conv = step.operation
            assert isinstance(conv, Conv)
            weight, shift = conv.weight.clone(), conv.shift.clone()
            weight[CLASS], shift[CLASS] = 0.0, score
            step = replace(step, operation=replace(conv, weight=weight, shift=shift))
        steps.append(step)
    return Program(program.config, tuple(steps))


def exits_of(segmentation: Iterator[ComputedExit | None]) -> Iterator[ComputedExit]:
    return (done for done in segmentation if done is not None)


def bn_of(network: AnytimeNetwork, layer: str) -> torch.nn.BatchNorm2d:
    return dict(network.named_modules())[layer]  # type: ignore[return-value]


@pytest.mark.parametrize('values', [{'running_var': 0.0, 'weight': 3e37}, {'bias': math.inf}])
def test_a_layer_that_overflows_with_its_batchnorm_is_named(values: dict[str, float]) -> None:
    network = random_network(0, **CASES['redesigned'])
    for name, value in values.items():
        getattr(bn_of(network, 'layer1.0.bn2'), name).data.fill_(value)
    with pytest.raises(ValueError, match=r'^layer1\.0\.conv2: expected .* finite in float32'):
        make_plan(network)


@pytest.mark.parametrize('plan', [CpuPlan, TorchPlan])
def test_what_bfloat16_makes_infinite_is_refused_for_it_alone(plan: type) -> None:
    network = random_network(0, **CASES['redesigned'])
    network.get_parameter('conv1.weight').data[0, 0, 0, 0] = 1.0
    bn = bn_of(network, 'bn1')
    bn.weight.data[0], bn.running_var[0] = 3.4e38, 1.0 - bn.eps
    program = compile_network(network)
    plan(program, dtype=torch.float32).close()
    with pytest.raises(ValueError, match='^conv1: expected .* finite in bfloat16, .* got 1 of '):
        plan(program, dtype=torch.bfloat16)


@pytest.mark.parametrize('score', [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize('exit_index', [1, 3])
@pytest.mark.parametrize('plan', PLANS)
@pytest.mark.parametrize('case', ['redesigned', 'coarse'])
def test_an_exit_with_a_score_that_is_not_finite_is_never_given(
    case: str, plan: str, exit_index: int, score: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = spoiled(random_network(0, **CASES[case]), exit_index, score)
    monkeypatch.setattr(Program, 'check', lambda *_: None)
    exits = exits_of(PLANS[plan](program).segment(picture((50, 90))))
    for index in range(1, exit_index):
        assert next(exits).exit_index == index
    with pytest.raises(ValueError, match=f'exit {exit_index}: expected finite class scores'):
        next(exits)


@pytest.mark.parametrize('score', [1e30, 3e38])
@pytest.mark.parametrize('plan', PLANS)
@pytest.mark.parametrize('case', ['redesigned', 'entropy'])
def test_a_large_finite_score_is_sure(case: str, plan: str, score: float) -> None:
    program = spoiled(random_network(0, **CASES[case]), 1, score)
    first, *_ = exits_of(PLANS[plan](program).segment(picture((50, 90))))
    assert (first.rendered.class_ids == CLASS).all() and (first.rendered.confidence == 255).all()
    assert (first.mean_confidence, first.active_share) == (1.0, 0.0)


@pytest.mark.parametrize('plan', PLANS)
@pytest.mark.parametrize(
    'case, adaptive', [('redesigned', False), ('plain', True), ('coarse', True)]
)
def test_what_overflows_within_the_network_is_not_rectified_away(
    case: str, adaptive: bool, plan: str
) -> None:
    program = compile_network(random_network(0, **CASES[case]))
    for i, step in enumerate(program.steps):
        if not isinstance(step.operation, Conv):
            continue
        steps = list(program.steps)
        huge = replace(step.operation, weight=step.operation.weight.sign() * 3e38)
        steps[i] = replace(step, operation=huge)
        made = PLANS[plan](Program(program.config, tuple(steps)))
        try:
            list(made.segment(picture((50, 90)), adaptive))
        except ValueError as error:
            assert 'expected finite class scores' in str(error)
        else:
            pytest.fail(f'{step.name} overflowed, and every exit was given')


@pytest.mark.parametrize('plan', PLANS)
@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_one_pixel_that_is_no_number_fails_the_frame(
    value: float, plan: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = random_image(64, 96)
    image[0, 1, 40, 33] = value
    made = PLANS[plan](compile_network(random_network(0, **CASES['redesigned'])))
    if isinstance(made, CpuPlan):
        segmentation = made.execute(image)
    else:
        monkeypatch.setattr(torch_plan, 'to_input', lambda *_: image)
        segmentation = made.segment(np.zeros((64, 96, 3), np.uint8))
    with pytest.raises(ValueError, match='exit 1: expected finite class scores'):
        list(segmentation)


@pytest.mark.parametrize('mean', [math.nan, math.inf, -0.01, 1.01])
def test_an_exit_has_a_mean_confidence(mean: float) -> None:
    rendered = Rendered(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8))
    ComputedExit(1, rendered, 1.0 + 1e-6, 1.0, 1, 1.0)
    with pytest.raises(ValueError, match='exit 1: expected .* from 0 to 1, got a mean confidence'):
        ComputedExit(1, rendered, mean, 1.0, 1, 1.0)


def test_the_engine_fails_such_a_frame_and_publishes_nothing_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Program, 'check', lambda *_: None)
    plan = CpuPlan(spoiled(random_network(0, **CASES['redesigned']), 2, -math.inf))
    results: list[Result] = []
    exits: list[Result] = []
    engine = Engine(plan, None, results.append, exits.append)
    engine.submit(picture())
    while not results:
        pass
    engine.close()
    assert [done.exit.computed.exit_index for done in exits if done.exit is not None] == [1]
    assert (results[0].reason, results[0].exit) == (StopReason.FAILED, None)
    assert 'exit 2: expected finite class scores' in str(results[0].error)
