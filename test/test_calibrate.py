# SPDX-License-Identifier: Apache-2.0
"""Fitted values do on the images they are fitted on what they are there for."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import random_network
from samples import write_tree

from adpc_ros.__main__ import main
from adpc_ros.labels import CAMVID
from adpc_ros.learning.calibrate import (
    THRESHOLDS,
    calibrate,
    fit_class_thresholds,
    fit_temperatures,
    fit_thresholds,
    with_thresholds,
)
from adpc_ros.learning.class_thresholds import (
    Answers,
    Move,
    Step,
    collect_answers,
    descend,
    no_masks,
)
from adpc_ros.learning.datasets import CamVid
from adpc_ros.learning.evaluate import evaluate
from adpc_ros.learning.losses import exit_losses
from adpc_ros.learning.metrics import Confusion
from adpc_ros.learning.norms import average_norms
from adpc_ros.learning.worth import worth_of
from adpc_ros.network import checkpoint
from adpc_ros.network.adaptivity import Adaptivity, Criterion
from adpc_ros.network.anytime import AnytimeNetwork
from adpc_ros.network.families import build_network
from adpc_ros.runtime.images import to_input


@pytest.fixture(scope='module')
def samples(tmp_path_factory: pytest.TempPathFactory) -> CamVid:
    return CamVid(write_tree(tmp_path_factory.mktemp('camvid')) / 'train')


def learnt(samples: CamVid, architecture: str) -> AnytimeNetwork:
    """Give a network that has learnt a little, so that its confidence says something."""
    masks = Adaptivity(thresholds=(1.0,))
    network = random_network(
        0, adaptivity=masks, architecture=architecture, fresh_blocks=True
    ).train()
    optimizer = torch.optim.AdamW(network.parameters(), 5e-3)
    images = torch.cat([to_input(s.image, network.config, torch.device('cpu')) for s in samples])
    labels = torch.from_numpy(np.stack([s.label for s in samples])).long()
    for _ in range(40):
        optimizer.zero_grad()
        logits = network(images, adaptive=False)
        torch.autograd.backward(torch.stack(exit_losses(logits, labels)).sum())
        optimizer.step()
    average_norms(network, [images], adaptive=False)
    return network.eval()


@pytest.fixture(scope='module')
def network(samples: CamVid) -> AnytimeNetwork:
    return learnt(samples, 'hrnet_tiny')


@pytest.fixture(scope='module')
def coarse(samples: CamVid) -> AnytimeNetwork:
    """Give one of three exits, the first at 1/8."""
    return learnt(samples, 'coarse_tiny')


def sharpened(network: AnytimeNetwork, factor: float) -> AnytimeNetwork:
    """Give the same network with class scores that are so many times as large."""
    other = build_network(network.config).eval()
    other.load_state_dict(network.state_dict())
    for head in (other.exit1, other.exit2, other.exit3, other.last_layer):
        head[-1].weight.data.mul_(factor)
        head[-1].bias.data.mul_(factor)
    return other


def test_temperatures_undo_a_factor_on_the_class_scores(
    network: AnytimeNetwork, samples: CamVid
) -> None:
    before = np.array(fit_temperatures(network, samples, progress=False))
    after = np.array(fit_temperatures(sharpened(network, 1.5), samples, progress=False))
    assert max(after) < 20  # where temperatures end
    np.testing.assert_allclose(after, 1.5 * before, rtol=1e-3)


def test_calibration_brings_confidence_to_accuracy(
    network: AnytimeNetwork, samples: CamVid
) -> None:
    sharp = sharpened(network, 3.0)
    found = calibrate(sharp, samples, progress=False)
    assert min(found.network.config.temperatures) > 1
    assert np.mean(found.with_masks.ece) < 0.5 * np.mean(found.without_masks.ece)
    assert sharp.config.temperatures == (1.0,) * 4  # the one that was given is as it was


def test_thresholds_save_what_they_can_without_losing_more(
    network: AnytimeNetwork, samples: CamVid
) -> None:
    dense = evaluate(network, samples, adaptive=False, progress=False)
    min_miou = dense.miou[-1] - 0.1
    found = fit_thresholds(network, samples, min_miou, each_exit=True, progress=False)
    assert found != (1.0,) * 3 and set(found) <= set(THRESHOLDS)
    result = evaluate(with_thresholds(network, found), samples, progress=False)
    assert result.miou[-1] >= min_miou
    assert result.gimac[-1] < dense.gimac[-1]
    for i in range(3):  # none could be lowered further
        place = THRESHOLDS.index(found[i]) + 1
        if place < len(THRESHOLDS) and i == 0:
            lower = (THRESHOLDS[place], *found[1:])
            again = evaluate(with_thresholds(network, lower), samples, progress=False)
            assert again.miou[-1] < min_miou


def test_one_threshold_for_all_exits_is_the_lowest_that_holds(
    network: AnytimeNetwork, samples: CamVid
) -> None:
    dense = evaluate(network, samples, adaptive=False, progress=False)
    min_miou = 0.4 * dense.miou[-1]
    found = fit_thresholds(network, samples, min_miou, progress=False)
    assert len(set(found)) == 1 and found[0] < 1.0
    for threshold in THRESHOLDS[: THRESHOLDS.index(found[0]) + 2]:
        result = evaluate(with_thresholds(network, (threshold,) * 3), samples, progress=False)
        assert (result.miou[-1] >= min_miou) == (threshold >= found[0])


def test_any_number_of_exits_gets_thresholds(coarse: AnytimeNetwork, samples: CamVid) -> None:
    found = fit_thresholds(coarse, samples, 0.0, each_exit=True, progress=False)
    assert found == (THRESHOLDS[-1],) * 2
    result = calibrate(coarse, samples, max_loss=0.1, progress=False)
    assert len(result.network.config.temperatures) == 3


# thresholds for each class


def answers_by_hand() -> Answers:
    """
    Give ten pixels at two exits, the first of which is sure at candidate 1 or 2, or never.

    It says class 0, which is right, or class 1, which is wrong; the last exit is always right.
    """
    judged = np.array([[0] * 6 + [1] * 4], np.uint8)
    label = np.array([0] * 9 + [2], np.uint8)
    reached = np.array([[1, 1, 2, 2, 2, 255, 1, 2, 2, 255]], np.uint8)
    return Answers(label, np.concatenate([judged, label[None]]), judged, reached)


def test_the_way_down_lowers_classes_that_are_right() -> None:
    answers = answers_by_hand()
    start = no_masks(answers, 3)
    easy, hard = Move((0,), 0), Move((0,), 1)
    # class 1 would put a pixel wrong at candidate 1; class 2, which no exit says, stays
    path = descend(answers, [1.0], start, max_loss=0.05)
    assert path == [Step(easy, ((1, 0, 0),)), Step(easy, ((2, 0, 0),))]
    unbound = descend(answers, [1.0], start, max_loss=1.0)
    assert unbound == [*path, Step(hard, ((2, 1, 0),)), Step(hard, ((2, 2, 0),))]
    assert descend(answers, [1.0], ((1, 0, 0),), max_loss=0.05) == path[1:]
    only = descend(answers, [1.0], start, max_loss=1.0, frozen={easy})
    assert [step.choice for step in only] == [((0, 1, 0),), ((0, 2, 0),)]


def test_what_the_exits_say_is_collected(coarse: AnytimeNetwork, samples: CamVid) -> None:
    some = list(samples)[:2]
    found = collect_answers(coarse, some, THRESHOLDS, progress=False)
    assert found.shown.shape == (3, 2 * 64 * 96) and found.judged.shape == (2, 2 * 64 * 96)
    confusion = Confusion(11)
    confusion.add(found.label, found.shown[-1])
    dense = evaluate(coarse, some, adaptive=False, progress=False)
    assert confusion.mean_iou() == pytest.approx(dense.miou[-1], abs=1e-6)
    # what the first exit masks at the lowest candidate
    masked = evaluate(with_thresholds(coarse, (THRESHOLDS[-1], 1.0)), some, progress=False)
    estimate = (found.reached[0] < len(THRESHOLDS)).mean()
    assert estimate == pytest.approx(masked.masked_share[0], abs=1e-6) and 0 < estimate < 1


@pytest.mark.parametrize('each_exit', [False, True])
def test_thresholds_for_each_class_save_more_within_the_allowed_loss(
    coarse: AnytimeNetwork, samples: CamVid, each_exit: bool
) -> None:
    network = copy.deepcopy(coarse)
    for index in (1, 2):  # wrongly, and often surely, say class 8
        network.head(index)[0].bias.data[8] += 2
    dense = evaluate(network, samples, adaptive=False, progress=False)
    min_miou = dense.miou[-1] - 0.02
    one = fit_thresholds(network, samples, min_miou, progress=False)
    single = with_thresholds(network, one)
    found = fit_class_thresholds(single, samples, dense, 0.02, each_exit, progress=False)
    adaptivity = found.config.adaptivity
    assert adaptivity is not None and adaptivity.thresholds == one
    for by_class in adaptivity.class_thresholds:
        assert by_class[8] > max(by_class[0], by_class[3])
        assert by_class[1] == 1  # no exit says it
    assert len(adaptivity.class_thresholds) == 2
    result = evaluate(found, samples, progress=False)
    assert result.miou[-1] >= min_miou
    assert result.gimac[-1] < 0.9 * evaluate(single, samples, progress=False).gimac[-1]


def test_thresholds_for_each_class_that_save_nothing_are_left(
    coarse: AnytimeNetwork, samples: CamVid
) -> None:
    dense = evaluate(coarse, samples, adaptive=False, progress=False)
    lowest = with_thresholds(coarse, (THRESHOLDS[-1],) * 2)
    assert fit_class_thresholds(lowest, samples, dense, 0.0, progress=False) is lowest


def test_an_accuracy_out_of_reach_leaves_masks_off(
    network: AnytimeNetwork, samples: CamVid
) -> None:
    assert fit_thresholds(network, samples, 1.1, progress=False) == (1.0,) * 3


def test_a_network_without_masks_gets_temperatures_alone(samples: CamVid) -> None:
    found = calibrate(random_network(1), samples, progress=False)
    assert found.network.config.adaptivity is None
    assert found.network.config.temperatures != (1.0,) * 4


@pytest.mark.parametrize('criterion', [Criterion.ENTROPY, Criterion.TOP_K])
def test_thresholds_of_another_criterion_are_not_searched_and_nothing_is_computed(
    criterion: Criterion,
) -> None:
    other = random_network(0, adaptivity=Adaptivity(criterion, (0.0,) * 3))
    message = f'expected a network with masks by top probability, got masks by {criterion.value}'
    with pytest.raises(ValueError, match=message):
        with_thresholds(other, (0.9,) * 3)
    with pytest.raises(ValueError, match=message):
        calibrate(other, [])  # type: ignore[arg-type]


def test_calibrate_on_the_command_line(
    network: AnytimeNetwork,
    samples: CamVid,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, target = str(tmp_path / 'in.safetensors'), str(tmp_path / 'out.safetensors')
    checkpoint.save(source, network, CAMVID, {'result': 'random'})
    data = f'camvid:{samples.pairs[0][0].parents[1]}?drives=0001TP'
    file = tmp_path / 'numbers.json'
    arguments = ['calibrate', '--weights', source, '--data', data, '--json', str(file)]
    assert main([*arguments, '--max-loss', '2', '--each-class', target]) == 0
    fitted = checkpoint.load(target)
    numbers = json.loads(file.read_text())
    adaptivity = fitted.network.config.adaptivity
    assert adaptivity is not None and list(adaptivity.thresholds) == numbers['thresholds']
    assert [list(each) for each in adaptivity.class_thresholds] == numbers['class_thresholds']
    assert list(fitted.network.config.temperatures) == numbers['temperatures']
    assert fitted.info == {
        'result': 'random',
        'calibration': f'{data}, at most 2.0 points of mIoU lost',
    }
    again = evaluate(fitted.network, samples, progress=False)
    assert fitted.worth == worth_of(again, data) and fitted.exit_s is not None
    assert len(fitted.exit_s.seconds) == 4
    assert fitted.exit_s.measured.startswith('{}x{}, '.format(*samples[0].label.shape))
    for name, value in network.state_dict().items():
        if not name.endswith('num_batches_tracked'):
            assert torch.equal(value, fitted.network.state_dict()[name])
    same = dataclasses.replace(
        fitted.network.config,
        adaptivity=network.config.adaptivity,
        temperatures=network.config.temperatures,
    )
    assert same == network.config
    assert 'calibration error' in capsys.readouterr().out
    assert main([*arguments, str(tmp_path / 'out.pth')]) == 2
    assert 'expected OUT.safetensors' in capsys.readouterr().err
