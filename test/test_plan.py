# SPDX-License-Identifier: Apache-2.0
"""A plan gives what its network gives."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from networks import COARSE_EXITS, random_image, random_network
from torch.nn import functional

from adpc_ros.network.adaptivity import ActiveMap, Adaptivity, Criterion
from adpc_ros.network.anytime import AnytimeNetwork, Exit
from adpc_ros.network.exits import Heads
from adpc_ros.network.families import NetworkConfig, build_network
from adpc_ros.network.macs import count_frame, exit_costs
from adpc_ros.runtime import cuda, network_plan, torch_layers
from adpc_ros.runtime.compile import compile_network
from adpc_ros.runtime.cpu import Unsupported
from adpc_ros.runtime.images import padded_size, render, to_input
from adpc_ros.runtime.make_plan import make_plan
from adpc_ros.runtime.network_plan import NetworkPlan
from adpc_ros.runtime.plan import ComputedExit, Plan
from adpc_ros.runtime.program import Conv
from adpc_ros.runtime.torch_layers import Layer
from adpc_ros.runtime.torch_plan import Done, TorchPlan

CASES = {
    'redesigned': dict(heads=Heads.REDESIGNED, adaptivity=Adaptivity(thresholds=(0.6,) * 3)),
    'entropy': dict(adaptivity=Adaptivity(Criterion.ENTROPY, (0.5,) * 3, window=9)),
    'deep': dict(head_depths=(3, 3, 3), adaptivity=Adaptivity(thresholds=(0.55, 0.98, 0.99))),
    'shallow': dict(head_depths=(1, 1, 1), adaptivity=Adaptivity(thresholds=(0.6,) * 3)),
    'plain': dict(heads=Heads.PLAIN, adaptivity=Adaptivity(thresholds=(0.6,) * 3, window=3)),
    'without_masks': dict(adaptivity=None),
    'base': dict(heads=Heads.NONE, adaptivity=None),
    'coarse': dict(architecture='coarse_tiny', adaptivity=Adaptivity(thresholds=(0.6,))),
    'coarse_by_class': dict(
        architecture='coarse_tiny',
        adaptivity=Adaptivity(
            thresholds=(0.6,),
            class_thresholds=tuple(
                tuple(0.4 + 0.04 * ((3 * k + exit_index) % 11) for k in range(11))
                for exit_index in range(COARSE_EXITS - 1)
            ),
        ),
    ),
    'coarse_base': dict(architecture='coarse_tiny', heads=Heads.NONE, adaptivity=None),
}
PYTORCH_CASES = {  # which the native plan refuses
    'top_k': dict(adaptivity=Adaptivity(Criterion.TOP_K, (0.2, 0.4, 0.3))),
    'random': dict(adaptivity=Adaptivity(Criterion.RANDOM, (0.2, 0.4, 0.6), window=5)),
    'coarse_top_k': dict(
        architecture='coarse_tiny', adaptivity=Adaptivity(Criterion.TOP_K, (0.2, 0.4))
    ),
}
TEMPERATURES = (2.5, 0.6, 1.5, 0.8)
DEVICES = [
    'cpu',
    pytest.param(
        'cuda', marks=pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
    ),
]


def picture(size: tuple[int, int] = (50, 70), seed: int = 0) -> np.ndarray:
    soft = random_image(*size, seed)[0].permute(1, 2, 0).numpy() * 60 + 120
    return soft.clip(0, 255).astype(np.uint8)


def cells_of(logits: torch.Tensor) -> tuple[int, int]:
    return logits.shape[2], logits.shape[3]


def scale_of(network: AnytimeNetwork, exit_index: int) -> int:
    """Give the pixels of a cell of an exit's class scores, on either axis."""
    return network.config.scale_of(exit_index)


def with_temperatures(case: str) -> AnytimeNetwork:
    stages = COARSE_EXITS if case.startswith('coarse') else 4
    return random_network(seed=0, temperatures=TEMPERATURES[:stages], **CASES[case])


def torch_plan_of(network: AnytimeNetwork, device: str = 'cpu') -> TorchPlan:
    return TorchPlan(compile_network(network), device)


def exits_of(plan: TorchPlan, image: torch.Tensor, *args: object, **options: object) -> list[Done]:
    with torch.inference_mode():
        return [d for d in plan.execute(image, *args, **options) if d.logits is not None]


def assert_close(got: torch.Tensor, expected: torch.Tensor, limit: float = 1e-4) -> None:
    assert (got - expected).abs().max().item() <= limit * expected.abs().max().item()


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('adaptive', [True, False], ids=['masks_on', 'masks_off'])
@pytest.mark.parametrize('case', [*CASES, *PYTORCH_CASES])
def test_every_exit_equals_the_networks(case: str, adaptive: bool, device: str) -> None:
    network = random_network(seed=0, **{**CASES, **PYTORCH_CASES}[case]).to(device)
    image = random_image(64, 96).to(device)
    with torch.inference_mode():
        expected = list(network.exits(image, adaptive))
    got = exits_of(torch_plan_of(network, device), image, adaptive)
    assert len(got) == len(expected) == network.config.exit_count
    for done, out in zip(got, expected):
        assert_close(done.logits, out.logits)
        if out.next_active is not None:
            assert done.active_share == pytest.approx(out.next_active.share(cells_of(out.logits)))
    if adaptive and network.config.adaptivity is not None:
        shares = [done.active_share for done in got[:-1]]
        assert all(0.05 < share < 0.95 for share in shares), 'the case must mask some positions'


def test_counted_multiplications_equal_the_networks() -> None:
    network = random_network(seed=0, **CASES['redesigned'])
    image = random_image(64, 96)
    done = [d.macs for d in exits_of(torch_plan_of(network), image)]
    assert done == count_frame(network, image).macs


@pytest.mark.parametrize('share', [0.0, 0.3, 1.0])
def test_injected_active_maps_rule_the_stages(share: float) -> None:
    network = random_network(seed=1, **CASES['redesigned'])
    image = random_image(64, 64)
    rng = np.random.default_rng(0)
    maps = [ActiveMap(torch.from_numpy(rng.random((1, 1, 16, 16)) < share)) for _ in range(3)]
    with torch.inference_mode():
        expected = [out.logits for out in network.exits(image, active_maps=maps)]
    got = exits_of(torch_plan_of(network), image, active_maps=maps)
    assert len(got) == len(expected)
    for done, logits in zip(got, expected):
        assert_close(done.logits, logits)


def test_active_maps_without_adaptivity_are_refused() -> None:
    plan = torch_plan_of(random_network())
    maps = [ActiveMap(torch.ones(1, 1, 8, 8, dtype=torch.bool))] * 3
    with pytest.raises(ValueError, match='active maps need a network with adaptivity'):
        next(plan.execute(random_image(32, 32), active_maps=maps))


@pytest.mark.parametrize('adaptive', [True, False], ids=['masks_on', 'masks_off'])
def test_pytorchs_own_convolution_gives_the_same(
    adaptive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = compile_network(random_network(seed=0, **CASES['redesigned']))
    image = random_image(64, 96)
    expected = exits_of(TorchPlan(program), image, adaptive)
    monkeypatch.setattr(torch_layers, '_has_onednn', lambda *_: False)
    for a, b in zip(exits_of(TorchPlan(program), image, adaptive), expected):
        assert_close(a.logits, b.logits)


@pytest.mark.parametrize('onednn', [True, False], ids=['onednn', 'own'])
@pytest.mark.parametrize('adaptive', [True, False], ids=['masks_on', 'masks_off'])
def test_bfloat16_is_near_the_network(
    adaptive: bool, onednn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not onednn:
        monkeypatch.setattr(torch_layers, '_has_onednn', lambda *_: False)
    network = random_network(seed=1, **CASES['redesigned'])
    image = random_image(64, 96)
    with torch.inference_mode():
        own = list(network.exits(image, adaptive))
        maps = [out.next_active for out in own[:-1]] if adaptive else None
    plan = TorchPlan(compile_network(network), dtype=torch.bfloat16)
    got = exits_of(plan, image, adaptive, active_maps=maps)
    for done, out in zip(got, own):
        assert done.logits.dtype == torch.float32
        assert_close(done.logits, out.logits, 0.08)  # eight bits, many layers
        same = done.logits.argmax(1) == out.logits.argmax(1)
        assert same.float().mean() > 0.9  # random scores lie closer together than trained ones


def test_nothing_is_computed_before_it_is_asked_for() -> None:
    network = random_network(seed=0, **CASES['redesigned'])
    ran: list[int] = []
    for stage in (2, 3, 4):
        module = getattr(network, f'stage{stage}')[0]
        module.register_forward_hook(lambda *_, stage=stage: ran.append(stage))
    exits = network.exits(random_image(32, 32))
    for index in (1, 2, 3, 4):
        assert next(exits).exit_index == index
        assert ran == list(range(2, index + 1))


def test_no_state_survives_between_calls() -> None:
    plan = torch_plan_of(random_network(seed=0, **CASES['redesigned']))
    first, second = random_image(64, 64, seed=1), random_image(64, 96, seed=2)
    alone = [done.logits for done in exits_of(plan, first)]
    with torch.inference_mode():
        cut = plan.execute(second)
        for _ in range(len(plan.program.steps) // 2):
            next(cut)
        cut.close()
    again = [done.logits for done in exits_of(plan, first)]
    assert all(torch.equal(a, b) for a, b in zip(alone, again))


def test_a_program_is_what_the_network_was() -> None:
    network = random_network(seed=0, **CASES['redesigned'])
    program = compile_network(network)
    expected = exits_of(TorchPlan(program), random_image(32, 32))
    for value in network.state_dict().values():
        value.zero_()
    for a, b in zip(exits_of(TorchPlan(program), random_image(32, 32)), expected):
        assert torch.equal(a.logits, b.logits)


@pytest.mark.parametrize('case', CASES)
def test_a_programs_steps_read_only_what_is_there(case: str) -> None:
    network = random_network(seed=0, **CASES[case])
    program = compile_network(network)
    there = {0}
    for step, frees in zip(program.steps, program.last_reads()):
        assert there.issuperset(step.inputs)
        assert step.output not in there
        there = (there | {step.output}) - set(frees)
        if step.gives_exit:
            there.remove(step.output)
    assert not there, 'every value is read'
    convs = {s.name: s.operation for s in program.steps if isinstance(s.operation, Conv)}
    modules = {n: m for n, m in network.named_modules() if isinstance(m, torch.nn.Conv2d)}
    assert convs.keys() == modules.keys()
    for name, conv in convs.items():
        assert conv.weight.shape == modules[name].weight.shape
        assert {t.dtype for t in (conv.weight, conv.bias, conv.shift)} == {torch.float32}
        masked = hasattr(modules[name], 'square_dis')
        assert (conv.taps is not None, conv.window > 0) == (masked, masked)


@pytest.mark.parametrize('adaptive', [True, False], ids=['masks_on', 'masks_off'])
@pytest.mark.parametrize('case', ['redesigned', 'base', 'coarse'])
def test_a_segmented_image_is_the_networks_rendered(case: str, adaptive: bool) -> None:
    network = random_network(seed=0, **CASES[case])
    image = picture()
    plan = torch_plan_of(network)
    with pytest.raises(RuntimeError, match='no exit yet'):
        plan.logits()
    x = to_input(image, network.config, torch.device('cpu'))
    with torch.inference_mode():
        expected = list(network.exits(x, adaptive))
    count = 0
    for computed in plan.segment(image, adaptive):
        if computed is None:
            continue
        out = expected[count]
        count += 1
        assert computed.exit_index == count
        rendered, mean = render(out.logits, (50, 70), scale_of(network, out.exit_index))
        assert (computed.rendered.class_ids == rendered.class_ids).mean() > 0.999
        difference = computed.rendered.confidence.astype(int) - rendered.confidence
        assert np.abs(difference).max() <= 1
        assert computed.mean_confidence == pytest.approx(mean, abs=1e-3)
        threshold = 0.6 if network.config.adaptivity else 0.998
        sure = (rendered.confidence >= threshold * 255).mean()
        assert computed.confident_share == pytest.approx(sure, abs=0.01)
        assert_close(plan.logits(), out.logits)
    assert count == network.config.exit_count
    counts, shares = count_frame(network, x, adaptive)
    assert computed.macs == counts[-1]
    half = (x.shape[2] // 2, x.shape[3] // 2)
    names = [(step.name, step.exit_index) for step in plan.program.steps]
    times = plan.step_times()
    assert [t[:2] for t in times] == names
    assert times[0].shape == (network.get_submodule(names[0][0]).out_channels, *half)
    assert all(t.seconds > 0 for t in times)
    last = {t.exit_index: t.active_share for t in times}  # each exit's own scores
    assert list(last.values()) == pytest.approx(shares)


def calibrated_confidence(
    exits: list[Exit], config: NetworkConfig, size: tuple[int, int]
) -> list[np.ndarray]:
    """Give the (H, W) confidence of each exit, 0 to 1; per cell, who computed it is kept."""
    padded = padded_size(size, config)
    results = []
    inverses = 1 / torch.tensor(config.temperatures)
    maker = torch.zeros(0)
    for out in exits:
        cells = (out.logits.shape[2], out.logits.shape[3])
        if out.active is None:
            maker = torch.full(cells, out.exit_index)
        else:
            maker = maker.repeat_interleave(cells[0] // len(maker), 0)  # the nearest cell
            maker = maker.repeat_interleave(cells[1] // maker.shape[1], 1)
            maker[out.active.at(cells)[0, 0]] = out.exit_index
        scores, inverse = (
            functional.interpolate(x, padded, mode='bilinear', align_corners=False)
            for x in (out.logits, inverses[maker - 1][None, None])
        )
        confidence = functional.softmax(scores * inverse, dim=1).amax(dim=1)[0]
        results.append(confidence[: size[0], : size[1]].numpy())
    return results


def calibrated_exits(
    network: AnytimeNetwork, plan: Plan, plain: Plan, image: np.ndarray, **options: object
) -> list[int]:
    """
    Compare a plan with temperatures with a direct computation, and with a plan of the same
    network whose temperatures are 1: scores, active positions and class ids are not touched.

    :return: of each exit, how many pixels would look otherwise with its temperature everywhere.
    """
    size = (image.shape[0], image.shape[1])
    x = to_input(image, network.config, torch.device('cpu'))
    config = network.config
    with torch.inference_mode():
        exits = list(network.exits(x, **options))
    carried = []
    expected = calibrated_confidence(exits, config, size)
    both = zip(*((d for d in p.segment(image, **options) if d) for p in (plan, plain)))
    for out, confidence, (done, raw) in zip(exits, expected, both, strict=True):
        assert torch.equal(plan.logits(), plain.logits())
        np.testing.assert_array_equal(done.rendered.class_ids, raw.rendered.class_ids)
        assert (done.active_share, done.macs) == (raw.active_share, raw.macs)
        assert np.abs(done.rendered.confidence - 255 * confidence).max() <= 1
        assert done.mean_confidence == pytest.approx(confidence.mean(), abs=1e-4)
        threshold = network.config.adaptivity.thresholds[0] if network.config.adaptivity else 0
        if 0.5 < threshold:
            sure = (confidence >= threshold).mean()
            assert done.confident_share == pytest.approx(sure, abs=1e-3)
        own = out._replace(active=None)
        (everywhere,) = calibrated_confidence([own], config, size)
        carried.append(int((np.abs(everywhere - confidence) > 0.05).sum()))
    return carried


def without_temperatures(network: AnytimeNetwork) -> AnytimeNetwork:
    config = dataclasses.replace(network.config, temperatures=None)
    plain = build_network(config).eval()
    plain.load_state_dict(network.state_dict())
    return plain


@pytest.mark.parametrize('adaptive', [True, False], ids=['masks_on', 'masks_off'])
@pytest.mark.parametrize('case', CASES)
def test_confidence_has_the_temperature_of_the_exit_that_predicted(
    case: str, adaptive: bool
) -> None:
    network = with_temperatures(case)
    plans = [torch_plan_of(n) for n in (network, without_temperatures(network))]
    carried = calibrated_exits(network, *plans, picture((150, 70)), adaptive=adaptive)
    if adaptive and network.config.adaptivity is not None:
        assert carried[0] == 0 and all(pixels > 500 for pixels in carried[1:])
    else:
        assert not any(carried)


def test_a_segmentation_yields_often_and_can_be_dropped() -> None:
    plan = torch_plan_of(random_network(seed=0, **CASES['redesigned']))
    image = picture((150, 70))
    whole = list(plan.segment(image))
    bands = 4 * 3
    assert whole.count(None) == len(plan.program.steps) + bands
    times = plan.step_times()
    cut = plan.segment(image)
    assert [next(cut) for _ in range(5)] == [None] * 5
    plan.interrupt()
    cut.close()
    assert plan.step_times() is times, 'of what was carried to its end'
    again = [computed for computed in plan.segment(image) if computed is not None]
    for a, b in zip(again, (computed for computed in whole if computed is not None)):
        assert isinstance(a, ComputedExit)
        np.testing.assert_array_equal(a.rendered.class_ids, b.rendered.class_ids)


@pytest.mark.parametrize('image', [np.zeros((32,), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_another_form_of_image_is_refused(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r'expected an \(H, W, 3\) uint8 RGB image'):
        next(torch_plan_of(random_network()).segment(image))


@pytest.mark.parametrize('error', [OSError('no library'), Unsupported('too many classes')])
def test_without_native_kernels_pytorch_computes_and_says_so(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def native(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr('adpc_ros.runtime.cpu.CpuPlan', native)
    plan = make_plan(random_network(), dtype=torch.bfloat16)
    assert isinstance(plan, TorchPlan)
    assert plan.description == 'PyTorch bfloat16 on cpu'
    assert str(error) in caplog.text
    assert 'PyTorch computes instead' in caplog.text


@pytest.mark.parametrize('criterion', [Criterion.TOP_K, Criterion.RANDOM])
def test_masks_that_the_native_kernels_do_not_know_are_pytorchs(
    criterion: Criterion, caplog: pytest.LogCaptureFixture
) -> None:
    plan = make_plan(random_network(adaptivity=Adaptivity(criterion, (0.2,))))
    assert isinstance(plan, TorchPlan)
    assert f'masks by {criterion.value}: max_probability and entropy are' in caplog.text


def test_native_kernels_are_chosen_where_they_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        'adpc_ros.runtime.cpu.CpuPlan', lambda program, **options: (program.config, options)
    )
    network = random_network()
    options = {'dtype': torch.float32, 'threads': 3}
    assert make_plan(network, threads=3) == (network.config, options)
    assert isinstance(make_plan(network, 'meta'), TorchPlan)


def float32_precisions() -> list[str]:
    return [
        setting.fp32_precision
        for setting in (torch.backends.cudnn.conv, torch.backends.cuda.matmul)
    ]


@pytest.mark.parametrize('device', ['cpu', 'cuda'])
def test_on_cuda_float32_is_not_tf32_and_nothing_else_is_changed(device: str) -> None:
    plan = torch_plan_of(random_network(seed=0, **CASES['redesigned']))
    seen = []

    def spied(layer: Layer) -> Layer:
        def spy(*inputs: object) -> torch.Tensor:
            seen.append(float32_precisions())
            return layer(*inputs)

        return spy

    plan._layers = [spied(layer) for layer in plan._layers]
    plan.device = torch.device(device)  # the layers stay where they are
    before = float32_precisions()
    assert before[0] == 'tf32', 'the default, which training keeps'
    for _ in plan.execute(random_image(64, 64)):
        assert float32_precisions() == before
    expected = ['ieee', 'ieee'] if device == 'cuda' else before
    assert len(seen) == len(plan._layers) and all(found == expected for found in seen)


@pytest.mark.parametrize(
    'error, lost',
    [
        (torch.AcceleratorError('an illegal memory access was encountered'), True),
        (RuntimeError('CUDA error: device-side assert triggered'), True),
        (torch.OutOfMemoryError('CUDA out of memory. CUDA error'), False),
        (RuntimeError('the kernel is broken'), False),
        (ValueError('CUDA error'), False),
        (None, False),
    ],
)
def test_a_lost_device_is_told_from_other_errors(error: Exception | None, lost: bool) -> None:
    assert cuda.is_lost(error) == lost


@pytest.mark.parametrize('adaptive', [True, False], ids=['masks_on', 'masks_off'])
@pytest.mark.parametrize('case', CASES)
def test_a_network_without_a_program_is_computed_by_its_own_steps(
    case: str, adaptive: bool
) -> None:
    network = with_temperatures(case)
    plan, compiled = NetworkPlan(network), torch_plan_of(network)
    picture = np.random.default_rng(0).integers(0, 256, (50, 90, 3), np.uint8)
    own, expected = list(plan.segment(picture, adaptive)), []
    scores = []
    for done in compiled.segment(picture, adaptive):
        if done is not None:
            expected.append(done)
            scores.append(compiled.logits())
    exits = [done for done in own if done is not None]
    assert len(exits) == len(expected) == network.config.exit_count
    assert own.count(None) >= 3 * len(exits), 'it must let its caller look at the clock'
    assert_close(plan.logits(), scores[-1])
    for done, other in zip(exits, expected):
        assert done.exit_index == other.exit_index
        assert (done.rendered.class_ids == other.rendered.class_ids).mean() > 0.999
        assert done.macs == other.macs
        assert done.active_share == pytest.approx(other.active_share)
        assert done.mean_confidence == pytest.approx(other.mean_confidence, abs=1e-4)


def test_a_networks_own_steps_are_counted_and_can_be_dropped() -> None:
    plan = NetworkPlan(random_network(seed=0, **CASES['redesigned']))
    picture = np.zeros((64, 96, 3), np.uint8)
    with pytest.raises(RuntimeError, match='no exit yet'):
        plan.logits()
    steps = plan.segment(picture)
    assert (next(steps), next(steps)) == (None, None)
    assert plan.progress == 0
    assert next(steps) is None
    stem = plan.progress
    assert stem > 3, 'it is counted within a step'
    steps.close()
    assert plan.step_times() == []
    whole = [done for done in plan.segment(picture) if done is not None]
    assert [done.exit_index for done in whole] == [1, 2, 3, 4]
    assert [step.exit_index for step in plan.step_times()] == [1, 1, *[2] * 3, *[3] * 3, *[4] * 3]
    convolutions = sum(map(len, exit_costs(plan.config, (64, 96))))
    assert plan.progress == stem + convolutions
    assert plan.memory_bytes > plan.bytes_for((64, 96)) > 3 * 64 * 96 * 4
    assert plan.bytes_for((128, 96)) == pytest.approx(2 * plan.bytes_for((64, 96)), rel=0.1)
    plan.close()
    with pytest.raises(RuntimeError, match='closed'):
        next(plan.segment(picture))


def test_what_images_of_a_size_cost_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[tuple[tuple[int, int], bool]] = []

    def costs(config: NetworkConfig, size: tuple[int, int], adaptive: bool) -> Any:
        counted.append((size, adaptive))
        return exit_costs(config, size, adaptive)

    monkeypatch.setattr(network_plan, 'exit_costs', costs)
    plan = NetworkPlan(random_network(seed=0, **CASES['redesigned']))
    found = []
    for adaptive in (True, False):
        for size in ((64, 96), (96, 64), (60, 90), (96, 64)):  # the third is padded to the first
            exits = plan.segment(np.zeros((*size, 3), np.uint8), adaptive)
            found.append([done.macs for done in exits if done is not None])
    sizes = [(64, 96), (96, 64)]
    assert counted == [(size, adaptive) for adaptive in (True, False) for size in sizes]
    assert found[4] == found[5] == found[6] == found[7]


def test_a_networks_own_steps_refuse_what_they_cannot_compute() -> None:
    network = random_network(seed=0, **CASES['redesigned'])
    with pytest.raises(ValueError, match=r'hrnet_tiny: expected float32.*bfloat16'):
        NetworkPlan(network, dtype=torch.bfloat16)
    network.conv1.weight.data[0] = torch.nan
    with pytest.raises(ValueError, match=r'conv1\.weight: expected finite'):
        NetworkPlan(network)
    plan = NetworkPlan(random_network(seed=0, adaptivity=None))
    with pytest.raises(ValueError, match='adaptivity'):
        next(plan.segment(np.zeros((64, 96, 3), np.uint8), active_maps=[]))
