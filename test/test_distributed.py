# SPDX-License-Identifier: Apache-2.0
"""Several processes compute together what one computes alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from figures import draw, write_hrnet
from networks import random_image, random_network
from processes import double_precision, free_port, in_processes
from samples import blocks, taught, write_sample, write_tree
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from adpc_ros.learning import segmentation
from adpc_ros.learning import train as training
from adpc_ros.learning.config import TrainConfig
from adpc_ros.learning.distributed import Processes, environment_rank, start_processes
from adpc_ros.learning.evaluate import Evaluation
from adpc_ros.learning.norms import SyncBatchNorm2d, average_norms, synchronise_norms
from adpc_ros.network import checkpoint
from adpc_ros.network.anytime import AnytimeNetwork

pytestmark = pytest.mark.timeout(300)  # PyTorch takes long to start on a busy machine
EXACT = {'rtol': 1e-10, 'atol': 1e-12}
SHARES = (1, 3)  # images of processes 0 and 1


# BatchNorm


def norm_and_input() -> tuple[nn.BatchNorm2d, list[Tensor], Tensor]:
    """Give a norm, two batches of it and the gradients of its output."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(5, momentum=0.3)
    nn.init.uniform_(norm.weight, 0.5, 2)
    nn.init.normal_(norm.bias)
    # the means are large, the processes' differ, and so do the channels' deviations
    spread = torch.tensor([1.0, 0.1, 10, 3, 1e-3]).view(1, 5, 1, 1)
    batches = [100 + spread * torch.randn(4, 5, 6, 7) for _ in range(2)]
    batches[0][1:] += 2
    return norm, batches, torch.randn(4, 5, 6, 7)


def run_norm(
    norm: nn.Module, batches: list[Tensor], outer: Tensor, own: slice
) -> dict[str, Tensor]:
    x = batches[0][own].clone().requires_grad_()
    norm(batches[1][own])
    y = norm(x)
    torch.autograd.backward((y * outer[own]).sum())
    gradients = {f'grad {name}': p.grad for name, p in norm.named_parameters()}
    state = {name: value.clone() for name, value in norm.state_dict().items()}
    return {'y': y.detach(), 'grad x': x.grad, **gradients, **state}


def share_norm(folder: Path) -> None:
    with start_processes() as processes:
        norm, batches, outer = norm_and_input()
        network = nn.Sequential(norm)
        synchronise_norms(network)
        assert type(network[0]) is SyncBatchNorm2d and network[0].weight is norm.weight
        own = slice(0, SHARES[0]) if processes.rank == 0 else slice(SHARES[0], None)
        found = run_norm(network[0], batches, outer, own)
        assert torch.equal(network.eval()(batches[0]), norm.eval()(batches[0]))
        torch.save(found, folder / f'norm{processes.rank}.pt')


def test_batchnorm_of_two_processes_equals_that_of_the_whole_batch(together: Path) -> None:
    shares = [torch.load(together / f'norm{rank}.pt', weights_only=True) for rank in range(2)]
    with double_precision():
        whole = run_norm(*norm_and_input(), slice(None))
    assert [len(share['y']) for share in shares] == [*SHARES]
    for name, expected in whole.items():
        if name in ('y', 'grad x'):
            found = torch.cat([share[name] for share in shares])
        elif name.startswith('grad'):
            found = shares[0][name] + shares[1][name]
        else:
            assert torch.equal(shares[0][name], shares[1][name]), name
            found = shares[0][name]
        torch.testing.assert_close(found, expected, msg=name, **EXACT)


def averaged(own: slice) -> AnytimeNetwork:
    """Average the statistics of a network over two batches of two images."""
    network = random_network(0).double()
    if own != slice(None):
        synchronise_norms(network)
    images = torch.cat([random_image(32, 64, seed).double() for seed in range(4)])
    average_norms(network, [images[:2][own], images[2:][own]], adaptive=False)
    return network


def average_shared(folder: Path) -> None:
    with start_processes() as processes:
        state = averaged(slice(processes.rank, None, 2)).state_dict()
        torch.save(state, folder / f'averaged{processes.rank}.pt')


def test_statistics_are_averaged_by_all(together: Path) -> None:
    shares = [torch.load(together / f'averaged{rank}.pt', weights_only=True) for rank in range(2)]
    with double_precision():
        expected = averaged(slice(None)).state_dict()
    for name, value in expected.items():
        assert torch.equal(shares[0][name], shares[1][name])
        torch.testing.assert_close(shares[0][name], value, msg=name, **EXACT)


def test_alone_it_is_plain_batchnorm() -> None:
    plain, shared = random_network(4), random_network(4)
    names = list(shared.state_dict())
    synchronise_norms(shared)
    assert list(shared.state_dict()) == names
    assert not any(type(module) is nn.BatchNorm2d for module in shared.modules())
    image = torch.cat([random_image(32, 64, seed) for seed in range(2)])
    for a, b in zip(plain.train()(image), shared.train()(image)):
        assert torch.equal(a, b)
    for name, value in plain.state_dict().items():
        assert torch.equal(shared.state_dict()[name], value)


def test_a_norm_without_statistics_is_refused() -> None:
    with pytest.raises(ValueError, match='1: expected BatchNorm with parameters and statistics'):
        synchronise_norms(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3, affine=False)))


# training


VARIANTS = {
    'whole': {'batch_size': 2, 'optimizer': 'sgd', 'learning_rate': 0.05},
    'parts': {'batch_size': 4, 'optimizer': 'adamw', 'accumulate': 2, 'epochs': 3},
    'taught': {
        'network': {'architecture': 'coarse_tiny', 'adaptivity': {'thresholds': [0.3]}},
        'batch_size': 4,
        'accumulate': 2,
        'exit_weights': (1, 0.5, 2),
        'distill_weight': 1.0,
        'distill_weight_end': 0.5,
        'extra_share': 0.5,  # of images without a teacher
        'ema': 0.9,
        'class_mix': 0.5,
    },
    'equilibrium': {
        'network': {'architecture': 'mdeq_tiny'},  # which draws dropout
        'batch_size': 4,
        'epochs': 3,
        'unrolled_steps': 1,
        'adaptive_from': 0,
    },
    'sampled': {
        'network': {
            'architecture': 'hrnet_tiny_sampled',  # which draws its masks
            'adaptivity': {'criterion': 'predicted'},
        },
        'batch_size': 4,
        'accumulate': 2,
        'sparsity_weight': 0.5,
        'adaptive_from': 0,
    },
    'poses': {
        'network': {
            'architecture': 'pose_hrnet_tiny',
            'adaptivity': {'criterion': 'peak_response', 'thresholds': [1e-4]},
        },
        'batch_size': 4,
        'accumulate': 2,
        'optimizer': 'sgd',  # Adam makes steps of what is rounding, before BatchNorm
        'learning_rate': 0.05,
        'rotation': 30.0,
    },
}


def recipe(root: Path, output: Path, **changes: Any) -> dict[str, Any]:
    values = {
        'network': {'architecture': 'hrnet_tiny', 'adaptivity': {'thresholds': [0.3, 0.3, 0.3]}},
        'data': f'camvid:{root / "train"}',
        'validation': f'camvid:{root / "val"}',
        'output': str(output),
        'epochs': 2,
        'crop': (64, 64),
        'weight_decay': 0.1,
        'adaptive_from': 1,
        'exit_weights': (1, 0.5, 1, 2),
        'norm_batches': 2,
    }
    return values | changes


def train_variant(variant: str, folder: Path) -> None:
    """Train in double precision, without the validation, which is not."""

    def judged(*_: Any, **__: Any) -> Evaluation:
        assert environment_rank() == 0
        time.sleep(0.1)
        none = np.zeros((4, 1, 11, 11), np.int64)
        return Evaluation(none, [], [], [], np.zeros((1, 4)), [])

    output = folder / f'{variant}{os.environ.get("WORLD_SIZE", "1")}'
    changes = dict(VARIANTS[variant])
    if variant == 'taught':
        changes['data'] = f'camvid:{folder / "train"}?soft={folder / "train" / "soft"}'
        changes['extra'] = f'camvid:{folder / "val"}'
    if variant == 'poses':
        changes['data'] = f'mpii:{folder}/people/train'
        changes['validation'] = f'mpii:{folder}/people/valid'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segmentation, 'evaluate', judged)
        training.train(TrainConfig(**recipe(folder, output, **changes)))


@pytest.mark.parametrize('variant', VARIANTS)
def test_two_processes_train_as_one(together: Path, tmp_path: Path, variant: str) -> None:
    for part in ('train', 'val', 'people'):
        (tmp_path / part).symlink_to(together / part)
    with double_precision():
        train_variant(variant, tmp_path)
    outputs = (tmp_path / f'{variant}1', together / f'{variant}2')
    one, two = (torch.load(output / 'last.pt', weights_only=True) for output in outputs)
    assert (one['average'] is not None) == (variant == 'taught')
    for part in ('network', 'average') if one['average'] else ('network',):
        assert one[part].keys() == two[part].keys()
        for name, value in one[part].items():
            torch.testing.assert_close(two[part][name], value, rtol=1e-6, atol=1e-8, msg=name)
    logs = [(output / 'log.jsonl').read_text().splitlines() for output in outputs]
    losses = [[json.loads(line)['loss'] for line in log] for log in logs]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-7)
    curves = []
    for output in outputs:
        events = EventAccumulator(str(output / 'tensorboard')).Reload()
        tags = sorted(t for t in events.Tags()['scalars'] if t.startswith('loss/exit'))
        assert len(tags) >= 3
        curves.append([events.Scalars(tag)[0].value for tag in tags])
    np.testing.assert_allclose(curves[0], curves[1], rtol=1e-6)  # of each exit, before any step
    assert len(set(losses[0])) > 1
    lambdas = [value for name, value in one['network'].items() if name.endswith('Lambda')]
    assert any(value != 3 for value in lambdas) or (variant == 'equilibrium' and not lambdas)


def refuse_differing(_: Path) -> None:
    with start_processes() as processes:
        processes.check_same('a', 'recipe')
        with pytest.raises(ValueError, match='same recipe in all processes, got 0 .* 1 in proc'):
            processes.check_same(str(processes.rank), 'recipe')


@pytest.fixture(scope='module')
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Let two processes, which take long to start, do all that the tests here look at."""
    folder = write_tree(tmp_path_factory.mktemp('together'))
    for seed in range(6):
        write_sample(folder / 'train', f'0001TP_{seed:06}', *taught(seed))
    for split in ('train', 'valid'):
        write_hrnet(folder / 'people', split, [draw(seed) for seed in range(8)])
    work = [share_norm, average_shared, refuse_differing]
    in_processes(2, work + [partial(train_variant, variant) for variant in VARIANTS], folder)
    return folder


def test_a_batch_must_be_shared_evenly(tmp_path: Path) -> None:
    root = write_tree(tmp_path)
    config = TrainConfig(**recipe(root, root / 'out', batch_size=4, accumulate=2))
    processes = Processes(0, 4, torch.device('cpu'))
    with pytest.raises(ValueError, match='that 4 processes can share, got 4 / 2'):
        training.Training(config, None, processes)


def test_half_an_environment_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('WORLD_SIZE', '2')
    monkeypatch.delenv('RANK', raising=False)
    with pytest.raises(ValueError, match='expected RANK, .* as torchrun sets them'):
        with start_processes():
            pass


# torchrun


def torchrun(config: Path, seconds: float = 200) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, '-m', 'torch.distributed.run', '--nproc-per-node', '2']
    command += ['--master-addr', '127.0.0.1', '--master-port', str(free_port())]
    command += ['-m', 'adpc_ros', 'train', '--config', str(config), '--threads', '1']
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds)


def write_recipe(root: Path, **changes: Any) -> Path:
    path = root / 'recipe.yaml'
    values = recipe(root, root / 'out', epochs=1, batch_size=2, **changes).items()
    path.write_text(yaml.safe_dump({k: list(v) if isinstance(v, tuple) else v for k, v in values}))
    return path


def test_torchrun_trains_and_one_process_writes(tmp_path: Path) -> None:
    config = write_recipe(write_tree(tmp_path))
    done = torchrun(config)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f'best weights: {tmp_path}/out/best.safetensors') == 1
    (record,) = (tmp_path / 'out' / 'log.jsonl').read_text().splitlines()
    assert len(json.loads(record)['miou']) == 4
    names = checkpoint.load(tmp_path / 'out' / 'best.safetensors').network.state_dict().keys()
    assert names == random_network(adaptivity=None).state_dict().keys() | {
        name for name in names if name.endswith(('Lambda', 'square_dis'))
    }


def test_an_error_in_one_process_ends_the_others(tmp_path: Path) -> None:
    root = tmp_path
    for seed in range(2):
        write_sample(root / 'train', f'a{seed}', *blocks(seed))
    write_sample(root / 'val', 'b', *blocks(5))
    # classes are not counted, so that only the process that draws it reads the broken image
    config = write_recipe(root, class_balance=0)
    (root / 'train' / 'image' / 'a1.jpg').write_bytes(b'nothing')
    done = torchrun(config)
    assert done.returncode != 0
    assert 'cannot read' in done.stderr and 'a1.jpg: expected an image' in done.stderr
    assert not (root / 'out' / 'last.pt').exists()
