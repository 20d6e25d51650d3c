# SPDX-License-Identifier: Apache-2.0
"""The masked convolution is what its definition says, written once more with plain loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from networks import random_image, random_network
from numpy.typing import NDArray
from torch.nn import functional

from adpc_ros.network.adaptivity import (
    ActiveMap,
    Adaptivity,
    Criterion,
    MaskedConv2d,
    active_positions,
    entropy,
)
from adpc_ros.network.exits import Heads
from adpc_ros.network.families import NetworkConfig

Floats = NDArray[np.float64]


class Values(NamedTuple):
    """One image (C, H, W), weights (C', C, k, k), bias (C') and lambda."""

    x: Floats
    weight: Floats
    bias: Floats
    lam: Floats


def oracle(v: Values, active: NDArray[np.bool_], stride: int, window: int) -> Floats:
    """Give the (C', H', W') output: slow, and without a single array operation of the library."""
    out_channels, in_channels, kernel, _ = v.weight.shape
    height, width = active.shape
    y = np.zeros((out_channels, height, width))
    for o, i, j in np.ndindex(y.shape):
        y[o, i, j] = v.bias[o]
        for c, a, b in np.ndindex(in_channels, kernel, kernel):
            row, column = i * stride + a - kernel // 2, j * stride + b - kernel // 2
            if 0 <= row < v.x.shape[1] and 0 <= column < v.x.shape[2]:
                y[o, i, j] += v.weight[o, c, a, b] * v.x[c, row, column]
    reach = window // 2
    rbf = np.zeros((window, window))
    for a, b in np.ndindex(rbf.shape):
        square_distance = (a - reach) ** 2 + (b - reach) ** 2 if (a, b) != (reach, reach) else 1e5
        rbf[a, b] = math.exp(-(float(v.lam) ** 2) * square_distance)
    normaliser = rbf.sum() + 1e-5
    result = y.copy()
    for o, i, j in np.ndindex(y.shape):
        if active[i, j]:
            continue
        result[o, i, j] = 0.0
        for a, b in np.ndindex(rbf.shape):
            row, column = i + a - reach, j + b - reach
            if 0 <= row < height and 0 <= column < width and active[row, column]:
                result[o, i, j] += rbf[a, b] / normaliser * y[o, row, column]
    return result


def draw(seed: int, kernel: int, stride: int, size: tuple[int, int]) -> tuple[Values, Floats]:
    """Give random values and, of the output's size, numbers in [0, 1) to cut a map from."""
    rng = np.random.default_rng(seed)
    values = Values(
        rng.normal(size=(2, *size)),
        rng.normal(size=(3, 2, kernel, kernel)),
        rng.normal(size=3),
        np.asarray(rng.uniform(0.4, 1.5)),
    )
    return values, rng.random([-(-edge // stride) for edge in size])


def layer(v: Values, stride: int, window: int) -> MaskedConv2d:
    conv = MaskedConv2d(2, 3, v.weight.shape[2], stride, bias=True, window=window).double()
    assert conv.bias is not None
    with torch.no_grad():
        conv.weight.copy_(torch.from_numpy(v.weight))
        conv.bias.copy_(torch.from_numpy(v.bias))
        conv.Lambda.fill_(float(v.lam))
    return conv


def as_map(active: NDArray[np.bool_]) -> ActiveMap:
    return ActiveMap(torch.from_numpy(active)[None, None])


@pytest.mark.parametrize('share', [0.0, 0.4, 1.0])
@pytest.mark.parametrize('window', [3, 5, 7, 9])
@pytest.mark.parametrize(('kernel', 'stride'), [(1, 1), (3, 1), (3, 2)])
def test_masked_conv_equals_the_loops(kernel: int, stride: int, window: int, share: float) -> None:
    v, numbers = draw(window, kernel, stride, (7, 9))
    active = numbers < share
    y = layer(v, stride, window)(torch.from_numpy(v.x)[None], as_map(active))
    expected = oracle(v, active, stride, window)
    np.testing.assert_allclose(y[0].detach().numpy(), expected, rtol=1e-6, atol=1e-9)
    if share == 0.0:
        assert not expected.any()


@pytest.mark.parametrize('size', [(1, 1), (1, 6), (5, 2)])
def test_maps_smaller_than_the_window_work(size: tuple[int, int]) -> None:
    v, numbers = draw(0, 3, 1, size)
    active = numbers < 0.5
    y = layer(v, 1, 9)(torch.from_numpy(v.x)[None], as_map(active))
    expected = oracle(v, active, 1, 9)
    np.testing.assert_allclose(y[0].detach().numpy(), expected, rtol=1e-6, atol=1e-9)


def slopes(function: Callable[[], float], at: Floats, step: float = 1e-5) -> Floats:
    """Differentiate numerically with respect to an array, which is changed and restored."""
    result = np.zeros_like(at)
    for index in np.ndindex(at.shape):
        value = at[index]
        at[index] = value + step
        above = function()
        at[index] = value - step
        result[index] = (above - function()) / (2 * step)
        at[index] = value
    return result


@pytest.mark.parametrize(('kernel', 'stride', 'window'), [(1, 1, 7), (3, 1, 3), (3, 2, 5)])
def test_gradients_equal_numeric_slopes_of_the_loops(
    kernel: int, stride: int, window: int
) -> None:
    v, numbers = draw(kernel + stride, kernel, stride, (5, 4))
    active = numbers < 0.5
    weights = np.random.default_rng(1).normal(size=(3, *active.shape))  # of the outputs' sum
    conv = layer(v, stride, window)
    assert conv.bias is not None
    x = torch.from_numpy(v.x)[None].clone().requires_grad_()
    torch.autograd.backward((conv(x, as_map(active))[0] * torch.from_numpy(weights)).sum())

    def loss() -> float:
        return float((oracle(v, active, stride, window) * weights).sum())

    pairs = ((x, v.x), (conv.weight, v.weight), (conv.bias, v.bias), (conv.Lambda, v.lam))
    for (parameter, values), name in zip(pairs, Values._fields):
        assert parameter.grad is not None
        got = parameter.grad.numpy().reshape(values.shape)
        np.testing.assert_allclose(got, slopes(loss, values), rtol=1e-5, atol=1e-7, err_msg=name)


def test_without_a_map_it_is_a_plain_convolution() -> None:
    v, _ = draw(0, 3, 2, (7, 9))
    conv, x = layer(v, 2, 7), torch.from_numpy(v.x)[None]
    expected = functional.conv2d(x, conv.weight, conv.bias, stride=2, padding=1)
    assert torch.equal(conv(x), expected)


def test_entropy_of_a_sure_prediction_is_zero_and_not_nan() -> None:
    logits = torch.zeros(1, 4, 1, 3)
    logits[0, 0, 0, 0] = 1e4  # the other probabilities underflow
    logits[0, 1, 0, 1] = 1.0
    got = entropy(logits)[0, 0]
    p = torch.tensor([math.e, 1.0, 1.0, 1.0], dtype=torch.float64) / (math.e + 3)
    assert got[0] == 0.0
    assert got[1].item() == pytest.approx(-(p * p.log()).sum().item())
    assert got[2].item() == pytest.approx(math.log(4))


@pytest.mark.parametrize(
    ('criterion', 'active'),
    [(Criterion.MAX_PROBABILITY, [True, True, False]), (Criterion.ENTROPY, [True, True, False])],
)
def test_a_position_on_the_threshold_is_active(criterion: Criterion, active: list[bool]) -> None:
    logits = torch.tensor([[0.0, 0.5, 5.0], [0.0, 0.0, 0.0]]).view(1, 2, 1, 3)
    at_second = {
        Criterion.MAX_PROBABILITY: functional.softmax(logits, 1).amax(1)[0, 0, 1],
        Criterion.ENTROPY: entropy(logits)[0, 0, 1],
    }
    positions = active_positions(logits, criterion, at_second[criterion].item())
    assert positions.flatten().tolist() == active


def test_a_share_of_the_most_confident_positions_is_masked_and_of_equal_ones_the_first() -> None:
    margins = torch.tensor([[1.0, 3.0, 0.0, 3.0, 2.0, 3.0], [0.0, 0.0, 0.0, 0.0, 5.0, 6.0]])
    logits = torch.stack([margins, torch.zeros_like(margins)], 1).unsqueeze(2)  # (2, 2, 1, 6)
    for share, masked in (
        (0.0, ([], [])),
        (0.34, ([1, 3], [4, 5])),
        (0.5, ([1, 3, 5], [0, 4, 5])),
    ):
        active = active_positions(logits, Criterion.TOP_K, share)
        assert active.shape == (2, 1, 1, 6)
        assert [(~row).flatten().nonzero().flatten().tolist() for row in active] == [*masked]
    before = ActiveMap(torch.tensor([False, True, False, True, True, True]).view(1, 1, 1, 6))
    active = active_positions(logits[:1], Criterion.TOP_K, 0.5, before)
    assert active.flatten().tolist() == [False, False, False, True, True, True]
    active = active_positions(logits[:1], Criterion.TOP_K, 0.1, before)
    assert torch.equal(active, before.at((1, 6))), 'nested, though it is less'


def test_random_positions_depend_on_the_size_alone_and_are_nested() -> None:
    generator = torch.Generator().manual_seed(3)
    before: ActiveMap | None = None
    for share in (0.25, 0.5, 1.0):
        first, other = (
            active_positions(
                torch.randn(2, 5, 8, 12, generator=generator), Criterion.RANDOM, share
            )
            for _ in range(2)
        )
        assert torch.equal(first, other) and torch.equal(first[0], first[1])
        assert int((~first[0]).sum()) == round(share * 96)
        assert before is None or not (first & ~before.at((8, 12))).any()
        before = ActiveMap(first)
    rows = active_positions(torch.zeros(1, 5, 8, 12), Criterion.RANDOM, 0.5).float().mean(3)
    assert rows.min() > 0, 'spread over the image'


@pytest.mark.parametrize('size', [(17, 23), (9, 12), (5, 6), (3, 3), (34, 46), (40, 50)])
def test_the_map_at_a_size_equals_that_of_resized_logits(size: tuple[int, int]) -> None:
    logits = 3 * torch.randn(2, 5, 17, 23, generator=torch.Generator().manual_seed(0))
    resized = functional.interpolate(logits, size, mode='nearest')
    for criterion, threshold in ((Criterion.MAX_PROBABILITY, 0.8), (Criterion.ENTROPY, 0.6)):
        active = ActiveMap(active_positions(logits, criterion, threshold))
        expected = active_positions(resized, criterion, threshold)
        assert torch.equal(active.at(size), expected)
        assert active.share(size) == pytest.approx(expected.float().mean().item())
        assert 0.1 < active.share(size) < 0.9


@pytest.mark.parametrize('value', [torch.ones(1, 1, 2, 2), torch.ones(1, 2, 2, dtype=torch.bool)])
def test_a_map_must_be_boolean_with_four_dimensions(value: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r'expected a \(B, 1, H, W\) bool tensor'):
        ActiveMap(value)


@pytest.mark.parametrize(
    ('criterion', 'thresholds'),
    [
        ('max_probability', (0.6, 0.6, 0.6)),
        ('max_probability', (0.4, 0.8, 0.5)),
        ('max_probability', (0.5, 1.0, 0.9)),
        ('top_k', (0.2, 0.5, 0.4)),
        ('random', (0.2, 0.5, 0.4)),
    ],
)
def test_maps_are_nested_and_confident_predictions_stay(
    criterion: Criterion, thresholds: tuple[float, float, float]
) -> None:
    network = random_network(0, adaptivity=Adaptivity(criterion, thresholds))
    with torch.inference_mode():
        exits = list(network.exits(random_image(64, 96)))
    for before, out in zip(exits, exits[1:]):
        assert before.next_active is out.active is not None
        active = out.active.at((16, 24))
        kept = ~active.expand_as(out.logits)
        assert 0 < active.float().mean() < 1
        assert torch.equal(out.logits[kept], before.logits[kept])
        assert torch.equal(out.logits[~kept], out.raw_logits[~kept])
        if out.next_active is not None:
            assert not (out.next_active.at((16, 24)) & ~active).any()


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'class_thresholds': ((0.9, 1.1),)}, r'in \[0, 1.0\] for max_probability.*1\.1'),
        ({'thresholds': (0.9, 1.1, 0.9)}, r'in \[0, 1.0\] for max_probability.*1\.1'),
        ({'thresholds': (0.9, float('nan'), 0.9)}, 'expected thresholds.*nan'),
        ({'criterion': 'entropy', 'thresholds': (0.1, -0.1, 0.1)}, r'in \[0, inf\] for entropy'),
        ({'criterion': 'top_k', 'thresholds': (1.1,)}, r'in \[0, 1.0\] for top_k.*1\.1'),
        ({'criterion': 'random'}, 'expected thresholds for random: the shares that are masked'),
        (
            {'criterion': 'top_k', 'thresholds': (0.5,), 'class_thresholds': ((0.5, 0.5),)},
            'class_thresholds have no meaning for top_k',
        ),
        ({'criterion': 'margin'}, "'margin' is not a valid Criterion"),
        ({'window': 4}, r'expected a window of \(3, 5, 7, 9\), got 4'),
    ],
)
def test_adaptivity_rejects_bad_values(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Adaptivity(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'architecture': 'resnet'}, "unknown architecture 'resnet': expected one of coarse"),
        ({'heads': 'wide'}, "'wide' is not a valid Heads"),
        (
            {'architecture': 'coarse_s', 'heads': Heads.REDESIGNED},
            'coarse_s: expected heads plain or none, got redesigned',
        ),
        ({'adaptivity': Adaptivity(thresholds=(0.9, 0.9))}, 'expected 3 thresholds'),
        (
            {'adaptivity': Adaptivity(class_thresholds=((0.9,) * 19,) * 2)},
            r'class_thresholds of 3 exits with 19 classes each, got \[19, 19\]',
        ),
        (
            {'heads': Heads.PLAIN, 'head_depths': (1, 1, 1)},
            'head_depths need redesigned heads: hrnet_tiny has plain',
        ),
        (
            {'architecture': 'coarse_s', 'head_depths': (1, 1, 1)},
            'head_depths need redesigned heads: coarse_s has plain',
        ),
        ({'head_depths': (1, 1)}, r'expected head_depths of exits 1 to 3.* got \(1, 1\)'),
        ({'head_depths': (3, 2, 0)}, 'from 1 to 3 / 3 / 3, got'),
        ({'head_depths': (4, 1, 1)}, 'from 1 to 3 / 3 / 3, got'),
        ({'head_depths': (1.0, 1, 1)}, 'from 1 to 3 / 3 / 3, got'),
        ({'std': (0.2, 0.2, 0.0)}, 'expected 3 means and 3 positive std'),
        ({'class_count': 1}, 'expected at least 2 classes, got 1'),
        ({'heads': Heads.NONE, 'adaptivity': Adaptivity()}, 'adaptivity needs early exits'),
        ({'temperatures': (1.0,) * 3}, r'expected 4 positive finite temperatures, got \(1.0, 1.0'),
        ({'heads': Heads.NONE, 'temperatures': (2.0,)}, r'expected 4 .* temperatures, got \(2.0,'),
        ({'temperatures': (1, 1, 0, 1)}, r'expected 4 .*, got \(1.0, 1.0, 0.0, 1.0\)'),
        ({'temperatures': (1, -1, 1, 1)}, 'expected 4 positive finite temperatures'),
        ({'temperatures': (1, 1, 1, math.inf)}, 'expected 4 positive finite temperatures'),
        ({'temperatures': (math.nan, 1, 1, 1)}, 'expected 4 positive finite temperatures'),
        ({'temperatures': (1, 1, 1e-40, 1)}, 'expected 4 positive finite temperatures'),
        ({'temperatures': (1, 1, 'hot', 1)}, 'could not convert'),
    ],
)
def test_a_network_configuration_rejects_bad_values(
    values: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        NetworkConfig(**{'architecture': 'hrnet_tiny', **values})  # type: ignore[arg-type]


def test_a_network_is_calibrated_if_a_temperature_is_not_one() -> None:
    assert NetworkConfig('hrnet_tiny').temperatures == (1.0,) * 4
    assert not NetworkConfig('hrnet_tiny', temperatures=(1, 1, 1, 1)).calibrated
    config = NetworkConfig('hrnet_tiny', temperatures=(1, 1, 2, 1))
    assert config.calibrated
    assert [type(t) for t in config.temperatures] == [float] * 4


@pytest.mark.parametrize('size', [(32, 48), (33, 64), (8, 32)])
def test_redesigned_heads_refuse_sizes_that_do_not_divide_by_32(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f'multiples of 32, got {size[0]}x{size[1]}: pad'):
        next(random_network().exits(torch.zeros(1, 3, *size)))


@pytest.mark.parametrize('size', [(33, 65), (47, 38), (75, 101)])
def test_plain_heads_take_any_size(size: tuple[int, int]) -> None:
    network = random_network(0, Heads.PLAIN, Adaptivity(thresholds=(0.6,) * 3))
    quarter = (-(-size[0] // 4), -(-size[1] // 4))
    with torch.inference_mode():
        shapes = [out.logits.shape for out in network.exits(random_image(*size))]
    assert shapes == [(1, 11, *quarter)] * 4


@pytest.mark.parametrize('shape', [(3, 32, 32), (1, 1, 32, 32), (1, 3, 0, 32)])
def test_an_image_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r'expected a \(B, 3, H, W\) image'):
        next(random_network().exits(torch.zeros(shape)))
