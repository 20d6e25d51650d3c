# SPDX-License-Identifier: Apache-2.0
"""The network gives what the released reference implementation gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from shared import CITYSCAPES_CLASS_WEIGHTS, reference
from torch import Tensor
from torch.nn import functional

from adpc_ros.learning.losses import exit_losses
from adpc_ros.network.adaptivity import ActiveMap, Adaptivity, Criterion, MaskedConv2d
from adpc_ros.network.anytime import AnytimeNetwork, Exit
from adpc_ros.network.exits import Heads
from adpc_ros.network.families import NetworkConfig, build_network
from adpc_ros.network.macs import count_frame

FIXTURES = {
    'tiny_rh': (Heads.REDESIGNED, Criterion.MAX_PROBABILITY, 'tiny_rh_weights'),
    'tiny_ee_odd': (Heads.PLAIN, Criterion.MAX_PROBABILITY, 'tiny_ee_odd_weights'),
    'tiny_rh_ent': (Heads.REDESIGNED, Criterion.ENTROPY, 'tiny_rh_ent_weights'),
}


def build(name: str, threshold: float) -> AnytimeNetwork:
    heads, criterion, weights = FIXTURES[name]
    adaptivity = Adaptivity(criterion, (threshold,) * 3)
    network = build_network(NetworkConfig('hrnet_tiny', heads, 19, adaptivity))
    state = {key: torch.from_numpy(value) for key, value in reference(weights).items()}
    network.load_state_dict(state, strict=True)
    return network


def assert_close(got: Tensor, expected: np.ndarray, tolerance: float) -> None:
    expected_t = torch.from_numpy(expected)
    error = (got - expected_t).abs().max().item()
    assert error <= tolerance * max(expected_t.abs().max().item(), 1e-12)


def assert_exit(out: Exit, numbers: dict[str, np.ndarray], prefix: str) -> None:
    assert_close(out.raw_logits, numbers[f'{prefix}/raw{out.exit_index}'], 1e-4)
    assert_close(out.logits, numbers[f'{prefix}/out{out.exit_index}'], 1e-4)
    masks = [k for k in numbers if k.startswith(f'{prefix}/mask{out.exit_index}_')]
    assert bool(masks) == (out.next_active is not None)
    for key in masks:
        height, width = (int(n) for n in key.rsplit('_', 1)[1].split('x'))
        got = out.next_active.at((height, width))[:, 0]
        np.testing.assert_array_equal(got.numpy(), numbers[key].astype(bool), err_msg=key)


@pytest.mark.parametrize('case', range(5))
def test_masked_conv_and_its_gradients_equal_the_reference(case: int) -> None:
    numbers = reference('conv_mask_unit')
    n = {k.split('/')[1]: v for k, v in numbers.items() if k.startswith(f'{case}/')}
    out_channels, in_channels, size, _ = n['w'].shape
    conv = MaskedConv2d(in_channels, out_channels, size, int(n['stride']), 'b' in n, window=7)
    conv.load_state_dict(
        {
            'weight': torch.from_numpy(n['w']),
            'Lambda': torch.from_numpy(n['Lambda']),
            'square_dis': conv.square_dis,
            **({'bias': torch.from_numpy(n['b'])} if 'b' in n else {}),
        }
    )
    x = torch.from_numpy(n['x']).requires_grad_()
    y = conv(x, ActiveMap(torch.from_numpy(n['mask']).bool().unsqueeze(1)))
    (y * torch.from_numpy(n['gy'])).sum().backward()
    assert_close(y.detach(), n['y'], 1e-4)
    gradients = {'gx': x.grad, 'gw': conv.weight.grad, 'gLambda': conv.Lambda.grad}
    if 'gb' in n:
        gradients['gb'] = conv.bias.grad
    for key in gradients.keys() & n.keys():
        assert_close(gradients[key], n[key], 1e-3)


@pytest.mark.parametrize('adaptive', [True, False], ids=['masks_on', 'masks_off'])
@pytest.mark.parametrize('name', FIXTURES)
def test_every_exit_equals_the_reference(name: str, adaptive: bool) -> None:
    numbers = reference(name)
    network = build(name, float(numbers['thr'])).eval()
    image = torch.from_numpy(numbers['input'])
    prefix = 'on' if adaptive else 'off'
    with torch.inference_mode():
        exits = list(network.exits(image, adaptive))
    assert [out.exit_index for out in exits] == [1, 2, 3, 4]
    for out in exits:
        assert_exit(out, numbers, prefix)
        for i, branch in enumerate(out.features):
            assert_close(branch, numbers[f'{prefix}/feat{out.exit_index}_{i}'], 1e-4)
        full = functional.interpolate(
            out.logits, image.shape[2:], mode='bilinear', align_corners=False
        )
        clear = numbers[f'{prefix}/predmargin{out.exit_index}'].astype(np.float32) > 1e-3
        predicted = full.argmax(1).numpy()
        np.testing.assert_array_equal(
            predicted[clear], numbers[f'{prefix}/pred{out.exit_index}'][clear]
        )


@pytest.mark.parametrize('adaptive', [True, False], ids=['masks_on', 'masks_off'])
@pytest.mark.parametrize('name', FIXTURES)
def test_counted_multiplications_equal_the_reference(name: str, adaptive: bool) -> None:
    numbers = reference(name)
    network = build(name, float(numbers['thr'])).eval()
    first = torch.from_numpy(numbers['input'][:1])
    expected = numbers['on/flops' if adaptive else 'off/flops']
    assert count_frame(network, first, adaptive).macs == expected.tolist()


@pytest.mark.parametrize('name', ['tiny_rh', 'tiny_ee_odd'])
def test_one_training_step_equals_the_reference(name: str) -> None:
    numbers = reference(f'{name}_train')
    # In double precision, so that the reference's own rounding is the only one: some gradients of
    # Lambda are small remainders of large sums.
    network = build(name, float(numbers['thr'])).train().double()
    image = torch.from_numpy(numbers['input']).double()
    label = torch.from_numpy(numbers['label']).long()
    exits = list(network.exits(image))
    losses = exit_losses([out.logits for out in exits], label, CITYSCAPES_CLASS_WEIGHTS)
    torch.stack(losses).sum().backward()
    for out in exits:
        assert_exit(
            out._replace(logits=out.logits.detach(), raw_logits=out.raw_logits.detach()),
            numbers,
            'train',
        )
    assert_close(torch.stack(losses).detach(), numbers['losses'], 1e-4)
    # a bias before the BatchNorm of the unmasked exit 1 has a gradient of 0 but for noise
    before_norm = {f'exit1.{i}.bias' for i in ((1, 5, 9, 13, 17) if 'rh' in name else (0,))}
    checked = 0
    for key, parameter in network.named_parameters():
        if f'grad/{key}' in numbers and key not in before_norm:
            assert parameter.grad is not None, key
            error = (parameter.grad - torch.from_numpy(numbers[f'grad/{key}'])).abs().max().item()
            scale = float(np.abs(numbers[f'grad/{key}']).max())
            assert error <= 1e-3 * max(scale, 1e-8), key
            checked += 1
    assert checked > 150
    after = [k for k in numbers if k.startswith('bn_after/')]
    state = network.state_dict()
    assert after
    for key in after:
        assert_close(state[key.removeprefix('bn_after/')].float(), numbers[key], 1e-4)
