# SPDX-License-Identifier: Apache-2.0
"""The native plan gives what the network gives, in every instruction set of this machine."""

from __future__ import annotations

import math
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import random_image, random_network
from shared import ROOT, camvid
from test_parity import FIXTURES, build, reference
from test_plan import (
    CASES,
    calibrated_exits,
    cells_of,
    picture,
    scale_of,
    with_temperatures,
    without_temperatures,
)

from adpc_ros.learning.datasets import CamVid
from adpc_ros.learning.metrics import Confusion
from adpc_ros.network import checkpoint
from adpc_ros.network.adaptivity import ActiveMap, Adaptivity, active_positions
from adpc_ros.network.anytime import AnytimeNetwork
from adpc_ros.network.exits import Heads
from adpc_ros.network.families import NetworkConfig, build_network
from adpc_ros.network.macs import count_frame
from adpc_ros.runtime import native
from adpc_ros.runtime.compile import compile_network
from adpc_ros.runtime.cpu import CpuPlan, Unsupported
from adpc_ros.runtime.engine import Engine
from adpc_ros.runtime.images import render, to_input
from adpc_ros.runtime.lowering import lower
from adpc_ros.runtime.plan import ComputedExit
from adpc_ros.runtime.program import Program
from adpc_ros.runtime.torch_plan import TorchPlan

WEIGHTS = [
    ROOT / 'weights' / f'{name}_camvid.safetensors' for name in ('coarse_s', 'hrnet_w18_small_v2')
]
SETS = native.instruction_sets()


def program_of(case: str = 'redesigned', seed: int = 0) -> Program:
    return compile_network(random_network(seed=seed, **CASES[case]))


def nested_maps(
    size: tuple[int, int], shares: tuple[float, float, float], seed: int = 0
) -> list[ActiveMap]:
    """Give active maps in soft patches with ragged edges, each within the one before."""
    soft = random_image(*size, seed)[:, :1] + 0.3 * random_image(*size, seed + 1)[:, :1]
    ranks = soft.flatten().argsort().argsort().view(1, 1, *size)
    return [ActiveMap(ranks < round(share * ranks.numel())) for share in shares]


def scores_of(plan: CpuPlan, run: Callable[[], object]) -> list[torch.Tensor]:
    """Give the class scores of each exit, with all features overwritten before."""
    list(run())  # so that there are any
    plan.poison()
    return [plan.logits() for done in run() if done is not None]


def assert_close(got: torch.Tensor, expected: torch.Tensor, limit: float = 1e-4) -> None:
    error = (got - expected).abs().max().item()
    assert error <= limit * expected.abs().max().item()


@pytest.mark.parametrize('instruction_set', SETS)
@pytest.mark.parametrize('adaptive', [True, False], ids=['masks_on', 'masks_off'])
@pytest.mark.parametrize('case', CASES)
def test_every_exit_equals_the_networks(case: str, adaptive: bool, instruction_set: str) -> None:
    network = random_network(seed=0, **CASES[case])
    plan = CpuPlan(compile_network(network), threads=2, instruction_set=instruction_set)
    image = picture((50, 90))
    x = to_input(image, network.config, torch.device('cpu'))
    with torch.inference_mode():
        expected = list(network.exits(x, adaptive))
    for _ in plan.segment(image, adaptive):
        pass
    plan.poison()
    count = 0
    for done in plan.segment(image, adaptive):
        if done is None:
            continue
        out = expected[count]
        count += 1
        assert done.exit_index == count
        assert_close(plan.logits(), out.logits)
        rendered, mean = render(out.logits, (50, 90), scale_of(network, out.exit_index))
        assert (done.rendered.class_ids == rendered.class_ids).mean() > 0.999
        assert np.abs(done.rendered.confidence.astype(int) - rendered.confidence).max() <= 1
        assert done.mean_confidence == pytest.approx(mean, abs=1e-4)
        if out.next_active is not None:
            assert done.active_share == pytest.approx(out.next_active.share(cells_of(out.logits)))
    assert count == network.config.exit_count
    assert done.macs == count_frame(network, x, adaptive).macs[-1]


@pytest.mark.parametrize('instruction_set', SETS)
@pytest.mark.parametrize(
    'shares', [(0.8, 0.6, 0.37), (0.2, 0.05, 0.01), (1.0, 0.5, 0.0), (0, 0, 0), (1, 1, 1)]
)
@pytest.mark.parametrize('case', ['redesigned', 'plain', 'entropy', 'coarse'])
def test_injected_active_maps_rule_the_stages(
    case: str, shares: tuple[float, float, float], instruction_set: str
) -> None:
    network = random_network(seed=1, **CASES[case])
    plan = CpuPlan(compile_network(network), threads=2, instruction_set=instruction_set)
    levels = network.config.sizes.exit_levels
    coarsest = 2 ** levels[0]
    cases = [((64, 96), coarsest), ((64, 96), 4), ((32, 32), coarsest), ((128, 32), coarsest)]
    for seed, (size, cell) in enumerate(cases):  # finer maps are taken at the exit's scale
        image = random_image(*size, seed)
        maps = nested_maps((size[0] // cell, size[1] // cell), shares[: len(levels) - 1], seed)
        with torch.inference_mode():
            expected = [out.logits for out in network.exits(image, active_maps=maps)]
        got = scores_of(plan, lambda: plan.execute(image, active_maps=maps))  # noqa: B023
        for scores, out in zip(got, expected, strict=True):
            assert_close(scores, out)


@pytest.mark.parametrize('architecture', ['coarse_s', 'coarse_l'])
def test_the_networks_that_people_run_agree(architecture: str) -> None:
    masks = Adaptivity(thresholds=(0.6,))
    network = random_network(0, adaptivity=masks, architecture=architecture)
    plan = CpuPlan(compile_network(network), threads=2)
    image = random_image(72, 88)  # odd sizes at 1/16 and 1/32
    with torch.inference_mode():
        expected = list(network.exits(image))
    maps = [out.next_active for out in expected[:-1]]
    got = scores_of(plan, lambda: plan.execute(image, active_maps=maps))
    for scores, out in zip(got, expected, strict=True):
        assert_close(scores, out.logits)


def calibrated_plans(case: str, instruction_set: str) -> tuple[AnytimeNetwork, list[CpuPlan]]:
    """Give a network with temperatures, its plan, and one whose temperatures are 1."""
    network = with_temperatures(case)
    programs = [compile_network(n) for n in (network, without_temperatures(network))]
    return network, [CpuPlan(p, threads=2, instruction_set=instruction_set) for p in programs]


@pytest.mark.parametrize('instruction_set', SETS)
@pytest.mark.parametrize('adaptive', [True, False], ids=['masks_on', 'masks_off'])
@pytest.mark.parametrize('case', CASES)
def test_confidence_has_the_temperature_of_the_exit_that_predicted(
    case: str, adaptive: bool, instruction_set: str
) -> None:
    network, plans = calibrated_plans(case, instruction_set)
    carried = 0
    for seed, size in enumerate([(150, 170), (50, 90), (3, 210)]):  # rows of several blocks
        carried += sum(calibrated_exits(network, *plans, picture(size, seed), adaptive=adaptive))
    assert (carried > 1000) == (adaptive and network.config.adaptivity is not None)


@pytest.mark.parametrize('instruction_set', SETS)
@pytest.mark.parametrize(
    'shares', [(0.8, 0.6, 0.37), (0.2, 0.05, 0.01), (1.0, 0.5, 0.0), (0, 0, 0), (1, 1, 1)]
)
def test_confidence_of_what_is_copied_keeps_its_temperature(
    shares: tuple[float, float, float], instruction_set: str
) -> None:
    network, plans = calibrated_plans('redesigned', instruction_set)
    for seed, size in enumerate([(150, 250), (31, 20)]):
        cells = tuple(-(-edge // 32) * 8 for edge in size)
        maps = nested_maps(cells, shares, seed)
        image = picture(size, seed)
        for plan in plans:
            list(plan.segment(image, active_maps=maps))  # so that there is something to overwrite
            plan.poison()
        calibrated_exits(network, *plans, image, active_maps=maps)


@pytest.mark.parametrize('adaptive', [True, False], ids=['masks_on', 'masks_off'])
@pytest.mark.parametrize('name', ['tiny_rh', 'tiny_rh_ent'])
def test_every_exit_equals_the_reference(name: str, adaptive: bool) -> None:
    assert name in FIXTURES
    numbers = reference(name)
    plan = CpuPlan(compile_network(build(name, float(numbers['thr'])).eval()))
    for i, image in enumerate(torch.from_numpy(numbers['input'])):
        got = scores_of(plan, lambda: plan.execute(image[None], adaptive))  # noqa: B023
        assert len(got) == 4
        for index, scores in enumerate(got, start=1):
            key = f'{"on" if adaptive else "off"}/out{index}'
            assert_close(scores[0], torch.from_numpy(numbers[key][i]))


def test_bfloat16_is_near_the_network() -> None:
    network = random_network(seed=1, **CASES['redesigned'])
    image = random_image(64, 96)
    with torch.inference_mode():
        own = list(network.exits(image))
    maps = [out.next_active for out in own[:-1]]
    results = []
    for instruction_set in SETS:
        plan = CpuPlan(compile_network(network), torch.bfloat16, 2, instruction_set)
        got = scores_of(plan, lambda: plan.execute(image, active_maps=maps))  # noqa: B023
        for scores, out in zip(got, own, strict=True):
            assert_close(scores, out.logits, 0.08)  # eight bits, many layers
        results.append(got[-1])
    for other in results[1:]:  # the same roundings, in sums of another order
        assert_close(other, results[0], 0.03)


# Trained weights, real frames


@pytest.fixture(scope='module', params=WEIGHTS, ids=lambda path: path.stem)
def trained(request: pytest.FixtureRequest) -> AnytimeNetwork:
    return checkpoint.load(request.param).network


def _with_threshold(network: AnytimeNetwork, threshold: float) -> AnytimeNetwork:
    """Mask more than the packaged threshold does, so that there is something to get wrong."""
    config = NetworkConfig(
        **{**vars(network.config), 'adaptivity': Adaptivity(thresholds=(threshold,))}
    )
    other = build_network(config).eval()
    other.load_state_dict(network.state_dict())
    return other


def test_real_frames_with_trained_weights_agree(trained: AnytimeNetwork) -> None:
    network = _with_threshold(trained, 0.9)
    program = compile_network(network)
    plan = CpuPlan(program)
    samples = CamVid(camvid('val'))
    adaptivity = network.config.adaptivity
    assert adaptivity is not None
    same_active = same_ids = positions = pixels = 0
    for index in range(0, 100, 20):
        image = samples[index].image
        x = to_input(image, network.config, torch.device('cpu'))
        with torch.inference_mode():
            expected = list(network.exits(x))
        maps = [out.next_active for out in expected[:-1]]
        got = scores_of(plan, lambda: plan.execute(x, active_maps=maps))  # noqa: B023
        for scores, out in zip(got, expected, strict=True):
            assert_close(scores, out.logits)
        shares = []
        before: ActiveMap | None = None
        for done in plan.segment(image):
            if done is None:
                continue
            out = expected[done.exit_index - 1]
            scale = scale_of(network, out.exit_index)
            rendered, _ = render(out.logits, image.shape[:2], scale)
            same_ids += (done.rendered.class_ids == rendered.class_ids).sum()
            pixels += rendered.class_ids.size
            if out.next_active is not None:
                active = active_positions(plan.logits(), adaptivity.criterion, 0.9)
                if before is not None:
                    active &= before.at(cells_of(out.logits))
                before = ActiveMap(active)
                expected_active = out.next_active.at(cells_of(out.logits))
                same_active += int((active == expected_active).sum())
                positions += active.numel()
                assert done.active_share == pytest.approx(active.float().mean().item(), abs=1e-3)
                shares.append(done.active_share)
        assert all(0.05 < share < 0.9 for share in shares), 'the threshold must mask something'
    assert same_active >= 0.9999 * positions
    assert same_ids >= 0.999 * pixels


def test_bfloat16_keeps_classes_and_accuracy_on_real_frames(trained: AnytimeNetwork) -> None:
    program = compile_network(trained)
    exact, near = CpuPlan(program), CpuPlan(program, torch.bfloat16)
    samples = CamVid(camvid('val'))
    confusions = [Confusion(trained.config.class_count) for _ in range(2)]
    same = pixels = 0.0
    for index in range(0, 101, 4):
        sample = samples[index]
        last = []
        for plan, confusion in zip((exact, near), confusions):
            done = [d for d in plan.segment(sample.image) if d is not None][-1]
            last.append(done.rendered.class_ids)
            confusion.add(sample.label, done.rendered.class_ids)
        same += (last[0] == last[1]).sum()
        pixels += last[0].size
    assert same >= 0.99 * pixels
    assert abs(confusions[0].mean_iou() - confusions[1].mean_iou()) <= 0.002


# Rewritings


def test_heads_work_at_the_resolution_of_their_branches() -> None:
    program = program_of('plain')
    lowered = lower(program)
    branches = [
        lowered.slots[op.input].level for op in lowered.ops if 'last' in _name(program, op)
    ]
    assert sorted(branches) == [2, 3, 4, 5], 'each branch has its own part of the convolution'
    assert all(len(slot.parts) == 1 for slot in lowered.slots), 'they are never joined'


def test_class_scores_are_made_before_they_are_upsampled() -> None:
    program = program_of('redesigned')
    lowered = lower(program)
    for exit_index in (1, 2, 3):
        *_, scores, upsampling = (op for op in lowered.ops if op.exit_index == exit_index)
        assert scores.kind == native.CONV and lowered.slots[scores.output].level == 3
        assert upsampling.kind == native.RESAMPLE and upsampling.output == native.SCORES


def _name(program: Program, op: object) -> str:
    return program.steps[op.step].name


# Preemption


def test_a_paused_and_interrupted_run_gives_the_same() -> None:
    plan = CpuPlan(program_of(), threads=2)
    image = picture((150, 170))
    expected = [d for d in plan.segment(image) if d is not None]
    stop = threading.Event()

    def interrupt() -> None:
        while not stop.is_set():
            plan.interrupt()

    thread = threading.Thread(target=interrupt)
    thread.start()
    pauses = 0
    try:
        for _ in range(10):
            done: list[ComputedExit] = []
            for computed in plan.segment(image):
                if computed is None:
                    pauses += 1
                else:
                    done.append(computed)
            for a, b in zip(done, expected, strict=True):
                np.testing.assert_array_equal(a.rendered.class_ids, b.rendered.class_ids)
                np.testing.assert_array_equal(a.rendered.confidence, b.rendered.confidence)
                assert a[2:] == b[2:]
    finally:
        stop.set()
        thread.join()
    assert pauses > 10


def test_a_dropped_run_leaves_nothing_behind() -> None:
    plan = CpuPlan(program_of(), threads=2)
    images = [picture((150, 170), 1), picture((70, 40), 2)]
    expected = [[d for d in plan.segment(image) if d is not None] for image in images]
    instants = random.Random(0)
    for turn in range(30):
        cut = plan.segment(images[turn % 2])
        for _ in range(instants.randrange(4)):
            plan.interrupt()
            next(cut, None)
        cut.close()
        other = (turn + 1) % 2
        done = [d for d in plan.segment(images[other]) if d is not None]
        for a, b in zip(done, expected[other], strict=True):
            np.testing.assert_array_equal(a.rendered.class_ids, b.rendered.class_ids)


def test_the_number_of_threads_changes_nothing() -> None:
    program = program_of()
    image = picture((150, 170))
    results = []
    for threads in (1, 2, 5):
        plan = CpuPlan(program, threads=threads)
        list(plan.segment(image))
        results.append(plan.logits())
        plan.close()
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


# Images and results


def test_an_image_is_read_in_whatever_order_it_lies() -> None:
    plan = CpuPlan(program_of())
    image = picture((50, 70))
    list(plan.segment(image))
    expected = plan.logits()
    wide = np.zeros((50, 100, 4), np.uint8)
    wide[:, 10:80, :3] = image
    flipped = np.ascontiguousarray(image[::-1])[::-1]
    bgr = np.ascontiguousarray(image[:, :, ::-1])[:, :, ::-1]
    planes = np.ascontiguousarray(image.transpose(2, 0, 1)).transpose(1, 2, 0)
    for view in (wide[:, 10:80, :3], flipped, bgr, planes):
        assert not view.flags.c_contiguous
        list(plan.segment(view))
        assert torch.equal(plan.logits(), expected)


@pytest.mark.parametrize('plan', [CpuPlan, TorchPlan])
@pytest.mark.parametrize('backwards', [False, True])
@pytest.mark.parametrize('axis', [0, 1, 2], ids=['rows', 'pixels', 'channels'])
def test_strides_beyond_32_bits_are_followed(
    axis: int, backwards: bool, plan: type, tmp_path: Path
) -> None:
    shape = [40, 36, 3]
    shape[axis] = 3
    image = picture((40, 36))[: shape[0], : shape[1]]
    apart = 2**31 + 4096  # bytes; of the file only what is written takes room
    memory = np.memmap(tmp_path / 'sparse', np.uint8, 'w+', shape=(3 * apart,))
    strides = [shape[1] * 3, 3, 1]
    strides[axis] = apart
    view = np.lib.stride_tricks.as_strided(memory, shape, strides)
    if backwards:
        view = view[::-1, ::-1, ::-1]
    view[:] = image
    made = plan(program_of())
    list(made.segment(image))
    expected = made.logits().clone()
    list(made.segment(view))
    assert torch.equal(made.logits(), expected)


@pytest.mark.parametrize('axis', [0, 1, 2], ids=['rows', 'pixels', 'channels'])
def test_a_broadcast_image_is_read_as_its_copy(axis: int) -> None:
    image = picture((40, 36))
    same = np.broadcast_to(np.take(image, [0], axis), image.shape).transpose(1, 0, 2)
    assert 0 in same.strides
    plan = CpuPlan(program_of())
    list(plan.segment(same.copy()))
    expected = plan.logits()
    list(plan.segment(same))
    assert torch.equal(plan.logits(), expected)


def test_results_that_are_held_are_not_overwritten() -> None:
    plan = CpuPlan(program_of())
    held = [d.rendered.class_ids[5:] for d in plan.segment(picture()) if d is not None]
    copies = [ids.copy() for ids in held]
    for seed in range(1, 6):
        list(plan.segment(picture(seed=seed)))
    for ids, copy in zip(held, copies):
        np.testing.assert_array_equal(ids, copy)


def test_results_that_are_given_back_are_used_again() -> None:
    plan = CpuPlan(program_of())
    addresses: set[int] = set()
    for _ in range(10):
        for done in plan.segment(picture()):
            if done is not None:
                addresses.add(done.rendered.class_ids.ctypes.data)
    assert len(addresses) <= 6


def test_what_computes_is_said() -> None:
    plan = CpuPlan(program_of(), torch.bfloat16, instruction_set=SETS[-1])
    assert plan.description == f'native bfloat16 kernels ({SETS[-1]})'


def test_errors_say_what_was_expected() -> None:
    plan = CpuPlan(program_of())
    with pytest.raises(RuntimeError, match='no exit was computed yet'):
        plan.logits()
    with pytest.raises(ValueError, match=r'expected an \(H, W, 3\) uint8 RGB image, got \(4, 4'):
        next(plan.segment(np.zeros((4, 4, 3), np.float32)))
    with pytest.raises(ValueError, match=r'multiples of 32, got \(1, 3, 32, 33\)'):
        next(plan.execute(torch.zeros(1, 3, 32, 33)))
    maps = nested_maps((8, 8), (0.2, 0.5, 0.1))
    with pytest.raises(ValueError, match='each within the one before'):
        next(plan.execute(torch.zeros(1, 3, 32, 32), active_maps=maps))
    with pytest.raises(ValueError, match='active maps need a network with adaptivity'):
        next(CpuPlan(program_of('without_masks')).execute(torch.zeros(1, 3, 32, 32), True, maps))
    with pytest.raises(ValueError, match=r'instruction set of this machine \(.*\), got sse9'):
        CpuPlan(program_of(), instruction_set='sse9')
    with pytest.raises(Unsupported, match=r'float16: expected float32 or bfloat16'):
        CpuPlan(program_of(), torch.float16)
    with pytest.raises(Unsupported, match='300 classes'):
        CpuPlan(compile_network(random_network(class_count=300)))
    first = plan.segment(picture())
    next(first)
    next(plan.segment(picture()))
    with pytest.raises(RuntimeError, match='the plan was given another image'):
        list(first)
    with pytest.raises(ValueError, match=r'at most 16384 pixels an edge, got \(16385, 1\)'):
        next(plan.segment(np.zeros((16385, 1, 3), np.uint8)))


def test_nothing_works_after_close_and_everything_says_so() -> None:
    plan = CpuPlan(program_of())
    running = plan.segment(picture())
    next(running)
    list(plan.segment(picture()))
    plan.close()
    plan.close()
    plan.interrupt()
    for use in (
        lambda: list(plan.segment(picture())),
        plan.logits,
        plan.poison,
        lambda: plan.description,
        lambda: plan.memory_bytes,
    ):
        with pytest.raises(RuntimeError, match='the plan is closed'):
            use()
    torch_plan = TorchPlan(program_of())
    torch_plan.close()
    with pytest.raises(RuntimeError, match='the plan is closed'):
        list(torch_plan.segment(picture()))


def test_a_plan_can_be_closed_while_others_use_it() -> None:
    for _ in range(20):
        plan = CpuPlan(program_of(), threads=2)
        ended: list[BaseException] = []

        def segment(plan: CpuPlan = plan, ended: list[BaseException] = ended) -> None:
            try:
                while True:
                    list(plan.segment(picture((100, 120))))
            except RuntimeError as error:
                ended.append(error)  # noqa: B023

        threads = [threading.Thread(target=segment) for _ in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(100):
            plan.interrupt()
        plan.close()
        plan.interrupt()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
        assert all(re.search('closed|another image', str(error)) for error in ended)


def test_a_forked_process_may_forget_its_plan() -> None:
    code = """
import os, sys, torch
sys.path.insert(0, 'test')
from test_cpu import CpuPlan, picture, program_of
plan = CpuPlan(program_of(), threads=2)
list(plan.segment(picture()))
child = os.fork()
plan.close()
if not child:
    os._exit(0)
sys.exit(os.waitpid(child, 0)[1])
"""
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, timeout=60)
    assert done.returncode == 0


def test_threads_that_cannot_be_had_are_an_error() -> None:
    code = """
import resource, sys
sys.path.insert(0, 'test')
from test_cpu import CpuPlan, program_of
program = program_of()
used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (200 << 20),) * 2)
try:
    CpuPlan(program, threads=500)
except ValueError as error:
    print('refused:', error)
"""
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, timeout=60, capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout.startswith('refused:'), done.stderr[-2000:]


def test_without_the_library_pytorch_computes_and_says_why() -> None:
    code = f"""
import logging, sys
logging.basicConfig(stream=sys.stdout)
import adpc_ros
adpc_ros.__path__ = [p for p in adpc_ros.__path__ if p.startswith({str(ROOT / 'adpc_ros')!r})]
sys.path.insert(0, 'test')
from networks import random_network
from adpc_ros.runtime.make_plan import make_plan
print(make_plan(random_network(0)).description)
"""
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, timeout=60, capture_output=True, text=True
    )
    assert 'PyTorch float32 on cpu' in done.stdout, done.stderr[-2000:]
    assert re.search(r'libadpc_cpu.so was not found in .*: colcon builds it', done.stdout)


def test_a_run_stops_at_its_time_and_for_an_interrupt_whenever_they_come() -> None:
    plan = CpuPlan(program_of(), threads=2)
    image = picture((300, 400))
    whole = [d for d in plan.segment(image) if d is not None]
    assert len(whole) == 4, 'without a time nothing but exits is yielded'
    plan.run_until(0.0)  # is over already: a piece of work at a time
    before, paused, exits = plan.progress, 0, []
    for done in plan.segment(image):
        assert plan.progress > before
        before = plan.progress
        paused += done is None
        exits += [] if done is None else [done]
    assert paused > 50
    for expected, done in zip(whole, exits, strict=True):
        np.testing.assert_array_equal(done.rendered.confidence, expected.rendered.confidence)

    plan.run_until(math.inf)
    plan.interrupt()
    assert next(plan.segment(image)) is None, 'it may have been for this very frame'
    for late in (lambda: plan.run_until(time.monotonic()), plan.interrupt):
        plan.run_until(math.inf)
        segmentation = plan.segment(picture((1600, 2400)))
        timer = threading.Thread(target=_after_some_work, args=(plan, plan.progress, late))
        timer.start()
        assert next(segmentation) is None, 'a call under way takes it'
        timer.join()


def _after_some_work(plan: CpuPlan, begun: int, act: Callable[[], None]) -> None:
    while plan.progress <= begun:
        time.sleep(0.0001)
    act()


def test_a_layer_takes_winograd_where_its_tiles_are_well_filled() -> None:
    plan = CpuPlan(compile_network(checkpoint.load(WEIGHTS[1]).network), threads=1)
    cells = 32 * 32
    for share, expected in ((1.0, 'winograd'), (0.05, '')):
        active = torch.arange(cells).remainder(cells) < share * cells
        maps = [ActiveMap(active[torch.randperm(cells)].reshape(1, 1, 32, 32))] * 3
        list(plan.segment(picture((128, 128)), True, maps))
        times = {t.name: t for t in plan.step_times()}
        assert times['layer1.0.conv2'].kernel == 'winograd', 'dense'
        assert times['stage4.0.branches.0.0.conv1'].kernel == expected
        assert times['conv2'].kernel == '', 'of stride 2'


def test_steps_have_names_shapes_times_and_shares() -> None:
    plan = CpuPlan(program_of())
    exits = [d for d in plan.segment(picture((50, 70))) if d is not None]
    times = plan.step_times()
    named = {t.name: t for t in times}
    steps = {step.name for step in plan._program.steps}  # noqa: SLF001
    assert set(named) - steps == {
        'input',
        *(f'exit{i}.{x}' for i in range(1, 5) for x in ('output', 'gate')),
    }
    assert named['conv1'].shape == (64, 32, 48) and named['conv1'].exit_index == 1
    assert named['last_layer.0'].active_share == pytest.approx(exits[2].active_share)
    assert all(t.seconds > 0 for t in times if not t.name.endswith('gate'))
    assert plan.memory_bytes > 10_000


def _resident_kib() -> int:
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith('VmRSS'):
            return int(line.split()[1])
    raise RuntimeError('no VmRSS')


@pytest.mark.timeout(600)
@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='no /proc')
def test_memory_stays_flat_over_ten_thousand_frames() -> None:
    config = CASES['redesigned'] | {'heads': Heads.REDESIGNED}
    plan = CpuPlan(compile_network(random_network(seed=0, **config)), threads=2)
    done = threading.Semaphore(0)
    engine = Engine(plan, on_result=lambda _: done.release())
    rng = np.random.default_rng(0)
    sizes = [(32 * h - dh, 32 * w - dw) for h, w, dh, dw in rng.integers(1, 4, (8, 4))]
    images = [picture(size, seed) for seed, size in enumerate(sizes)]
    resident = []
    try:
        for frame in range(10_000):
            # by and by darker, so that other shares are masked
            engine.submit(images[rng.integers(len(images))] >> (frame % 3))
            assert done.acquire(timeout=20)
            if frame % 1000 == 999:
                resident.append(_resident_kib())
                used = plan.memory_bytes
                if frame == 4999:
                    middle = used
    finally:
        engine.close()
    assert used == middle
    assert resident[-1] - resident[1] < 2048, f'KiB after each 1000 frames: {resident}'
