"""Labelled images on disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from adpc_ros.labels import CAMVID, IGNORE_ID, ClassSet


class Sample(NamedTuple):
    """``image`` (H, W, 3) uint8 RGB and ``label`` (H, W) uint8 class ids, 255 unlabelled."""

    image: NDArray[np.uint8]
    label: NDArray[np.uint8]


def _read(path: Path, mode: str) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            return np.array(image if mode == 'L' and image.mode == 'P' else image.convert(mode))
    except (OSError, UnidentifiedImageError) as error:
        raise ValueError(f'cannot read {path}: expected an image ({error})') from error


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """
    Read an image as (H, W, 3) uint8 RGB.

    :raises ValueError: if it is missing or broken.
    """
    return _read(Path(path), 'RGB')


class CamVid:
    """
    CamVid with 11 classes: ``image/NAME.jpg`` and ``label/NAME.png``, one byte a pixel.

    Source: Brostow, Fauqueur, Cipolla 2009, in the 11-class form used by SegNet.
    """

    classes: ClassSet = CAMVID

    def __init__(self, root: str | Path) -> None:
        """
        List the images of a split.

        :param root: folder that holds ``image`` and ``label``.
        :raises ValueError: if there are no images, or an image has no label.
        """
        self.root = Path(root)
        self.images = sorted((self.root / 'image').glob('*.jpg'))
        if not self.images:
            raise ValueError(f'no images found: expected {self.root / "image"}/*.jpg')
        self.labels = [self.root / 'label' / f'{path.stem}.png' for path in self.images]
        for label in self.labels:
            if not label.exists():
                raise ValueError(f'label missing: expected {label}')

    def __len__(self) -> int:
        """Give the number of images."""
        return len(self.images)

    def __iter__(self) -> Iterator[Sample]:
        """Read one after the other."""
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Sample:
        """
        Read one image and its label.

        :raises ValueError: for a broken file or a label of another size.
        """
        image = _read(self.images[index], 'RGB')
        label = _read(self.labels[index], 'L')
        if image.shape[:2] != label.shape:
            raise ValueError(
                f'{self.labels[index]} is {label.shape}, its image is {image.shape[:2]}'
            )
        return Sample(image, np.where(label < self.classes.count, label, IGNORE_ID))
