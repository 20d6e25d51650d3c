# SPDX-License-Identifier: Apache-2.0
"""Each system for segmentation learns a handful of images by heart, and is evaluated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from samples import write_sample
from shared import camvid

from adpc_ros.__main__ import main
from adpc_ros.learning.config import TrainConfig
from adpc_ros.learning.datasets import CamVid
from adpc_ros.learning.train import train
from adpc_ros.network.adaptivity import Adaptivity, Criterion
from adpc_ros.network.families import NetworkConfig
from adpc_ros.network.macs import GI, count_shares

TINY = {'architecture': 'hrnet_tiny'}
PREDICTED = {'adaptivity': {'criterion': 'predicted'}}
SYSTEMS: dict[str, dict[str, Any]] = {  # keys of the recipe
    'base': {'network': {**TINY, 'heads': 'none'}},
    'ee': {'network': {**TINY, 'heads': 'plain'}},
    'ee_rh': {'network': {**TINY, 'heads': 'redesigned'}},
    'adpc': {'network': {**TINY, 'adaptivity': {'thresholds': [0.9]}}},
    'entropy': {'network': {**TINY, 'adaptivity': {'criterion': 'entropy', 'thresholds': [0.4]}}},
    'top_k': {'network': {**TINY, 'adaptivity': {'criterion': 'top_k', 'thresholds': [0.3]}}},
    'random': {'network': {**TINY, 'adaptivity': {'criterion': 'random', 'thresholds': [0.1]}}},
    'deep_heads': {'network': {**TINY, 'head_depths': [3, 3, 3]}},
    'coarse_to_fine': {
        'network': {'architecture': 'coarse_tiny', 'adaptivity': {'thresholds': [0.9]}}
    },
    'sampled': {
        'network': {'architecture': 'hrnet_tiny_sampled', **PREDICTED},
        'exit_weights': (0.5, 0.5, 0.5, 1.0),
        'sparsity_weight': 0.5,
    },
    'mdeq': {
        'network': {'architecture': 'mdeq_tiny'},
        'exit_weights': (0, 0, 0, 1),
        'unrolled_steps': 50,
    },
}
MASKS = {'adpc', 'entropy', 'top_k', 'random', 'coarse_to_fine', 'sampled'}
SIZE = (64, 96)


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give three small images of CamVid as a data set."""
    root = tmp_path_factory.mktemp('handful') / 'train'
    samples = CamVid(camvid('train'))
    for i in (0, 150, 300):
        image, label = (Image.fromarray(part) for part in samples[i][:2])
        small = (image.resize(SIZE[::-1], 2), label.resize(SIZE[::-1], 0))
        write_sample(root, f'0001TP_{i:06}', *(np.asarray(part) for part in small))
    return f'camvid:{root}'


@pytest.mark.parametrize('name', SYSTEMS)
def test_a_system_learns_a_handful_of_camvid_images(name: str, data: str, tmp_path: Path) -> None:
    common: dict[str, Any] = {
        'data': data,
        'validation': data,
        'output': str(tmp_path / 'run'),
        'epochs': 64,
        'batch_size': 3,
        'crop': SIZE,
        'scales': (1.0, 1.0),
        'colour': 0.0,
        'learning_rate': 0.01,
        'class_balance': 0.0,
        'norm_batches': 4,
        'evaluate_every': 64,
    }
    weights = train(TrainConfig(**common | SYSTEMS[name]))
    file = tmp_path / 'result.json'
    command = ['evaluate', '--weights', str(weights), '--data', data, '--json', str(file)]
    assert main(command) == 0
    result = json.loads(file.read_text())
    assert result['miou'][-1] > 0.2, 'one class everywhere has 0.05'
    given = dict(SYSTEMS[name]['network'], class_count=11)
    if 'adaptivity' in given:
        masks = given['adaptivity']
        given['adaptivity'] = Adaptivity(
            Criterion(masks.get('criterion', 'max_probability')), masks.get('thresholds')
        )
    dense = [n / GI for n in count_shares(NetworkConfig(**given), SIZE)]
    assert bool(result['masked_share']) == (name in MASKS)
    if name in MASKS:
        assert max(result['masked_share']) > 0.02
        assert result['gimac'][-1] < dense[-1] * 1.01
    else:
        assert result['gimac'] == dense
