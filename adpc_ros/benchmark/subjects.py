# SPDX-License-Identifier: Apache-2.0
"""What the benchmark of masks computes: a network, images, and where its masks come from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adpc_ros.benchmark.mask_shapes import mask_shapes
from adpc_ros.benchmark.networks import random_image, random_network
from adpc_ros.drive import FolderDrive
from adpc_ros.network import checkpoint
from adpc_ros.network.adaptivity import ActiveMap
from adpc_ros.network.anytime import AnytimeNetwork
from adpc_ros.network.families import NetworkConfig, default_adaptivity
from adpc_ros.runtime.images import padded_size


class Subject(NamedTuple):
    """
    What is computed.

    ``images`` are (H, W, 3) uint8 RGB of one size, one for each round; ``maps`` rule the stages
    after the first (None: the network's own masks do); ``masks`` says where they come from.
    """

    network: AnytimeNetwork
    name: str
    images: list[NDArray[np.uint8]]
    maps: list[ActiveMap] | None
    masks: str


def given_shares(
    architecture: str,
    size: tuple[int, int],
    masked: Sequence[float],
    rounds: int,
    labels: Path | None,
) -> Subject:
    """
    Give a network with random weights, 19 classes and masks of given shares.

    :param size: (H, W) of the image in pixels.
    :param masked: shares in [0, 1] masked after each exit but the last.
    :param labels: folder with label maps, None for CamVid's.
    :raises ValueError: for an unknown architecture, shares that fall, or another number of them.
    """
    config = NetworkConfig(architecture, adaptivity=default_adaptivity(architecture))
    if config.adaptivity is None:
        raise ValueError(f'{architecture}: expected a network with masks, it has none')
    if len(masked) != config.exit_count - 1:
        raise ValueError(
            f'{architecture}: expected {config.exit_count - 1} masked shares (--masked), '
            f'got {", ".join(f"{share:g}" for share in masked)}'
        )
    height, width = padded_size(size, config)
    shapes = mask_shapes((height // 4, width // 4), masked, labels)
    images = [random_image(size)] * rounds
    maps: list[ActiveMap] = []
    for active, level in zip(shapes.maps, config.exit_levels):
        cells = (height >> level, width >> level)
        here = active.at(cells)  # within the one before, also where that was coarser
        maps.append(ActiveMap(here & maps[-1].at(cells) if maps else here))
    return Subject(random_network(config), architecture, images, maps, shapes.source)


def own_masks(weights: str, frames: str, limit: int | None, threshold: float | None) -> Subject:
    """
    Give a trained network and real frames.

    :param weights: safetensors file.
    :param frames: folder of images.
    :param limit: of the number of frames; None for all.
    :param threshold: of all exits; None for the network's own.
    :raises ValueError: for a network without masks, or frames of several sizes.
    """
    loaded = checkpoint.load(weights)
    network = loaded.network
    adaptivity = network.config.adaptivity
    if adaptivity is None:
        raise ValueError(f'{weights}: expected a network with masks, it has none')
    if threshold is not None:
        adaptivity = dataclasses.replace(adaptivity, thresholds=(threshold,), class_thresholds=())
        network.config = dataclasses.replace(network.config, adaptivity=adaptivity)
        adaptivity = network.config.adaptivity
        assert adaptivity is not None
    images = [frame.image for frame in islice(FolderDrive(frames), limit)]
    sizes = sorted({f'{image.shape[0]}x{image.shape[1]}' for image in images})
    if len(sizes) != 1:
        raise ValueError(f'{frames}: expected frames of one size, got {", ".join(sizes)}')
    thresholds = ', '.join(f'{t:g}' for t in adaptivity.thresholds)
    if adaptivity.class_thresholds:
        values = [t for each in adaptivity.class_thresholds for t in each]
        thresholds = f'of each class, {min(values):g} to {max(values):g}'
    masks = f"the network's own, {adaptivity.criterion.value}, thresholds {thresholds}"
    return Subject(network, loaded.identity, images, None, masks)
