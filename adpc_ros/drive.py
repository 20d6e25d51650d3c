# SPDX-License-Identifier: Apache-2.0
"""Sources of camera frames: a folder of images, a bag, or the synthetic street; no ROS needed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from adpc_ros.bag import BagDrive
from adpc_ros.class_file import find_class_file, read_classes
from adpc_ros.frame import Drive, DriveFrame
from adpc_ros.image_files import LabelFolder, labels_beside, list_images, read_image
from adpc_ros.label_table import LabelTable
from adpc_ros.labels import CAMVID, ClassSet
from adpc_ros.street import StreetDrive

__all__ = ['BagDrive', 'Drive', 'DriveFrame', 'FolderDrive', 'StreetDrive', 'open_drive']


class FolderDrive:
    """
    The images of a folder in the order of their names, numbers in names by value.

    Frame NAME.jpg (or another kind of image) has a label if the folder ``label/`` beside holds
    NAME.png (or in another layout of docs/data.md). The classes are those of ``classes.yaml`` in
    or beside the folder that holds both; CamVid's if there is none.

    :param path: folder with the images.
    :param rate_hz: frames per second; the first frame has time zero.
    :raises FileNotFoundError: if the folder is missing or has no images.
    :raises ValueError: if ``rate_hz`` is not positive, an image is empty, or the class file is
        broken; while iterating, if a file is broken or a label does not fit.
    """

    def __init__(self, path: str | Path, rate_hz: float = 15.0) -> None:
        """List the images; none is opened yet."""
        folder = Path(path)
        if not rate_hz > 0:
            raise ValueError(f'expected a positive rate_hz, got {rate_hz}')
        images = list_images(folder)
        images.sort(key=lambda file: (by_number(file.stem), file.suffix))
        beside = labels_beside(folder)
        by_name = LabelFolder(beside)
        own = beside.is_dir() and beside.samefile(folder)
        labels = [] if own else [by_name.of(image) for image in images]
        self.name = str(folder)
        self.rate_hz = float(rate_hz)
        self.classes: ClassSet | None = None
        self._files: list[tuple[Path, Path | None]] = [(image, None) for image in images]
        if any(label.exists() for label in labels):
            file = find_class_file(beside.parent)
            self._table = LabelTable(CAMVID) if file is None else read_classes(file)
            self.classes = self._table.classes
            self._files = [
                (image, label if label.exists() else None) for image, label in zip(images, labels)
            ]

    def __len__(self) -> int:
        """Count the images."""
        return len(self._files)

    def __iter__(self) -> Iterator[DriveFrame]:
        """Read the images one after the other."""
        for index, (file, label_file) in enumerate(self._files):
            image = read_image(file)
            label = None if label_file is None else self._table.read(label_file, image.shape)
            yield DriveFrame(round(index * 1e9 / self.rate_hz), image, label)


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
