# SPDX-License-Identifier: Apache-2.0
"""Augmentation: random scale, crop, flip and light, all drawn from one generator."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adpc_ros.labels import IGNORE_ID
from adpc_ros.learning.sample import Sample

SOFT_CELL = 4  # pixels of a position of soft labels, on either axis
_DARKEST = 0.75  # of the light, at full strength


def scale(sample: Sample, factor: float) -> Sample:
    """Resize by a factor: the image bilinearly, the label to the nearest; soft labels stay."""
    height, width = sample.label.shape
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    image = Image.fromarray(sample.image).resize(size, Image.Resampling.BILINEAR)
    label = Image.fromarray(sample.label).resize(size, Image.Resampling.NEAREST)
    return Sample(np.asarray(image), np.asarray(label), sample.soft)


def crop(sample: Sample, size: tuple[int, int], rng: np.random.Generator) -> Sample:
    """
    Cut a random window; what lies outside is mid-grey, unlabelled and without soft labels.

    :param size: (H, W) in pixels.
    :return: soft labels of (K, H // 4, W // 4), if there are any.
    """
    height, width = size
    pad_y = max(0, height - sample.label.shape[0])
    pad_x = max(0, width - sample.label.shape[1])
    image = np.pad(sample.image, ((0, pad_y), (0, pad_x), (0, 0)), constant_values=118)
    label = np.pad(sample.label, ((0, pad_y), (0, pad_x)), constant_values=IGNORE_ID)
    top = int(rng.integers(label.shape[0] - height + 1))
    left = int(rng.integers(label.shape[1] - width + 1))
    window = np.s_[top : top + height, left : left + width]
    soft = None if sample.soft is None else _cut_soft(sample, (top, left), size)
    return Sample(image[window], label[window], soft)


def _cut_soft(sample: Sample, corner: tuple[int, int], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resample the soft labels of a window: whole positions within the image, 0 beyond."""
    assert sample.soft is not None
    classes, *cells = sample.soft.shape
    box, valid = [], []
    for start, edge, whole, own in zip(corner, size, sample.label.shape, cells):
        count = min(edge, whole - start) // SOFT_CELL
        end = start + count * SOFT_CELL
        box.append((start * own / whole, min(end * own / whole, own)))
        valid.append(count)
    cut = np.zeros((classes, size[0] // SOFT_CELL, size[1] // SOFT_CELL), np.uint8)
    if 0 in valid:
        return cut
    (top, bottom), (left, right) = box
    for plane, target in zip(sample.soft, cut):
        picture = Image.fromarray(plane).resize(
            (valid[1], valid[0]), Image.Resampling.BILINEAR, (left, top, right, bottom)
        )
        target[: valid[0], : valid[1]] = np.asarray(picture)
    return cut


def jitter(
    image: NDArray[np.uint8], strength: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """
    Change brightness, contrast, saturation and colour balance.

    :param strength: largest relative change; 0 leaves the image as it is.
    """
    if strength == 0:
        return image
    low, high = 1 - strength, 1 + strength
    x = image.astype(np.float32)
    grey = x @ np.array([0.299, 0.587, 0.114], np.float32)
    x = grey[..., None] + (x - grey[..., None]) * np.float32(rng.uniform(low, high))
    mean = np.float32(grey.mean())
    x = mean + (x - mean) * np.float32(rng.uniform(low, high))
    balance = rng.uniform(1 - strength / 4, 1 + strength / 4, 3) * rng.uniform(low, high)
    return np.clip(x * balance.astype(np.float32), 0, 255).astype(np.uint8)


def relight(
    image: NDArray[np.uint8], strength: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """
    Bend the tone curve, and darken every other image as dusk does.

    :param strength: 0 leaves the image as it is; at 1 the exponent lies between 1/2 and 2, and
        a dark image keeps a quarter to all of its light.
    """
    if strength == 0:
        return image
    exponent = 2.0 ** rng.uniform(-strength, strength)
    light = 1 - _DARKEST * strength * rng.random() if rng.random() < 0.5 else 1.0
    curve = np.round(255 * light * (np.arange(256) / 255) ** exponent)
    return np.take(curve.astype(np.uint8), image)


def augment(
    sample: Sample,
    size: tuple[int, int],
    scales: tuple[float, float],
    strength: float,
    rng: np.random.Generator,
    gamma: float = 0.0,
) -> Sample:
    """
    Scale, crop, flip and recolour a sample.

    :param size: (H, W) of the result in pixels; multiples of 4 if there are soft labels.
    :param scales: range of the random factor.
    :param strength: of the colour change, see :func:`jitter`.
    :param gamma: of the change of light, see :func:`relight`.
    """
    sample = crop(scale(sample, float(rng.uniform(*scales))), size, rng)
    image, label, soft = sample
    if rng.random() < 0.5:
        image, label = image[:, ::-1], label[:, ::-1]
        soft = None if soft is None else soft[..., ::-1]
    image = jitter(np.ascontiguousarray(image), strength, rng)
    return Sample(relight(image, gamma, rng), label.copy(), None if soft is None else soft.copy())


def paste(
    sample: Sample, other: Sample, classes: Sequence[int], rng: np.random.Generator
) -> Sample:
    """
    Paste the pixels of some classes of one sample onto another: ClassMix with chosen classes.

    :param other: of the same size; with soft labels if ``sample`` has them.
    :param classes: ids; of those that ``other`` shows, each is taken with a probability of 1/2.

    Source: arXiv:2007.07936.
    """
    shown = np.intersect1d(other.label, np.array(classes, np.uint8))
    chosen = shown[rng.random(len(shown)) < 0.5]
    mask = np.isin(other.label, chosen)
    if not mask.any():
        return sample
    soft = sample.soft
    if soft is not None and other.soft is not None:
        blocks = mask.reshape(soft.shape[1], SOFT_CELL, soft.shape[2], SOFT_CELL)
        soft = np.where(blocks.mean((1, 3)) >= 0.5, other.soft, soft)
    return Sample(
        np.where(mask[..., None], other.image, sample.image),
        np.where(mask, other.label, sample.label),
        soft,
    )
