# SPDX-License-Identifier: Apache-2.0
"""What the commands share: places for results are looked at before the work begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from adpc_ros.__main__ import main

EVALUATE = ['evaluate', '--weights', 'W', '--data', 'camvid:D']
CALIBRATE = ['calibrate', '--weights', 'W', '--data', 'camvid:D']
CONVERT = ['convert', 'IN', '--network', 'hrnet_tiny']
MASKS = ['benchmark', 'masks', '--weights', 'W', '--frames', 'D']
PREEMPT = ['benchmark', 'preempt', '--network', 'hrnet_tiny', '--size', '64x64']
ROS = ['benchmark', 'ros', '--size', '64x64', '--weights', 'W']


@pytest.mark.parametrize(
    ('command', 'words'),
    [
        (['macs', '--json', 'no/n.json'], '--json: no/n.json: expected a folder at'),
        (['macs', '--json', 'D'], '--json: expected a file to write, got the folder D'),
        (['macs', '--json', '/proc/n.json'], '--json: cannot write to /proc/n.json'),
        (['macs', '--weights', 'W', '--image', 'D/1.png', '--json', 'D/1.png'], 'got D/1.png for'),
        ([*EVALUATE, '--json', 'no/n.json'], '--json: no/n.json'),
        ([*EVALUATE, '--json', 'W'], 'expected an output beside the input, got W'),
        ([*EVALUATE, '--json', 'D/1.png'], 'expected an output beside the input, got D/1.png'),
        ([*EVALUATE, '--figures', 'W'], '--figures: W: expected a folder at'),
        ([*EVALUATE, '--figures', 'F', '--json', 'F/reliability.svg'], '--json: F/reliab'),
        ([*EVALUATE, '--figures', 'D', '--json', 'D/miou_gimac.svg'], 'expected two files'),
        ([*CALIBRATE, 'O.safetensors', '--json', 'D'], '--json: expected a file'),
        ([*CALIBRATE, '/proc/O.safetensors'], 'cannot write to /proc'),
        ([*CONVERT, '/proc/O.safetensors'], 'cannot write to /proc'),
        ([*CONVERT, 'W/O.safetensors'], 'OUT.safetensors: W: expected a folder at'),
        ([*MASKS, '--json', 'no/n.json'], '--json: no/n.json'),
        ([*PREEMPT, '--json', 'no/n.json'], '--json: no/n.json'),
        ([*ROS, '--json', 'W'], 'expected an output beside the input, got W'),
    ],
)
def test_a_place_that_cannot_be_written_to_is_said_before_the_inputs_are_read(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'D').mkdir()
    for name in ('W', 'IN', 'D/1.png'):  # none of which can be read
        (tmp_path / name).write_bytes(b'?')
    before = sorted(tmp_path.rglob('*'))
    assert main(command) == 2
    assert words in capsys.readouterr().err
    assert sorted(tmp_path.rglob('*')) == before
    assert (tmp_path / 'W').read_bytes() == b'?'
