# SPDX-License-Identifier: Apache-2.0
"""People in images, whose joints are annotated; read when they are asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adpc_ros.image_files import check_file, read_image
from adpc_ros.labels import ClassSet, spread_colours

_NAMES = (
    *('right ankle', 'right knee', 'right hip', 'left hip', 'left knee', 'left ankle'),
    *('pelvis', 'thorax', 'upper neck', 'head top'),
    *('right wrist', 'right elbow', 'right shoulder'),
    *('left shoulder', 'left elbow', 'left wrist'),
)
#: MPII's 16 joints in the order of its ids; a heat map's index is an index into the names.
JOINTS = ClassSet('mpii_joints', _NAMES, spread_colours(len(_NAMES)))
#: The index of each joint on the other side of the body.
MIRRORED = (5, 4, 3, 2, 1, 0, 6, 7, 8, 9, 15, 14, 13, 12, 11, 10)


class Joints(NamedTuple):
    """
    Where joints are.

    ``places`` (J, 2) float, (x, y) in pixels, counted from 0; ``known`` (J,) bool, False where
    nothing is annotated. A joint that is hidden, but annotated, is known.
    """

    places: NDArray[np.float64]
    known: NDArray[np.bool_]


class Truth(NamedTuple):
    """What predictions are judged by; ``head`` is the diagonal of the head's box in pixels."""

    joints: Joints
    head: float


class Person(NamedTuple):
    """
    One person in an image, of which there may be more.

    ``centre`` (x, y) and ``edge`` are those of the square window around the person, in pixels of
    the image, counted from 0. ``truth`` is None where nothing says what to judge by.
    """

    image: Path
    centre: tuple[float, float]
    edge: float
    joints: Joints
    truth: Truth | None = None


class People:
    """Annotated people, in the order of their files."""

    def __init__(self, people: Sequence[Person], source: Path) -> None:
        """
        Hold the people.

        :param source: the file of annotations, for messages.
        :raises ValueError: if there are none, or an image is missing, empty or a folder.
        """
        if not people:
            raise ValueError(f'{source}: nobody is annotated')
        for image in {person.image: None for person in people}:
            if not image.exists():
                raise ValueError(f'image missing: expected {image}, which {source} names')
            check_file(image)
        self.people, self.source = list(people), source
        self.classes = JOINTS

    def __len__(self) -> int:
        """Give the number of people."""
        return len(self.people)

    def image(self, index: int) -> NDArray[np.uint8]:
        """
        Read the image of a person.

        :return: (H, W, 3) uint8 RGB.
        :raises ValueError: for a broken file.
        """
        return read_image(self.people[index].image)

    @property
    def images(self) -> list[Path]:
        """The images, each once."""
        return list({person.image: None for person in self.people})

    def keep(self, wanted: Callable[[Path], bool], what: str) -> None:
        """
        Keep the people of some of the images only.

        :param wanted: says of an image's path whether it stays.
        :param what: names the choice, for the error.
        :raises ValueError: if none stays.
        """
        kept = [person for person in self.people if wanted(person.image)]
        if not kept:
            raise ValueError(
                f'{what}: none of {len(self)} people, the first is in {self.people[0].image.name}'
            )
        self.people = kept

    def digest(self) -> str:
        """Give a short hash of images (name, size) and annotations: tells data sets apart."""
        digest = hashlib.sha256()
        for image, centre, edge, joints, _ in self.people:
            digest.update(f'{image.name} {image.stat().st_size} {centre} {edge}\n'.encode())
            digest.update(joints.places.tobytes() + joints.known.tobytes())
        return digest.hexdigest()[:16]
