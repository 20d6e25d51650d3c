# SPDX-License-Identifier: Apache-2.0
"""Training learns, follows its seed, resumes without a trace, and takes no wrong recipe."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from networks import random_image, random_network
from safetensors.torch import save_file
from samples import Bytes, blocks, write_sample, write_tree
from shared import CITYSCAPES_CLASS_WEIGHTS, ROOT
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from adpc_ros.__main__ import main
from adpc_ros.labels import CAMVID
from adpc_ros.learning import segmentation
from adpc_ros.learning import train as training
from adpc_ros.learning.batches import Draws, draw_batches, normalised
from adpc_ros.learning.config import Optimizer, TrainConfig, read_config
from adpc_ros.learning.datasets import CamVid
from adpc_ros.learning.distributed import Processes
from adpc_ros.learning.losses import exit_losses
from adpc_ros.learning.norms import average_norms
from adpc_ros.learning.sample import Sample
from adpc_ros.learning.segmentation import SegmentationBatch, SegmentationDraws, Sources
from adpc_ros.learning.train import train
from adpc_ros.network import checkpoint
from adpc_ros.network.adaptivity import Adaptivity


@pytest.fixture(scope='module')
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp('camvid'))


def recipe(tree: Path, output: Path, **changes: Any) -> TrainConfig:
    values: dict[str, Any] = {
        'network': {'architecture': 'hrnet_tiny', 'adaptivity': {'thresholds': [0.9, 0.9, 0.9]}},
        'data': f'camvid:{tree / "train"}',
        'validation': f'camvid:{tree / "val"}',
        'output': str(output),
        'epochs': 2,
        'batch_size': 2,
        'crop': (64, 64),
        'learning_rate': 0.01,
        'adaptive_from': 1,
        'evaluate_every': 1,
    }
    return TrainConfig(**(values | changes))


def records(output: Path) -> list[dict[str, Any]]:
    log = output / 'log.jsonl'
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def parameters(file: Path) -> dict[str, Tensor]:
    return checkpoint.load(file).network.state_dict()


@pytest.fixture(scope='module')
def trained(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train two epochs without interruption; gives the output folder."""
    output = tmp_path_factory.mktemp('trained')
    assert train(recipe(tree, output)) == output / 'best.safetensors'
    return output


def test_training_lowers_the_loss_and_writes_a_network(trained: Path) -> None:
    first, second = records(trained)
    assert second['loss'] < first['loss']
    assert [first['epoch'], second['epoch']] == [1, 2]
    assert len(second['miou']) == 4
    assert first['masked_share'] == [] and len(second['masked_share']) == 3
    loaded = checkpoint.load(trained / 'best.safetensors')
    assert loaded.classes is CAMVID
    assert loaded.network.config.adaptivity == Adaptivity(thresholds=(0.9, 0.9, 0.9))
    assert 'mIoU at exits 1-4' in loaded.info['result']
    recipe = json.loads(loaded.info['recipe'])
    assert recipe['learning_rate'] == 0.01 and recipe['seed'] == 0
    assert recipe['data_digest'] == CamVid(recipe['data'].removeprefix('camvid:')).digest()


def interrupt(patch: pytest.MonkeyPatch, after: int) -> None:
    """Let a training be interrupted in the forward pass that follows some others."""
    calls = []

    def interrupted(*arguments: Any) -> list[Tensor]:
        calls.append(1)
        if len(calls) > after:
            raise KeyboardInterrupt
        return exit_losses(*arguments)

    patch.setattr(segmentation, 'exit_losses', interrupted)


def states(*outputs: Path) -> list[dict[str, Any]]:
    return [torch.load(output / 'last.pt', weights_only=True) for output in outputs]


def assert_same_training(one: Path, other: Path) -> None:
    """Compare weights, statistics, the optimizer's state, and what was logged, bit by bit."""
    a, b = states(one, other)
    assert a['epoch'] == b['epoch'] and a['schedule'] == b['schedule'] and a['best'] == b['best']
    assert a['network'].keys() == b['network'].keys()
    for name, value in b['network'].items():
        assert torch.equal(a['network'][name], value), name
    kept = b['optimizer']['state']
    assert kept.keys() == a['optimizer']['state'].keys() and kept
    for index, values in kept.items():
        for key, value in values.items():
            assert torch.equal(a['optimizer']['state'][index][key], value), (index, key)
    best = [parameters(folder / 'best.safetensors') for folder in (one, other)]
    assert all(torch.equal(best[0][name], value) for name, value in best[1].items())
    logs = [[{**r, 'seconds': 0} for r in records(folder)] for folder in (one, other)]
    assert logs[0] == logs[1]


# 3 steps an epoch: in the middle of the first, right before and after its end, in the second
@pytest.mark.parametrize('steps', [2, 3, 4])
def test_an_interrupted_training_resumes_to_the_same_weights(
    tree: Path, tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    config = recipe(tree, tmp_path, save_every=1)
    with monkeypatch.context() as patch:
        interrupt(patch, steps)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    (state,) = states(tmp_path)
    assert (state['epoch'], state['step']) == divmod(steps, 3)
    assert len(records(tmp_path)) == steps // 3
    train(config)
    assert_same_training(tmp_path, trained)


def test_accumulated_steps_resume_to_the_same_weights(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {'accumulate': 2, 'save_every': 2, 'optimizer': 'sgd', 'norm_batches': 2}
    train(recipe(tree, tmp_path / 'straight', **changes))
    config = recipe(tree, tmp_path / 'resumed', **changes)
    for forwards in (5, 5):  # within the third step, and the fifth
        with monkeypatch.context() as patch:
            interrupt(patch, forwards)
            with pytest.raises(KeyboardInterrupt):
                train(config)
    (state,) = states(tmp_path / 'resumed')
    assert (state['epoch'], state['step']) == (1, 1)
    train(config)
    assert_same_training(tmp_path / 'resumed', tmp_path / 'straight')


def test_an_epoch_whose_validation_was_interrupted_is_logged_once(
    tree: Path, tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.OutputFolder, 'write_state', interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(recipe(tree, tmp_path))
    assert len(records(tmp_path)) == 1 and not (tmp_path / 'last.pt').exists()
    train(recipe(tree, tmp_path))
    assert_same_training(tmp_path, trained)


def test_a_state_of_before_there_were_more_keys_is_taken_up(
    tree: Path, tmp_path: Path, trained: Path
) -> None:
    (state,) = states(trained)
    old = json.loads(state['recipe'])
    later = ('optimizer', 'exit_weights', 'class_weights', 'autocast', 'accumulate', 'imagenet')
    for key in (*later, 'workers', 'save_every', 'drops', 'rotation', 'flip_test'):
        del old[key]
    old['output'] = str(tmp_path)
    kept = ('network', 'optimizer', 'schedule', 'best')
    torch.save(
        {key: state[key] for key in kept} | {'epoch': 2, 'recipe': json.dumps(old)},
        tmp_path / 'last.pt',
    )
    train(recipe(tree, tmp_path))
    assert records(tmp_path) == []  # nothing was left to do


def test_a_finished_training_changes_nothing_when_run_again(tree: Path, trained: Path) -> None:
    before = (trained / 'best.safetensors').read_bytes()
    train(recipe(tree, trained))
    assert (trained / 'best.safetensors').read_bytes() == before
    assert len(records(trained)) == 2


@pytest.mark.parametrize('content', [b'', b'PK\x03\x04', b'nothing'])
def test_a_broken_state_is_named(tree: Path, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / 'last.pt'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f'{path}: expected a PyTorch file'):
        train(recipe(tree, tmp_path))
    torch.save([1], path)
    with pytest.raises(ValueError, match=f'{path}: expected the state of a training, got list'):
        train(recipe(tree, tmp_path))


def test_another_recipe_or_other_data_do_not_resume(tree: Path, trained: Path) -> None:
    with pytest.raises(ValueError, match=r'another recipe \(epochs 2, now 3; crop'):
        train(recipe(tree, trained, epochs=3, crop=(32, 32)))
    with pytest.raises(ValueError, match=r"data_digest '\w{16}', now '\w{16}'"):
        train(recipe(tree, trained, data=f'camvid:{tree / "train"}?without=0001TP_000003'))


def test_statistics_are_averaged_over_batches() -> None:
    network = random_network(seed=0)
    images = [random_image(32, 64, seed) for seed in range(3)]
    seen: list[torch.Tensor] = []
    handle = network.bn1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    average_norms(network, images, adaptive=False)
    handle.remove()
    mean = torch.stack([x.mean(dim=(0, 2, 3)) for x in seen]).mean(dim=0)
    variance = torch.stack([x.var(dim=(0, 2, 3)) for x in seen]).mean(dim=0)
    torch.testing.assert_close(network.bn1.running_mean, mean)
    torch.testing.assert_close(network.bn1.running_var, variance)
    assert network.bn1.momentum == 0.01


def test_averaged_statistics_reach_the_weights(tree: Path, tmp_path: Path) -> None:
    found = []
    for batches in (0, 2):
        output = tmp_path / str(batches)
        found.append(parameters(train(recipe(tree, output, epochs=1, norm_batches=batches))))
    assert torch.equal(found[0]['conv1.weight'], found[1]['conv1.weight'])
    assert not torch.equal(found[0]['bn1.running_mean'], found[1]['bn1.running_mean'])


def test_a_validation_without_labels_is_refused(tree: Path, tmp_path: Path) -> None:
    empty = tmp_path / 'empty'
    write_sample(empty, 'a', np.zeros((64, 64, 3), np.uint8), np.full((64, 64), 11, np.uint8))
    with pytest.raises(ValueError, match=f'nothing is labelled: .* {empty}/label/a.png'):
        train(recipe(tree, tmp_path / 'out', validation=f'camvid:{empty}', epochs=1))


def test_training_goes_on_from_other_weights(tree: Path, tmp_path: Path, trained: Path) -> None:
    initial = str(trained / 'best.safetensors')
    train(recipe(tree, tmp_path, initial=initial, epochs=1, learning_rate=1e-30))
    first, second = parameters(tmp_path / 'best.safetensors'), parameters(Path(initial))
    assert torch.equal(first['conv1.weight'], second['conv1.weight'])
    assert first.keys() == second.keys()


def test_training_goes_on_only_from_the_same_network(
    tree: Path, tmp_path: Path, trained: Path
) -> None:
    initial, network = str(trained / 'best.safetensors'), {'architecture': 'hrnet_tiny'}
    with pytest.raises(ValueError, match=r'best\.safetensors: expected .*\(the file has masks\)'):
        train(recipe(tree, tmp_path, initial=initial, network=network))


def test_training_begins_with_a_backbone_for_imagenet(tree: Path, tmp_path: Path) -> None:
    pretrained = random_network(9).state_dict()
    backbone = {k: v for k, v in pretrained.items() if not k.startswith(('exit', 'last_layer'))}
    for name, write in (('a.pth', torch.save), ('b.safetensors', save_file)):
        write({**backbone, 'classifier.weight': torch.ones(3)}, tmp_path / name)
        output = tmp_path / f'{name}_out'
        train(recipe(tree, output, imagenet=str(tmp_path / name), epochs=1, learning_rate=1e-30))
        state = parameters(output / 'best.safetensors')
        assert all(torch.equal(state[k], backbone[k]) for k in backbone if k.endswith('weight'))
        assert not torch.equal(state['last_layer.3.weight'], pretrained['last_layer.3.weight'])
        assert state['stage2.0.branches.0.0.conv1.Lambda'] == 3.0


def test_a_missing_file_for_imagenet_is_named(tree: Path, tmp_path: Path) -> None:
    missing = f'not found: {tmp_path}/w48.pth. Expected a file for hrnet_tiny of github.com/HRNet'
    with pytest.raises(ValueError, match=missing):
        train(recipe(tree, tmp_path, imagenet=str(tmp_path / 'w48.pth')))


ALONE = Processes(0, 1, torch.device('cpu'))


def drawn(
    draws: Draws, processes: Processes = ALONE, first: int = 0
) -> list[list[SegmentationBatch]]:
    return list(draw_batches(draws, processes, first))


def assert_same_batches(
    one: list[list[SegmentationBatch]], other: list[list[SegmentationBatch]]
) -> None:
    assert [len(step) for step in one] == [len(step) for step in other] and one
    for a, b in zip(sum(one, []), sum(other, [])):
        assert torch.equal(a.image, b.image) and torch.equal(a.label, b.label)


def test_what_is_drawn_depends_on_no_worker_and_no_first_step(tree: Path) -> None:
    samples, config = CamVid(tree / 'train'), recipe(tree, tree)
    batches = drawn(SegmentationDraws(Sources(samples), config, 3))
    by_workers = drawn(SegmentationDraws(Sources(samples), replace(config, workers=2), 3))
    assert_same_batches(batches, by_workers)
    assert_same_batches(
        batches[1:], drawn(SegmentationDraws(Sources(samples), config, 3), first=1)
    )


def test_processes_and_parts_share_a_batch(tree: Path) -> None:
    samples, config = CamVid(tree / 'train'), recipe(tree, tree, batch_size=4)
    (((whole, *_),),) = drawn(SegmentationDraws(Sources(samples), config, 0))
    shares = [Processes(rank, 2, torch.device('cpu')) for rank in range(2)]
    parts = SegmentationDraws(Sources(samples), replace(config, accumulate=2), 0)
    (first,), (second,) = (drawn(parts, share) for share in shares)
    found = [step[part].image for part in range(2) for step in (first, second)]
    assert [len(images) for images in found] == [1, 1, 1, 1]
    assert torch.equal(torch.cat(found), whole)


def test_a_file_that_a_worker_cannot_read_is_named(tree: Path, tmp_path: Path) -> None:
    for seed in range(2):
        write_sample(tmp_path, f'a{seed}', *blocks(seed))
    (tmp_path / 'image' / 'a1.jpg').write_bytes(b'nothing')
    config = recipe(tree, tree, workers=1)
    with pytest.raises(ValueError, match=r'^cannot read .*image/a1\.jpg: expected an image'):
        drawn(SegmentationDraws(Sources(CamVid(tmp_path)), config, 0))


def one_step(config: TrainConfig) -> training.Training:
    """Take the first step of a training; gives it with its gradients."""
    run = training.Training(config, None, ALONE)
    run.network.train()
    draws = run.task.draws(0)
    run.losses = [run._optimize(next(iter(draw_batches(draws, ALONE))), adaptive=True)]
    return run


def test_the_optimizer_is_the_recipes(tree: Path, tmp_path: Path) -> None:
    config = recipe(tree, tmp_path, optimizer='sgd', weight_decay=0.5, learning_rate=0.125)
    torch.manual_seed(config.seed)
    run = training.Training(config, None, ALONE)
    before = {k: v.detach().clone() for k, v in run.network.named_parameters()}
    run = one_step(config)
    assert run.optimizer.defaults['momentum'] == 0.9
    for name, parameter in run.network.named_parameters():
        assert parameter.grad is not None
        expected = before[name] - 0.125 * (parameter.grad + 0.5 * before[name])
        torch.testing.assert_close(parameter.detach(), expected)
    adam = training.Training(recipe(tree, tmp_path), None, ALONE).optimizer
    assert isinstance(adam, torch.optim.AdamW)


def test_exits_and_classes_weigh_as_the_recipe_says(tree: Path, tmp_path: Path) -> None:
    weights = tuple(float(i + 1) for i in range(11))
    run = one_step(recipe(tree, tmp_path, class_weights=weights, exit_weights=(1, 0, 0, 0)))
    # the first exit alone has a say: nothing after it learns
    gradients = {k: p.grad for k, p in run.network.named_parameters()}
    assert gradients['exit1.1.weight'].any() and not gradients['last_layer.3.weight'].any()
    other = one_step(recipe(tree, tmp_path, class_weights=weights, exit_weights=(2, 0, 0, 0)))
    torch.testing.assert_close(
        2 * gradients['conv1.weight'], dict(other.network.named_parameters())['conv1.weight'].grad
    )
    draws = run.task.draws(0)
    ((image, label, _),) = next(iter(draw_batches(draws, ALONE)))
    network = training.Training(run.config, None, ALONE).network.train()
    x, y = normalised(image, network.config, ALONE.device), label.long()
    expected = exit_losses(network(x), y, weights)
    torch.testing.assert_close(run.losses[0], torch.stack(expected).detach())


def test_parts_add_up_to_the_gradient_of_the_batch(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # with BatchNorm's running statistics, since otherwise a part has statistics of its own
    monkeypatch.setattr(torch.nn.BatchNorm2d, 'train', lambda self, mode=True: self)
    found = []
    for accumulate in (1, 2):
        config = recipe(tree, tmp_path / str(accumulate), batch_size=4, accumulate=accumulate)
        run = training.Training(config, None, ALONE)
        for norm in run.network.modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                norm.training = False
        draws = run.task.draws(0)
        parts = next(iter(draw_batches(draws, ALONE)))
        assert len(parts) == accumulate
        losses = run._optimize(parts, adaptive=True)
        found.append((losses, {k: p.grad for k, p in run.network.named_parameters()}))
    torch.testing.assert_close(found[0][0], found[1][0])
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], gradient, msg=name)


def test_autocast_computes_in_bfloat16_and_the_loss_in_float32(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def spy(logits: list[Tensor], *arguments: Any) -> list[Tensor]:
        losses = exit_losses(logits, *arguments)
        seen.append((logits[0].dtype, losses[0].dtype))
        return losses

    monkeypatch.setattr(segmentation, 'exit_losses', spy)
    exact = one_step(recipe(tree, tmp_path))
    rough = one_step(recipe(tree, tmp_path, autocast='bfloat16'))
    assert seen == [(torch.float32, torch.float32), (torch.bfloat16, torch.float32)]
    torch.testing.assert_close(rough.losses[0], exact.losses[0], rtol=0.02, atol=0)
    assert all(p.dtype == torch.float32 for p in rough.network.parameters())


def test_curves_for_tensorboard_are_written(trained: Path) -> None:
    events = EventAccumulator(str(trained / 'tensorboard')).Reload()
    names = {f'{kind}/exit{i}' for kind in ('loss', 'miou') for i in range(1, 5)}
    assert names | {'learning_rate'} == set(events.Tags()['scalars'])
    assert [event.step for event in events.Scalars('miou/exit4')] == [3, 6]
    logged = [record['miou'][3] for record in records(trained)]
    assert [event.value for event in events.Scalars('miou/exit4')] == pytest.approx(logged)


def test_a_missing_tensorboard_is_named(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, 'torch.utils.tensorboard', None)
    with pytest.raises(ValueError, match='expected the package tensorboard'):
        train(recipe(tree, tmp_path))


def test_batches_follow_seed_and_epoch_and_mix_in_what_is_synthetic(tree: Path) -> None:
    samples = CamVid(tree / 'train')
    grey = [Sample(np.full((64, 96, 3), 7, np.uint8), np.full((64, 96), 2, np.uint8))] * 3
    config = recipe(tree, tree, synthetic_share=0.5, colour=0.0, scales=(1.0, 1.0))

    def draw(epoch: int) -> Bytes:
        steps = drawn(SegmentationDraws(Sources(samples, grey), config, epoch))
        assert [[len(part.image) for part in step] for step in steps] == [[2], [2], [2]]
        return np.concatenate([part.image for step in steps for part in step])

    np.testing.assert_array_equal(draw(0), draw(0))
    assert not np.array_equal(draw(0), draw(1))
    synthetic = [[(image == 7).all() for image in draw(epoch)] for epoch in range(5)]
    assert 5 < np.sum(synthetic) < 25
    assert any(places != synthetic[0] for places in synthetic)


def test_a_synthetic_share_needs_a_source(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='expected a source of synthetic samples'):
        train(recipe(tree, tmp_path, synthetic_share=0.5))


def test_class_weights_must_be_those_of_the_classes(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='expected 11 class_weights, got 2'):
        train(recipe(tree, tmp_path, class_weights=(1.0, 2.0)))


def test_a_network_of_one_exit_has_one_weight(tree: Path, tmp_path: Path) -> None:
    network = {'architecture': 'hrnet_tiny', 'heads': 'none'}
    with pytest.raises(ValueError, match='expected exit_weights for 1 exits, got 4'):
        recipe(tree, tmp_path, network=network, exit_weights=(1, 1, 1, 1))
    run = one_step(recipe(tree, tmp_path, network=network, exit_weights=(2,)))
    assert run.losses[0].shape == (1,)


def test_more_images_in_a_batch_than_there_are_is_an_error(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='expected images for a batch of 7, got 6'):
        train(recipe(tree, tmp_path, batch_size=7))


NETWORK = {'architecture': 'hrnet_tiny'}
REQUIRED: dict[str, Any] = {
    'network': NETWORK,
    'data': 'a',
    'validation': 'b',
    'output': 'c',
    'epochs': 3,
}


def test_a_recipe_is_read(tmp_path: Path) -> None:
    file = tmp_path / 'recipe.yaml'
    text = yaml.safe_dump(REQUIRED | {'crop': [64, 96], 'scales': [0.5, 2.0]})
    file.write_text(f'{text}learning_rate: 2e-3\nweight_decay: 1\n')
    config = read_config(file)
    assert config.learning_rate == 0.002 and type(config.weight_decay) is float
    assert config.class_balance == 1.1 and config.optimizer is Optimizer.ADAMW
    assert (config.crop, config.scales, config.epochs) == ((64, 96), (0.5, 2.0), 3)
    for recipe_file in (Path(__file__).parents[1] / 'config' / 'train').glob('*.yaml'):
        read_config(recipe_file)


@pytest.mark.parametrize('name', ['w18', 'w48'])
def test_the_papers_recipe(name: str) -> None:
    config = read_config(ROOT / 'config' / 'train' / f'cityscapes_{name}.yaml')
    assert (config.optimizer, config.learning_rate, config.weight_decay) == ('sgd', 0.01, 5e-4)
    assert (config.epochs, config.batch_size, config.accumulate) == (484, 12, 1)
    assert (config.crop, config.scales, config.colour) == ((512, 1024), (0.5, 2.1), 0)
    assert config.class_weights == CITYSCAPES_CLASS_WEIGHTS and config.class_balance is None
    assert config.exit_weights == (1, 1, 1, 1) and config.autocast is None
    assert config.adaptive_from == 0 and config.imagenet and name in config.imagenet
    network = checkpoint.config_from_dict(config.network)
    assert network.architecture == {'w18': 'hrnet_w18_small_v2', 'w48': 'hrnet_w48'}[name]
    assert network.adaptivity == Adaptivity(thresholds=(0.998,) * 3)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'epoch': 3}, r"unknown keys \['epoch'\]"),
        ({'crop': [100, 96]}, r'expected a crop \(H, W\) of multiples of 32, got \(100, 96\)'),
        ({'crop': 96}, 'crop: expected a list, got 96'),
        ({'crop': [64, 96, 3]}, r'crop: expected 2 values, got \[64, 96, 3\]'),
        ({'scales': [1.0, 0.5]}, 'expected scales'),
        ({'epochs': 0}, 'expected epochs'),
        ({'epochs': 'many'}, "epochs: expected a whole number, got the text 'many'"),
        ({'epochs': True}, 'epochs: expected a whole number, got true'),
        ({'learning_rate': float('nan')}, 'learning_rate: expected a finite number, got nan'),
        ({'learning_rate': None}, 'learning_rate: expected a finite number, got null'),
        ({'learning_rate': -0.1}, r'expected learning_rate of at least 0 .*, got -0\.1'),
        ({'weight_decay': float('inf')}, 'weight_decay: expected a finite number, got inf'),
        ({'scales': ['0.5', 1.0]}, r"scales\[0\]: expected a finite number, got the text '0\.5'"),
        ({'weight_decay_norms': 1}, 'weight_decay_norms: expected true or false, got 1'),
        ({'data': ['a']}, r"data: expected a text, got \['a'\]"),
        ({'output': ''}, 'expected output, a folder, got an empty text'),
        ({'seed': -1}, 'expected seed of 0 or more, got -1'),
        ({'class_balance': 0.9}, r'expected class_balance of 0, or above 1, got 0\.9'),
        ({'network': 'hrnet_w48'}, "network: expected keys and values, got the text 'hrnet_w48'"),
        (
            {'network': {'architecture': ['a']}},
            r"network\.architecture: expected a text, got \['a'",
        ),
        ({'network': {'architecture': 'a'}}, "network: unknown architecture 'a'"),
        ({'network': {**NETWORK, 'head': 'none'}}, r"network: unknown keys \['head'\]"),
        (
            {'network': {**NETWORK, 'adaptivity': {'thresholds': [float('nan')]}}},
            r'network\.adaptivity\.thresholds\[0\]: expected a finite number, got nan',
        ),
        (
            {'network': {**NETWORK, 'adaptivity': {'thresholds': [2]}}},
            r'network\.adaptivity: expected thresholds in \[0, 1\.0\]',
        ),
        ({'synthetic_share': 2}, 'expected synthetic_share'),
        (
            {'optimizer': 'lion'},
            "optimizer: expected one of adam, adamw, sgd, got the text 'lion'",
        ),
        ({'batch_size': 6, 'accumulate': 4}, 'to divide the batch_size of 6, got 4'),
        ({'accumulate': 0}, 'expected accumulate of 1 or more, got 0'),
        ({'workers': -1}, 'expected workers of 0 or more, got -1'),
        ({'save_every': 0.5}, 'save_every: expected a whole number, got 0.5'),
        ({'exit_weights': [1, 1]}, 'expected exit_weights for 4 exits, got 2'),
        ({'exit_weights': [0, 0, 0, 0]}, 'expected exit_weights of at least 0 .*, not all'),
        ({'class_weights': [1, -1]}, 'expected class_weights of at least 0 .*, not all'),
        ({'class_weights': [1], 'class_balance': 1.1}, 'class_weights or class_balance, got both'),
        ({'autocast': 'float16'}, "expected autocast null or bfloat16, got 'float16'"),
        ({'unrolled_steps': 9}, 'as mdeq_small: expected 0 for hrnet_tiny, got 9'),
        ({'initial': 'a', 'imagenet': 'b'}, 'expected initial or imagenet, got both'),
    ],
)
def test_a_wrong_recipe_is_an_error_that_names_it(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    file = tmp_path / 'recipe.yaml'
    file.write_text(yaml.safe_dump(REQUIRED | changes))
    with pytest.raises(ValueError, match=message) as caught:
        read_config(file)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('data: a', r"missing keys \['epochs', 'network', 'output', 'validation'\]"),
        ('- a', r"expected keys and values, got \['a'\]"),
        ('a: [', 'expected YAML'),
        ('epochs: 1\nepochs: 2', "the key 'epochs' is there twice"),
    ],
)
def test_a_recipe_of_another_form_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / 'recipe.yaml'
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_config(file)
    assert main(['train', '--config', str(file)]) == 2
