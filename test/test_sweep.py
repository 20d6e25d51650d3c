# SPDX-License-Identifier: Apache-2.0
"""A network is judged under other masks than its own, one after the other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from networks import random_image, random_network
from samples import write_tree

from adpc_ros.__main__ import main
from adpc_ros.commands import evaluate_sweep
from adpc_ros.labels import CAMVID
from adpc_ros.learning.datasets import CamVid
from adpc_ros.learning.evaluate import evaluate
from adpc_ros.learning.sweep import GRIDS, Choices, settings
from adpc_ros.network import checkpoint
from adpc_ros.network.adaptivity import Adaptivity, Criterion
from adpc_ros.network.exits import Heads
from adpc_ros.network.families import with_adaptivity
from adpc_ros.network.hrnet import HRNet

MASKS = Adaptivity(thresholds=(0.6,) * 3)


@pytest.fixture(scope='module')
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp('camvid'))


def test_a_network_without_masks_gets_them_with_initial_interpolation() -> None:
    plain = random_network(0)
    masked = with_adaptivity(plain, MASKS)
    own = plain.state_dict()
    for name, value in masked.state_dict().items():
        if name.endswith('Lambda'):
            assert value == 3.0
        elif not name.endswith('square_dis'):
            assert torch.equal(value, own[name])
    image = random_image(64, 96)
    with torch.inference_mode():
        for a, b in zip(masked(image, adaptive=False), plain(image)):
            assert torch.equal(a, b)
        assert not torch.equal(masked(image)[-1], plain(image)[-1])
    assert plain.config.adaptivity is None


def test_another_window_keeps_what_was_trained() -> None:
    network = random_network(0, adaptivity=MASKS)
    wide = with_adaptivity(network, Adaptivity(thresholds=(0.6,), window=9))
    own, changed = network.state_dict(), wide.state_dict()
    assert own.keys() == changed.keys()
    for name, value in changed.items():
        if name.endswith('square_dis'):
            assert value.shape == (9, 9)
        else:
            assert torch.equal(value, own[name])
    image = random_image(64, 96)
    with torch.inference_mode():
        assert not torch.equal(wide(image)[-1], network(image)[-1])
        back = with_adaptivity(wide, MASKS)
        assert torch.equal(back(image)[-1], network(image)[-1])
    assert {n for n in own if n not in with_adaptivity(network, None).state_dict()} == {
        n for n in own if n.endswith(('Lambda', 'square_dis'))
    }


def test_each_goes_with_each_and_a_criterion_without_thresholds_over_some() -> None:
    network = random_network(0, adaptivity=MASKS)
    found = settings(network, Choices(windows=(3, 9)))
    assert [(a.thresholds, a.window) for a in found] == [((0.6,) * 3, 3), ((0.6,) * 3, 9)]
    found = settings(network, Choices([Criterion.ENTROPY, Criterion.TOP_K]))
    assert len(found) == len(GRIDS[Criterion.ENTROPY]) + len(GRIDS[Criterion.TOP_K])
    last = GRIDS[Criterion.TOP_K][-1]
    assert found[-1].thresholds == pytest.approx((last / 3, last * 2 / 3, last))
    found = settings(network, Choices([Criterion.RANDOM], [(0.1,), (0.1, 0.2, 0.3)], (3, 5)))
    assert [(a.thresholds, a.window) for a in found] == [
        (thresholds, window) for thresholds in ((0.1,), (0.1, 0.2, 0.3)) for window in (3, 5)
    ]


def test_predicted_masks_are_swept_over_probabilities() -> None:
    masks = Adaptivity(Criterion.PREDICTED)
    network = random_network(0, adaptivity=masks, architecture='hrnet_tiny_sampled')
    found = settings(network, Choices(thresholds=[(0.3,), (0.1, 0.5, 0.9)]))
    assert [(a.criterion, a.thresholds) for a in found] == [
        (Criterion.PREDICTED, (0.3,)),
        (Criterion.PREDICTED, (0.1, 0.5, 0.9)),
    ]
    assert len(settings(network, Choices([Criterion.PREDICTED]))) == len(
        GRIDS[Criterion.PREDICTED]
    )
    with pytest.raises(ValueError, match='expected criterion predicted, got entropy'):
        settings(network, Choices([Criterion.ENTROPY]))
    unmasked = with_adaptivity(network, None)
    with pytest.raises(ValueError, match='hrnet_tiny_sampled: .* lack what predicts them'):
        settings(unmasked, Choices(windows=[3]))
    with pytest.raises(ValueError, match='lack what predicts them'):
        with_adaptivity(unmasked, masks)


def test_the_command_knows_every_criterion() -> None:
    assert evaluate_sweep.CRITERIA == tuple(criterion.value for criterion in Criterion)


@pytest.mark.parametrize('criterion', HRNet.CRITERIA)
def test_masks_in_inference_only_are_judged_on_the_command_line(
    criterion: Criterion, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = random_network(0)
    weights, file = str(tmp_path / 'plain.safetensors'), tmp_path / 'result.json'
    checkpoint.save(weights, network, CAMVID, {})
    options = ['--criterion', criterion.value, '--threshold', '.3/.4/.5', '--window', '5']
    command = ['evaluate', '--weights', weights, '--data', f'camvid:{tree / "val"}']
    assert main([*command, *options, '--json', str(file)]) == 0
    masks = Adaptivity(criterion, (0.3, 0.4, 0.5), 5)
    expected = evaluate(with_adaptivity(network, masks), CamVid(tree / 'val'), progress=False)
    numbers = json.loads(file.read_text())
    assert numbers['miou'] == expected.miou
    assert numbers['masked_share'] == expected.masked_share
    assert min(expected.masked_share) > 0
    shown = f'{criterion.value} 0.3/0.4/0.5, window 5'
    assert numbers['masks'] == shown
    assert f"masks, not the weights' own: {shown}" in capsys.readouterr().out


def test_a_sweep_gives_a_line_for_each_setting_and_a_figure(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = random_network(0, adaptivity=MASKS)
    weights, file = str(tmp_path / 'tiny.safetensors'), tmp_path / 'result.json'
    checkpoint.save(weights, network, CAMVID, {})
    command = ['evaluate', '--weights', weights, '--data', f'camvid:{tree / "val"}']
    command += ['--sweep', 'criterion=max_probability,random', '--sweep', 'threshold=.4,.1/.2/.3']
    assert main([*command, '--json', str(file), '--figures', str(tmp_path / 'figures')]) == 0
    rows = json.loads(file.read_text())['sweep']
    assert [(row['criterion'], row['thresholds'], row['window']) for row in rows] == [
        (None, None, None),
        ('max_probability', [0.4], 7),
        ('max_probability', [0.1, 0.2, 0.3], 7),
        ('random', [0.4], 7),
        ('random', [0.1, 0.2, 0.3], 7),
    ]
    samples = CamVid(tree / 'val')
    dense = evaluate(network, samples, adaptive=False, progress=False)
    assert rows[0]['miou'] == dense.miou and rows[0]['gimac'] == dense.gimac
    random = with_adaptivity(network, Adaptivity(Criterion.RANDOM, (0.1, 0.2, 0.3)))
    expected = evaluate(random, samples, progress=False)
    assert rows[-1]['miou'] == expected.miou and rows[-1]['gimac'] == expected.gimac
    assert rows[-1]['mean_gimac'] == pytest.approx(sum(expected.gimac) / 4)
    assert rows[-1]['masked_share'] == pytest.approx([0.1, 0.2, 0.3], abs=2e-3)
    printed = capsys.readouterr().out
    assert printed.count('window 7') == 4 and 'no masks' in printed
    assert [path.name for path in (tmp_path / 'figures').iterdir()] == ['sweep.svg']


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (['--criterion', 'entropy'], '--criterion needs --threshold'),
        (['--threshold', '1.5'], 'in [0, 1.0] for max_probability'),
        (['--sweep', 'criterion=predicted'], 'expected criterion max_probability, entropy, top_k'),
        (['--threshold', '.5/.5'], 'expected 3 thresholds'),
        (['--window', '4'], 'expected a window of (3, 5, 7, 9), got 4'),
        (['--window', '5', '--no-masks'], '--no-masks does not go with'),
        (['--sweep', 'window=3', '--no-masks'], '--no-masks does not go with'),
        (['--sweep', 'window=3', '--against', 'W'], '--against does not go with --sweep'),
        (['--sweep', 'window=3', '--window', '5'], 'expected window once'),
        (['--sweep', 'window=3', '--sweep', 'window=5'], 'expected window once'),
        (['--sweep', 'threshold=.5,2'], 'in [0, 1.0] for max_probability'),
    ],
)
def test_options_that_do_not_go_together_are_refused_before_the_work(
    options: list[str],
    words: str,
    tree: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    weights = str(tmp_path / 'tiny.safetensors')
    checkpoint.save(weights, random_network(0), CAMVID, {})
    options = [weights if option == 'W' else option for option in options]
    assert main(['evaluate', '--weights', weights, '--data', f'camvid:{tree}/val', *options]) == 2
    printed = capsys.readouterr()
    assert words in printed.err and 'mean IoU' not in printed.out


def test_masks_for_a_network_of_one_exit_are_refused(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = str(tmp_path / 'base.safetensors')
    checkpoint.save(weights, random_network(0, Heads.NONE), CAMVID, {})
    command = ['evaluate', '--weights', weights, '--data', f'camvid:{tree}/val']
    assert main([*command, '--sweep', 'window=3']) == 2
    assert 'adaptivity needs early exits: heads is none' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (['--criterion', 'margin'], "invalid choice: 'margin'"),
        (['--threshold', '-1'], 'expected T or T/T/... of at least 0'),
        (['--threshold', 'nan'], 'expected T or T/T/... of at least 0'),
        (['--sweep', 'window'], 'expected criterion=, threshold= or window=, with values'),
        (['--sweep', 'heads=plain'], 'expected criterion=, threshold= or window=, with values'),
        (['--sweep', 'criterion=margin'], 'expected max_probability, entropy, top_k, random'),
        (['--sweep', 'window=3,3'], 'expected different values'),
    ],
)
def test_options_of_another_form_are_refused(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match='2'):
        main(['evaluate', '--weights', 'W', '--data', 'camvid:D', *options])
    assert words in capsys.readouterr().err
