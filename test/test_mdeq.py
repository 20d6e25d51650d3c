# SPDX-License-Identifier: Apache-2.0
"""MDEQ: parity with the released code, its solver, its gradient, its cost, and how it learns."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import equilibrium_network, random_image
from samples import write_tree
from shared import CITYSCAPES_CLASS_WEIGHTS, ROOT, reference
from torch import Tensor, nn

from adpc_ros.__main__ import main
from adpc_ros.labels import CAMVID
from adpc_ros.learning.config import TrainConfig, read_config
from adpc_ros.learning.train import train
from adpc_ros.network import broyden, checkpoint, mdeq_layer, official
from adpc_ros.network.adaptivity import ActiveMap, Adaptivity
from adpc_ros.network.anytime import TrainingStep
from adpc_ros.network.broyden import Broyden
from adpc_ros.network.checkpoint import CheckpointError
from adpc_ros.network.exits import Heads
from adpc_ros.network.families import NetworkConfig, build_network
from adpc_ros.network.macs import (
    GI,
    count_iterates,
    count_shares,
)
from adpc_ros.network.mdeq import MDEQ
from adpc_ros.network.mdeq_layer import Problem
from adpc_ros.network.paper import SIZE
from adpc_ros.runtime.make_plan import make_plan

TOLERANCE = 1e-5  # of float32, relative to the largest value


def assert_close(got: Tensor, expected: np.ndarray, tolerance: float = TOLERANCE) -> None:
    error = np.abs(got.detach().numpy() - expected).max()
    assert error <= tolerance * np.abs(expected).max()


def problem_of(network: MDEQ, image: Tensor) -> Problem:
    return Problem(network.fullstage, network.stage0(network.downsample(image)))


# parity


@pytest.fixture(scope='module')
def numbers() -> dict[str, np.ndarray]:
    return reference('mdeq_tiny_io')


@pytest.fixture(scope='module')
def released() -> MDEQ:
    """Give a network with the reference's weights."""
    network = build_network(NetworkConfig('mdeq_tiny', class_count=7)).eval()
    state = {k: torch.from_numpy(v) for k, v in reference('mdeq_tiny_weights').items()}
    left = network.load_state_dict(state, strict=False)
    assert left.unexpected_keys == []
    assert all(name.endswith('num_batches_tracked') for name in left.missing_keys)
    assert isinstance(network, MDEQ)
    return network


def test_the_layer_and_its_parts_equal_the_reference(
    released: MDEQ, numbers: dict[str, np.ndarray]
) -> None:
    state = [torch.from_numpy(numbers[f'z_in_{i}']) for i in range(4)]
    layer = released.fullstage
    with torch.no_grad():
        injection = released.stage0(released.downsample(torch.from_numpy(numbers['image'])))
        fixed = layer.fixed(injection, [None] * 4)
        blocks = [layer.block(i)(z, own) for i, (z, own) in enumerate(zip(state, fixed))]
        after = layer(state, fixed)
        sent = layer.fuse_layers[0][3](blocks[3]), layer.fuse_layers[3][0](blocks[0])
    assert_close(injection, numbers['x0_injection'])
    for i in range(4):
        assert_close(blocks[i], numbers[f'f_block_{i}'])
        assert_close(after[i], numbers[f'f_out_{i}'])
    assert_close(sent[0], numbers['fuse_3_to_0'])
    assert_close(sent[1], numbers['fuse_0_to_3'])


def test_iterates_and_their_exits_equal_the_reference(
    released: MDEQ, numbers: dict[str, np.ndarray]
) -> None:
    image = torch.from_numpy(numbers['image'])
    with torch.no_grad():
        problem = problem_of(released, image)
        solver = problem.solver(4)
        residuals = [solver.residual]
        for iteration in range(1, 5):
            solver.step()
            residuals.append(solver.residual)
            scores = released.scores(problem.branches(solver.best))
            assert_close(scores, numbers[f'new_logits_best_it{iteration}'])
        first = next(released.exits(image))
    together = torch.stack(residuals).norm(dim=1)  # there of the whole batch
    np.testing.assert_allclose(together, numbers['new_residual_trace'], rtol=1e-4)
    assert_close(first.logits, numbers['new_logits_best_it4'])


def test_training_equals_the_reference(released: MDEQ, numbers: dict[str, np.ndarray]) -> None:
    image = torch.from_numpy(numbers['image'])
    unrolled = released(image, now=TrainingStep(0, (), unrolled=True))
    assert_close(unrolled[-1], numbers['unrolled3_logits'])
    released.sizes = replace(released.sizes, forward_iterations=6, backward_iterations=6)
    released.zero_grad()
    logits = released(image)[-1]
    assert_close(logits, numbers['train_logits_fthres6'])
    loss = (logits * torch.from_numpy(numbers['loss_weight_R'])).sum()
    assert loss.item() == pytest.approx(numbers['train_loss_fthres6'].item(), rel=1e-6)
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in released.named_parameters()}
    wanted = [key for key in numbers if key.startswith('grad/')]
    assert len(wanted) == 12
    for key in wanted:
        gradient = gradients[key.removeprefix('grad/')]
        assert gradient is not None
        assert_close(gradient, numbers[key])


# solver


def linear(seed: int, size: int = 6) -> tuple[Tensor, Tensor]:
    """Give A, whose powers vanish, and b, of three samples: x = A x + b."""
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(3, size, size, generator=generator, dtype=torch.float64)
    b = torch.randn(3, size, generator=generator, dtype=torch.float64)
    return 0.8 * a / torch.linalg.matrix_norm(a, 2)[:, None, None], b


def solve(a: Tensor, b: Tensor, iterations: int, tolerance: float = 1e-12) -> Broyden:
    def equations(x: Tensor) -> Tensor:
        return torch.einsum('bij,bj->bi', a, x) + b - x

    solver = Broyden(equations, torch.zeros_like(b), iterations, tolerance)
    for _ in range(iterations):
        solver.step()
    return solver


def test_broydens_method_solves_a_linear_system_in_twice_its_size() -> None:
    a, b = linear(0)
    exact = torch.linalg.solve(torch.eye(6, dtype=torch.float64) - a, b)
    solver = solve(a, b, 12)
    torch.testing.assert_close(solver.best, exact, rtol=1e-8, atol=1e-8)
    assert not torch.allclose(solve(a, b, 4).best, exact, rtol=1e-3)


def test_a_sample_is_solved_as_if_it_were_alone_and_stays_once_it_has_converged() -> None:
    a, b = linear(1)
    b[1] = 0  # is solved at the start
    together = solve(a, b, 40, 1e-9)
    assert together.done
    for i in range(3):
        alone = solve(a[i : i + 1], b[i : i + 1], 40, 1e-9)
        torch.testing.assert_close(together.best[i : i + 1], alone.best, rtol=1e-7, atol=1e-9)
    assert torch.equal(together.best[1], b[1])
    assert not solve(a, b, 3, 1e-9).done


def test_the_best_iterate_is_the_one_of_the_lowest_residual() -> None:
    wanted = iter([5.0, 3.0, 4.0, 3.5, 2.0])
    at: list[Tensor] = []

    def equations(x: Tensor) -> Tensor:
        at.append(x)
        return torch.full((1, 1), next(wanted), dtype=torch.float64)

    solver = Broyden(equations, torch.zeros(1, 1, dtype=torch.float64), 4)
    for lowest in (1, 1, 1, 4):
        solver.step()
        assert torch.equal(solver.best, at[lowest])


@pytest.mark.parametrize('value', [torch.nan, torch.inf])
def test_a_residual_that_is_not_finite_leaves_no_answer_of_that_sample(value: float) -> None:
    evaluations = itertools.count()

    def equations(x: Tensor) -> Tensor:
        wrong = torch.tensor([[value], [0.0]]) if next(evaluations) == 2 else torch.zeros(2, 1)
        return torch.ones(2, 3) - x + wrong

    solver = Broyden(equations, torch.zeros(2, 3), 4)
    solver.step()
    assert solver.best.isfinite().all()
    for _ in range(3):
        solver.step()
        assert solver.best[0].isnan().all() and solver.best[1].isfinite().all()


def test_the_implicit_gradient_is_that_of_all_evaluations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mdeq_layer, '_TOLERANCE', 1e-13)
    monkeypatch.setattr(broyden, '_GRADIENT_TOLERANCE', 1e-13)
    network = equilibrium_network(0, gain=0.05).double()
    network.sizes = replace(network.sizes, forward_iterations=80, backward_iterations=80)
    image = random_image(32, 64).double().repeat(2, 1, 1, 1)
    image[1] *= 0.5
    weight = torch.randn(2, 11, 8, 16, dtype=torch.float64)

    def gradients(logits: Tensor) -> list[Tensor]:
        network.zero_grad()
        (logits * weight).sum().backward()
        return [parameter.grad.clone() for parameter in network.parameters()]

    implicit = gradients(network(image)[-1])
    problem = problem_of(network, image)
    state = problem.start
    for _ in range(100):
        before, state = state, problem.f(state)
    assert (state - before).abs().max() < 1e-9, 'it has converged'
    explicit = gradients(network.scores(problem.branches(state)))
    for (name, _), got, expected in zip(network.named_parameters(), implicit, explicit):
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-7, msg=name)
    once = problem_of(network, image).f(state.detach())
    one_evaluation = gradients(network.scores(problem.branches(once)))
    name = [name for name, _ in network.named_parameters()].index('stage0.0.weight')
    assert not torch.allclose(one_evaluation[name], explicit[name], rtol=1e-2)


# exits and what they cost


def test_exits_decode_the_iterates_of_one_run() -> None:
    network = equilibrium_network(1)
    image = random_image(64, 96)
    steps = list(network.steps(image))
    exits = [done for done in steps if done is not None]
    assert [out.exit_index for out in exits] == [1, 2, 3, 4]
    assert steps.count(None) == 2 + 10, 'stem, first evaluation, iterations'
    assert steps.index(exits[0]) == 6 and steps.index(exits[1]) == 9
    with torch.no_grad():
        problem = problem_of(network, image)
        solver = problem.solver(10)
        for iteration in range(1, 11):
            solver.step()
            if iteration in (4, 6, 8, 10):
                expected = network.scores(problem.branches(solver.best))
                torch.testing.assert_close(exits[iteration // 2 - 2].logits, expected)
    assert not torch.allclose(exits[0].logits, exits[3].logits, atol=1e-3)
    last = build_network(NetworkConfig('mdeq_tiny', Heads.NONE, 11)).eval()
    last.load_state_dict(network.state_dict())
    (only,) = last.exits(image)
    torch.testing.assert_close(only.logits, exits[3].logits)


@pytest.mark.parametrize('name', ['mdeq_small', 'mdeq_xl'])
def test_a_run_to_each_exit_is_counted_and_one_run_has_the_heads_before(name: str) -> None:
    config = NetworkConfig(name)
    once = {
        'mdeq_small': (276.3, 374.4, 472.5, 570.7),
        'mdeq_xl': (2422, 3300, 4179, 5057),
    }
    counts = [n / GI for n in count_iterates(config, SIZE)]
    assert counts == pytest.approx(once[name], rel=1e-3)
    one_run = [n / GI for n in count_shares(config, SIZE)]
    head = {'mdeq_small': 29.238, 'mdeq_xl': 215.757}[name]
    expected = [alone + i * head for i, alone in enumerate(counts)]
    assert one_run == pytest.approx(expected, rel=1e-4)
    last_alone = count_shares(replace(config, heads=Heads.NONE), SIZE)
    assert [n / GI for n in last_alone] == pytest.approx(counts[3:])


def test_a_plan_runs_it_and_can_be_preempted_between_iterations() -> None:
    network = equilibrium_network(0)
    plan = make_plan(network)
    picture = (40 * random_image(50, 90)[0] + 120).clamp(0, 255).byte().permute(1, 2, 0).numpy()
    done = list(plan.segment(picture))
    exits = [out for out in done if out is not None]
    assert [out.exit_index for out in exits] == [1, 2, 3, 4]
    assert [out.macs for out in exits] == count_shares(network.config, (64, 96))
    assert all(out.active_share == 1 for out in exits)
    for before, after in itertools.pairwise([-1, *(done.index(out) for out in exits)]):
        assert done[before + 1 : after].count(None) >= 2, 'at least its iterations'
    assert len({out.rendered.class_ids.tobytes() for out in exits}) > 1
    for advances in (3, 5, 9):  # and dropped
        segmentation = plan.segment(picture)
        for _ in range(advances):
            next(segmentation)
        segmentation.close()
    again = [out for out in plan.segment(picture) if out is not None]
    for out, other in zip(exits, again):
        np.testing.assert_array_equal(out.rendered.class_ids, other.rendered.class_ids)


def test_numbers_that_overflow_give_no_mask() -> None:
    network = equilibrium_network(0)
    network.fullstage.post_fuse_layers[0]['gnorm'].weight.data[:] = 3e38
    plan = make_plan(network)
    with pytest.raises(ValueError, match='exit 1: expected finite class scores'):
        list(plan.segment(np.zeros((64, 64, 3), np.uint8)))


def test_what_it_cannot_do_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match='no adaptivity: every exit of mdeq_tiny computes all'):
        NetworkConfig('mdeq_tiny', adaptivity=Adaptivity())
    with pytest.raises(ValueError, match='expected heads plain or none, got redesigned'):
        NetworkConfig('mdeq_tiny', Heads.REDESIGNED)
    network = equilibrium_network(0)
    for call in (network, lambda x: list(network.exits(x))):
        with pytest.raises(ValueError, match='multiples of 32, got 64x80'):
            call(torch.zeros(1, 3, 64, 80))
        with pytest.raises(ValueError, match=r'expected a \(B, 3, H, W\) image'):
            call(torch.zeros(3, 64, 64))
    with pytest.raises(ValueError, match='last is above 0: the earlier exits of mdeq_tiny train'):
        recipe(Path('a'), Path('b'), exit_weights=(1, 1, 1, 0))
    command = ['convert', 'a.pth', 'b.safetensors', '--network', 'mdeq_tiny', '--threshold', '.9']
    assert main(command) == 2
    assert 'and not mdeq_tiny, which has none' in capsys.readouterr().err
    maps = [ActiveMap(torch.ones(1, 1, 16, 16, dtype=torch.bool))] * 3
    with pytest.raises(ValueError, match='mdeq_tiny masks nothing'):
        next(network.steps(torch.zeros(1, 3, 64, 64), True, maps))


# files


def copies_of_f(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give what released files hold beside f itself."""
    own = {k.removeprefix('fullstage.'): v for k, v in state.items() if k.startswith('fullstage.')}
    places = ('fullstage_copy', 'deq.func', 'deq.func_copy')
    return {f'{place}.{name}': value for place in places for name, value in own.items()}


def test_weights_come_back_from_a_file_and_from_a_released_one(tmp_path: Path) -> None:
    network = equilibrium_network(2)
    image = random_image(64, 64)
    expected = [out.logits for out in network.exits(image)]
    checkpoint.save(tmp_path / 'own.safetensors', network, CAMVID, {})
    own = checkpoint.load(tmp_path / 'own.safetensors').network
    state = network.state_dict()
    torch.save(copies_of_f(state) | state, tmp_path / 'released.pth')
    main(
        [
            *('convert', str(tmp_path / 'released.pth'), str(tmp_path / 'new.safetensors')),
            *('--network', 'mdeq_tiny', '--classes', 'camvid'),
        ]
    )
    converted = checkpoint.load(tmp_path / 'new.safetensors').network
    for loaded in (own, converted):
        for out, logits in zip(loaded.exits(image), expected):
            torch.testing.assert_close(out.logits, logits, rtol=0, atol=0)
    fresh = build_network(network.config)
    imagenet = {k: v for k, v in state.items() if not k.startswith('last_layer')}
    filled = official.fill(fresh, copies_of_f(state) | imagenet, 'a file', backbone_only=True)
    assert filled.fresh == ['last_layer.*'] and filled.left_out == []
    assert all(torch.equal(fresh.state_dict()[name], value) for name, value in imagenet.items())
    with pytest.raises(CheckpointError, match='missing'):
        tensors = {k: v for k, v in state.items() if 'weight_g' not in k}
        official.fill(build_network(network.config), tensors, 'a file')


# training


@pytest.fixture(scope='module')
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp('camvid'))


def recipe(tree: Path, output: Path, **changes: Any) -> TrainConfig:
    values: dict[str, Any] = {
        'network': {'architecture': 'mdeq_tiny'},
        'data': f'camvid:{tree / "train"}',
        'validation': f'camvid:{tree / "val"}',
        'output': str(output),
        'epochs': 2,
        'batch_size': 2,
        'crop': (64, 64),
        'learning_rate': 0.01,
        'unrolled_steps': 2,
        'evaluate_every': 2,
    }
    return TrainConfig(**(values | changes))


def training_network() -> MDEQ:
    network = equilibrium_network(3).train()
    assert isinstance(network, MDEQ)
    return network


def test_early_exits_train_the_head_alone_and_leave_its_statistics() -> None:
    network, image = training_network(), random_image(64, 64).repeat(2, 1, 1, 1)
    norm = network.last_layer[1]
    logits = network(image, now=TrainingStep(0, (1, 2)))
    assert norm.num_batches_tracked == 1
    sum(scores.square().mean() for scores in logits[:3]).backward()
    for name, parameter in network.named_parameters():
        trained = parameter.grad is not None and bool(parameter.grad.any())
        assert trained == name.startswith('last_layer'), name
    unrolled = network(image, now=TrainingStep(0, (1, 2), unrolled=True))
    assert [scores.requires_grad for scores in unrolled] == [False] * 3 + [True]


def test_dropout_depends_on_an_images_seed_alone() -> None:
    network, image = training_network().double(), random_image(64, 64).double()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    two = network(image.repeat(2, 1, 1, 1), now=TrainingStep(0, (7, 8)))[-1]
    torch.testing.assert_close(two[:1], network(image, now=TrainingStep(5, (7,)))[-1])
    torch.testing.assert_close(two[1:], network(image, now=TrainingStep(5, (8,)))[-1])
    assert not torch.allclose(two[0], two[1], rtol=1e-2)
    assert not torch.allclose(two[0], network(image)[-1][0], rtol=1e-2)


def test_autocast_leaves_the_solver_in_float32() -> None:
    network, image = training_network().eval(), random_image(64, 64)
    expected = network(image)[-1]
    seen = []
    for conv in (network.downsample[0], network.fullstage.block(0).conv1, network.last_layer[0]):
        conv.register_forward_hook(lambda *given: seen.append(given[2].dtype))
    with torch.autocast('cpu', torch.bfloat16):
        logits = network(image)[-1]
    assert seen[0] == seen[-1] == torch.bfloat16
    assert set(seen[1:-4]) == {torch.float32}
    logits.float().sum().backward()
    assert (logits.float() - expected).abs().max() < 0.1 * expected.abs().max()


def test_training_resumes_to_the_same_bits_across_the_end_of_unrolling(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(recipe(tree, tmp_path / 'straight'))
    config = recipe(tree, tmp_path / 'resumed', save_every=1)
    forward, calls = MDEQ.forward, itertools.count()

    def interrupted(*given: Any) -> list[Tensor]:
        if next(calls) == 1:
            raise KeyboardInterrupt
        return forward(*given)

    with monkeypatch.context() as patch:
        patch.setattr(MDEQ, 'forward', interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    train(config)
    one, other = (
        torch.load(tmp_path / name / 'last.pt', weights_only=True)['network']
        for name in ('straight', 'resumed')
    )
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize('name', ['small', 'xl'])
def test_the_papers_recipe(name: str) -> None:
    config = read_config(ROOT / 'config' / 'train' / f'cityscapes_mdeq_{name}.yaml')
    decay, crop, batch = {
        'small': (2e-4, (512, 1024), 12),
        'xl': (3e-4, (768, 1024), 16),
    }[name]
    assert (config.optimizer, config.learning_rate, config.weight_decay) == ('sgd', 0.01, decay)
    assert (config.epochs, config.batch_size, config.crop) == (500, batch, crop)
    assert config.class_weights == CITYSCAPES_CLASS_WEIGHTS
    assert config.exit_weights == (0, 0, 0, 1), 'as released: the equilibrium alone'
    assert config.network == {'architecture': f'mdeq_{name}'} and config.unrolled_steps > 0
