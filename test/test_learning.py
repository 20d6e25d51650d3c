# SPDX-License-Identifier: Apache-2.0
"""Data, augmentation, losses and accuracy do what they say."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from samples import Bytes, blocks, write_sample, write_tree
from torch.nn import functional

from adpc_ros.labels import CAMVID, IGNORE_ID
from adpc_ros.learning.datasets import CamVid
from adpc_ros.learning.losses import exit_losses, label_counts, label_weight
from adpc_ros.learning.metrics import Confusion
from adpc_ros.learning.sample import Sample
from adpc_ros.learning.transforms import augment, crop, jitter
from adpc_ros.street_samples import StreetSamples


def ids(*rows: list[int]) -> Bytes:
    return np.array(rows, np.uint8)


# accuracy


def test_iou_equals_what_is_counted_by_hand() -> None:
    confusion = Confusion(4)
    confusion.add(ids([0, 0, 1], [1, 1, 255]), ids([0, 1, 1], [1, 0, 2]))
    confusion.add(ids([0, 255, 4]), ids([0, 3, 3]))
    # class 0: hit 2, labelled 3, predicted 3; class 1: hit 2, labelled 3, predicted 3;
    # classes 2 and 3 were only predicted where the label is no class
    np.testing.assert_allclose(confusion.iou(), [2 / 4, 2 / 4, math.nan, math.nan])
    assert confusion.mean_iou() == 0.5


def test_a_class_that_is_only_predicted_has_an_iou_of_zero() -> None:
    confusion = Confusion(3)
    confusion.add(ids([0, 0]), ids([0, 2]))
    np.testing.assert_allclose(confusion.iou(), [0.5, math.nan, 0.0])
    assert confusion.mean_iou() == 0.25


def test_without_labels_there_is_no_accuracy() -> None:
    confusion = Confusion(3)
    confusion.add(ids([255, 255]), ids([0, 2]))
    assert math.isnan(confusion.mean_iou())


def test_a_prediction_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r'label is \(1, 2\), prediction is \(1, 1\)'):
        Confusion(3).add(ids([0, 0]), ids([0]))


# augmentation


def striped(height: int, width: int) -> Sample:
    """Give an image whose brightness tells its class: 20 times the id, in blocks of 8 pixels."""
    label = np.add.outer(np.arange(height) // 8, np.arange(width) // 8 * 3) % 11
    label = label.astype(np.uint8)
    return Sample(np.repeat((20 * label)[..., None], 3, axis=2), label)


def test_augmentation_follows_the_seed() -> None:
    sample = striped(60, 80)
    results = [
        augment(sample, (32, 64), (0.5, 1.5), 0.3, np.random.default_rng(seed))
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(results[0].image, results[1].image)
    np.testing.assert_array_equal(results[0].label, results[1].label)
    assert not np.array_equal(results[0].image, results[2].image)


def test_image_and_label_stay_aligned_and_what_is_outside_is_unlabelled() -> None:
    sample = striped(60, 80)
    padded = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        image, label, _ = augment(sample, (64, 96), (0.6, 1.6), 0.0, rng)
        assert image.shape == (64, 96, 3) and label.shape == (64, 96)
        outside = label == IGNORE_ID
        assert (image[outside] == 118).all()
        padded += outside.any()
        # away from the blocks' edges, where bilinear resizing mixes, brightness tells the class
        error = np.abs(image[..., 0].astype(int) - 20 * label.astype(int))[~outside]
        assert (error <= 10).mean() > 0.7
    assert 0 < padded < 20


def test_a_flip_turns_both() -> None:
    sample = striped(32, 64)
    turned = 0
    for seed in range(8):
        image, label, _ = augment(sample, (32, 64), (1.0, 1.0), 0.0, np.random.default_rng(seed))
        flipped = not np.array_equal(label, sample.label)
        turned += flipped
        expected = sample.label[:, ::-1] if flipped else sample.label
        np.testing.assert_array_equal(label, expected)
        np.testing.assert_array_equal(image[..., 0], 20 * expected)
    assert 0 < turned < 8


def test_a_crop_lies_anywhere() -> None:
    sample = striped(40, 40)
    corners = {int(crop(sample, (8, 8), np.random.default_rng(s)).label[0, 0]) for s in range(40)}
    assert len(corners) > 5


def test_colours_change_by_the_strength() -> None:
    image = np.random.default_rng(0).integers(60, 200, (8, 8, 3)).astype(np.uint8)
    assert jitter(image, 0.0, np.random.default_rng(0)) is image
    weak, strong = (
        np.mean([np.abs(jitter(image, s, np.random.default_rng(n)) - image.astype(int)).mean()
                 for n in range(10)])
        for s in (0.05, 0.4)
    )  # fmt: skip
    assert 0 < weak < strong / 3


# data


def test_camvid_is_read_in_order_with_what_is_no_class_unlabelled(tmp_path: Path) -> None:
    data = CamVid(write_tree(tmp_path) / 'train')
    assert len(data) == 6
    for seed, sample in enumerate(data):
        image, label, _ = blocks(seed)
        assert sample.image.dtype == sample.label.dtype == np.uint8
        assert np.abs(sample.image - image.astype(int)).mean() < 5  # JPEG
        np.testing.assert_array_equal(sample.label[:-4], label[:-4])
        assert (sample.label[-4:] == IGNORE_ID).all()


def test_a_palette_label_gives_its_indices(tmp_path: Path) -> None:
    image, label, _ = blocks(0)
    write_sample(tmp_path, 'a', image, label)
    palette = Image.fromarray(label).convert('P')
    palette.putdata(label.ravel().tolist())
    palette.save(tmp_path / 'label' / 'a.png')
    np.testing.assert_array_equal(CamVid(tmp_path)[0].label[:-4], label[:-4])


def test_errors_of_a_data_set_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f'no images found: expected them in {tmp_path}/image'):
        CamVid(tmp_path)
    image, label, _ = blocks(0)
    write_sample(tmp_path, 'a', image, label)
    write_sample(tmp_path, 'b', image, label[:32])
    data = CamVid(tmp_path)
    with pytest.raises(
        ValueError, match=r'b\.png: expected the size of its image, 96x64, got 96x32'
    ):
        data[1]
    (tmp_path / 'label' / 'b.png').write_bytes(b'nothing')
    with pytest.raises(ValueError, match=r'cannot read .*label/b\.png: expected a label PNG'):
        data[1]
    half = (tmp_path / 'image' / 'a.jpg').read_bytes()[:700]
    (tmp_path / 'image' / 'a.jpg').write_bytes(half)
    with pytest.raises(ValueError, match=r'cannot read .*image/a\.jpg: expected an image'):
        data[0]
    (tmp_path / 'label' / 'b.png').unlink()
    with pytest.raises(ValueError, match=r'label missing: expected .*label/b\.png'):
        CamVid(tmp_path)


def test_streets_give_samples_that_stay_the_same() -> None:
    first, second = StreetSamples(2, 2), StreetSamples(2, 2)
    assert len(first) == 4
    np.testing.assert_array_equal(first[3].image, second[3].image)
    assert not np.array_equal(first[2].image, first[3].image)
    assert first[3].image.shape == (*first[3].label.shape, 3)
    known = first[3].label[first[3].label != IGNORE_ID]
    assert known.max() < CAMVID.count
    with pytest.raises(IndexError, match='expected an index from 0 to 3, got 4'):
        first[4]


# losses


def test_unlabelled_pixels_change_no_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 4, 6, generator=generator, requires_grad=True)
    label = torch.randint(0, 5, (2, 16, 24), generator=generator)
    label[:, :, 12:] = IGNORE_ID
    full = functional.interpolate(logits, (16, 24), mode='bilinear', align_corners=False)
    expected = functional.cross_entropy(full[..., :12], label[..., :12])
    (loss,) = exit_losses([logits], label)
    torch.testing.assert_close(loss, expected)
    torch.autograd.backward(loss)
    assert logits.grad is not None
    assert not logits.grad[..., -2:].any()  # these reach only unlabelled pixels


def test_every_exit_has_its_loss_with_class_weights() -> None:
    logits = [torch.zeros(1, 2, 2, 2), torch.tensor([2.0, 0.0]).view(1, 2, 1, 1)]
    label = torch.tensor([[[0, 1], [255, 0]]])
    losses = exit_losses(logits, label, (1.0, 3.0))
    assert losses[0].item() == pytest.approx(math.log(2))
    right, wrong = math.log1p(math.exp(-2)), math.log1p(math.exp(2))
    assert losses[1].item() == pytest.approx((2 * right + 3 * wrong) / 5)


def test_losses_of_parts_add_up_to_that_of_the_whole() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(4, 3, 2, 2, generator=generator)
    label = torch.randint(0, 3, (4, 8, 8), generator=generator)
    label[0], label[1, :5] = IGNORE_ID, IGNORE_ID  # so that the parts have different weights
    weights = (1.0, 2.0, 0.5)
    (whole,) = exit_losses([logits], label, weights)
    counts = sum(label_counts(part, 3) for part in (label[:2], label[2:]))
    total = label_weight(counts, weights)
    parts = [exit_losses([logits[i]], label[i], weights, total)[0] for i in (np.s_[:2], np.s_[2:])]
    torch.testing.assert_close(parts[0] + parts[1], whole)
    assert total.item() == pytest.approx(sum(weights[c] for c in label[label < 255].tolist()))


def test_nothing_labelled_is_no_loss() -> None:
    logits = torch.zeros(1, 2, 2, 2, requires_grad=True)
    (loss,) = exit_losses([logits], torch.full((1, 4, 4), IGNORE_ID), (1.0, 3.0))
    torch.autograd.backward(loss)
    assert loss.item() == 0 and logits.grad is not None and not logits.grad.any()
