# SPDX-License-Identifier: Apache-2.0
"""
Every command of the README is run here, or in the test that is named for it.

Placeholders become real files. What needs an installed ROS is marked there (a comment, or a block
with an invisible one before it) and parsed only.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import yaml
from bags import Shot, write_bag
from networks import random_network
from samples import write_tree
from shared import ROOT

from adpc_ros.labels import CAMVID
from adpc_ros.learning.config import read_config
from adpc_ros.network import checkpoint
from adpc_ros.network.adaptivity import Adaptivity
from adpc_ros.network.families import NetworkConfig, build_network
from adpc_ros.ros.domain import isolated

INSTALLED = 'installed ROS'
RUN_BY = {  # commands that have a test of their own, or are what runs this one
    'make demo': 'test_demo.py::test_the_demo_runs_its_acts_and_writes_a_true_report',
    'FRAMES=folder/of/images make demo': 'test_demo.py::test_what_is_wrong_with_the_input_is',
    'BAG=drive.mcap make demo': 'test_demo.py::test_what_is_wrong_with_the_input_is',
    'make test': '',
    'sudo apt install --no-install-recommends cmake g++ git make python3-dev python3-venv': '',
    'make smoke ROS=kilted': 'test_smoke.py::test_a_frame_gives_a_mask',
    'torchrun --nproc-per-node 4 -m adpc_ros train --config ...': 'test_distributed.py::test_',
}


class Snippet(NamedTuple):
    """A command of the README; ``installed`` says that it is marked as needing ROS."""

    command: str
    installed: bool


def snippets(text: str) -> list[Snippet]:
    """Give the commands of the indented blocks (the fenced one is run in test_smoke.py)."""
    found = []
    marked = False
    text = re.sub('^```.*?^```', '', text, flags=re.DOTALL | re.MULTILINE)
    for line in re.sub(r'\\\n\s*', '', text).splitlines():
        if line.startswith('<!--'):
            marked = INSTALLED in line
        elif re.match(r' {4}', line) and line.strip():
            command, _, comment = line.strip().partition(' #')
            found.append(Snippet(command.strip(), marked or INSTALLED in comment))
        elif line.startswith('#'):
            marked = False
    return found


SNIPPETS = snippets((ROOT / 'README.md').read_text())
HERE = [each.command for each in SNIPPETS if not each.installed and each.command not in RUN_BY]


def test_every_command_is_run_here_or_elsewhere_or_marked() -> None:
    assert len(SNIPPETS) > 25 and len(HERE) > 12
    programs = {shlex.split(command)[0] for command in HERE}
    assert programs == {'python'}
    commands = {each.command for each in SNIPPETS}
    for command, test in RUN_BY.items():
        assert command in commands, 'it is gone from the README'
        file, _, name = test.partition('::')
        assert not test or f'\ndef {name}' in (ROOT / 'test' / file).read_text()


def test_what_needs_an_installed_ros_is_shell_and_marked_for_a_reason() -> None:
    marked = [each.command for each in SNIPPETS if each.installed]
    assert len(marked) > 8
    done = subprocess.run(
        ['bash', '-n'], input='\n'.join(marked), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, '')
    text = '\n'.join(marked)
    assert all(program in text for program in ('ros2 launch', 'colcon build', 'rosdep install'))
    assert 'python -m adpc_ros' not in text


def test_make_knows_its_targets() -> None:
    calls = [re.search(r'(?:^|[A-Z] |[a-z.] )make (\w+)', command) for command in RUN_BY]
    targets = {call[1] for call in calls if call and 'apt' not in call.string}
    assert targets == {'demo', 'test', 'smoke'}
    for target in sorted(targets):
        subprocess.run(['make', '-n', target], cwd=ROOT, check=True, capture_output=True)


@pytest.fixture(scope='module')
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder in which all that the commands name is there, small."""
    root = tmp_path_factory.mktemp('readme')
    for name in ('config', 'weights'):
        (root / name).symlink_to(ROOT / name)
    events = [Shot(at) for at in (0, 100, 200)]
    shutil.copy(next(write_bag(root / 'bag', events).glob('*.mcap')), root / 'drive.mcap')
    expected = {'received': 3, 'segmented': 3, 'dropped': 0}
    (root / 'expectation.yaml').write_text(yaml.safe_dump(expected))
    (root / 'drives.yaml').write_text(yaml.safe_dump({'drives': [{'bag': 'drive.mcap'}]}))
    data = write_tree(root / 'FOLDER')
    shutil.copy(next((data / 'val' / 'image').iterdir()), root / 'frame.jpg')
    network = random_network(0, adaptivity=Adaptivity(thresholds=(0.6,) * 3))
    (root / 'runs' / 'X').mkdir(parents=True)
    checkpoint.save(root / 'W.safetensors', network, CAMVID, {})
    checkpoint.save(root / 'runs' / 'X' / 'best.safetensors', network, CAMVID, {})
    paper = build_network(NetworkConfig('hrnet_w48', adaptivity=Adaptivity())).state_dict()
    torch.save({f'model.{name}': tensor for name, tensor in paper.items()}, root / 'released.pth')
    return root


def in_place(command: str, place: Path) -> list[str]:
    """Give a command's arguments, with real data for the README's."""
    small = {
        'camvid:FOLDER': f'camvid:{place}/FOLDER/val',
        'DATA': f'camvid:{place}/FOLDER/val',
        'DIR': 'figures',
        'FILE': 'numbers.json',
    }
    program, *arguments = [small.get(word, word) for word in shlex.split(command)]
    assert program == 'python'
    if '--config' in arguments:  # the recipe itself is read, and a small one trained
        at = arguments.index('--config') + 1
        recipe = read_config(ROOT / arguments[at])
        assert recipe.epochs > 100
        arguments[at] = 'small.yaml'
        values = {
            'network': {'architecture': 'hrnet_tiny'},
            'data': f'camvid:{place}/FOLDER/train',
            'validation': f'camvid:{place}/FOLDER/val',
            'output': f'trained_{at}_{recipe.network["architecture"]}',
            'epochs': 1,
            'crop': [64, 96],
        }
        (place / 'small.yaml').write_text(yaml.safe_dump(values))
    return [sys.executable, *arguments]


@pytest.mark.parametrize('command', [c for c in HERE if 'ros.node' not in c])
def test_a_command_does_what_it_says(command: str, place: Path) -> None:
    environment = isolated({**os.environ, 'PYTHONPATH': f'{ROOT}:{os.environ["PYTHONPATH"]}'})
    (place / 'out.mcap').unlink(missing_ok=True)
    done = subprocess.run(
        in_place(command, place),
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip() or 'train' in command
    for name in re.findall(r'--(?:out|junit|json|figures|report) (\S+)', command):
        written = place / {'DIR': 'figures', 'FILE': 'numbers.json'}.get(name, name)
        assert written.exists(), name


@pytest.mark.parametrize('command', [c for c in HERE if 'ros.node' in c])
def test_the_node_starts_as_it_says_and_ends_on_an_interrupt(command: str, place: Path) -> None:
    log = place / 'node.log'
    with open(log, 'wb') as file:
        process = subprocess.Popen(
            in_place(command, place),
            cwd=place,
            env=isolated({**os.environ, 'PYTHONPATH': f'{ROOT}:{os.environ["PYTHONPATH"]}'}),
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            end_s = time.monotonic() + 60
            while 'advised' not in log.read_text() and time.monotonic() < end_s:
                assert process.poll() is None, log.read_text()
                time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
        finally:
            process.kill()
    text = log.read_text()
    assert 'coarse_s_camvid' in text and 'Traceback' not in text
