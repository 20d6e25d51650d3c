"""An evaluation adds up what single images give."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import random_network
from samples import blocks, write_tree
from torch.nn import functional

from adpc_ros.__main__ import main
from adpc_ros.labels import CAMVID, CITYSCAPES, IGNORE_ID
from adpc_ros.learning.datasets import CamVid, Sample
from adpc_ros.learning.evaluate import evaluate
from adpc_ros.learning.metrics import Confusion
from adpc_ros.network import checkpoint
from adpc_ros.network.adaptivity import Adaptivity
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
    for image, label in samples:
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
    assert list(numbers['iou']) == list(CAMVID.names)
    assert numbers['iou']['road'] == [c.iou()[3] for c in expected.confusions]
    printed = capsys.readouterr().out
    assert f'{100 * expected.miou[-1]:.2f}' in printed and 'bicyclist' in printed
    assert main(['evaluate', '--weights', weights, '--data', 'kitti:here']) == 2
    assert 'expected camvid:FOLDER, cityscapes:FOLDER' in capsys.readouterr().err
    checkpoint.save(weights, random_network(class_count=19), CITYSCAPES, {})
    assert main(['evaluate', '--weights', weights, '--data', data]) == 2
    assert 'expected the classes of camvid' in capsys.readouterr().err
