# SPDX-License-Identifier: Apache-2.0
"""Poses are learnt as segmentation is: by recipe, resumable, judged by what they are for."""

from __future__ import annotations

import colorsys
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from figures import draw, write_hrnet
from networks import random_network
from shared import ROOT
from torch import Tensor

from adpc_ros.__main__ import main
from adpc_ros.labels import CAMVID
from adpc_ros.learning import pose
from adpc_ros.learning.batches import normalised
from adpc_ros.learning.config import TrainConfig, read_config
from adpc_ros.learning.heat_maps import cut, window_matrix
from adpc_ros.learning.mpii import open_people
from adpc_ros.learning.people import MIRRORED
from adpc_ros.learning.pose import PoseDraws, heat_map_losses
from adpc_ros.learning.pose_evaluation import evaluate_poses
from adpc_ros.learning.preparation import build_optimizer, build_schedule
from adpc_ros.learning.train import train
from adpc_ros.network import checkpoint
from adpc_ros.network.adaptivity import Adaptivity, Criterion
from adpc_ros.network.macs import GI, count_frame
from adpc_ros.network.task import Task

FIGURES = [draw(seed) for seed in range(4)]


@pytest.fixture(scope='module')
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a data set: the four figures again and again, to be learnt by heart, and once."""
    folder = tmp_path_factory.mktemp('mpii')
    write_hrnet(folder, 'train', FIGURES * 10, truth=False)
    write_hrnet(folder, 'valid', FIGURES)
    return folder


def recipe(root: Path, output: Path, **changes: Any) -> TrainConfig:
    values: dict[str, Any] = {
        'network': {
            'architecture': 'pose_hrnet_tiny',
            'adaptivity': {'criterion': 'peak_response', 'thresholds': [0.1]},
        },
        'data': f'mpii:{root}/train',
        'validation': f'mpii:{root}/valid',
        'output': str(output),
        'epochs': 16,
        'batch_size': 4,
        'crop': (96, 96),
        'scales': (1.0, 1.0),
        'colour': 0.0,
        'optimizer': 'adam',
        'learning_rate': 0.01,
        'weight_decay': 0.0,
        'adaptive_from': 5,
        'evaluate_every': 16,
        'norm_batches': 2,
    }
    return TrainConfig(**(values | changes))


@pytest.fixture(scope='module')
def trained(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(recipe(root, tmp_path_factory.mktemp('out')))


def test_a_handful_of_figures_is_learnt_by_heart(root: Path, trained: Path) -> None:
    loaded = checkpoint.load(trained, Task.POSE)
    (*_, last) = map(json.loads, (trained.parent / 'log.jsonl').read_text().splitlines())
    first_exit, *_, last_exit = last['pckh']
    assert last_exit > 0.95 and first_exit < last_exit
    assert len(last['masked_share']) == 3 and min(last['masked_share']) > 0.2
    assert f'PCKh@0.5 at exits 1-4: {100 * first_exit:.1f}' in loaded.info['result']
    people = open_people(f'mpii:{root}/valid', judged=True)
    result = evaluate_poses(loaded.network, people, (96, 96), progress=False)
    assert result.means == last['pckh'] and result.masked_share == last['masked_share']


def test_evaluate_judges_it(
    root: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ['evaluate', '--weights', str(trained), '--data', f'mpii:{root}/valid']
    words += ['--size', '96x96', '--json', str(tmp_path / 'a.json')]
    found = []
    for more in (
        [],
        ['--flip-test'],
        ['--no-masks'],
        ['--threshold', '0.2', '--window', '3'],
        ['--criterion', 'random', '--threshold', '0.25'],
    ):
        assert main([*words, *more]) == 0
        found.append(json.loads((tmp_path / 'a.json').read_text()))
    one, mirrored, dense, other, drawn = found
    network = checkpoint.load(trained, Task.POSE).network
    people = open_people(f'mpii:{root}/valid', judged=True)
    result = evaluate_poses(network, people, (96, 96), flip_test=True, progress=False)
    assert mirrored['pckh'] == result.means and mirrored['flip_test'] is True
    assert mirrored['pckh'][-1] > 0.95 and mirrored['pckh'] != one['pckh']
    assert one['gimac'] == mirrored['gimac'] and one['gimac'][-1] < dense['gimac'][-1]
    assert min(np.subtract(other['masked_share'], one['masked_share'])) > 0
    assert other['masks'] == 'peak_response 0.2, window 3' and dense['masks'] is None
    assert drawn['masks'] == 'random 0.25, window 7' and drawn['masked_share'] == [0.25] * 3
    assert dense['masked_share'] == [] and len(one['masked_share']) == 3
    assert list(one['parts']) == 'head shoulder elbow wrist hip knee ankle'.split()
    assert len(one['joints']) == 16 and len(one['joints']['left knee']) == 4
    printed = capsys.readouterr().out
    assert 'wrist PCKh@0.5, %' in printed and f'{100 * mirrored["pckh"][0]:.2f}' in printed
    assert f'{mirrored["gimac"][-1]:6.2f}' in printed and '4 people of mpii:' in printed


def test_costs_are_those_of_each_window(root: Path, trained: Path) -> None:
    network = checkpoint.load(trained, Task.POSE).network
    people = open_people(f'mpii:{root}/valid', judged=True)
    counts, shares = [], []
    size = (96, 96)
    for index, person in enumerate(people.people):
        matrix = window_matrix(person.centre, person.edge, size)
        window = torch.from_numpy(cut(people.image(index), matrix, size).copy())[None]
        frame = count_frame(network, normalised(window, network.config, torch.device('cpu')))
        counts.append(frame.macs)
        shares.append([1 - share for share in frame.active_shares[1:]])
    result = evaluate_poses(network, people, size, progress=False)
    assert result.gimac == pytest.approx((np.mean(counts, 0) / GI).tolist())
    assert result.masked_share == pytest.approx(np.mean(shares, 0).tolist())


def test_an_interrupted_training_resumes_to_the_same_weights(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {'epochs': 2, 'adaptive_from': 1, 'evaluate_every': 1, 'accumulate': 2}
    changes |= {'rotation': 30.0, 'scales': (0.75, 1.25), 'flip_test': True, 'drops': (1,)}
    train(recipe(root, tmp_path / 'straight', **changes))
    config = recipe(root, tmp_path / 'resumed', save_every=3, **changes)
    calls: list[int] = []

    def interrupted(*arguments: Any) -> list[Tensor]:
        calls.append(1)
        if len(calls) == 27:  # in the fourth step of the second epoch
            raise KeyboardInterrupt
        return heat_map_losses(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(pose, 'heat_map_losses', interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    train(config)
    one, other = (
        torch.load(tmp_path / name / 'last.pt', weights_only=True)
        for name in ('straight', 'resumed')
    )
    for name, value in one['network'].items():
        assert torch.equal(other['network'][name], value), name
    assert one['best'] == other['best'] and one['schedule'] == other['schedule']


def test_joints_stay_on_the_figure_however_it_is_turned_scaled_and_mirrored(root: Path) -> None:
    people = open_people(f'mpii:{root}/train')
    config = recipe(root, root, rotation=40.0, scales=(0.5, 1.5))
    colours = np.array([colorsys.hsv_to_rgb(i / 16, 1, 1 - 0.4 * (i % 2)) for i in range(16)])
    draws = PoseDraws(people, config, 0)
    mirrored = hits = seen = 0
    for position in range(12):
        image, places, known = draws[position]
        assert image.shape == (96, 96, 3) and places.dtype == np.float32
        inside = known & ((places >= 0) & (places < 95)).all(1)
        x, y = places.round().astype(int).clip(0, 95).T
        shown = image[y, x] / 255
        errors = [
            np.abs(shown - colours[order]).max(1) for order in (list(range(16)), list(MIRRORED))
        ]
        # a mirrored figure's right ankle has the colour of the left one
        sides = [i for i in np.flatnonzero(inside) if MIRRORED[i] != i]
        flipped = errors[1][sides].sum() < errors[0][sides].sum()
        mirrored += flipped
        hits += (errors[int(flipped)][inside] < 0.35).sum()
        seen += inside.sum()
    assert 0 < mirrored < 12 and hits > 0.9 * seen > 100
    again, other = PoseDraws(people, config, 0)[3], PoseDraws(people, config, 1)[3]
    assert np.array_equal(draws[3].image, again.image)
    assert not np.array_equal(draws[3].image, other.image)


def test_scale_and_turn_are_drawn_as_hrnet_draws_them(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = open_people(f'mpii:{root}/valid')
    person = people.people[0]
    drawn: list[tuple[float, float]] = []

    def spy(centre: Any, edge: float, size: Any, turn: float = 0.0) -> Any:
        drawn.append((edge / person.edge, turn))
        return np.array([[1.0, 0, 0], [0, 1, 0]])

    monkeypatch.setattr(pose, 'window_matrix', spy)
    config = recipe(root, root, rotation=30.0, scales=(0.75, 1.25))
    for epoch in range(150):
        draws = PoseDraws(people, config, epoch)
        draws[0], draws[1]
    factors, turns = np.array(drawn).T
    assert (factors.min(), factors.max()) == (0.75, 1.25)
    assert abs(factors.mean() - 1) < 0.03 and 0.15 < (factors == 0.75).mean() < 0.17 + 0.06
    assert abs(turns).max() <= 60 and 0.5 < (turns != 0).mean() < 0.7
    assert 25 < turns[turns != 0].std() < 33


def test_the_papers_recipe() -> None:
    config = read_config(ROOT / 'config' / 'train' / 'mpii_w32.yaml')
    assert config.task is Task.POSE
    assert (config.epochs, config.batch_size, config.adaptive_from) == (210, 128, 10)
    assert (config.optimizer, config.learning_rate, config.weight_decay) == ('adam', 1e-3, 0)
    assert (config.crop, config.scales, config.rotation) == ((256, 256), (0.75, 1.25), 30)
    assert config.flip_test and config.colour == 0 and config.class_balance is None
    network = checkpoint.config_from_dict({**config.network, 'class_count': 16})
    assert network.architecture == 'pose_hrnet_w32'
    assert network.adaptivity == Adaptivity(Criterion.PEAK_RESPONSE, (0.002,) * 3)
    optimizer = build_optimizer(replace(config, trunk_rate=0.5), random_network())
    assert type(optimizer) is torch.optim.Adam
    schedule = build_schedule(config, optimizer, 210 * 3)
    rates = []
    for _ in range(210 * 3):
        rates.append(max(schedule.get_last_lr()))
        optimizer.step()
        schedule.step()
    for epoch, rate in ((0, 1e-3), (169, 1e-3), (170, 1e-4), (199, 1e-4), (200, 1e-5)):
        assert rates[3 * epoch : 3 * epoch + 3] == pytest.approx([rate] * 3)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'class_weights': (1.0,) * 16}, 'class_weights is for segmentation alone: pose_hrnet'),
        ({'class_balance': 1.2}, 'class_balance is for segmentation alone'),
        ({'class_mix': 0.5}, 'class_mix is for segmentation alone'),
        ({'synthetic_share': 0.5}, 'synthetic_share is for segmentation alone'),
        ({'extra': 'mpii:a/b', 'extra_share': 0.5}, 'extra is for segmentation alone'),
        ({'network': {'architecture': 'hrnet_tiny'}, 'rotation': 3.0}, 'rotation is for pose al'),
        ({'network': {'architecture': 'hrnet_tiny'}, 'flip_test': True}, 'flip_test is for pose'),
        ({'rotation': 181.0}, r'expected rotation in \[0, 180\] degrees, got 181'),
        ({'drops': (3, 2)}, r'expected drops as rising epochs above 0 and below 16, got \[3, 2\]'),
        ({'drops': (2, 2)}, 'expected drops as rising'),
        ({'drops': (0,)}, 'expected drops as rising'),
        ({'drops': (16,)}, 'expected drops as rising'),
        ({'crop': (90, 96)}, 'expected a crop .* multiples of 32'),
    ],
)
def test_a_wrong_recipe_is_named(
    root: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        recipe(root, tmp_path, **changes)


def test_data_of_the_other_task_are_refused(
    root: Path, tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match="expected mpii:FOLDER/SPLIT, got 'camvid:a'"):
        train(recipe(root, tmp_path / 'a', validation='camvid:a'))
    with pytest.raises(ValueError, match='nothing to judge 40 of 40 people by: .*gt_train.mat'):
        train(recipe(root, tmp_path / 'a', validation=f'mpii:{root}/train'))
    with pytest.raises(ValueError, match='expected camvid:FOLDER, .* got .mpii:'):
        train(recipe(root, tmp_path / 'a', network={'architecture': 'hrnet_tiny'}))
    assert not (tmp_path / 'a').exists()
    other = tmp_path / 'other.safetensors'
    checkpoint.save(other, random_network(), CAMVID, {})
    people = f'mpii:{root}/valid'
    for weights, data, more, message in (
        (other, people, [], 'expected a network for pose, got hrnet_tiny'),
        (trained, people, ['--fps', '15'], f'--fps: {people} is for pose'),
        (trained, people, ['--against', 'a'], f'--against: {people} is for pose'),
        (trained, people, ['--sweep', 'window=3'], f'--sweep: {people} is for pose'),
        (trained, people, ['--size', '90x96'], 'multiples of 32, got 90x96'),
        (trained, people, ['--json', str(trained)], 'expected an output beside the input'),
        (other, f'camvid:{root}', ['--flip-test'], f'--flip-test: camvid:{root} is for segm'),
        (other, f'camvid:{root}', ['--size', '32x32'], f'--size: camvid:{root} is for segm'),
    ):
        assert main(['evaluate', '--weights', str(weights), '--data', data, *more]) == 2
        assert message in capsys.readouterr().err
