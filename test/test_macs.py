# SPDX-License-Identifier: Apache-2.0
"""What is counted equals the paper's tables, and what a plan says it executed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import random_image, random_network
from PIL import Image

from adpc_ros.__main__ import main
from adpc_ros.labels import CAMVID
from adpc_ros.network import checkpoint
from adpc_ros.network.adaptivity import Adaptivity
from adpc_ros.network.exits import Heads
from adpc_ros.network.families import NetworkConfig
from adpc_ros.network.macs import GI, ConvCost, count_frame, count_shares
from adpc_ros.runtime.compile import compile_network
from adpc_ros.runtime.images import to_input
from adpc_ros.runtime.torch_plan import TorchPlan

# arXiv:2104.00749, tables 1, 3 and 4: GiMAC at 1024x2048, 19 classes, up to each exit
PAPER = {
    ('hrnet_w48', 'none'): (696.2,),
    ('hrnet_w48', 'plain'): (48.4, 113.4, 388.9, 722.2),
    ('hrnet_w48', 'redesigned'): (41.9, 105.6, 368.0, 701.3),
    ('hrnet_w18_small_v2', 'none'): (71.58,),
    ('hrnet_w18_small_v2', 'plain'): (31.44, 42.56, 59.53, 82.88),
    ('hrnet_w18_small_v2', 'redesigned'): (23.69, 34.74, 49.87, 73.23),
}
MASKED_W48 = (41.9, 94.0, 260.0, 387.9)
MASKS = [0.193, 0.384, 0.630]


@pytest.fixture(scope='module')
def table(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Run ``macs`` once, as it stands."""
    file = tmp_path_factory.mktemp('macs') / 'table.json'
    assert main(['macs', '--json', str(file)]) == 0
    rows: list[dict[str, Any]] = json.loads(file.read_text())
    return rows


def test_the_table_has_the_papers_configurations(table: list[dict[str, Any]]) -> None:
    for row in table:
        assert list(row) == ['network', 'heads', 'masked', 'size', 'gimac']
        assert row['size'] == [1024, 2048]
        assert row['masked'] in (None, MASKS)
    unmasked = [(r['network'], r['heads']) for r in table if r['masked'] is None]
    assert unmasked == list(PAPER)
    masked = [(r['network'], r['heads']) for r in table if r['masked'] is not None]
    assert masked == [('hrnet_w48', 'redesigned'), ('hrnet_w18_small_v2', 'redesigned')]


@pytest.mark.parametrize('key', PAPER, ids='-'.join)
def test_unmasked_counts_are_within_a_tenth_of_the_papers(
    key: tuple[str, str], table: list[dict[str, Any]]
) -> None:
    (row,) = [r for r in table if (r['network'], r['heads'], r['masked']) == (*key, None)]
    assert row['gimac'] == pytest.approx(PAPER[key], abs=0.1)


def test_counts_with_the_papers_masks_are_within_half_a_percent(
    table: list[dict[str, Any]],
) -> None:
    (row,) = [r for r in table if r['network'] == 'hrnet_w48' and r['masked']]
    assert row['gimac'] == pytest.approx(MASKED_W48, rel=0.005)


@pytest.mark.parametrize('depths', [(1, 1, 1), (3, 3, 3), (3, 2, 1)])
def test_depths_of_heads_are_counted(depths: tuple[int, ...], tmp_path: Path) -> None:
    file, shown = tmp_path / 'n.json', ','.join(map(str, depths))
    command = ['macs', '--network', 'hrnet_w48', '--head-depths', shown, '--json', str(file)]
    assert main(command) == 0
    (row,) = json.loads(file.read_text())
    assert row['heads'] == f'redesigned {shown}'
    # beside plain heads, by hand: what each exit adds for its own head
    expected, added = [], 0.0
    cells, width, classes = 256 * 512, 128, 19
    for channels, depth, plain in zip((256, 144, 336), depths, PAPER['hrnet_w48', 'plain']):
        down = [(channels if i == 1 else width) * width / 4**i for i in range(1, depth + 1)]
        up = [width * (width if i else classes) / 4**i for i in range(depth)]
        added += cells * (sum(down + up) - channels * (channels + classes)) / GI
        expected.append(plain + added)
    assert row['gimac'][:3] == pytest.approx(expected, abs=0.1)


def test_w32_builds_and_counts() -> None:
    counts = count_shares(NetworkConfig('hrnet_w32', Heads.REDESIGNED, 16), (256, 256))
    assert counts == sorted(counts)
    # the paper's 9.55 for poses is of another head; the backbone is nearly all of it
    assert 8 < counts[-1] / GI < 13


def test_a_masked_convolution_counts_as_in_the_released_counter() -> None:
    cost = ConvCost(macs=1000, fill_macs=490, size=(2, 5))
    assert cost.at(1.0) == 1000
    assert cost.at(0.0) == 0
    assert cost.at(0.25) == 250 + int(0.25 * 0.75 * 490)


@pytest.mark.parametrize('masked', [(0.1, 0.2), (0.1, 0.2, 1.2), (-0.1, 0.2, 0.3)])
def test_shares_must_be_three_between_zero_and_one(masked: tuple[float, ...]) -> None:
    config = NetworkConfig('hrnet_tiny', adaptivity=Adaptivity())
    with pytest.raises(ValueError, match='expected 3 masked shares'):
        count_shares(config, (64, 64), masked)


def test_masks_need_a_network_with_adaptivity() -> None:
    with pytest.raises(ValueError, match='masks need a network with adaptivity'):
        count_shares(NetworkConfig('hrnet_tiny'), (64, 64), (0.1, 0.2, 0.3))


@pytest.mark.parametrize('heads', [Heads.REDESIGNED, Heads.PLAIN])
@pytest.mark.parametrize('adaptive', [True, False], ids=['masks_on', 'masks_off'])
def test_a_frames_count_equals_what_the_plan_executed(heads: Heads, adaptive: bool) -> None:
    network = random_network(0, heads, Adaptivity(thresholds=(0.6, 0.7, 0.5), window=5))
    image = random_image(96, 64)
    plan = TorchPlan(compile_network(network))
    with torch.inference_mode():
        done = [d for d in plan.execute(image, adaptive) if d.logits is not None]
    counts, shares = count_frame(network, image, adaptive)
    assert counts == [d.macs for d in done]
    assert shares == pytest.approx([1.0, *(d.active_share for d in done[:-1])])
    assert (min(shares) < 0.95) == adaptive


def test_a_frame_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = random_network(0, adaptivity=Adaptivity(thresholds=(0.6,) * 3))
    checkpoint.save(tmp_path / 'tiny.safetensors', network, CAMVID, {})
    soft = (random_image(50, 70)[0].permute(1, 2, 0).numpy() * 60 + 120).clip(0, 255)
    pixels = soft.astype(np.uint8)
    picture = tmp_path / 'frame.png'
    Image.fromarray(pixels).save(picture)
    file = tmp_path / 'frame.json'
    weights = str(tmp_path / 'tiny.safetensors')
    command = ['macs', '--weights', weights, '--image', str(picture), '--json', str(file)]
    assert main(command) == 0
    (row,) = json.loads(file.read_text())
    counts, shares = count_frame(network, to_input(pixels, network.config, torch.device('cpu')))
    assert row == {
        'network': 'hrnet_tiny',
        'heads': 'redesigned',
        'masked': [1 - share for share in shares[1:]],
        'size': [50, 70],
        'gimac': [count / GI for count in counts],
        'image': str(picture),
    }
    printed = capsys.readouterr().out
    assert '50x70, padded to 64x96' in printed
    assert f'{100 * shares[-1]:.2f}' in printed


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--network', 'resnet'], "unknown architecture 'resnet'"),
        (['--masked', '.1,.2,.3'], '--heads, --head-depths and --masked need --network'),
        (['--network', 'hrnet_tiny', '--heads', 'none', '--masked', '0,0,0'], 'early exits'),
        (['--network', 'hrnet_tiny', '--masked', '.1,.2'], 'expected 3 masked shares'),
        (['--network', 'coarse_tiny', '--masked', '.1,.2,.3'], 'expected 2 masked shares'),
        (['--weights', 'nowhere.safetensors'], '--weights and --image go together'),
        (['--weights', 'nowhere', '--image', 'x.png'], 'weights not found: nowhere'),
        (['--network', 'hrnet_tiny', '--json', '/nowhere/at/all.json'], '/nowhere/at/all.json'),
    ],
)
def test_errors_of_the_user_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(['macs', *arguments]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith('adpc_ros: ') and printed.count('\n') == 1
    assert message in printed


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--size', '1024'], 'expected HxW in pixels'),
        (['--size', '0x32'], 'expected HxW in pixels'),
        (['--masked', '.1,1.2'], 'expected A,B,... in [0, 1]'),
        (['--masked', 'a,b,c'], 'expected A,B,... in [0, 1]'),
        (['--classes', '-3'], 'expected a positive whole number'),
    ],
)
def test_options_of_another_form_are_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match='2'):
        main(['macs', *arguments])
    assert message in capsys.readouterr().err
