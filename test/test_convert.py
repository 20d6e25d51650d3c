# SPDX-License-Identifier: Apache-2.0
"""Released weights become ours, entry by entry; a file that is not exactly right is an error."""

from __future__ import annotations

import argparse
import math
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import random_image, random_network
from safetensors.torch import save_file
from shared import reference
from torch import Tensor

from adpc_ros.__main__ import main
from adpc_ros.labels import CAMVID, CITYSCAPES
from adpc_ros.network import checkpoint, official
from adpc_ros.network.adaptivity import Adaptivity, Criterion
from adpc_ros.network.anytime import AnytimeNetwork
from adpc_ros.network.checkpoint import CheckpointError
from adpc_ros.network.exits import Heads
from adpc_ros.network.families import NetworkConfig, build_network
from adpc_ros.network.worth import ExitTimes, Worth

Tensors = dict[str, Tensor]
MASKS = Adaptivity(thresholds=(0.6, 0.6, 0.6))
CLASSIFICATION = ('incre_modules.0.0.conv1', 'downsamp_modules.0.0', 'final_layer.0', 'classifier')
HEADS = 'exit1.*, exit2.*, exit3.*, last_layer.*'


def released(network: AnytimeNetwork) -> Tensors:
    """Name a network's entries as the released checkpoints do."""
    state = {f'model.{name}': value for name, value in network.state_dict().items()}
    return {**state, 'loss.criterion.weight': torch.ones(network.config.class_count)}


def parameters(network: AnytimeNetwork) -> Tensors:
    """Give what a network has learnt: everything but counts of batches."""
    state = network.state_dict().items()
    return {k: v for k, v in state if not k.endswith('num_batches_tracked')}


def backbone(network: AnytimeNetwork) -> Tensors:
    state = network.state_dict().items()
    return {k: v for k, v in state if not k.startswith(('exit', 'last_layer'))}


def imagenet(network: AnytimeNetwork) -> Tensors:
    """Name a network's backbone as the ImageNet files do, and add what else they have."""
    return backbone(network) | {f'{name}.weight': torch.ones(3) for name in CLASSIFICATION}


def convert(source: Path, *options: str, classes: str = 'camvid') -> int:
    target = str(source.with_name('converted.safetensors'))
    arguments = ['--network', 'hrnet_tiny', '--classes', classes, *options]
    return main(['convert', str(source), target, *arguments])


def converted(source: Path) -> checkpoint.Checkpoint:
    return checkpoint.load(source.with_name('converted.safetensors'))


def assert_same_logits(a: AnytimeNetwork, b: AnytimeNetwork, image: Tensor) -> None:
    with torch.inference_mode():
        exits = list(zip(a.eval()(image), b.eval()(image)))
    assert len(exits) == a.config.exit_count == b.config.exit_count
    for x, y in exits:
        assert torch.equal(x, y)


@pytest.mark.parametrize('nested', [False, True], ids=['flat', 'nested'])
@pytest.mark.parametrize('zipped', [False, True], ids=['old_format', 'zipped'])
@pytest.mark.parametrize(
    ('heads', 'adaptivity', 'options'),
    [
        (Heads.REDESIGNED, MASKS, ['--threshold', '0.6']),
        (Heads.PLAIN, Adaptivity(window=5), ['--heads', 'plain', '--window', '5']),
        (Heads.REDESIGNED, None, ['--no-masks']),
        (Heads.NONE, None, ['--heads', 'none']),
    ],
)
def test_released_weights_give_the_same_logits(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    heads: Heads,
    adaptivity: Adaptivity | None,
    options: list[str],
    nested: bool,
    zipped: bool,
) -> None:
    network = random_network(3, heads, adaptivity)
    path = tmp_path / 'released.pth'
    content = {'state_dict': released(network), 'epoch': 7} if nested else released(network)
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert convert(path, *options) == 0
    printed = capsys.readouterr().out
    assert f'left out: {"epoch, " if nested else ""}loss.criterion.weight\n' in printed
    assert 'initial values' not in printed
    loaded = converted(path)
    assert loaded.network.config == network.config
    assert loaded.classes is CAMVID
    assert loaded.info == {'source': 'released.pth'}
    assert_same_logits(network, loaded.network, random_image(64, 96))


@pytest.mark.parametrize(
    'table, prefix',
    [
        ('state_dict', 'module.model.'),
        ('model_state', 'module.'),
        ('model', ''),
        (None, '_orig_mod.module.'),
    ],
)
@pytest.mark.parametrize('zipped', [False, True], ids=['old_format', 'zipped'])
def test_what_training_programs_put_around_weights_is_left_out(
    tmp_path: Path, table: str | None, prefix: str, zipped: bool
) -> None:
    network = random_network(3)
    tensors = {prefix + name: value for name, value in network.state_dict().items()}
    tensors[f'{prefix.replace("model.", "")}loss.criterion.weight'] = torch.ones(11)
    beside = {'best_mIoU': np.float64(0.75), 'ious': np.ones(3), 'epoch': 7, 'optimizer': {1: {}}}
    path = tmp_path / 'checkpoint.pth.tar'
    content = {table: tensors, **beside} if table else tensors
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    read = official.read(path)
    left_out = ['best_mIoU', 'epoch', 'ious', 'optimizer'] if table else []
    assert read.left_out == [*left_out, 'loss.criterion.weight']
    assert read.tensors.keys() == network.state_dict().keys()


def test_the_state_of_an_optimizer_is_left_out(tmp_path: Path) -> None:
    network = random_network(3).train()
    optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9)
    sum(logits.sum() for logits in network(random_image(64, 64))).backward()
    optimizer.step()
    path = tmp_path / 'checkpoint.pth.tar'
    # as train.py of HRNet-Semantic-Segmentation writes it
    state = {'epoch': 3, 'best_mIoU': np.float64(0.7), 'state_dict': released(network)}
    torch.save({**state, 'optimizer': optimizer.state_dict()}, path)
    assert convert(path, '--no-masks') == 0
    assert_same_logits(network, converted(path).network, random_image(64, 96))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_weights_of_another_precision_keep_their_values(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    network = random_network(3, adaptivity=MASKS)
    for name, value in network.state_dict().items():
        if value.is_floating_point() and not name.endswith('square_dis'):
            value.copy_(value.to(dtype))
    path = tmp_path / 'half.pth'
    torch.save({name: value.to(dtype) for name, value in released(network).items()}, path)
    assert convert(path, '--threshold', '0.6') == 0
    assert_same_logits(network, converted(path).network, random_image(64, 96))


def test_two_tables_of_tensors_are_one_too_many(tmp_path: Path) -> None:
    path, table = tmp_path / 'two.pth', {'bn1.weight': torch.ones(1)}
    torch.save({'state_dict': table, 'model': table}, path)
    assert 'expected one table of tensors, got state_dict and model' in read_error(path)
    for model in ('hrnet_w48', {'name': 'hrnet_w48'}):
        torch.save({'state_dict': table, 'model': model}, path)
        assert official.read(path) == (table, ['model'])


def test_a_file_is_read_as_what_it_is_and_not_as_it_is_named(tmp_path: Path) -> None:
    path = tmp_path / 'safetensors.pth'
    save_file({'bn1.weight': torch.ones(1)}, path)
    assert official.read(path).tensors == {'bn1.weight': torch.ones(1)}
    path.write_bytes(b'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n')
    assert 'it looks like a Git LFS pointer' in read_error(path)


class Canary:
    """Whoever unpickles it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize('form', ['old_format', 'zipped', 'pickle'])
def test_code_in_a_file_is_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    path, canary = tmp_path / 'evil.pth', tmp_path / 'canary'
    content = {'state_dict': released(random_network()), 'best_mIoU': Canary(canary)}
    if form == 'pickle':
        path.write_bytes(pickle.dumps(content, 2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == 'zipped')
    assert convert(path, '--no-masks') == 2
    error = capsys.readouterr().err
    assert f'{path}: expected tensors alone, but the file needs' in error
    assert not canary.exists() and not path.with_name('converted.safetensors').exists()


def test_weights_of_the_reference_give_the_same_logits(tmp_path: Path) -> None:
    state = {k: torch.from_numpy(v) for k, v in reference('tiny_rh_weights').items()}
    numbers = reference('tiny_rh')
    threshold = float(numbers['thr'])
    adaptivity = Adaptivity(thresholds=(threshold,) * 3)
    network = build_network(NetworkConfig('hrnet_tiny', adaptivity=adaptivity))
    network.load_state_dict(state, strict=True)
    path = tmp_path / 'released.pth'
    torch.save(released(network), path)
    assert convert(path, '--threshold', repr(threshold), classes='cityscapes') == 0
    loaded = converted(path)
    assert loaded.network.config == network.config
    assert loaded.classes is CITYSCAPES
    assert_same_logits(network, loaded.network, torch.from_numpy(numbers['input']))


@pytest.mark.parametrize('masks', [True, False], ids=['masks', 'no_masks'])
def test_an_imagenet_file_gives_the_backbone_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], masks: bool
) -> None:
    network = random_network(5)
    path = tmp_path / 'imagenet.pth'
    torch.save(imagenet(network), path)
    assert convert(path, '--backbone-only', *([] if masks else ['--no-masks'])) == 0
    printed = capsys.readouterr().out
    assert 'left out: classifier.*, downsamp_modules.*, final_layer.*, incre_modules.*' in printed
    fresh = HEADS + (', *.Lambda' if masks else '')
    assert f'initial values, to be trained: {fresh}\n' in printed
    loaded = converted(path)
    assert loaded.info['initial values'] == fresh
    state = loaded.network.state_dict()
    for name, value in backbone(network).items():
        assert name.endswith('num_batches_tracked') or torch.equal(state[name], value)
    assert state['last_layer.3.weight'].std() > 0
    assert not masks or state['transition1.0.0.Lambda'] == 3.0
    first = loaded.identity
    assert convert(path, '--backbone-only', *([] if masks else ['--no-masks'])) == 0
    assert converted(path).identity == first


def test_a_backbone_of_other_classes_keeps_its_interpolation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = random_network(6, adaptivity=MASKS, class_count=19)
    path = tmp_path / 'released.pth'
    torch.save(released(network), path)
    assert convert(path, '--backbone-only') == 0
    printed = capsys.readouterr().out
    assert f'left out: loss.criterion.weight, {HEADS}\n' in printed
    assert f'initial values, to be trained: {HEADS}\n' in printed
    state = converted(path).network.state_dict()
    for name, value in network.state_dict().items():
        if name.endswith('Lambda') and not name.startswith(('exit', 'last_layer')):
            assert torch.equal(state[name], value)


def test_our_own_file_keeps_what_is_not_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adaptivity = Adaptivity(Criterion.ENTROPY, (0.5, 0.4, 0.3), window=5)
    config = NetworkConfig(
        'hrnet_tiny',
        Heads.REDESIGNED,
        11,
        adaptivity,
        mean=(0.1, 0.2, 0.3),
        temperatures=(2.0, 1.5, 1.25, 0.5),
        head_depths=(2, 2, 1),
        head_width=24,
    )
    network = build_network(config)
    path = tmp_path / 'own.safetensors'
    checkpoint.save(path, network, CAMVID, {'licence': 'Apache-2.0'})
    assert convert(path) == 0
    loaded = converted(path)
    assert loaded.network.config == config
    assert loaded.info['licence'] == 'Apache-2.0'
    assert loaded.info['source'] == checkpoint.load(path).identity
    assert_same_logits(network, loaded.network, random_image(64, 96))
    assert convert(path, '--threshold', '0.25') == 0
    assert converted(path).network.config.adaptivity.thresholds == (0.25,) * 3
    assert convert(path, '--backbone-only') == 0
    assert converted(path).network.config.temperatures == (1.0,) * 4, 'of heads that are new'
    assert convert(path, '--head-depths', '3,2,1') == 2
    assert 'hrnet_tiny with redesigned heads of depths (3, 2, 1)' in capsys.readouterr().err
    assert convert(path, '--head-depths', '3,2,1', '--backbone-only') == 0
    assert converted(path).network.config.head_depths == (3, 2, 1)
    assert convert(path, '--head-width', '8', '--backbone-only') == 0
    assert converted(path).network.config.head_width == 8


def test_a_network_of_another_family_is_converted_without_what_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = random_network(9, adaptivity=Adaptivity(), architecture='coarse_tiny')
    path = tmp_path / 'own.safetensors'
    times = ExitTimes((0.1, 0.1, 0.1), 'somewhere')
    checkpoint.save(path, network, CAMVID, {}, Worth('x', ((0.5,) * 11,) * 3), times)
    assert convert(path, '--network', 'coarse_tiny', '--threshold', '0.5') == 0
    assert 'left out: worth, exit_s\n' in capsys.readouterr().out
    loaded = converted(path)
    assert loaded.network.config.adaptivity == Adaptivity(thresholds=(0.5, 0.5))
    assert (loaded.worth, loaded.exit_s) == (None, None)
    state = loaded.network.state_dict()
    assert all(torch.equal(state[name], value) for name, value in parameters(network).items())


@pytest.mark.parametrize('heads', [Heads.REDESIGNED, Heads.PLAIN])
@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
def test_masks_are_added_to_a_network_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], heads: Heads, suffix: str
) -> None:
    network = random_network(7, heads)
    path = tmp_path / f'unmasked.{suffix}'
    if suffix == 'pth':
        torch.save(released(network), path)
    else:
        checkpoint.save(path, network, CAMVID, {})
    options = ['--heads', heads.value, '--threshold', '0.6', '--window', '5']
    assert convert(path, *options) == 2
    assert 'has no masks: convert --add-masks adds them' in capsys.readouterr().err
    assert convert(path, *options, '--add-masks') == 0
    assert 'initial values, to be trained: *.Lambda\n' in capsys.readouterr().out
    masked = converted(path).network
    assert masked.config.adaptivity == Adaptivity(thresholds=(0.6,) * 3, window=5)
    state = masked.state_dict()
    lambdas = [value for name, value in state.items() if name.endswith('Lambda')]
    assert len(lambdas) > 50 and all(value == 3.0 for value in lambdas)
    assert all(torch.equal(state[name], value) for name, value in parameters(network).items())
    image = random_image(64, 96)
    with torch.inference_mode():
        dense, adaptive = masked(image, adaptive=False), masked(image)
        assert all(torch.equal(x, y) for x, y in zip(dense, network(image)))
    assert not torch.equal(dense[3], adaptive[3])


def test_masks_are_not_added_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / 'own.safetensors'
    checkpoint.save(path, random_network(adaptivity=MASKS), CAMVID, {})
    assert convert(path, '--add-masks') == 2
    assert 'expected a network without masks to add them to' in capsys.readouterr().err


def test_safetensors_of_tensors_alone_are_read(tmp_path: Path) -> None:
    network = random_network(8)
    path = tmp_path / 'timm.safetensors'
    save_file(imagenet(network), path, {'format': 'pt'})
    assert convert(path, '--backbone-only') == 0
    state = converted(path).network.state_dict()
    taken = parameters(network).items()
    taken = {k: v for k, v in taken if not k.startswith(('exit', 'last_layer'))}
    assert taken and all(torch.equal(state[name], value) for name, value in taken.items())


def test_broken_safetensors(tmp_path: Path) -> None:
    path = tmp_path / 'broken.safetensors'
    path.write_bytes(bytes(64))
    assert 'expected a safetensors file' in read_error(path)


def test_our_own_file_of_other_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / 'own.safetensors'
    checkpoint.save(path, random_network(), CAMVID, {})
    assert convert(path, '--no-masks', classes='cityscapes') == 2
    assert 'the classes of cityscapes, got those of camvid' in capsys.readouterr().err


def fill_error(tensors: Tensors, adaptivity: Adaptivity | None = None, **options: bool) -> str:
    network = random_network(1, adaptivity=adaptivity)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        official.fill(network, tensors, 'released.pth', **options)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
    message = str(caught.value)
    assert message.startswith(
        'released.pth: expected hrnet_tiny with redesigned heads, 11 classes and '
    )
    return message


def test_every_kind_of_difference_is_in_one_error() -> None:
    tensors = random_network().state_dict()
    del tensors['conv1.weight'], tensors['conv2.weight']
    tensors |= {f'ocr.{i}.weight': torch.ones(1) for i in range(5)}
    tensors['bn1.weight'] = torch.ones(63)
    tensors['bn2.weight'] = torch.ones(64, dtype=torch.int64)
    message = fill_error(tensors)
    assert 'missing (2): conv1.weight, conv2.weight;' in message
    assert 'unexpected (5): ocr.0.weight, ocr.1.weight, ocr.2.weight, ...;' in message
    assert 'of another shape (1): bn1.weight is (63,), expected (64,);' in message
    assert 'of another type (1): bn2.weight is torch.int64, expected torch.float32' in message


def test_what_cannot_be_weights_is_named() -> None:
    tensors = random_network().state_dict()
    tensors['bn1.weight'] = tensors['bn1.weight'].long()
    tensors['conv1.weight'] = tensors['conv1.weight'].double() + 1e-12
    tensors['bn1.running_var'][5] = -2
    tensors['bn2.bias'][:2] = math.nan
    tensors['bn1.num_batches_tracked'] = torch.tensor(3.0)  # nothing uses it
    message = fill_error(tensors)
    assert 'of another type (2): ' in message
    assert 'bn1.weight is torch.int64, expected torch.float32' in message
    assert 'conv1.weight is torch.float64 with values that float32 does not have' in message
    assert 'of impossible values (2): ' in message
    assert 'bn1.running_var has -2, expected variances of 0 or more' in message
    assert 'bn2.bias has 2 of 64 values NaN or infinite, expected finite ones' in message
    assert 'missing' not in message and 'unexpected' not in message


def test_a_sparse_tensor_is_named() -> None:
    tensors = random_network().state_dict()
    tensors['bn1.weight'] = tensors['bn1.weight'].to_sparse()
    assert 'bn1.weight is torch.sparse_coo, expected' in fill_error(tensors)


def test_a_file_of_other_distances() -> None:
    tensors = random_network(adaptivity=MASKS).state_dict()
    name = 'transition1.0.0.square_dis'
    tensors[name] = tensors[name] + 1
    assert f'than those of our window (1): {name}' in fill_error(tensors, MASKS)


def test_batch_counts_and_distances_may_be_missing() -> None:
    network = random_network(2, adaptivity=MASKS)
    state = network.state_dict().items()
    tensors = {k: v for k, v in state if not k.endswith(('num_batches_tracked', 'square_dis'))}
    other = random_network(3, adaptivity=MASKS)
    assert official.fill(other, tensors, 'released.pth') == ([], [])
    assert_same_logits(network, other, random_image(64, 96))


def test_a_batch_count_of_an_unknown_layer() -> None:
    tensors = random_network().state_dict()
    tensors['bn9.num_batches_tracked'] = torch.tensor(0)
    assert 'unexpected (1): bn9.num_batches_tracked' in fill_error(tensors)


def test_what_differences_have_in_common_is_said() -> None:
    plain, masked = random_network(), random_network(adaptivity=MASKS)
    hint = '(the file has no masks: convert --add-masks adds them)'
    assert hint in fill_error(plain.state_dict(), MASKS)
    assert '(the file has masks)' in fill_error(masked.state_dict())
    window = fill_error(masked.state_dict(), Adaptivity(window=5))
    assert 'a window of 5; got' in window and '(the file has a window of 7)' in window
    assert '(the file lacks heads: take its backbone only)' in fill_error(backbone(plain))


def test_a_backbone_must_be_complete() -> None:
    tensors = backbone(random_network(adaptivity=MASKS))
    del tensors['transition1.0.0.Lambda'], tensors['conv1.weight']
    message = fill_error(tensors, MASKS, backbone_only=True)
    assert 'missing (2): conv1.weight, transition1.0.0.Lambda' in message


def test_a_prefix_on_some_entries_is_not_taken_off(tmp_path: Path) -> None:
    path = tmp_path / 'mixed.pth'
    torch.save({**released(random_network()), 'bn1.weight': torch.ones(64)}, path)
    message = fill_error(official.read(path).tensors)
    assert 'unexpected (' in message and 'model.bn1.bias' in message


def read_error(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        official.read(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize('zipped', [False, True], ids=['old_format', 'zipped'])
def test_objects_are_not_unpickled(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / 'objects.pth'
    content = {**released(random_network()), 'options': argparse.Namespace()}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    message = read_error(path)
    assert 'expected tensors alone, but the file needs argparse.Namespace' in message
    assert 'weights_only=True' in message


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (torch.ones(2), 'expected a table of tensors, got Tensor'),
        ({'state_dict': 5}, 'expected a table of tensors as state_dict, got int'),
        ({'bn1.weight': 'one'}, "expected a tensor as 'bn1.weight', got str"),
        ({5: torch.ones(1)}, 'expected a tensor as 5, got Tensor'),
    ],
)
def test_a_file_of_other_content(tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / 'other.pth'
    torch.save(content, path)
    assert message in read_error(path)


@pytest.mark.parametrize('content', [b'', b'\x00' * 64, bytes(range(256)), b'PK\x03\x04'])
def test_a_file_of_something_else(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / 'random.pth'
    path.write_bytes(content)
    assert 'expected a PyTorch file' in read_error(path)


@pytest.mark.parametrize('kept', [0.1, 0.5, 0.999])
def test_a_truncated_file(tmp_path: Path, kept: float) -> None:
    path = tmp_path / 'short.pth'
    torch.save(released(random_network()), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    assert 'expected a PyTorch file' in read_error(path)


def test_a_missing_file(tmp_path: Path) -> None:
    assert 'weights not found' in read_error(tmp_path / 'nothing.pth')
    assert 'weights not found' in read_error(tmp_path)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--no-masks', '--threshold', '0.5'], '--threshold, --window and --add-masks need masks'),
        (['--heads', 'none', '--window', '5'], '--threshold, --window and --add-masks need masks'),
        (['--no-masks', '--add-masks'], '--threshold, --window and --add-masks need masks'),
        (['--window', '4'], 'expected a window of (3, 5, 7, 9), got 4'),
        (['--network', 'resnet'], "unknown architecture 'resnet'"),
        (['--heads', 'plain', '--no-masks'], 'expected hrnet_tiny with plain heads'),
    ],
)
def test_options_that_do_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    path = tmp_path / 'released.pth'
    torch.save(released(random_network()), path)
    assert convert(path, *options) == 2
    assert message in capsys.readouterr().err
    assert not path.with_name('converted.safetensors').exists()


def test_the_written_file_is_named_as_what_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / 'out.pth'
    assert main(['convert', 'in.pth', str(target), '--network', 'hrnet_tiny']) == 2
    assert (
        f'expected OUT.safetensors as the file to write, got {target}' in capsys.readouterr().err
    )
