# SPDX-License-Identifier: Apache-2.0
"""Images and labels as files: what is one, and what it holds, whatever its form."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

_LOG = logging.getLogger(__name__)

#: Endings of the names of image files, in small letters or capitals.
SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
#: Folders that hold images, and those beside that hold their labels.
_LAYOUTS = (
    ('image', 'label'),
    ('images', 'labels'),
    ('701_StillsRaw_full', 'LabeledApproved_full'),
)
_LABEL_ENDINGS = ('', '_L')  # between an image's name and .png
_EIGHT_BITS = ('1', 'L', 'LA', 'P', 'PA', 'RGB', 'RGBA', 'RGBa', 'RGBX', 'CMYK', 'YCbCr')


class Label(NamedTuple):
    """
    What a label file holds.

    ``values`` are (H, W) uint8 or uint16 ids where it is grey or has a palette, (H, W, 3) uint8
    RGB where it has colours; ``mode`` says which, as Pillow names it.
    """

    values: NDArray[np.uint8] | NDArray[np.uint16]
    mode: str


def list_images(folder: Path) -> list[Path]:
    """
    List the images of a folder by name, and log how many other files are left out.

    :raises FileNotFoundError: if there is no such folder, or no image in it.
    :raises ValueError: if one of them is empty, or a folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f'expected a folder of images at {folder}, found none')
    found: list[Path] = []
    others: list[Path] = []
    for path in sorted(folder.iterdir()):
        hidden = path.name.startswith('.')
        (found if path.suffix.lower() in SUFFIXES and not hidden else others).append(path)
    if not found:
        rest = f', found {len(others)} others, as {others[0].name}' if others else ''
        raise FileNotFoundError(
            f'no images found: expected {" ".join(SUFFIXES)} in {folder}{rest}'
        )
    if others:
        _LOG.warning(
            '%s: left out %d that are no images by their names (%s), as %s',
            folder, len(others), ' '.join(SUFFIXES), others[0].name,
        )  # fmt: skip
    for path in found:
        check_file(path)
    return found


def check_file(path: Path) -> None:
    """
    Check that a file is there and holds something; it is not read.

    :raises ValueError: if not.
    """
    if path.is_dir():
        raise ValueError(f'cannot read {path}: expected an image, got a folder')
    if not path.stat().st_size:
        raise ValueError(f'cannot read {path}: expected an image, got an empty file')


def labels_beside(folder: Path) -> Path:
    """Give the folder of the labels of a folder of images; it need not be there."""
    places = [folder.resolve()]  # where a link leads to, if there is nothing beside the link
    if folder.name not in ('', '..'):
        places.insert(0, folder)
    choices = []
    for place in places:
        names = [label for image, label in _LAYOUTS if image == place.name]
        names += [f'{place.name}annot', f'{place.name}_labels', 'label']
        choices += [place.parent / name for name in names]
    return next((choice for choice in choices if choice.is_dir()), places[0].parent / 'label')


def images_of(root: Path) -> Path:
    """
    Give the folder of the images of a data set.

    :param root: holds it together with that of the labels, or is it itself.
    """
    return next((root / image for image, _ in _LAYOUTS if (root / image).is_dir()), root)


class LabelFolder:
    """Label files by the names of their images."""

    def __init__(self, folder: Path) -> None:
        """List the files, if there is such a folder."""
        self._folder = folder
        self._files: dict[str, Path] = {}
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.suffix.lower() == '.png':
                self._files[path.stem] = path
            elif path.suffix.lower() in SUFFIXES:
                self._files.setdefault(path.stem, path)

    def of(self, image: Path) -> Path:
        """
        Give the label of an image, ``NAME.png`` or ``NAME_L.png``; it need not be there.

        :raises ValueError: if it is no PNG.
        """
        found = (self._files.get(image.stem + ending) for ending in _LABEL_ENDINGS)
        path = next(filter(None, found), self._folder / f'{image.stem}.png')
        if path.suffix.lower() != '.png':
            raise ValueError(
                f'{path}: expected a PNG as label, since other formats may be lossy, '
                f'got {path.suffix}'
            )
        return path


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """
    Read an image upright, as its EXIF orientation says.

    :return: (H, W, 3) uint8 RGB, see :func:`as_rgb`.
    :raises ValueError: if it is missing, broken, too large to be one, or not of 8 or 16 bits for
        each channel.
    """
    with _opened(Path(path), 'an image') as picture:
        ImageOps.exif_transpose(picture, in_place=True)
        return as_rgb(picture)


def as_rgb(picture: Image.Image) -> NDArray[np.uint8]:
    """
    Give a picture as RGB: of 16 bits the upper 8, without transparency.

    :return: (H, W, 3) uint8 RGB.
    :raises ValueError: if it has not 8 or 16 bits for each channel.
    """
    if picture.mode.startswith('I;16'):
        grey = (np.asarray(picture) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, 2)
    if picture.mode not in _EIGHT_BITS:
        raise ValueError(f'expected 8 or 16 bits for each channel, got mode {picture.mode}')
    if picture.mode in ('P', 'PA', 'RGBa'):
        picture = picture.convert('RGBA')
    return np.array(picture.convert('RGB'))


def read_label(path: str | Path) -> Label:
    """
    Read a label PNG of any depth, upright, as its EXIF orientation says.

    :raises ValueError: if it is missing, broken, no PNG, or has colours of 16 bits.
    """
    path = Path(path)
    with _opened(path, 'a label PNG') as picture:
        if picture.format != 'PNG':
            raise ValueError(f'got {picture.format}, which may be lossy')
        with path.open('rb') as file:
            depth = file.read(25)[24]  # of IHDR, always the first chunk
        mode = picture.mode
        if depth == 16 and not mode.startswith('I;16'):
            raise ValueError(f'got 16 bits for each channel of {mode}')
        ImageOps.exif_transpose(picture, in_place=True)
        if mode in ('1', 'L'):  # which Pillow spreads over 0 to 255
            grey = np.array(picture.convert('L') if mode == '1' else picture)
            return Label(grey if depth == 8 else grey // (255 // ((1 << depth) - 1)), mode)
        if mode == 'LA':
            return Label(np.array(picture)[..., 0], mode)
        if mode in ('RGB', 'RGBA'):
            return Label(np.array(picture)[..., :3], mode)
        return Label(np.array(picture), mode)


@contextmanager
def _opened(path: Path, expected: str) -> Iterator[Image.Image]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('error', Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                yield picture
    except Exception as error:  # each decoder raises its own kinds
        raise ValueError(f'cannot read {path}: expected {expected} ({error})') from error
