# SPDX-License-Identifier: Apache-2.0
"""An image goes into the network padded and normalised, and comes out at its own size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from adpc_ros.network.adaptivity import ActiveMap, Adaptivity, Criterion
from adpc_ros.network.families import NetworkConfig
from adpc_ros.runtime.images import (
    ROWS_PER_BAND,
    Rendered,
    confident_threshold,
    inverse_temperatures,
    padded_size,
    render,
    render_bands,
    to_input,
    upsample_rows,
)

CONFIG = NetworkConfig('hrnet_tiny', mean=(0.4, 0.5, 0.6), std=(0.1, 0.2, 0.3))
CPU = torch.device('cpu')
SIZES = [(1, 1), (37, 50), (64, 64), (65, 96), (129, 41), (200, 317), (256, 128)]


def random_logits(size: tuple[int, int], classes: int = 7) -> Tensor:
    height, width = padded_size(size, CONFIG)
    generator = torch.Generator().manual_seed(height + width)
    return 4 * torch.randn(1, classes, height // 4, width // 4, generator=generator)


def upsample(logits: Tensor) -> Tensor:
    return functional.interpolate(logits, scale_factor=4, mode='bilinear', align_corners=False)


@pytest.mark.parametrize('size', SIZES)
def test_rendered_bands_equal_the_whole_image(size: tuple[int, int]) -> None:
    logits = random_logits(size)
    scores = upsample(logits)[0, :, : size[0], : size[1]]
    confidence, ids = functional.softmax(scores, dim=0).max(dim=0)
    got, mean = render(logits, size, 4)
    first, second = scores.topk(2, dim=0).values
    clear = ((first - second) > 1e-4).numpy()  # elsewhere rounding decides
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(got.class_ids[clear], ids.numpy()[clear])
    expected = confidence.numpy() * 255
    assert np.abs(got.confidence - expected).max() < 0.51
    assert mean == pytest.approx(confidence.mean().item(), abs=1e-5)


@pytest.mark.parametrize('size', SIZES)
def test_bands_cover_the_image_once_and_add_up(size: tuple[int, int]) -> None:
    logits = random_logits(size)
    into = Rendered(np.full(size, 254, np.uint8), np.full(size, 0, np.uint8))
    whole = functional.softmax(upsample(logits), dim=1).amax(1)[0, : size[0], : size[1]]
    bands = render_bands(logits, size, into, 4, threshold=0.8)
    for first in range(0, size[0], ROWS_PER_BAND):
        assert (into.class_ids[first:] == 254).all(), 'rendered before it was asked for'
        sums = next(bands)
        part = whole[first : first + ROWS_PER_BAND]
        assert sums.confidence_sum == pytest.approx(part.sum().item(), rel=1e-5)
        assert abs(sums.confident_pixels - int((part >= 0.8).sum())) <= 2  # rounding
    assert next(bands, None) is None
    assert into.class_ids.max() < 7
    assert into.confidence.min() > 0


@pytest.mark.parametrize('size', SIZES)
def test_confidence_is_that_of_scores_by_the_upsampled_temperature(size: tuple[int, int]) -> None:
    logits = random_logits(size)
    generator = torch.Generator().manual_seed(1)
    inverse = 0.3 + 2 * torch.rand(1, 1, *logits.shape[2:], generator=generator)
    into = Rendered(np.empty(size, np.uint8), np.empty(size, np.uint8))
    scores = (upsample(logits) * upsample(inverse))[0, :, : size[0], : size[1]]
    expected = functional.softmax(scores, dim=0).amax(dim=0)
    bands = list(render_bands(logits, size, into, 4, 0.8, inverse_temperature=inverse))
    assert np.abs(into.confidence - expected.numpy() * 255).max() < 0.51
    assert sum(b.confidence_sum for b in bands) == pytest.approx(expected.sum().item(), rel=1e-5)
    confident = sum(b.confident_pixels for b in bands)
    assert abs(confident - int((expected >= 0.8).sum())) <= 2  # rounding
    plain, _ = render(logits, size, 4)
    np.testing.assert_array_equal(into.class_ids, plain.class_ids)


def test_an_inverse_temperature_of_one_changes_no_bit() -> None:
    logits = random_logits((65, 96))
    plain, mean = render(logits, (65, 96), 4)
    ones = torch.ones(1, 1, *logits.shape[2:])
    got, same_mean = render(logits, (65, 96), 4, inverse_temperature=ones)
    np.testing.assert_array_equal(got, plain)
    assert same_mean == mean


def test_a_cell_keeps_the_temperature_of_the_exit_that_computed_it_last() -> None:
    config = NetworkConfig('hrnet_tiny', temperatures=(2.0, 4.0, 8.0, 0.5))
    logits = torch.zeros(1, 7, 2, 2)
    active = [
        None,
        ActiveMap(torch.tensor([[[[True, True], [True, False]]]])),
        ActiveMap(torch.tensor([[[[True, True], [False, False]]]])),
        ActiveMap(torch.tensor([[[[True, False], [False, False]]]])),
    ]
    inverse: Tensor | None = None
    for exit_index, computed in enumerate(active, start=1):
        inverse = inverse_temperatures(logits, config, exit_index, computed, inverse)
    assert inverse is not None and inverse.tolist() == [[[[2.0, 0.125], [0.25, 0.5]]]]
    inverse = inverse_temperatures(logits, config, 3, None, inverse)
    assert inverse is not None and inverse.tolist() == [[[[0.125] * 2] * 2]]
    assert inverse_temperatures(logits, CONFIG, 3, None, None) is None


@pytest.mark.parametrize(('first', 'last'), [(0, 1), (0, 64), (3, 6), (62, 66), (90, 96), (0, 96)])
def test_some_upsampled_rows_equal_those_of_all(first: int, last: int) -> None:
    logits = random_logits((96, 64))
    got = upsample_rows(logits, 4, first, last)
    torch.testing.assert_close(got, upsample(logits)[:, :, first:last], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ('size', 'padded'),
    [((1, 1), (32, 32)), ((32, 64), (32, 64)), ((360, 480), (384, 480)), ((33, 95), (64, 96))],
)
def test_sizes_are_padded_to_multiples_of_32(
    size: tuple[int, int], padded: tuple[int, int]
) -> None:
    assert padded_size(size, CONFIG) == padded


@pytest.mark.parametrize('size', [(32, 64), (33, 50)])
def test_input_is_normalised_and_padded_with_the_mean(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    before = image.copy()
    x = to_input(image, CONFIG, CPU)
    assert x.shape == (1, 3, *padded_size(size, CONFIG))
    assert x.dtype == torch.float32
    assert x.is_contiguous(memory_format=torch.channels_last)
    expected = (image / 255 - np.array(CONFIG.mean)) / np.array(CONFIG.std)
    got = x[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(got[: size[0], : size[1]], expected, rtol=1e-5, atol=1e-5)
    assert not got[size[0] :].any() and not got[:, size[1] :].any()
    np.testing.assert_array_equal(image, before)


def test_a_view_that_is_not_contiguous_is_read_right() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 64, 3), np.uint8)
    flipped = image[:, ::-1, ::-1]  # as BGR and mirrored
    assert torch.equal(to_input(flipped, CONFIG, CPU), to_input(flipped.copy(), CONFIG, CPU))


@pytest.mark.parametrize(
    'image',
    [
        np.zeros((32, 32), np.uint8),
        np.zeros((32, 32, 4), np.uint8),
        np.zeros((32, 32, 3), np.float32),
        np.zeros((0, 32, 3), np.uint8),
    ],
    ids=['grey', 'rgba', 'float', 'empty'],
)
def test_another_form_of_image_is_refused(image: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match=r'expected an \(H, W, 3\) uint8 RGB image, got \('):
        to_input(image, CONFIG, CPU)


@pytest.mark.parametrize(
    ('adaptivity', 'expected'),
    [
        (Adaptivity(thresholds=(0.6, 0.7, 0.8)), 0.6),
        (Adaptivity(Criterion.ENTROPY, (0.5,) * 3), 0.998),
        (None, 0.998),
    ],
    ids=['probability', 'entropy', 'none'],
)
def test_a_pixel_is_confident_from_the_first_threshold_on(
    adaptivity: Adaptivity | None, expected: float
) -> None:
    assert confident_threshold(NetworkConfig('hrnet_tiny', adaptivity=adaptivity)) == expected
