"""Augmentation: random scale, crop, flip and colour, all drawn from one generator."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adpc_ros.labels import IGNORE_ID
from adpc_ros.learning.sample import Sample


def scale(sample: Sample, factor: float) -> Sample:
    """Resize by a factor: the image bilinearly, the label to the nearest."""
    height, width = sample.label.shape
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    image = Image.fromarray(sample.image).resize(size, Image.Resampling.BILINEAR)
    label = Image.fromarray(sample.label).resize(size, Image.Resampling.NEAREST)
    return Sample(np.asarray(image), np.asarray(label))


def crop(sample: Sample, size: tuple[int, int], rng: np.random.Generator) -> Sample:
    """Cut a random window of (H, W); what lies outside is mid-grey and unlabelled."""
    height, width = size
    pad_y = max(0, height - sample.label.shape[0])
    pad_x = max(0, width - sample.label.shape[1])
    image = np.pad(sample.image, ((0, pad_y), (0, pad_x), (0, 0)), constant_values=118)
    label = np.pad(sample.label, ((0, pad_y), (0, pad_x)), constant_values=IGNORE_ID)
    top = int(rng.integers(label.shape[0] - height + 1))
    left = int(rng.integers(label.shape[1] - width + 1))
    window = np.s_[top : top + height, left : left + width]
    return Sample(image[window], label[window])


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


def augment(
    sample: Sample,
    size: tuple[int, int],
    scales: tuple[float, float],
    strength: float,
    rng: np.random.Generator,
) -> Sample:
    """
    Scale, crop, flip and recolour a sample.

    :param size: (H, W) of the result in pixels.
    :param scales: range of the random factor.
    :param strength: of the colour change, see :func:`jitter`.
    """
    sample = crop(scale(sample, float(rng.uniform(*scales))), size, rng)
    if rng.random() < 0.5:
        sample = Sample(sample.image[:, ::-1], sample.label[:, ::-1])
    return Sample(jitter(np.ascontiguousarray(sample.image), strength, rng), sample.label.copy())
