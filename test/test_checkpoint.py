# SPDX-License-Identifier: Apache-2.0
"""A weights file gives back what was saved, or an error that names it and says what is wrong."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from networks import random_image, random_network
from safetensors import safe_open
from safetensors.torch import save_file
from shared import ROOT
from torch import Tensor

from adpc_ros.labels import CAMVID, CITYSCAPES, ClassSet
from adpc_ros.network import checkpoint
from adpc_ros.network.adaptivity import Adaptivity, Criterion
from adpc_ros.network.checkpoint import CheckpointError
from adpc_ros.network.exits import Heads
from adpc_ros.network.families import NetworkConfig
from adpc_ros.network.worth import ExitTimes, Worth

INFO = {'data': 'none', 'licence': 'Apache-2.0', 'note': 'grün'}
Tensors = dict[str, Tensor]
Metadata = dict[str, str]
WORTH = Worth('camvid:held-out', tuple((0.1 * i, *(0.5,) * 9, None) for i in range(4)))
TIMES = ExitTimes((0.05, 0.03, 0.02, 0.01), '480x360, native float32, 2 threads')


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / 'some' / 'tiny.safetensors'
    network = random_network(4, adaptivity=Adaptivity(thresholds=(0.6, 0.7, 0.8), window=5))
    checkpoint.save(path, network, CAMVID, INFO)
    return path


@pytest.mark.parametrize(
    ('architecture', 'heads', 'adaptivity'),
    [
        ('hrnet_tiny', Heads.REDESIGNED, Adaptivity(thresholds=(0.6, 0.7, 0.8), window=5)),
        ('hrnet_tiny', Heads.PLAIN, Adaptivity(Criterion.ENTROPY, (0.5, 0.4, 0.3))),
        ('hrnet_tiny', Heads.REDESIGNED, None),
        ('hrnet_tiny', Heads.NONE, None),
        ('coarse_tiny', Heads.PLAIN, Adaptivity(thresholds=(0.6, 0.7), window=3)),
        ('coarse_tiny', Heads.NONE, None),
    ],
)
def test_a_round_trip_changes_nothing(
    tmp_path: Path, architecture: str, heads: Heads, adaptivity: Adaptivity | None
) -> None:
    network = random_network(4, heads, adaptivity, architecture=architecture)
    path = tmp_path / 'tiny.safetensors'
    checkpoint.save(path, network, CAMVID, INFO)
    loaded = checkpoint.load(path)
    assert loaded.network.config == network.config
    assert type(loaded.network.config.heads) is Heads
    assert loaded.classes is CAMVID
    assert loaded.info == INFO
    assert not loaded.network.training
    image = random_image(64, 96)
    with torch.inference_mode():
        for a, b in zip(network(image), loaded.network(image)):
            assert torch.equal(a, b)
    assert [p.name for p in tmp_path.iterdir()] == ['tiny.safetensors']


def test_depths_of_heads_are_kept_and_not_written_where_they_are_the_familys(
    tmp_path: Path, weights: Path
) -> None:
    path = tmp_path / 'shallow.safetensors'
    checkpoint.save(path, random_network(4, head_depths=(1, 1, 1)), CAMVID, INFO)
    assert checkpoint.load(path).network.config.head_depths == (1, 1, 1)
    with safe_open(str(weights), 'pt') as file:
        assert 'head_depths' not in json.loads(file.metadata()['network'])
    assert checkpoint.load(weights).network.config.head_depths is None


@pytest.mark.parametrize(
    'identity', ['hrnet_w18_small_v2_camvid@6f70eb27dd56', 'coarse_s_camvid@ed72566da58d']
)
def test_the_packaged_weights_are_what_they_were(identity: str) -> None:
    path = ROOT / 'weights' / f'{identity.partition("@")[0]}.safetensors'
    assert checkpoint.load(path).identity == identity


@pytest.mark.parametrize('architecture', ['hrnet_tiny', 'coarse_tiny'])
def test_what_is_known_of_the_exits_is_kept(tmp_path: Path, architecture: str) -> None:
    network = random_network(4, architecture=architecture)
    exits = network.config.exit_count
    worth = Worth(WORTH.data, WORTH.iou[:exits])
    times = ExitTimes(TIMES.seconds[:exits], TIMES.measured)
    path = tmp_path / 'tiny.safetensors'
    checkpoint.save(path, network, CAMVID, INFO, worth, times)
    loaded = checkpoint.load(path)
    assert (loaded.worth, loaded.exit_s) == (worth, times)
    checkpoint.save(path, network, CAMVID, INFO)
    loaded = checkpoint.load(path)
    assert (loaded.worth, loaded.exit_s, loaded.advised_exit) == (None, None, 1)


def test_the_exits_must_be_those_of_the_network(tmp_path: Path) -> None:
    network = random_network(4, architecture='coarse_tiny')
    with pytest.raises(ValueError, match='expected IoU of 3 exits with 11 classes each, got 4'):
        checkpoint.save(tmp_path / 'w.safetensors', network, CAMVID, INFO, WORTH)
    with pytest.raises(ValueError, match='expected the seconds of 3 exits, got 4'):
        checkpoint.save(tmp_path / 'w.safetensors', network, CAMVID, INFO, exit_s=TIMES)
    assert not list(tmp_path.iterdir())


def test_temperatures_are_kept(tmp_path: Path) -> None:
    path = tmp_path / 'tiny.safetensors'
    checkpoint.save(path, random_network(4, temperatures=(1.5, 0.75, 1.0, 1 / 3)), CAMVID, INFO)
    config = checkpoint.load(path).network.config
    assert config.temperatures == (1.5, 0.75, 1.0, 1 / 3)


def test_an_older_file_without_temperatures_stays_what_it_was(weights: Path) -> None:
    def forget(metadata: Metadata) -> None:
        values = json.loads(metadata['network'])
        assert values.pop('temperatures') == [1.0] * 4
        metadata['network'] = json.dumps(values)

    change(weights, metadata=forget)
    with safe_open(str(weights), framework='pt') as file:
        digest = hashlib.sha256(file.metadata()['network'].encode())
        for name in sorted(file.keys()):
            digest.update(name.encode() + file.get_tensor(name).numpy().tobytes())
    loaded = checkpoint.load(weights)
    assert loaded.identity == f'tiny@{digest.hexdigest()[:12]}'
    assert loaded.network.config.temperatures == (1.0,) * 4


def test_the_identity_follows_the_content(tmp_path: Path) -> None:
    seeds = {'a': 1, 'b': 1, 'c': 2}
    identities = {}
    for name, seed in seeds.items():
        path = tmp_path / f'{name}.safetensors'
        checkpoint.save(path, random_network(seed), CAMVID, {'note': name})
        stem, _, identities[name] = checkpoint.load(path).identity.partition('@')
        assert stem == name
    assert identities['a'] == identities['b'] != identities['c']
    assert len(identities['a']) == 12


def test_the_identity_follows_what_is_known_of_the_exits(tmp_path: Path) -> None:
    network, path = random_network(1, class_count=2), tmp_path / 'tiny.safetensors'
    plain = ClassSet('mine', ('ground', 'walker'), ((1, 2, 3), (4, 5, 6)))
    marked = dataclasses.replace(plain, vulnerable=('walker',))
    worth = Worth('a', ((0.5, 0.1),) * 4)
    others = [
        (marked, None, None),
        (plain, worth, None),
        (plain, Worth('a', ((0.5, 0.2),) * 4), None),
        (plain, None, TIMES),
        (marked, worth, TIMES),
    ]
    identities = set()
    for classes, *known in [(plain, None, None), *others]:
        checkpoint.save(path, network, classes, INFO, *known)
        loaded = checkpoint.load(path)
        assert loaded.classes.vulnerable == classes.vulnerable
        identities.add(loaded.identity)
    assert len(identities) == 6


def test_an_older_description_of_classes_has_no_vulnerable_ones(tmp_path: Path) -> None:
    path = tmp_path / 'tiny.safetensors'
    classes = ClassSet('mine', ('ground', 'walker'), ((1, 2, 3), (4, 5, 6)))
    checkpoint.save(path, random_network(1, class_count=2), classes, INFO)
    identity = checkpoint.load(path).identity

    def forget(metadata: Metadata) -> None:
        values = json.loads(metadata['classes'])
        assert values.pop('vulnerable') == []
        metadata['classes'] = json.dumps(values)

    change(path, metadata=forget)
    loaded = checkpoint.load(path)
    assert (loaded.classes, loaded.classes.vulnerable) == (classes, ())
    assert loaded.identity == identity


def load_error(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    assert 'weights not found' in load_error(tmp_path / 'nothing.safetensors')
    assert f'weights not found: {tmp_path} (a folder; expected a file)' in load_error(tmp_path)


@pytest.mark.parametrize('kept', [0.0, 0.001, 0.1, 0.5, 0.999])
def test_a_truncated_file(weights: Path, kept: float) -> None:
    content = weights.read_bytes()
    weights.write_bytes(content[: int(len(content) * kept)])
    assert 'expected a safetensors file' in load_error(weights)


@pytest.mark.parametrize(
    'content, kind',
    [
        (b'', 'an empty file'),
        (b'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n', 'a Git LFS pointer'),
        ('grün und blau\n'.encode(), "text, which begins 'grün und blau'"),
        (b'\x89HDF\r\n\x1a\n', 'an HDF5 file'),
        (b'\x10' + bytes(7) + b'{', 'a safetensors file that was cut: it has 9 of 24 bytes'),
        (b'\x04' + bytes(7) + b'{{{{', 'a safetensors file with a broken head'),
    ],
)
def test_what_a_broken_file_looks_like_is_said(tmp_path: Path, content: bytes, kind: str) -> None:
    path = tmp_path / 'broken.safetensors'
    path.write_bytes(content)
    assert f'; it looks like {kind}' in load_error(path)


def test_a_file_of_another_length_is_not_taken(weights: Path) -> None:
    content = weights.read_bytes()
    weights.write_bytes(content[:-1])
    size = len(content)
    assert f'that was cut: it has {size - 1} of {size} bytes' in load_error(weights)
    weights.write_bytes(content + b'..')
    assert f'a safetensors file of {size} bytes with 2 more behind it' in load_error(weights)


@pytest.mark.parametrize('content', [b'\x00' * 64, b'\xff' * 64, bytes(range(256)) * 8, b'PK\x03'])
def test_a_file_of_something_else(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / 'random.safetensors'
    path.write_bytes(content)
    assert 'expected a safetensors file' in load_error(path)


def test_a_pickled_file_is_not_unpickled(tmp_path: Path) -> None:
    path = tmp_path / 'old.pth'
    for zipped in (True, False):
        torch.save(random_network().state_dict(), path, _use_new_zipfile_serialization=zipped)
        message = load_error(path)
        assert 'expected a safetensors file' in message
        assert 'it looks like a PyTorch file, which the command convert reads' in message


def change(
    path: Path,
    tensors: Callable[[Tensors], object] = lambda _: None,
    metadata: Callable[[Metadata], object] = lambda _: None,
) -> None:
    """Write a weights file again with changed content."""
    with safe_open(str(path), framework='pt') as file:
        kept = {name: file.get_tensor(name) for name in file.keys()}
        described = dict(file.metadata())
    tensors(kept)
    metadata(described)
    save_file(kept, str(path), described)


def test_a_file_without_metadata(weights: Path) -> None:
    change(weights, metadata=lambda m: m.clear())
    assert "expected format 'adpc_ros 1' in the metadata, got None" in load_error(weights)


def test_a_file_of_another_program(weights: Path) -> None:
    save_file({'layer.weight': torch.ones(2), 'layer.bias': torch.ones(2)}, weights)
    message = load_error(weights)
    assert 'a safetensors file of another program, with 2 tensors as layer.bias' in message


@pytest.mark.parametrize(
    'dtype',
    [torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2, torch.float64],
    ids=str,
)
def test_types_whose_values_float32_has_are_taken(weights: Path, dtype: torch.dtype) -> None:
    def rounded(tensors: Tensors) -> None:  # so that both files hold the same values
        weights_ = {k: v for k, v in tensors.items() if not k.endswith('square_dis')}
        tensors.update({k: v.to(dtype).float() for k, v in weights_.items()})

    change(weights, rounded)
    expected = checkpoint.load(weights)
    change(weights, lambda t: t.update({k: v.to(dtype) for k, v in t.items()}))
    loaded = checkpoint.load(weights)
    for name, value in loaded.network.state_dict().items():
        assert torch.equal(value, expected.network.state_dict()[name])
        assert value.dtype == torch.float32 or name.endswith('num_batches_tracked')
    assert loaded.identity == expected.identity


def doubled(values: Tensor) -> Tensor:
    return values.double() + 1e-12


def but_one(value: float) -> Callable[[Tensor], Tensor]:
    def change_one(values: Tensor) -> Tensor:
        values = values.clone()
        values.view(-1)[3] = value
        return values

    return change_one


@pytest.mark.parametrize(
    ('name', 'changed', 'message'),
    [
        ('bn1.weight', Tensor.long, 'bn1.weight is torch.int64, expected torch.float32'),
        ('bn1.weight', Tensor.char, 'bn1.weight is torch.int8, expected torch.float32'),
        ('bn1.weight', Tensor.bool, 'bn1.weight is torch.bool, expected torch.float32'),
        (
            'conv1.weight',
            doubled,
            'conv1.weight is torch.float64 with values that float32 does not have, expected',
        ),
        (
            'conv1.weight',
            but_one(math.nan),
            'conv1.weight has 1 of 1728 values NaN or infinite, expected finite ones',
        ),
        ('bn1.bias', but_one(math.inf), 'bn1.bias has 1 of 64 values NaN or infinite'),
        (
            'bn1.bias',
            lambda v: but_one(-math.inf)(v).half(),
            'bn1.bias has 1 of 64 values NaN or infinite',
        ),
        (
            'bn1.running_var',
            but_one(-0.5),
            'bn1.running_var has -0.5, expected variances of 0 or more',
        ),
    ],
)
def test_what_cannot_be_weights_is_refused_by_name(
    weights: Path, name: str, changed: Callable[[Tensor], Tensor], message: str
) -> None:
    change(weights, lambda t: t.update({name: changed(t[name])}))
    assert load_error(weights).startswith(f'{weights}: {message}')


def test_how_many_others_are_wrong_is_said(weights: Path) -> None:
    change(weights, lambda t: t.update({k: v.long() for k, v in t.items() if 'bn1' in k[:3]}))
    assert 'bn1.bias is torch.int64, expected torch.float32 (and 3 more)' in load_error(weights)


def test_a_tensor_of_another_shape(weights: Path) -> None:
    change(weights, lambda t: t.update({'bn1.weight': torch.ones(63)}))
    assert 'bn1.weight is (63,), expected (64,)' in load_error(weights)


def test_a_missing_tensor(weights: Path) -> None:
    change(weights, lambda t: t.pop('exit1.1.weight'))
    assert '1 tensors missing, as exit1.1.weight' in load_error(weights)


def test_an_unknown_tensor(weights: Path) -> None:
    change(weights, lambda t: t.update({'exit5.weight': torch.ones(1)}))
    assert '1 unknown tensors, as exit5.weight' in load_error(weights)


def test_a_class_set_of_another_count(weights: Path) -> None:
    change(weights, metadata=lambda m: m.update(classes=CITYSCAPES.name))
    assert 'the network has 11 classes, cityscapes has 19' in load_error(weights)


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        ('format', 'adpc_ros 7', "expected format 'adpc_ros 1' in the metadata, got 'adpc_ros 7'"),
        ('classes', 'moon', 'unknown class set'),
        ('classes', '{"name"', 'classes: expected JSON, got \'{"name"\' (Expecting'),
        (
            'classes',
            '{"names": ["a"], "colours": [[0, 0, 0]]}',
            "classes: missing keys ['name']: expected ['colours', 'name', 'names'], "
            "got ['colours', 'names']",
        ),
        (
            'classes',
            '{"name": "x", "names": "ab", "colours": [[0, 0, 0]]}',
            "classes.names: expected a list, got the text 'ab'",
        ),
        ('info', '[]', 'info: expected keys and values, got []'),
        ('info', '', "info: expected JSON, got '' (Expecting value"),
        ('network', '{', "network: expected JSON, got '{' (Expecting"),
        ('network', '7', 'network: expected keys and values, got 7'),
        ('network', '{"class_count": 11}', "network: missing keys ['architecture']: expected"),
        ('network', '{"architecture": "resnet"}', "unknown architecture 'resnet'"),
        ('network', '{"architecture": "hrnet_tiny", "depth": 3}', "unknown keys ['depth']"),
        ('network', '{"architecture": "hrnet_tiny", "adaptivity": {"x": 1}}', "keys ['x']"),
        ('network', '{"architecture": "hrnet_tiny", "mean": 5}', 'mean: expected a list, got 5'),
        (
            'network',
            '{"architecture": "hrnet_tiny", "std": [1, 1]}',
            'network.std: expected 3 val',
        ),
        ('network', '{"architecture": "hrnet_tiny", "std": [1, 1, 0]}', '3 positive std'),
        ('network', '{"architecture": "hrnet_tiny", "class_count": "x"}', 'class_count: expected'),
        ('network', '{"architecture": "hrnet_tiny", "temperatures": 2}', 'temperatures: expected'),
        (
            'network',
            '{"architecture": "hrnet_tiny", "temperatures": [1, NaN, 1, 1]}',
            'network.temperatures[1]: expected a finite number, got nan',
        ),
        ('worth', '[]', 'worth: expected the keys data and iou, got []'),
        ('worth', '{"data": "x"}', "worth: expected the keys data and iou, got ['data']"),
        ('worth', '{"data": "x", "iou": 3}', 'iou as a list for each exit'),
        ('worth', '{"data": "x", "iou": []}', 'worth: expected IoU of the same classes'),
        ('worth', '{"data": "x", "iou": [[0.1, null], [0.1, 0.2]]}', 'of the same classes'),
        ('worth', '{"data": "x", "iou": [[0.1, 1.5]]}', 'expected IoU in [0, 1] or null, got 1.5'),
        ('worth', '{"data": "x", "iou": [[0.1, "?"]]}', "in [0, 1] or null, got '?'"),
        ('worth', '{"data": "x", "iou": [[0.1]]}', 'IoU of 4 exits with 11 classes each, got 1'),
        ('exit_s', '7', 'exit_s: expected the keys seconds and measured, got 7'),
        ('exit_s', '{"seconds": 7, "measured": ""}', 'expected seconds as a list'),
        ('exit_s', '{"seconds": [0.1, 0], "measured": ""}', 'seconds of each exit, above 0'),
        ('exit_s', '{"seconds": [0.1], "measured": ""}', 'the seconds of 4 exits, got 1'),
        (
            'classes',
            '{"name": "x", "names": ["a"], "colours": [[0, 0, 0]], "vulnerable": ["b"]}',
            'expected vulnerable classes of the set, got b',
        ),
    ],
)
def test_broken_metadata(weights: Path, key: str, value: str, message: str) -> None:
    change(weights, metadata=lambda m: m.update({key: value}))
    assert message in load_error(weights)


def test_missing_metadata_keys(weights: Path) -> None:
    change(weights, metadata=lambda m: m.pop('classes'))
    assert "missing keys ['classes']: expected network, classes and info" in load_error(weights)


def test_a_configuration_is_plain_json() -> None:
    config = NetworkConfig('hrnet_tiny', adaptivity=Adaptivity(thresholds=(0.9, 0.8, 0.7)))
    values = json.loads(json.dumps(checkpoint.config_to_dict(config)))
    assert checkpoint.config_from_dict(values) == config
