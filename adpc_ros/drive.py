"""Sources of camera frames: a folder of images, a bag, or the synthetic street; no ROS needed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adpc_ros.bag import BagDrive
from adpc_ros.frame import Drive, DriveFrame
from adpc_ros.labels import CAMVID, IGNORE_ID, ClassSet
from adpc_ros.street import StreetDrive

__all__ = ['BagDrive', 'Drive', 'DriveFrame', 'FolderDrive', 'StreetDrive', 'open_drive']

_IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png')


class FolderDrive:
    """
    The images of a folder in the order of their names, numbers in names by value.

    Frame NAME.jpg (or .jpeg, .png) has a label if the sibling folder ``label/`` holds NAME.png,
    with one byte (grey or palette index) for each pixel; values that are no class are unlabelled.

    :param path: folder with the images.
    :param rate_hz: frames per second; the first frame has time zero.
    :param classes: classes of the labels.
    :raises FileNotFoundError: if the folder is missing or has no images.
    :raises ValueError: if ``rate_hz`` is not positive; while iterating, if a file is broken.
    """

    def __init__(
        self, path: str | Path, rate_hz: float = 15.0, classes: ClassSet = CAMVID
    ) -> None:
        """List the images; none is opened yet."""
        folder = Path(path)
        if not rate_hz > 0:
            raise ValueError(f'expected a positive rate_hz, got {rate_hz}')
        if not folder.is_dir():
            raise FileNotFoundError(f'expected a folder of images at {folder}, found none')
        self._images = sorted(
            (file for file in folder.iterdir() if file.suffix.lower() in _IMAGE_SUFFIXES),
            key=lambda file: (by_number(file.stem), file.suffix),
        )
        if not self._images:
            raise FileNotFoundError(f'expected {", ".join(_IMAGE_SUFFIXES)} files in {folder}')
        self._label_folder = folder.resolve().parent / 'label'
        labelled = folder.resolve() != self._label_folder and any(
            self._label_file(file).is_file() for file in self._images
        )
        self.name = str(folder)
        self.rate_hz = float(rate_hz)
        self.classes: ClassSet | None = classes if labelled else None

    def __len__(self) -> int:
        """Count the images."""
        return len(self._images)

    def __iter__(self) -> Iterator[DriveFrame]:
        """Read the images one after the other."""
        for index, file in enumerate(self._images):
            image = _read_image(file)
            label = None
            label_file = self._label_file(file)
            if self.classes is not None and label_file.is_file():
                label = read_label(label_file, self.classes.count, image.shape[:2])
            yield DriveFrame(round(index * 1e9 / self.rate_hz), image, label)

    def _label_file(self, image_file: Path) -> Path:
        return self._label_folder / f'{image_file.stem}.png'


def open_drive(frames: str | None = None, bag: str | None = None) -> Drive:
    """
    Open a source of frames.

    :param frames: a folder of images, or None.
    :param bag: a rosbag2 recording, or None.
    :return: that drive; the synthetic street if both are None.
    :raises ValueError: if both are given, or the source cannot be read.
    :raises FileNotFoundError: if there is nothing at the path.
    """
    if frames is not None and bag is not None:
        raise ValueError(f'expected a folder or a bag, got both: {frames} and {bag}')
    if frames is not None:
        return FolderDrive(frames)
    if bag is not None:
        return BagDrive(bag)
    return StreetDrive()


def by_number(stem: str) -> list[tuple[str, int]]:
    """Make a sort key under which frame9 comes before frame10."""
    return [(text, int(number or 0)) for text, number in re.findall(r'(\D*)(\d*)', stem, re.ASCII)]


def _read_image(file: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(file) as picture:
            return np.array(picture.convert('RGB'))
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f'{file}: expected a JPEG or PNG image: {error}') from error


def read_label(file: Path, class_count: int, size: tuple[int, ...]) -> NDArray[np.uint8]:
    """
    Read a label image: a PNG of one byte, grey or palette index, for each pixel.

    :param class_count: ids from here on become unlabelled.
    :param size: (H, W) that it must have, in pixels.
    :return: (H, W) uint8 class ids.
    :raises ValueError: if it is none, or of another size.
    """
    try:
        with Image.open(file) as picture:
            if picture.mode not in ('L', 'P'):
                raise ValueError(f'got mode {picture.mode}')
            label = np.array(picture)
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(
            f'{file}: expected a PNG of one byte (grey or palette) for each pixel: {error}'
        ) from error
    if label.shape != size:
        raise ValueError(
            f'{file}: expected the size of its image, {size[1]}x{size[0]}, '
            f'got {label.shape[1]}x{label.shape[0]}'
        )
    label[label >= class_count] = IGNORE_ID
    return label
