# SPDX-License-Identifier: Apache-2.0
"""An evaluation adds up what single images give."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from networks import random_network
from samples import blocks, write_sample, write_tree
from torch.nn import functional

from adpc_ros.__main__ import main
from adpc_ros.commands.options import write_json
from adpc_ros.labels import CAMVID, CITYSCAPES, IGNORE_ID
from adpc_ros.learning.datasets import CamVid
from adpc_ros.learning.evaluate import evaluate
from adpc_ros.learning.metrics import Confusion
from adpc_ros.learning.output import OutputFolder
from adpc_ros.learning.sample import Sample
from adpc_ros.network import checkpoint
from adpc_ros.network.adaptivity import Adaptivity
from adpc_ros.network.exits import Heads
from adpc_ros.network.macs import GI, count_frame
from adpc_ros.runtime.images import to_input


@pytest.fixture(scope='module')
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp('camvid'))


@pytest.mark.parametrize('adaptive', [True, False], ids=['masks_on', 'masks_off'])
def test_evaluation_adds_up_single_images(adaptive: bool) -> None:
    network = random_network(0, adaptivity=Adaptivity(thresholds=(0.6,) * 3))
    samples = [blocks(1), blocks(2, (50, 70))]
    samples = [Sample(s.image, np.where(s.label < 11, s.label, IGNORE_ID)) for s in samples]
    result = evaluate(network, samples, adaptive, progress=False)
    gimac, masked = [], []
    expected = [Confusion(11) for _ in range(4)]
    for image, label, _ in samples:
        x = to_input(image, network.config, torch.device('cpu'))
        counts, shares = count_frame(network, x, adaptive)
        gimac.append([count / GI for count in counts])
        masked.append([1 - share for share in shares[1:]])
        with torch.inference_mode():
            for logits, confusion in zip(network(x, adaptive), expected):
                full = functional.interpolate(logits, x.shape[2:], mode='bilinear')
                predicted = full.argmax(1)[0, : label.shape[0], : label.shape[1]]
                confusion.add(label, predicted.numpy().astype(np.uint8))
    assert result.gimac == pytest.approx(np.mean(gimac, axis=0).tolist())
    if adaptive:
        assert result.masked_share == pytest.approx(np.mean(masked, axis=0).tolist())
        assert max(result.masked_share) > 0.1
    else:
        assert result.masked_share == []
    assert result.miou == pytest.approx([c.mean_iou() for c in expected], abs=1e-3)


def test_what_is_masked_is_judged_where_no_later_exit_looks() -> None:
    network = random_network(0, adaptivity=Adaptivity(thresholds=(0.6,) * 3))
    sample = blocks(1, (50, 70))
    label = np.where(sample.label < 11, sample.label, IGNORE_ID)
    x = to_input(sample.image, network.config, torch.device('cpu'))
    result = evaluate(network, [(sample.image, label)], progress=False)
    with torch.inference_mode():
        for out, found in zip(network.exits(x), result.masked_accuracy):
            assert out.next_active is not None
            full = functional.interpolate(out.logits, x.shape[2:], mode='bilinear')
            predicted = full.argmax(1)[0, :50, :70].numpy()
            cells = (out.logits.shape[2], out.logits.shape[3])
            masked = ~out.next_active.at(cells)[0, 0].numpy().repeat(4, 0).repeat(4, 1)
            judged = masked[:50, :70] & (label != IGNORE_ID)
            assert judged.any()
            assert found == pytest.approx((predicted == label)[judged].mean(), abs=2e-3)


def test_a_clip_is_judged_by_what_is_in_hand_at_each_frame() -> None:
    network = random_network(0)
    samples = [blocks(seed) for seed in range(3)]
    samples = [Sample(s.image, np.where(s.label < 11, s.label, IGNORE_ID)) for s in samples]
    slow = evaluate(network, samples, progress=False, period_s=1e3)
    expected = Confusion(11)  # every frame is done: the last exit of the frame before
    with torch.inference_mode():
        for before, now in zip(samples, samples[1:]):
            x = to_input(before.image, network.config, torch.device('cpu'))
            full = functional.interpolate(network(x)[-1], x.shape[2:], mode='bilinear')
            expected.add(now.label, full.argmax(1)[0].numpy().astype(np.uint8))
    assert slow.streaming_miou == pytest.approx(expected.mean_iou(), abs=1e-3)
    assert evaluate(network, samples, progress=False).streaming_miou is None


def test_evaluation_without_images_is_an_error() -> None:
    with pytest.raises(ValueError, match='expected at least one image'):
        evaluate(random_network(), [], progress=False)


def test_evaluate_on_the_command_line(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = random_network(0, adaptivity=Adaptivity(thresholds=(0.6,) * 3))
    weights, file = str(tmp_path / 'tiny.safetensors'), tmp_path / 'result.json'
    checkpoint.save(weights, network, CAMVID, {})
    data = f'camvid:{tree / "val"}'
    assert main(['evaluate', '--weights', weights, '--data', data, '--json', str(file)]) == 0
    numbers = json.loads(file.read_text())
    expected = evaluate(network, CamVid(tree / 'val'), progress=False)
    assert numbers['miou'] == expected.miou
    assert numbers['gimac'] == expected.gimac
    assert numbers['masked_share'] == expected.masked_share
    assert numbers['ece'] == expected.ece
    assert numbers['masked_accuracy'] == expected.masked_accuracy
    assert len(numbers['seconds']) == 4 and numbers['seconds'] == sorted(numbers['seconds'])
    assert 0 < numbers['mean_over_deadlines']['miou'] < max(numbers['miou'])
    assert list(numbers['iou']) == list(CAMVID.names)
    assert numbers['iou']['road'] == [c.iou()[3] for c in expected.confusions]
    printed = capsys.readouterr().out
    assert f'{100 * expected.miou[-1]:.2f}' in printed and 'bicyclist' in printed
    assert main(['evaluate', '--weights', weights, '--data', 'kitti:here']) == 2
    assert 'expected camvid:FOLDER, cityscapes:FOLDER' in capsys.readouterr().err
    checkpoint.save(weights, random_network(class_count=19), CITYSCAPES, {})
    assert main(['evaluate', '--weights', weights, '--data', data]) == 2
    assert 'expected the classes of camvid' in capsys.readouterr().err


@pytest.mark.parametrize('command', ['evaluate', 'calibrate', 'train'])
@pytest.mark.parametrize('fault', ['nothing labelled', 'colours'])
def test_labels_that_say_nothing_end_a_command_before_its_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, fault: str
) -> None:
    image, label, _ = blocks(0)
    values = np.full_like(label, 255) if fault == 'nothing labelled' else np.dstack([label] * 3)
    write_sample(tmp_path, 'a', image, values)
    described = {'name': CAMVID.name, 'names': list(CAMVID.names)}
    (tmp_path / 'classes.yaml').write_text(yaml.safe_dump(described))
    data, weights = f'folder:{tmp_path}', str(tmp_path / 'tiny.safetensors')
    options = ['--weights', weights, '--data', data]
    if command == 'train':
        recipe = {'network': {'architecture': 'hrnet_tiny'}, 'epochs': 1, 'batch_size': 1}
        recipe |= {'data': data, 'validation': data, 'output': str(tmp_path / 'out')}
        (tmp_path / 'recipe.yaml').write_text(yaml.safe_dump(recipe))
        options = ['--config', str(tmp_path / 'recipe.yaml')]
    target = [str(tmp_path / 'fitted.safetensors')] if command == 'calibrate' else []
    assert main([command, *options, *target]) == 2
    said = capsys.readouterr().err
    assert f'{tmp_path}/label/a.png' in said
    assert ('nothing is labelled' if fault == 'nothing labelled' else 'got mode RGB') in said
    assert not (tmp_path / 'out').exists()


def test_numbers_that_are_not_known_are_null(tmp_path: Path) -> None:
    write_json(str(tmp_path / 'a'), {'a': math.nan, 'b': [(math.inf, 1.5)], 'c': None, 'd': 'NaN'})
    found = json.loads((tmp_path / 'a').read_text(), parse_constant=pytest.fail)
    assert found == {'a': None, 'b': [[None, 1.5]], 'c': None, 'd': 'NaN'}
    output = OutputFolder(tmp_path)
    output.add_record({'epoch': 1, 'miou': [math.nan, 0.5]})
    assert output.log.read_text() == '{"epoch": 1, "miou": [null, 0.5]}\n'


def test_networks_are_compared_on_the_same_images_and_drawn(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = []
    for seed, heads in ((0, Heads.REDESIGNED), (1, Heads.REDESIGNED), (2, Heads.NONE)):
        paths.append(str(tmp_path / f'{seed}.safetensors'))
        checkpoint.save(paths[-1], random_network(seed, heads), CAMVID, {})
    file, figures = tmp_path / 'result.json', tmp_path / 'figures'
    arguments = ['evaluate', '--weights', *paths[:1], '--data', f'camvid:{tree / "train"}']
    paths.append(str(tmp_path / '3.safetensors'))
    plain = random_network(3, Heads.NONE, architecture='coarse_tiny')
    checkpoint.save(paths[-1], plain, CAMVID, {})
    others = [*paths[1:3], f'{paths[2]}+{paths[3]}']
    arguments += ['--against', *others, '--figures', str(figures), '--json', str(file)]
    assert main([*arguments, '--fps', '10']) == 0
    numbers = json.loads(file.read_text())
    first, last, _ = numbers['differences'].values()
    miou = [
        evaluate(checkpoint.load(p).network, CamVid(tree / 'train'), progress=False).miou
        for p in paths
    ]
    assert [d['value'] for d in first] == pytest.approx([a - b for a, b in zip(*miou[:2])])
    assert [d['value'] for d in last] == pytest.approx([miou[0][-1] - miou[2][-1]])
    assert all(d['low'] <= d['value'] <= d['high'] for d in (*first, *last))
    cascade = list(numbers['against'].values())[-1]
    assert cascade['miou'] == pytest.approx([miou[2][-1], miou[3][-1]])
    assert cascade['gimac'][0] == numbers['against']['2@' + cascade['network'][2:14]]['gimac'][0]
    assert cascade['gimac'][1] > cascade['gimac'][0] and 'streaming_miou' in cascade
    assert 0 <= numbers['streaming_miou'] <= 1
    assert 'exit 4' in capsys.readouterr().out
    assert {p.name for p in figures.iterdir()} > {
        'miou_gimac.svg',
        'miou_seconds.svg',
        'reliability.svg',
    }
    assert len(list(figures.glob('0001TP_*.png'))) == 4
