# SPDX-License-Identifier: Apache-2.0
"""Metrics are what their definitions say."""

from __future__ import annotations

import numpy as np
import pytest

from adpc_ros.labels import IGNORE_ID
from adpc_ros.learning.metrics import Confusion, Reliability, bootstrap_difference, mean_iou


def confusions(seed: int, count: int = 30, right: float = 0.7) -> np.ndarray:
    rng = np.random.default_rng(seed)
    matrices = []
    for _ in range(count):
        label = rng.integers(0, 3, (20, 20)).astype(np.uint8)
        guess = rng.integers(0, 3, (20, 20)).astype(np.uint8)
        confusion = Confusion(3)
        confusion.add(label, np.where(rng.random((20, 20)) < right, label, guess))
        matrices.append(confusion.matrix)
    return np.array(matrices)


def test_mean_iou_of_many_matrices_is_that_of_each() -> None:
    matrices = confusions(0)
    for matrix, found in zip(matrices, mean_iou(matrices)):
        hit = np.diag(matrix)
        assert found == pytest.approx((hit / (matrix.sum(0) + matrix.sum(1) - hit)).mean())


def test_classes_that_never_appear_do_not_count() -> None:
    assert mean_iou(np.diag([5, 0, 7])) == 1.0
    assert np.isnan(mean_iou(np.zeros((3, 3), np.int64)))


def test_the_better_network_is_better_beyond_the_interval() -> None:
    better, worse = confusions(1, right=0.8), confusions(2, right=0.6)
    found = bootstrap_difference(better, worse)
    assert found.value == pytest.approx(mean_iou(better.sum(0)) - mean_iou(worse.sum(0)))
    assert 0 < found.low < found.value < found.high
    back = bootstrap_difference(worse, better)
    assert (back.value, back.low, back.high) == pytest.approx(
        (-found.value, -found.high, -found.low)
    )


def test_equal_networks_differ_by_nothing_and_similar_ones_by_less_than_the_interval() -> None:
    ours = confusions(3)
    assert tuple(bootstrap_difference(ours, ours)) == (0.0, 0.0, 0.0)
    found = bootstrap_difference(ours, confusions(4))
    assert found.low < 0 < found.high


def test_the_interval_narrows_with_more_images() -> None:
    few = bootstrap_difference(confusions(5, 10), confusions(6, 10))
    many = bootstrap_difference(confusions(5, 160), confusions(6, 160))
    assert 2 < (few.high - few.low) / (many.high - many.low) < 8  # about sqrt(16)


def test_other_images_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match=r'expected the same images.*\(10, 3, 3\)'):
        bootstrap_difference(confusions(0, 10), confusions(0, 11))


def test_ece_is_the_gap_between_confidence_and_accuracy() -> None:
    counts = Reliability()
    label = np.zeros((10, 100), np.uint8)
    predicted = np.zeros((10, 100), np.uint8)
    predicted[:, :40] = 1  # 60 % right
    confidence = np.full((10, 100), 204, np.uint8)  # 80 %
    counts.add(label, predicted, confidence)
    assert counts.ece() == pytest.approx(0.2)
    right = np.zeros((10, 100), np.uint8)
    counts.add(label, right, np.full((10, 100), 255, np.uint8))  # as many pixels, all right
    assert counts.ece() == pytest.approx(0.1)


def test_a_confidence_that_means_what_it_says_has_no_error() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.integers(26, 256, (1000, 1000)).astype(np.uint8)
    wrong = rng.random(confidence.shape) > confidence / 255
    counts = Reliability()
    counts.add(np.zeros_like(confidence), wrong.astype(np.uint8), confidence)
    assert counts.ece() < 0.005


def test_bins_are_of_equal_width_and_unlabelled_pixels_do_not_count() -> None:
    counts = Reliability()
    values = np.arange(256, dtype=np.uint8).reshape(1, -1)
    label = np.zeros((1, 256), np.uint8)
    label[0, 128:] = IGNORE_ID
    counts.add(label, np.zeros_like(label), values)
    bins = counts.bins()
    assert len(bins) == 15
    assert sum(b.share for b in bins) == pytest.approx(1.0)
    assert [b.share for b in bins[8:]] == [0.0] * 7
    for i, found in enumerate(b for b in bins if b.share):
        assert i / 15 <= found.confidence <= (i + 1) / 15
        assert found.accuracy == 1.0
