# SPDX-License-Identifier: Apache-2.0
"""Class sets: the names, the ids and the colours of what the networks tell apart."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

#: Id of an unlabelled pixel, in data sets and in published masks.
IGNORE_ID = 255

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class ClassSet:
    """
    The classes of a data set; a class id is an index into ``names``.

    :param name: lower-case name, as :func:`by_name` takes it.
    :param names: one name for each class, in order of the ids.
    :param colours: one (red, green, blue) for each class, 0 to 255.
    :param vulnerable: names of the classes that are vulnerable road users. Sets that differ in
        nothing else are equal.
    :raises ValueError: if there is not one colour for each name, a name is there twice, a colour
        is out of range, there are more classes than ids, or a vulnerable class is not in the set.
    """

    name: str
    names: tuple[str, ...]
    colours: tuple[Colour, ...]
    vulnerable: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        """Check that names and colours fit each other."""
        if len(self.names) != len(self.colours):
            raise ValueError(
                f'class set {self.name!r}: expected one colour for each of the '
                f'{len(self.names)} names, got {len(self.colours)}'
            )
        if not 1 <= len(self.names) <= IGNORE_ID:
            raise ValueError(
                f'class set {self.name!r}: expected 1 to {IGNORE_ID} classes, '
                f'got {len(self.names)}'
            )
        if len(set(self.names)) != len(self.names):
            raise ValueError(f'class set {self.name!r}: a class name is there twice')
        for colour in self.colours:
            if len(colour) != 3 or not all(0 <= value <= 255 for value in colour):
                raise ValueError(
                    f'class set {self.name!r}: expected colours of three values in 0..255, '
                    f'got {colour}'
                )
        if not set(self.vulnerable) <= set(self.names):
            raise ValueError(
                f'class set {self.name!r}: expected vulnerable classes of the set, '
                f'got {", ".join(self.vulnerable)}'
            )

    @property
    def count(self) -> int:
        """Number of classes, without the unlabelled one."""
        return len(self.names)

    def id_of(self, class_name: str) -> int:
        """
        Give the id of a class.

        :param class_name: one of ``names``.
        :return: the class id, 0 to ``count`` - 1.
        :raises ValueError: if the set has no such class.
        """
        try:
            return self.names.index(class_name)
        except ValueError:
            raise ValueError(
                f'class set {self.name!r} has no class {class_name!r}; '
                f'expected one of {", ".join(self.names)}'
            ) from None

    def colourise(self, class_ids: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """
        Paint each pixel in the colour of its class.

        :param class_ids: (H, W) uint8, class ids.
        :return: (H, W, 3) uint8, RGB; ids that are not of the set (unlabelled among them) are
            black.
        :raises ValueError: if the array is not (H, W) uint8.
        """
        if class_ids.ndim != 2 or class_ids.dtype != np.uint8:
            raise ValueError(
                f'expected class ids as (H, W) uint8, got {class_ids.shape} {class_ids.dtype}'
            )
        palette = np.zeros((256, 3), np.uint8)
        palette[: self.count] = self.colours
        return palette[class_ids]


def spread_colours(count: int) -> tuple[Colour, ...]:
    """
    Generate colours that are far apart: the hue turns by the golden ratio, the value alternates.

    :param count: number of colours.
    :return: ``count`` different (red, green, blue), 0 to 255, none of them black.
    """
    colours = []
    for index in range(count):
        hue = index * 0.618034 % 1.0
        rgb = colorsys.hsv_to_rgb(hue, (0.85, 0.55)[index // 2 % 2], (0.95, 0.6, 0.8)[index % 3])
        red, green, blue = (round(255 * value) for value in rgb)
        colours.append((red, green, blue))
    return tuple(colours)


# fmt: off
#: 19 training classes in order of the train ids. Source: cityscapesScripts, helpers/labels.py.
CITYSCAPES = ClassSet(
    'cityscapes',
    ('road', 'sidewalk', 'building', 'wall', 'fence', 'pole', 'traffic light', 'traffic sign',
     'vegetation', 'terrain', 'sky', 'person', 'rider', 'car', 'truck', 'bus', 'train',
     'motorcycle', 'bicycle'),
    ((128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153),
     (153, 153, 153), (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152),
     (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 60, 100),
     (0, 80, 100), (0, 0, 230), (119, 11, 32)),
    ('person', 'rider'),
)

#: 11 classes in the order and the colours of SegNet's form of CamVid (arXiv:1511.00561).
CAMVID = ClassSet(
    'camvid',
    ('sky', 'building', 'pole', 'road', 'pavement', 'tree', 'sign', 'fence', 'car', 'pedestrian',
     'bicyclist'),
    ((128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
     (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192)),
    ('pedestrian', 'bicyclist'),
)

_PASCAL_CONTEXT_NAMES = (
    'aeroplane', 'bag', 'bed', 'bedclothes', 'bench', 'bicycle', 'bird', 'boat', 'book', 'bottle',
    'building', 'bus', 'cabinet', 'car', 'cat', 'ceiling', 'chair', 'cloth', 'computer', 'cow',
    'cup', 'curtain', 'dog', 'door', 'fence', 'floor', 'flower', 'food', 'grass', 'ground',
    'horse', 'keyboard', 'light', 'motorbike', 'mountain', 'mouse', 'person', 'plate', 'platform',
    'pottedplant', 'road', 'rock', 'sheep', 'shelves', 'sidewalk', 'sign', 'sky', 'snow', 'sofa',
    'table', 'track', 'train', 'tree', 'truck', 'tvmonitor', 'wall', 'water', 'window', 'wood',
)
# fmt: on

#: 59 classes, background left out, in order of the data set's own ids; generated colours.
PASCAL_CONTEXT = ClassSet(
    'pascal_context',
    _PASCAL_CONTEXT_NAMES,
    spread_colours(len(_PASCAL_CONTEXT_NAMES)),
    ('person',),
)

CLASS_SETS: tuple[ClassSet, ...] = (CITYSCAPES, CAMVID, PASCAL_CONTEXT)


def by_name(name: str) -> ClassSet:
    """
    Find a class set by its name.

    :param name: 'cityscapes', 'camvid' or 'pascal_context'.
    :return: the class set.
    :raises ValueError: if there is no set of this name.
    """
    for classes in CLASS_SETS:
        if classes.name == name:
            return classes
    known = ', '.join(classes.name for classes in CLASS_SETS)
    raise ValueError(f'unknown class set {name!r}; expected one of {known}')
