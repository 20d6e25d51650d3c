# SPDX-License-Identifier: Apache-2.0
"""HRNet for poses: what it costs, what its exits give, and who takes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bags import Shot, write_bag
from networks import random_image, random_network
from PIL import Image
from samples import write_tree
from torch import Tensor

from adpc_ros.__main__ import main
from adpc_ros.demo import main as demo
from adpc_ros.labels import CAMVID
from adpc_ros.learning.people import JOINTS
from adpc_ros.network import checkpoint, official
from adpc_ros.network.adaptivity import Adaptivity, Criterion, active_positions
from adpc_ros.network.anytime import AnytimeNetwork
from adpc_ros.network.exits import Heads
from adpc_ros.network.families import NetworkConfig, build_network, default_adaptivity
from adpc_ros.network.macs import GI, count_shares
from adpc_ros.network.task import Task
from adpc_ros.runtime.make_plan import make_plan

PEAKS = Adaptivity(Criterion.PEAK_RESPONSE, (2.0, 1.5, 1.2))


def pose_network(seed: int = 0, heads: Heads | None = None, **changes: Any) -> AnytimeNetwork:
    return random_network(seed, heads, class_count=16, architecture='pose_hrnet_tiny', **changes)


@pytest.fixture(scope='module')
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('pose') / 'pose.safetensors'
    checkpoint.save(path, pose_network(adaptivity=PEAKS), JOINTS, {})
    return path


# arXiv:2104.00749: GiMAC of HRNet-W32 at 256x256, at the last exit and in the mean
@pytest.mark.parametrize(
    'heads, last, mean', [('none', 9.49, 9.49), ('plain', 9.51, 4.73), ('redesigned', 9.55, 4.76)]
)
def test_it_costs_what_the_paper_says(heads: str, last: float, mean: float) -> None:
    counts = count_shares(NetworkConfig('pose_hrnet_w32', Heads(heads), 16), (256, 256))
    assert counts[-1] / GI == pytest.approx(last, abs=0.02)
    assert np.mean(counts) / GI == pytest.approx(mean, abs=0.02)


@pytest.mark.parametrize('heads', Heads)
def test_exits_give_a_heat_map_for_each_joint_at_a_quarter_of_the_size(heads: Heads) -> None:
    network = pose_network(heads=heads)
    exits = list(network.exits(random_image(64, 96)))
    assert len(exits) == (1 if heads is Heads.NONE else 4)
    assert all(out.logits.shape == (1, 16, 16, 24) for out in exits)
    assert len(exits[-1].features) == 1  # the last stage gives its finest branch alone


def test_where_every_response_is_below_the_threshold_no_later_exit_looks() -> None:
    network = pose_network(adaptivity=PEAKS)
    exits = list(network.exits(random_image(64, 96)))
    before, looked_at = exits[0].logits, torch.ones(1, 1, 16, 24, dtype=torch.bool)
    for out, threshold in zip(exits, (*PEAKS.thresholds, None)):
        if out.active is not None:
            looked_at = out.active.at((16, 24))
            assert 0.05 < looked_at.float().mean() < 0.95
            assert torch.equal(out.logits, torch.where(looked_at, out.raw_logits, before))
        if threshold is not None:
            assert out.next_active is not None
            expected = (out.logits.amax(1, keepdim=True) >= threshold) & looked_at
            assert torch.equal(out.next_active.at((16, 24)), expected)
        before = out.logits
    dense = list(network.exits(random_image(64, 96), adaptive=False))
    assert not torch.equal(dense[-1].logits, exits[-1].logits)


def test_a_response_that_equals_the_threshold_is_looked_at() -> None:
    maps = torch.tensor([0.001, 0.002, 0.003, -5.0]).view(1, 1, 1, 4).repeat(1, 3, 1, 1)
    maps[:, :2] -= 1  # the largest of the channels decides
    assert Adaptivity(Criterion.PEAK_RESPONSE).thresholds == (0.002,)
    for dtype in (torch.float32, torch.float64):
        active = active_positions(maps.to(dtype).float(), Criterion.PEAK_RESPONSE, 0.002)
        assert active.flatten().tolist() == [False, True, True, False]
    assert active_positions(maps, Criterion.PEAK_RESPONSE, -6.0).all()


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        (
            {'adaptivity': Adaptivity()},
            'pose_hrnet_tiny: expected criterion peak_response, .* max_probability',
        ),
        (
            {'architecture': 'hrnet_tiny', 'adaptivity': PEAKS},
            'hrnet_tiny: expected criterion max_prob.*, got peak_response',
        ),
        ({'temperatures': (1.0, 2.0, 1.0, 1.0)}, 'is for pose: expected no temperatures'),
    ],
)
def test_what_is_of_the_other_task_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NetworkConfig(**{'architecture': 'pose_hrnet_tiny', 'class_count': 16, **values})


def test_heat_maps_have_no_thresholds_by_class() -> None:
    with pytest.raises(ValueError, match='class_thresholds have no meaning for peak_response'):
        Adaptivity(Criterion.PEAK_RESPONSE, class_thresholds=((0.1,) * 16,) * 3)
    with pytest.raises(ValueError, match=r'thresholds in \[-inf, inf\] for peak_response'):
        Adaptivity(Criterion.PEAK_RESPONSE, (float('nan'),))


def test_the_backbone_takes_weights_for_imagenet() -> None:
    with torch.device('meta'):
        pose = build_network(NetworkConfig('pose_hrnet_w32', Heads.NONE, 16))
        whole = build_network(NetworkConfig('hrnet_w32', Heads.NONE, 16))
    shapes = [{k: v.shape for k, v in n.state_dict().items()} for n in (pose, whole)]
    backbone = {k: v for k, v in shapes[0].items() if not k.startswith('last_layer')}
    assert backbone.items() < shapes[1].items()
    network = pose_network(1)
    released: dict[str, Tensor] = dict(pose_network(2).state_dict())
    released = {k: v for k, v in released.items() if not k.startswith(('exit', 'last_layer'))}
    more = {f'stage4.0.fuse_layers.{i}.0.0.0.weight': torch.ones(3) for i in (1, 2, 3)}
    official.fill(network, {**released, **more}, 'file', backbone_only=True)
    state = network.state_dict()
    assert all(torch.equal(state[name], value) for name, value in released.items())
    with pytest.raises(ValueError, match='unexpected .*fuse_layers.0.9'):
        wrong = {**released, 'stage4.0.fuse_layers.0.9.weight': torch.ones(1)}
        official.fill(network, wrong, 'file', backbone_only=True)


def test_a_file_keeps_network_and_joints(weights: Path) -> None:
    loaded = checkpoint.load(weights, Task.POSE)
    assert loaded.network.config.task is Task.POSE and loaded.classes == JOINTS
    assert loaded.network.config.adaptivity == PEAKS
    image = random_image(32, 64)
    for a, b in zip(loaded.network(image), pose_network(adaptivity=PEAKS)(image)):
        assert torch.equal(a, b)


WRONG = 'expected a network for segmentation, got pose_hrnet_tiny, which is for pose'


@pytest.mark.parametrize(
    'command',
    [
        'calibrate --weights W --data camvid:D OUT.safetensors',
        'evaluate --weights W --data camvid:D',
        'replay D/bag.mcap --out OUT.mcap --weights W',
        'benchmark masks --weights W --frames D',
        'benchmark ros --size 64x64 --weights W',
        'benchmark trace OUT.json --weights W',
        'convert W OUT.safetensors --network hrnet_tiny',
        'convert D/a.pth OUT.safetensors --network pose_hrnet_tiny',
        'benchmark preempt --size 64x64 --network pose_hrnet_tiny',
        'benchmark ros --size 64x64 --network pose_hrnet_tiny',
        'benchmark masks --size 64x64 --network pose_hrnet_tiny --masked .1,.2,.3',
    ],
)
def test_tools_for_segmentation_refuse_it_before_they_begin(
    command: str, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_tree(tmp_path) / 'val'
    write_bag(root / 'bag.mcap', [Shot(0)])
    torch.save({'a': torch.ones(1)}, root / 'a.pth')
    names = {'W': str(weights), 'D': str(root), 'OUT': str(tmp_path / 'OUT')}
    words = [
        names.get(word, word).replace('D/', f'{root}/').replace(':D', f':{root}')
        .replace('OUT.', f'{tmp_path}/OUT.')
        for word in command.split()
    ]  # fmt: skip
    assert main(words) == 2
    said = capsys.readouterr()
    assert WRONG in said.err
    assert not list(tmp_path.glob('OUT*'))


def test_demo_and_plans_refuse_it(
    weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr('sys.argv', ['demo', '--weights', str(weights)])
    assert demo() == 1
    assert WRONG in capsys.readouterr().err
    with pytest.raises(ValueError, match=WRONG):
        make_plan(pose_network())
    with pytest.raises(ValueError, match='expected a network for pose, got hrnet_tiny'):
        path = weights.with_name('segments.safetensors')
        checkpoint.save(path, random_network(), CAMVID, {})
        checkpoint.load(path, Task.POSE)


def test_macs_counts_it(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / 'a.png')
    assert main(['macs', '--weights', str(weights), '--image', str(tmp_path / 'a.png')]) == 0
    words = ['macs', '--network', 'pose_hrnet_w32', '--size', '256x256', '--classes', '16']
    assert main([*words, '--masked', '0,0,0']) == 0
    assert '9.55' in capsys.readouterr().out
    assert default_adaptivity('pose_hrnet_w32') == Adaptivity(Criterion.PEAK_RESPONSE)
