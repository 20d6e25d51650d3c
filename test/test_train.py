"""Training learns, follows its seed, resumes without a trace, and takes no wrong recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from networks import random_image, random_network
from samples import Bytes, write_sample, write_tree
from torch import Tensor

from adpc_ros.__main__ import main
from adpc_ros.labels import CAMVID
from adpc_ros.learning import train as training
from adpc_ros.learning.datasets import CamVid
from adpc_ros.learning.sample import Sample
from adpc_ros.learning.train import TrainConfig, draw_batches, read_config, train
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
    return [json.loads(line) for line in (output / 'log.jsonl').read_text().splitlines()]


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


def test_an_interrupted_training_resumes_to_the_same_weights(
    tree: Path, tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any) -> Any:
        if arguments[-1] == 1:  # the second epoch
            raise KeyboardInterrupt
        return draw_batches(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training, 'draw_batches', interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(recipe(tree, tmp_path))
    assert len(records(tmp_path)) == 1
    train(recipe(tree, tmp_path))
    last, expected = (
        torch.load(folder / 'last.pt', weights_only=True) for folder in (tmp_path, trained)
    )
    assert last['epoch'] == expected['epoch'] == 2
    assert last['network'].keys() == expected['network'].keys()
    for name, value in expected['network'].items():
        assert torch.equal(last['network'][name], value), name
    best, straight = (parameters(folder / 'best.safetensors') for folder in (tmp_path, trained))
    assert all(torch.equal(best[name], value) for name, value in straight.items())
    for a, b in zip(records(tmp_path), records(trained)):
        assert a['loss'] == b['loss'] and a['miou'] == b['miou']


def test_a_finished_training_changes_nothing_when_run_again(tree: Path, trained: Path) -> None:
    before = (trained / 'best.safetensors').read_bytes()
    train(recipe(tree, trained))
    assert (trained / 'best.safetensors').read_bytes() == before
    assert len(records(trained)) == 2


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
    training.average_norms(network, images, adaptive=False)
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


def test_a_validation_without_labels_still_gives_weights(tree: Path, tmp_path: Path) -> None:
    empty = tmp_path / 'empty'
    write_sample(empty, 'a', np.zeros((64, 64, 3), np.uint8), np.full((64, 64), 11, np.uint8))
    train(recipe(tree, tmp_path / 'out', validation=f'camvid:{empty}', epochs=1))
    assert checkpoint.load(tmp_path / 'out' / 'best.safetensors')


def test_training_goes_on_from_other_weights(tree: Path, tmp_path: Path, trained: Path) -> None:
    initial = str(trained / 'best.safetensors')
    train(recipe(tree, tmp_path, initial=initial, epochs=1, learning_rate=0.0))
    first, second = parameters(tmp_path / 'best.safetensors'), parameters(Path(initial))
    assert torch.equal(first['conv1.weight'], second['conv1.weight'])
    assert first.keys() == second.keys()


def test_batches_follow_seed_and_epoch_and_mix_in_what_is_synthetic(tree: Path) -> None:
    samples = CamVid(tree / 'train')
    grey = [Sample(np.full((64, 96, 3), 7, np.uint8), np.full((64, 96), 2, np.uint8))] * 3
    config = recipe(tree, tree, synthetic_share=0.5, colour=0.0, scales=(1.0, 1.0))

    def draw(epoch: int) -> Bytes:
        batches = list(draw_batches(samples, grey, config, epoch))
        assert [len(batch) for batch in batches] == [2, 2, 2]
        return np.array([sample.image for batch in batches for sample in batch])

    np.testing.assert_array_equal(draw(0), draw(0))
    assert not np.array_equal(draw(0), draw(1))
    synthetic = [[(image == 7).all() for image in draw(epoch)] for epoch in range(5)]
    assert 5 < np.sum(synthetic) < 25
    assert any(places != synthetic[0] for places in synthetic)


def test_a_synthetic_share_needs_a_source(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='expected a source of synthetic samples'):
        train(recipe(tree, tmp_path, synthetic_share=0.5))


def test_more_images_in_a_batch_than_there_are_is_an_error(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='expected images for a batch of 7, got 6'):
        train(recipe(tree, tmp_path, batch_size=7))


REQUIRED: dict[str, Any] = {
    'network': {'architecture': 'hrnet_tiny'},
    'data': 'a',
    'validation': 'b',
    'output': 'c',
    'epochs': 3,
}


def test_a_recipe_is_read(tmp_path: Path) -> None:
    file = tmp_path / 'recipe.yaml'
    file.write_text(yaml.safe_dump(REQUIRED | {'crop': [64, 96], 'scales': [0.5, 2.0]}))
    config = read_config(file)
    assert (config.crop, config.scales, config.epochs) == ((64, 96), (0.5, 2.0), 3)
    for recipe_file in (Path(__file__).parents[1] / 'config' / 'train').glob('*.yaml'):
        read_config(recipe_file)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'epoch': 3}, r"unknown keys \['epoch'\]"),
        ({'crop': [100, 96]}, r'expected a crop \(H, W\) of multiples of 32, got \(100, 96\)'),
        ({'crop': 96}, 'not iterable'),
        ({'scales': [1.0, 0.5]}, 'expected scales'),
        ({'epochs': 0}, 'expected epochs'),
        ({'epochs': 'many'}, 'recipe.yaml'),
        ({'synthetic_share': 2}, 'expected synthetic_share'),
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
        ('- a', 'expected keys and values, got list'),
        ('a: [', 'expected YAML'),
    ],
)
def test_a_recipe_of_another_form_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / 'recipe.yaml'
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_config(file)
    assert main(['train', '--config', str(file)]) == 2
