# SPDX-License-Identifier: Apache-2.0
"""What lies in install/ is what a vehicle gets, so it must do without the repository."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ament_index_python.packages import get_package_prefix
from graph import Client, NodeProcess
from networks import random_network
from shared import ROOT

from adpc_ros.labels import CAMVID
from adpc_ros.network import checkpoint
from adpc_ros.ros.shared_memory import PROFILE_VARIABLES

PREFIX = Path(get_package_prefix('adpc_ros'))
SHARE = PREFIX / 'share' / 'adpc_ros'
NODE = PREFIX / 'lib' / 'adpc_ros' / 'segmentation_node'
WEIGHTS = 'weights/coarse_s_camvid.safetensors'
NO_PROFILE = 'no profile for Fast DDS'


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell outside the repository that has only sourced the installation."""
    paths = os.environ['PYTHONPATH'].split(os.pathsep)
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join(p for p in paths if p and Path(p) != ROOT))
    monkeypatch.chdir('/')


def test_launch_and_configuration_are_installed() -> None:
    for file in (
        'launch/adpc.launch.py',
        'launch/label_points.launch.py',
        'launch/replay.launch.py',
        'launch/two_cameras.launch.py',
        'config/adpc.foxglove.json',
        'config/adpc.param.yaml',
        'config/adpc.rviz',
        'config/examples/nav2_costmap.yaml',
        'config/label_points.param.yaml',
        'config/fastdds_shared_memory.xml',
        'msg/SegmentationStatus.msg',
        'msg/Urgency.msg',
        'package.xml',
    ):
        assert (SHARE / file).is_file(), file
    for script in (ROOT / 'scripts').iterdir():
        assert os.access(NODE.with_name(script.name), os.X_OK), script.name
    assert (SHARE / 'weights').is_dir()
    assert (SHARE / WEIGHTS).exists() == (ROOT / WEIGHTS).exists()


@pytest.mark.usefixtures('away')
def test_every_module_is_installed() -> None:
    modules = {
        '.'.join(path.relative_to(ROOT).with_suffix('').parts)
        for path in (ROOT / 'adpc_ros').rglob('*.py')
    }
    site = next(PREFIX.glob('lib/python3*/site-packages'))
    missing = {name for name in modules if not (site / (name.replace('.', '/') + '.py')).exists()}
    assert not missing, 'build again: make setup'
    code = (
        'import adpc_ros, adpc_ros.msg, adpc_ros.runtime.engine, adpc_ros.ros.conversions\n'
        'adpc_ros.msg.SegmentationStatus, adpc_ros.msg.Urgency\n'
        'print(adpc_ros.__file__)'
    )
    result = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=True
    )
    assert Path(result.stdout.strip()) == site / 'adpc_ros' / '__init__.py'


@pytest.mark.usefixtures('away')
def test_the_installed_node_segments_outside_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert os.access(NODE, os.X_OK)
    for name in PROFILE_VARIABLES:
        monkeypatch.delenv(name)
    path = tmp_path / 'tiny.safetensors'
    checkpoint.save(path, random_network(0), CAMVID, {})
    command = [str(NODE), '--ros-args', '--params-file', f'{SHARE}/config/adpc.param.yaml']
    client = Client()
    try:
        with NodeProcess(tmp_path, f'weights:={path}', command=command) as node:
            client.connect(node)
            sent = client.image()
            client.wait(lambda: client.statuses)
            assert client.statuses[0].header == sent.header
            assert node.log().count(NO_PROFILE) == 1
            assert node.stop() == 0
            assert 'Warning: ' not in node.log() and 'Traceback' not in node.log()
    finally:
        client.close()


@pytest.mark.usefixtures('away')
@pytest.mark.skipif(not (SHARE / WEIGHTS).exists(), reason=f'no packaged {WEIGHTS}')
def test_the_packaged_weights_are_found(tmp_path: Path) -> None:
    with NodeProcess(tmp_path, command=[str(NODE)]) as node:
        deadline_s = time.monotonic() + 60
        while 'camvid classes' not in node.log():
            assert node.process.poll() is None and time.monotonic() < deadline_s, node.log()
            time.sleep(0.1)
        assert 'coarse_s_camvid@' in node.log()
        assert NO_PROFILE not in node.log()
        assert node.stop() == 0


@pytest.mark.usefixtures('away')
def test_the_installed_node_for_clouds_starts_without_torch(tmp_path: Path) -> None:
    command = [str(NODE.with_name('label_points_node')), '--ros-args']
    command += ['--params-file', f'{SHARE}/config/label_points.param.yaml']
    with NodeProcess(
        tmp_path, 'extrinsics:=[0.0,0.0,0.0,0.0,0.0,0.0,1.0]', command=command
    ) as node:
        client = Client()
        try:
            client.wait(lambda: client.node.count_publishers('/label_points/output/points'))
        finally:
            client.close()
        assert 'libtorch' not in Path(f'/proc/{node.process.pid}/maps').read_text()
        assert node.stop() == 0
        assert 'Traceback' not in node.log()
