# SPDX-License-Identifier: Apache-2.0
"""What a recipe may add: a teacher, extra images, averaged weights, rates, ImageNet weights."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import random_network
from PIL import Image
from samples import blocks, taught, write_sample, write_tree
from torch import Tensor
from torch.nn import functional

from adpc_ros.labels import CAMVID, IGNORE_ID
from adpc_ros.learning import segmentation
from adpc_ros.learning import train as training
from adpc_ros.learning.averaging import WeightAverage
from adpc_ros.learning.batches import Draws, draw_batches, normalised
from adpc_ros.learning.config import TrainConfig
from adpc_ros.learning.datasets import open_samples
from adpc_ros.learning.distributed import Processes
from adpc_ros.learning.losses import distillation_losses, exit_losses, taught_positions
from adpc_ros.learning.preparation import build_network, build_optimizer, build_schedule
from adpc_ros.learning.sample import Sample
from adpc_ros.learning.segmentation import SegmentationDraws, Sources
from adpc_ros.learning.soft_labels import agreement
from adpc_ros.learning.transforms import augment, paste, relight
from adpc_ros.network import checkpoint, official
from adpc_ros.network.checkpoint import CheckpointError

ALONE = Processes(0, 1, torch.device('cpu'))


@pytest.fixture(scope='module')
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write CamVid's layout with a teacher; in ``extra`` it is wrong about the last image."""
    root = write_tree(tmp_path_factory.mktemp('taught'))
    for seed in range(6):
        write_sample(root / 'train', f'0001TP_{seed:06}', *taught(seed))
    for seed in range(3):
        image, label, soft = taught(50 + seed)
        assert soft is not None
        write_sample(root / 'extra', f'{seed:04}', image, label, soft if seed < 2 else soft[::-1])
    return root


def described(root: Path, part: str, *choices: str) -> str:
    return f'camvid:{root / part}?' + '&'.join((f'soft={root / part / "soft"}', *choices))


def recipe(tree: Path, output: Path, **changes: Any) -> TrainConfig:
    values: dict[str, Any] = {
        'network': {'architecture': 'coarse_tiny', 'adaptivity': {'thresholds': [0.9]}},
        'data': described(tree, 'train'),
        'validation': f'camvid:{tree / "val"}',
        'output': str(output),
        'epochs': 2,
        'batch_size': 2,
        'crop': (40, 56),
        'learning_rate': 0.01,
        'evaluate_every': 1,
    }
    return TrainConfig(**(values | changes))


def steps(draws: Draws) -> list[list[Any]]:
    return list(draw_batches(draws, ALONE))


# soft labels


def gradient(height: int, width: int) -> Sample:
    """Give a sample whose two soft labels are the brightness of its image, and the rest."""
    x = np.add.outer(np.arange(height) * 2, np.arange(width)).astype(np.float32)
    image = np.repeat(x[..., None].astype(np.uint8), 3, 2)
    cells = x.reshape(height // 4, 4, width // 4, 4).mean((1, 3)).round().astype(np.uint8)
    return Sample(image, np.zeros((height, width), np.uint8), np.stack([cells, 255 - cells]))


@pytest.mark.parametrize('scales', [(1.0, 1.0), (0.4, 0.9), (1.1, 2.0)])
def test_soft_labels_stay_aligned_with_the_image(scales: tuple[float, float]) -> None:
    sample, padded = gradient(64, 96), 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        image, label, soft = augment(sample, (40, 56), scales, 0.0, rng)
        assert soft is not None and soft.shape == (2, 10, 14)
        known = soft.sum(0) > 0
        inside = (label != IGNORE_ID).reshape(10, 4, 14, 4).mean((1, 3))
        assert (known == (inside == 1)).all()  # whole positions alone
        shown = image[..., 0].astype(float).reshape(10, 4, 14, 4).mean((1, 3))
        assert np.abs(shown - soft[0])[known].max() < 3
        assert np.abs(shown - soft[0])[known].mean() < 1.5  # a pixel beside it would be 2
        padded += not known.all()
    assert (padded > 0) == (scales[0] < 0.6)


def test_soft_labels_are_read_and_may_choose_images(tree: Path) -> None:
    samples = open_samples(described(tree, 'extra'))
    sample = samples[0]
    assert sample.soft is not None and sample.soft.shape == (11, 16, 24)
    assert (sample.soft.argmax(0) == sample.label[2::4, 2::4])[:-1].all()
    assert agreement(sample) == 1 and agreement(samples[2]) < 0.5
    assert agreement(sample._replace(label=np.full((64, 96), 255, np.uint8))) == 1
    chosen = open_samples(described(tree, 'extra', 'agree=0.7'))
    assert [image.stem for image, _ in chosen.pairs] == ['0000', '0001']
    digests = {samples.digest(), chosen.digest(), open_samples(f'camvid:{tree}/extra').digest()}
    assert len(digests) == 3


def test_wrong_soft_labels_are_named(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'soft label missing: expected .*/0001TP_000000\.png'):
        open_samples(f'camvid:{tree}/train?soft={tree}/extra/soft')
    with pytest.raises(ValueError, match=r'agree=0\.7: expected soft=FOLDER before it'):
        open_samples(f'camvid:{tree}/train?agree=0.7')
    with pytest.raises(ValueError, match="expected a number in 'agree=much'"):
        open_samples(described(tree, 'train', 'agree=much'))
    write_sample(tmp_path, 'a', *blocks(0))
    (tmp_path / 'soft').mkdir()
    Image.fromarray(np.zeros((5 * 16, 24), np.uint8)).save(tmp_path / 'soft' / 'a.png')
    wrong = (
        r'a\.png: expected \(176, 24\) for 11 classes of an image of \(64, 96\), got \(80, 24\)'
    )
    with pytest.raises(ValueError, match=wrong):
        open_samples(f'camvid:{tmp_path}?soft={tmp_path}/soft')[0]


# the teacher's loss


def test_the_teachers_loss_is_the_divergence_where_it_says_anything() -> None:
    torch.manual_seed(0)
    p = torch.tensor([0.2, 0.8])
    soft = torch.zeros(1, 2, 4, 4, dtype=torch.uint8)
    soft[0, :, :2] = torch.tensor([51, 204], dtype=torch.uint8).view(2, 1, 1)
    logits = torch.randn(1, 2, 4, 4, requires_grad=True)
    (loss,) = distillation_losses([logits], soft)
    q = logits.detach()[0, :, :2].softmax(0)
    expected = (p.view(2, 1, 1) * (p.view(2, 1, 1) / q).log()).sum() / 8
    torch.testing.assert_close(loss.detach(), expected)
    torch.autograd.backward(loss)
    assert logits.grad is not None and not logits.grad[:, :, 2:].any()
    assert taught_positions(soft) == 8
    same = torch.log(p).view(1, 2, 1, 1).expand(1, 2, 2, 2)
    assert distillation_losses([same], soft[:, :, :2])[0] == pytest.approx(0, abs=1e-6)
    assert distillation_losses([logits], torch.zeros_like(soft))[0] == 0


def test_parts_of_the_teachers_loss_add_up() -> None:
    torch.manual_seed(1)
    logits = torch.randn(4, 3, 2, 2)
    soft = torch.randint(0, 256, (4, 3, 4, 4), dtype=torch.uint8)
    soft[0, :, 1:] = 0
    total = taught_positions(soft)
    halves = [distillation_losses([logits[i]], soft[i], total)[0] for i in (slice(2), slice(2, 4))]
    torch.testing.assert_close(sum(halves), distillation_losses([logits], soft)[0])


def test_the_teachers_weight_falls_linearly(tree: Path) -> None:
    config = recipe(tree, tree, epochs=5, distill_weight=1.0, distill_weight_end=0.2)
    assert [config.distill_weight_in(e) for e in range(5)] == pytest.approx(
        [1, 0.8, 0.6, 0.4, 0.2]
    )
    assert recipe(tree, tree, distill_weight=2.0).distill_weight_in(1) == 2.0
    assert not recipe(tree, tree).distils


def test_the_teacher_counts_in_the_step(tree: Path, tmp_path: Path) -> None:
    run = training.Training(recipe(tree, tmp_path, distill_weight=0.5), None, ALONE)
    (part,) = steps(SegmentationDraws(run.task.sources, run.config, 0))[0]
    network = build_network(run.config, 11, fresh=True).train()
    image, label = normalised(part.image, network.config, ALONE.device), part.label.long()
    logits = network(image)
    hard = exit_losses(logits, label, run.task.class_weights)
    expected = [h + 0.5 * s for h, s in zip(hard, distillation_losses(logits, part.soft))]
    run.network.train()
    found = run._optimize([part], adaptive=True)
    torch.testing.assert_close(found, torch.stack(expected).detach())


def test_a_teacher_is_needed_and_otherwise_not_read(tree: Path, tmp_path: Path) -> None:
    plain = f'camvid:{tree / "train"}'
    with pytest.raises(ValueError, match='distill_weight is set: expected soft= in data or extra'):
        training.Training(recipe(tree, tmp_path, data=plain, distill_weight=1.0), None, ALONE)
    samples, without = open_samples(described(tree, 'train')), open_samples(plain)
    config = recipe(tree, tmp_path)
    for (one,), (other,) in zip(
        steps(SegmentationDraws(Sources(samples), config, 0)),
        steps(SegmentationDraws(Sources(without), config, 0)),
    ):
        assert one.soft is None and torch.equal(one.image, other.image)
    mixed = Sources(without, classes=11)
    ((part,), *_) = steps(SegmentationDraws(mixed, replace(config, distill_weight=1.0), 0))
    assert part.soft.shape == (2, 11, 10, 14) and not part.soft.any()


# what is drawn


def test_extra_images_are_drawn_by_their_share_until_an_epoch(tree: Path) -> None:
    data = [Sample(np.full((64, 96, 3), 1, np.uint8), np.full((64, 96), 2, np.uint8))] * 40
    extra = [Sample(np.full((64, 96, 3), 7, np.uint8), np.full((64, 96), 2, np.uint8))] * 3
    grey = [Sample(np.full((64, 96, 3), 9, np.uint8), np.full((64, 96), 2, np.uint8))] * 3
    changes = {'extra': 'x', 'extra_share': 0.5, 'extra_until': 2, 'colour': 0.0, 'scales': (1, 1)}
    config = recipe(tree, tree, synthetic_share=0.2, **changes)
    counts = []
    for epoch in range(3):
        batches = steps(SegmentationDraws(Sources(data, grey, extra), config, epoch))
        seen = torch.cat([part.image[:, 0, 0, 0] for step in batches for part in step])
        counts.append([int((seen == value).sum()) for value in (1, 7, 9)])
    assert all(sum(count) == 40 for count in counts)
    assert 12 <= counts[0][1] <= 28 and 12 <= counts[1][1] <= 28 and counts[2][1] == 0
    assert 2 <= counts[0][2] <= 16 and counts[2][0] > 24


def test_extra_images_count_in_the_digest(tree: Path, tmp_path: Path) -> None:
    found = []
    for extra in ({}, {'extra': described(tree, 'extra'), 'extra_share': 0.5}):
        run = training.Training(recipe(tree, tmp_path, **extra), None, ALONE)
        found.append(training.json.loads(run.recipe)['data_digest'])
    assert found[1].startswith(f'{found[0]}+')


def test_rare_classes_are_pasted_with_their_labels() -> None:
    sample, other = taught(0), taught(1)
    rng = np.random.default_rng(0)
    results = [paste(sample, other, (8, 5), rng) for _ in range(10)]
    pasted = [result for result in results if result is not sample]
    assert 0 < len(pasted) < 10
    car = other.label == 8
    image, label, soft = pasted[0]
    assert (image[car] == other.image[car]).all() and (label[car] == 8).all()
    assert (image[~car] == sample.image[~car]).all() and (label[~car] == sample.label[~car]).all()
    assert soft is not None and sample.soft is not None
    cells = car.reshape(16, 4, 24, 4).mean((1, 3)) >= 0.5
    assert (soft[8][cells] == 255).all() and (soft[:, ~cells] == sample.soft[:, ~cells]).all()
    assert paste(sample, other, (5,), rng) is sample  # there is none


def test_what_is_rare_has_a_weight_above_one(tree: Path, tmp_path: Path) -> None:
    weights = tuple(1.0 + 0.1 * (i in (2, 8)) for i in range(11))
    config = recipe(tree, tmp_path, class_weights=weights, class_mix=1.0, scales=(1, 1))
    run = training.Training(config, None, ALONE)
    assert run.task.sources.rare == [2, 8]
    plain = SegmentationDraws(run.task.sources, replace(config, class_mix=0.0), 0)
    more = [(SegmentationDraws(run.task.sources, config, 0)[i].label == 8).sum() for i in range(6)]
    assert sum(more) > sum((plain[i].label == 8).sum() for i in range(6))
    for i in range(6):  # what is not pasted stays
        mixed = SegmentationDraws(run.task.sources, config, 0)[i]
        own = ~np.isin(mixed.label, run.task.sources.rare)
        assert own.mean() > 0.1
        np.testing.assert_array_equal(mixed.image[own], plain[i].image[own])


def test_light_changes_with_gamma_alone() -> None:
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    assert relight(image, 0.0, np.random.default_rng(0)) is image
    means = []
    for seed in range(40):
        lit = relight(image, 0.8, np.random.default_rng(seed)).astype(int)
        assert (np.diff(lit[..., 0].ravel()) >= 0).all()  # a tone curve
        means.append(lit.mean())
    assert min(means) < 60 and max(means) > 150
    dark = np.mean(
        [relight(image, 0.8, np.random.default_rng(s))[-1, -1, 0] < 255 for s in range(40)]
    )
    assert 0.2 < dark < 0.8


# weights


def test_the_average_follows_the_weights() -> None:
    network = random_network(0, architecture='coarse_tiny')
    average = WeightAverage(network, 0.9)
    before = network.stem[0].weight.detach().clone()
    with torch.no_grad():
        network.stem[0].weight += 1
        network.stem[1].running_mean += 1
    average.update(network, steps=0)  # a share of 0.9 is taken at first: 1 - 1 / 10
    torch.testing.assert_close(average.network.stem[0].weight, before + 0.9)
    average.update(network, steps=1000)
    torch.testing.assert_close(average.network.stem[0].weight, before + 0.91)
    assert not any(p.requires_grad for p in average.network.parameters())


@pytest.mark.parametrize('norm_batches', [0, 2])
def test_averaged_weights_are_judged_saved_and_resumed(
    tree: Path, tmp_path: Path, norm_batches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, Any] = {
        'ema': 0.9,
        'distill_weight': 1.0,
        'distill_weight_end': 0.5,
        'extra': described(tree, 'extra'),
        'extra_share': 0.3,
        'class_mix': 0.5,
        'gamma': 0.5,
        'trunk_rate': 0.5,
        'warmup_steps': 3,
        'weight_decay_norms': False,
        'norm_batches': norm_batches,
    }
    training.train(recipe(tree, tmp_path / 'straight', **changes))
    config = recipe(tree, tmp_path / 'resumed', save_every=1, **changes)

    def interrupted(left: list[int], *arguments: Any) -> list[Tensor]:
        left.pop()
        return exit_losses(*arguments)

    for steps_done in (2, 2):
        with monkeypatch.context() as patch:
            patch.setattr(segmentation, 'exit_losses', partial(interrupted, [0] * steps_done))
            with pytest.raises(IndexError):
                training.train(config)
    training.train(config)
    one, other = (
        torch.load(tmp_path / name / 'last.pt', weights_only=True)
        for name in ('straight', 'resumed')
    )
    for part in ('network', 'average'):
        for name, value in one[part].items():
            assert torch.equal(other[part][name], value), (part, name)
    assert one['schedule'] == other['schedule'] and one['best'] == other['best']
    saved = checkpoint.load(tmp_path / 'straight' / 'last.safetensors').network.state_dict()
    counters = 'num_batches_tracked'  # are not saved
    assert all(torch.equal(one['average'][k], saved[k]) for k in saved if counters not in k)
    assert not torch.equal(one['network']['stem.0.weight'], one['average']['stem.0.weight'])


def test_rates_and_decay_by_group(tree: Path) -> None:
    network = random_network(0, architecture='coarse_tiny')
    config = recipe(tree, tree, trunk_rate=0.1, weight_decay=0.2, weight_decay_norms=False)
    optimizer = build_optimizer(config, network)
    found = {
        id(p): (group['lr'], group['weight_decay'])
        for group in optimizer.param_groups
        for p in group['params']
    }
    for name, parameter in network.named_parameters():
        trunk = name.startswith(('stem', 'trunk'))
        rate, decay = found[id(parameter)]
        assert rate == pytest.approx(0.001 if trunk else 0.01), name
        assert decay == (0.2 if parameter.dim() == 4 else 0), name
    assert len(build_optimizer(recipe(tree, tree), network).param_groups) == 1


def test_a_warm_up_leads_to_the_usual_course(tree: Path) -> None:
    rates = []
    for warmup in (0, 4):
        config = recipe(tree, tree, warmup_steps=warmup)
        optimizer = build_optimizer(config, random_network(0, architecture='coarse_tiny'))
        schedule = build_schedule(config, optimizer, 10)
        rates.append([])
        for _ in range(10):
            rates[-1].append(schedule.get_last_lr()[0])
            optimizer.step()
            schedule.step()
    usual = np.array(rates[0])
    np.testing.assert_allclose(rates[1], usual * np.minimum(1, np.arange(1, 11) / 4), rtol=1e-6)
    assert schedule.get_last_lr() == [0]


# ImageNet weights of the coarse-to-fine family


def lite0(blocks: tuple[int, ...] = (1, 2, 2, 3, 3, 4, 1)) -> dict[str, Tensor]:
    """Make up a file for coarse_tiny, with as many blocks in a stage as released ones have."""
    torch.manual_seed(5)
    tensors: dict[str, Tensor] = {}

    def norm(name: str, channels: int) -> None:
        tensors[f'{name}.weight'] = torch.rand(channels)
        tensors[f'{name}.bias'] = torch.randn(channels)
        tensors[f'{name}.running_mean'] = torch.randn(channels)
        tensors[f'{name}.running_var'] = 1e-3 * torch.rand(channels)
        tensors[f'{name}.num_batches_tracked'] = torch.tensor(7)

    tensors['_conv_stem.weight'] = torch.randn(8, 3, 3, 3)
    norm('_bn0', 8)
    before, index = 8, 0
    stages = [(8, 3, 1), (12, 3, 2), (12, 5, 2), (20, 3, 2), *[(24, 3, 2)] * 3]
    for (channels, kernel, expansion), count in zip(stages, blocks):
        for _ in range(count):
            name, inner = f'_blocks.{index}', before * expansion
            if expansion > 1:
                tensors[f'{name}._expand_conv.weight'] = torch.randn(inner, before, 1, 1)
                norm(f'{name}._bn0', inner)
            tensors[f'{name}._depthwise_conv.weight'] = torch.randn(inner, 1, kernel, kernel)
            norm(f'{name}._bn1', inner)
            tensors[f'{name}._project_conv.weight'] = torch.randn(channels, inner, 1, 1)
            norm(f'{name}._bn2', channels)
            before, index = channels, index + 1
    tensors['_conv_head.weight'] = torch.randn(30, before, 1, 1)
    norm('_bn1', 30)
    tensors['_fc.weight'] = torch.randn(10, 30)
    return tensors


def test_a_file_for_imagenet_fills_stem_and_trunk(tree: Path, tmp_path: Path) -> None:
    file, path = lite0(), tmp_path / 'lite0.pth'
    torch.save(file, path)
    network = random_network(0, architecture='coarse_tiny')
    head = network.head(1)[0].weight.clone()
    released = official.read(path)
    filled = official.fill(network, released.tensors, path, backbone_only=True)
    assert released.left_out == ['_bn1.*', '_conv_head.*', '_fc.*']
    assert filled.fresh == ['heads.*', 'lateral.*', 'refine.*', 'smooth.*']
    assert torch.equal(network.head(1)[0].weight, head)
    state = network.state_dict()
    places = {'trunk.0.0': 0, 'trunk.1.0': 1, 'trunk.2.0': 3, 'trunk.2.1': 4, 'trunk.3.0': 5}
    for ours, index in places.items():  # the first blocks of each stage of 1, 2, 2, 3
        assert torch.equal(
            state[f'{ours}.depth.0.weight'], file[f'_blocks.{index}._depthwise_conv.weight']
        )
        assert torch.equal(state[f'{ours}.project.1.bias'], file[f'_blocks.{index}._bn2.bias'])
    x = torch.randn(1, 8, 5, 5)
    theirs = functional.batch_norm(
        x,
        *(file[f'_bn0.{k}'] for k in ('running_mean', 'running_var', 'weight', 'bias')),
        eps=1e-3,
    )
    torch.testing.assert_close(network.stem[1](x), theirs)
    config = recipe(tree, tmp_path / 'out', imagenet=str(path))
    built = build_network(config, 11, fresh=True).state_dict()
    assert torch.equal(built['stem.0.weight'], file['_conv_stem.weight'])


def test_a_file_for_imagenet_of_other_sizes_is_refused(tmp_path: Path) -> None:
    network, wide = random_network(0, architecture='coarse_tiny'), lite0()
    wide['_blocks.3._expand_conv.weight'] = torch.randn(25, 12, 1, 1)
    with pytest.raises(CheckpointError, match=r'another shape \(1\): trunk\.2\.0\.expand\.0\.we'):
        official.fill(network, wide, 'lite0.pth', backbone_only=True)
    with pytest.raises(CheckpointError, match=r'missing \(\d+\): trunk\.2\.1'):
        official.fill(network, lite0((1, 2, 1)), 'lite0.pth', backbone_only=True)
    wrong = lite0()
    wrong['_bn0.weight'] = torch.ones(8, dtype=torch.int64)  # which the mapping computes with
    wrong['_bn0.running_var'] = wrong['_bn0.running_var'].half() - 1
    with pytest.raises(CheckpointError, match=r'type \(1\): _bn0.weight.*\(1\): _bn0.running_var'):
        official.fill(network, wrong, 'lite0.pth', backbone_only=True)
    wrong = lite0() | {'_bn0.running_var': torch.ones(9)}
    with pytest.raises(CheckpointError, match=r'shape \(1\): stem.1.running_var is \(9,\)'):
        official.fill(network, wrong, 'lite0.pth', backbone_only=True)
    squeezing = lite0() | {'_blocks.1._se_reduce.weight': torch.zeros(1)}  # not a -lite
    with pytest.raises(CheckpointError, match=r'unexpected \(1\): _blocks\.1\._se_reduce'):
        official.fill(network, squeezing, 'b0.pth', backbone_only=True)
    hrnet = random_network(0).state_dict()
    with pytest.raises(CheckpointError, match=r'expected coarse_tiny .*unexpected'):
        official.fill(network, hrnet, 'hrnet.pth', backbone_only=True)


@pytest.mark.parametrize('key', ['initial', 'imagenet'])
def test_weights_that_are_no_numbers_are_refused_before_training(
    tree: Path, tmp_path: Path, key: str
) -> None:
    network = random_network(0, architecture='coarse_tiny')
    network.stem[1].running_mean[0] = math.nan
    path = tmp_path / 'broken.safetensors'
    checkpoint.save(path, network, CAMVID, {})
    config = recipe(tree, tmp_path, **{key: str(path)})
    with pytest.raises(
        CheckpointError, match=r'broken\.s.* stem\.1\.running_mean has 1 of 8 values NaN'
    ):
        build_network(config, 11, fresh=True)


def test_a_missing_file_says_where_it_is_to_be_had(tree: Path, tmp_path: Path) -> None:
    config = recipe(tree, tmp_path, imagenet=str(tmp_path / 'no.pth'))
    with pytest.raises(ValueError, match=r'no\.pth. Expected .* coarse_tiny of EfficientNet-lite'):
        build_network(config, 11, fresh=True)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'crop': (36, 40)}, r'expected a crop \(H, W\) of multiples of 8, got \(36, 40\)'),
        ({'gamma': 1.5}, r'expected gamma in \[0, 1\], got 1\.5'),
        ({'extra_share': 0.5}, "expected extra and extra_share together, got '', 0.5"),
        ({'extra': 'a', 'extra_share': 0.7, 'synthetic_share': 0.5}, 'at most 1 together'),
        ({'extra_until': -1}, 'expected extra_until of 0 or more'),
        ({'ema': 1.0}, r'expected ema in \[0, 1\), got 1'),
        ({'distill_weight': -1.0}, 'expected distill_weight of at least 0 .*, got -1'),
        ({'trunk_rate': math.inf}, 'expected trunk_rate of at least 0 .*, got inf'),
        ({'warmup_steps': 0.5}, 'expected warmup_steps of 0 or more'),
        ({'learning_rate': 0.0}, 'expected learning_rate above 0, got 0'),
        ({'seed': 2**64}, 'expected seed of at most 18446744073709551615, got 1844'),
        ({'epochs': 10**20}, 'expected epochs of at most 2147483647, got 1000'),
        ({'crop': (64, 10**6)}, r'expected a crop \(H, W\) of at most 65536, got \(64, 1000000\)'),
        ({'scales': (1.0, 17.0)}, r'both positive and at most 16, got \(1\.0, 17\.0\)'),
        ({'class_mix': 0.5, 'class_balance': 0}, 'class_mix is set: expected class weights'),
    ],
)
def test_wrong_values_are_named(tree: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe(tree, tree, **changes)
