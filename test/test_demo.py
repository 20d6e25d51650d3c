# SPDX-License-Identifier: Apache-2.0
"""The demo, short, with real processes: its books balance and its pictures are there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from networks import random_network
from PIL import Image

from adpc_ros.labels import CAMVID
from adpc_ros.network import checkpoint
from adpc_ros.network.adaptivity import Adaptivity
from adpc_ros.street import StreetDrive


def drive_of(folder: Path, count: int) -> Path:
    """Write a labelled drive of small images and give the folder of the images."""
    for name in ('image', 'label'):
        (folder / name).mkdir(parents=True)
    for i, frame in enumerate(StreetDrive(count, (96, 128))):
        Image.fromarray(frame.image).save(folder / 'image' / f'{i}.png')
        Image.fromarray(frame.label).save(folder / 'label' / f'{i}.png')
    return folder / 'image'


def test_the_demo_runs_its_acts_and_writes_a_true_report(tmp_path: Path) -> None:
    weights = tmp_path / 'tiny.safetensors'
    network = random_network(0, adaptivity=Adaptivity(thresholds=(0.6,) * 3))
    checkpoint.save(weights, network, CAMVID, {})
    images = drive_of(tmp_path / 'drive', 6)
    out = tmp_path / 'out'
    command = [sys.executable, '-m', 'adpc_ros.demo', '--frames', str(images)]
    command += ['--weights', str(weights), '--out', str(out), '--act-s', '1.5', '--urgencies', '8']
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    report = json.loads((out / 'report.json').read_text())
    frames = report['frames']
    # best effort: a busy machine may lose some, but it must say so
    assert frames['sent'] == frames['received'] + frames['lost'] > 14
    assert frames['lost'] < frames['sent'] / 4
    assert frames['received'] == frames['segmented'] + frames['dropped']
    assert sum(report['stops'].values()) == frames['segmented']
    assert report['stops']['FINISHED'] > 0
    assert len(report['miou']) == 4 and all(0 <= m < 1 for m in report['miou'])
    assert report['latency_ms']['median'] > 0
    assert 'lost' in done.stdout and 'lost' in (out / 'report.md').read_text()
    with Image.open(out / 'drive.webp') as animation:
        assert animation.n_frames > 3
    with Image.open(out / 'exits_005.png') as panel:
        assert panel.width == 3 * 128
        assert len(np.unique(np.asarray(panel))) > 50


def test_what_is_wrong_with_the_input_is_said_in_a_line(tmp_path: Path) -> None:
    weights = tmp_path / 'tiny.safetensors'
    checkpoint.save(weights, random_network(), CAMVID, {})
    nowhere = str(tmp_path / 'nowhere')
    for options in (['--weights', nowhere], ['--weights', str(weights), '--frames', nowhere]):
        command = [sys.executable, '-m', 'adpc_ros.demo', *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        assert 'nowhere' in done.stderr and 'Traceback' not in done.stderr
