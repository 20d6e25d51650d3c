# SPDX-License-Identifier: Apache-2.0
"""
Between camera images and the network: normalised, padded input; class ids and confidence out.

Nothing is resized silently: an image is padded at its right and lower edge to a multiple of what
the network needs and what comes out is cropped to the image's own size.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from adpc_ros.network.adaptivity import ActiveMap, Criterion
from adpc_ros.network.families import NetworkConfig

CONFIDENT = 0.998  # the paper's threshold, where a network has none of its own
ROWS_PER_BAND = 64  # an image is rendered in bands, each a small unit of work


class Rendered(NamedTuple):
    """
    Class ids and confidence of one exit, at the image's size.

    ``class_ids`` (H, W) uint8; ``confidence`` (H, W) uint8, 0 to 255 for 0 to 1, calibrated with
    the temperature of whichever exit made the prediction.
    """

    class_ids: NDArray[np.uint8]
    confidence: NDArray[np.uint8]


class Band(NamedTuple):
    """
    Sums over a band's pixels: confidence as published (0 to 1 each), how many are sure.

    The sum of the confidence is NaN if a class score of the image is not finite.
    """

    confidence_sum: float
    confident_pixels: float


def padded_size(size: tuple[int, int], config: NetworkConfig) -> tuple[int, int]:
    """Give the (H, W) in pixels that an image of a size is padded to for a network."""
    multiple = config.sizes.size_multiple
    height, width = (-(-edge // multiple) * multiple for edge in size)
    return height, width


def confident_threshold(config: NetworkConfig) -> float:
    """
    Give the published confidence (0 to 1) from which on a pixel counts as confident.

    It is exit 1's threshold, also where classes have thresholds of their own: one number for all
    pixels, so that shares can be compared.
    """
    adaptivity = config.adaptivity
    if adaptivity is None or adaptivity.criterion is not Criterion.MAX_PROBABILITY:
        return CONFIDENT
    return adaptivity.thresholds[0]


def to_input(image: NDArray[np.uint8], config: NetworkConfig, device: torch.device) -> Tensor:
    """
    Normalise an image and pad it with the mean colour.

    :param image: (H, W, 3) uint8, RGB.
    :param config: gives mean and standard deviation.
    :return: (1, 3, H', W') float32 in channels_last order, of :func:`padded_size`.
    :raises ValueError: for another shape or dtype.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise ValueError(f'expected an (H, W, 3) uint8 RGB image, got {image.shape} {image.dtype}')
    height, width = image.shape[:2]
    padded_height, padded_width = padded_size((height, width), config)
    writable = np.require(image, requirements=('C', 'W'))  # else torch warns
    source = torch.from_numpy(writable).to(device)
    x = torch.zeros((1, 3, padded_height, padded_width), device=device).contiguous(
        memory_format=torch.channels_last
    )
    inside = x[:, :, :height, :width]
    inside.copy_(source.permute(2, 0, 1).unsqueeze(0))
    mean = x.new_tensor(config.mean).view(1, 3, 1, 1) * 255
    std = x.new_tensor(config.std).view(1, 3, 1, 1) * 255
    inside.sub_(mean).div_(std)
    return x


def inverse_temperatures(
    logits: Tensor,
    config: NetworkConfig,
    exit_index: int,
    active: ActiveMap | None,
    before: Tensor | None,
) -> Tensor | None:
    """
    Give what the class scores of each cell are multiplied by for its confidence.

    It is 1 / T of the exit that computed the cell last, so it is carried over as the scores are.

    :param logits: (1, K, h, w) float, this exit's class scores after carry-over.
    :param exit_index: counts stages: the last one's for a network whose heads are none.
    :param active: what this exit computed (True = compute); None for everything.
    :param before: (1, 1, h', w') float32, the same of the exit before; None at the first one. A
        finer exit takes each cell's value from the coarser cell that it lies in.
    :return: (1, 1, h, w) float32; None if all temperatures are 1.
    """
    if not config.calibrated:
        return None
    size = (logits.shape[2], logits.shape[3])
    temperature = config.temperature_of(exit_index)
    inverse = logits.new_full((1, 1, *size), 1.0 / temperature, dtype=torch.float32)
    if active is None or before is None:
        return inverse
    if before.shape[2:] != size:
        before = functional.interpolate(before, size, mode='nearest')
    return torch.where(active.at(size), inverse, before)


def upsample_rows(logits: Tensor, scale: int, first: int, last: int) -> Tensor:
    """
    Upsample class scores bilinearly, rows ``first`` to ``last`` of the result only.

    :param logits: (1, K, h, w) float.
    :param scale: whole factor between the logits and the result.
    :param first: first row of the result, in pixels.
    :param last: one past the last row.
    :return: (1, K, last - first, scale * w) float, equal to those rows of the full upsampling.
    """
    rows = logits.shape[2]
    # a row of the result reads two rows of the logits; one more on either side keeps the
    # weights of the band's edges what they are in the full image
    low = max(first // scale - 1, 0)
    high = min(-(-last // scale) + 1, rows)
    size = ((high - low) * scale, logits.shape[3] * scale)
    band = functional.interpolate(
        logits[:, :, low:high], size, mode='bilinear', align_corners=False
    )
    return band[:, :, first - low * scale : last - low * scale]


def render_bands(
    logits: Tensor,
    size: tuple[int, int],
    into: Rendered,
    scale: int,
    threshold: float = 1.0,
    inverse_temperature: Tensor | None = None,
) -> Iterator[Band]:
    """
    Render an exit band by band; work is done when the iterator is advanced.

    Class ids are those of the upsampled scores. The confidence is the top softmax probability of
    the upsampled scores times the upsampled inverse temperature.

    :param logits: (1, K, h, w) float class scores of a padded image.
    :param size: (H, W) of the image itself, at most ``scale`` times the logits' size.
    :param into: arrays of that size that are filled.
    :param scale: pixels of the padded image for one cell of the logits.
    :param threshold: pixels at or above this (calibrated) confidence count as confident.
    :param inverse_temperature: (1, 1, h, w) float, positive, as :func:`inverse_temperatures`
        gives it; None for 1 everywhere.
    :return: an iterator over the bands.
    """
    height, width = size
    nought = (logits * 0.0).sum()  # NaN where an infinite score would not show
    for first in range(0, height, ROWS_PER_BAND):
        last = min(first + ROWS_PER_BAND, height)
        scores = upsample_rows(logits, scale, first, last)[0, :, :, :width].float()
        top, ids = scores.max(dim=0)
        below = scores - top
        if inverse_temperature is not None:
            below *= upsample_rows(inverse_temperature, scale, first, last)[0, :, :, :width]
        probability = 1.0 / below.exp_().sum(dim=0)
        confidence_sum = probability.sum() + nought
        sums = torch.stack([confidence_sum, (probability >= threshold).sum()]).tolist()
        into.class_ids[first:last] = ids.to(torch.uint8).cpu().numpy()
        into.confidence[first:last] = (probability * 255.0).round_().to(torch.uint8).cpu().numpy()
        yield Band(*sums)


def render(
    logits: Tensor,
    size: tuple[int, int],
    scale: int,
    inverse_temperature: Tensor | None = None,
) -> tuple[Rendered, float]:
    """
    Render an exit in one go.

    :param logits: as in :func:`render_bands`, and likewise ``inverse_temperature``.
    :return: the rendered exit and the mean (calibrated) confidence of its pixels, 0 to 1.
    """
    into = Rendered(np.empty(size, np.uint8), np.empty(size, np.uint8))
    bands = render_bands(logits, size, into, scale, inverse_temperature=inverse_temperature)
    return into, sum(band.confidence_sum for band in bands) / (size[0] * size[1])
