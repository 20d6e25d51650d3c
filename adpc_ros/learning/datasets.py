"""Labelled images on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from adpc_ros.labels import CAMVID, CITYSCAPES, IGNORE_ID, ClassSet, spread_colours
from adpc_ros.learning.sample import Sample
from adpc_ros.learning.transforms import scale

_MAX_SCALE = 4.0


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


class LabelledImages:
    """Pairs of image and label files, read when they are asked for."""

    def __init__(
        self, pairs: Sequence[tuple[Path, Path]], classes: ClassSet, class_ids: Mapping[int, int]
    ) -> None:
        """
        Hold the pairs.

        :param pairs: image and label of each sample.
        :param classes: what the labels tell apart.
        :param class_ids: from values of the label files to class ids; others are unlabelled.
        :raises ValueError: if there are no pairs, a label is missing, or a class id is not one.
        """
        if not pairs:
            raise ValueError('no images found')
        for _, label in pairs:
            if not label.exists():
                raise ValueError(f'label missing: expected {label}')
        self.classes = classes
        self.pairs = list(pairs)
        self._scale = 1.0
        self._ids = np.full(256, IGNORE_ID, np.uint8)
        for value, class_id in class_ids.items():
            if not (0 <= value <= 255 and 0 <= class_id < classes.count):
                raise ValueError(
                    f'expected label values in 0..255 and class ids below {classes.count}, '
                    f'got {value}: {class_id}'
                )
            self._ids[value] = class_id

    def __len__(self) -> int:
        """Give the number of images."""
        return len(self.pairs)

    def __iter__(self) -> Iterator[Sample]:
        """Read one after the other."""
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Sample:
        """
        Read one image and its label.

        :raises ValueError: for a broken file or a label of another size.
        """
        image_path, label_path = self.pairs[index]
        image = _read(image_path, 'RGB')
        label = _read(label_path, 'L')
        if image.shape[:2] != label.shape:
            raise ValueError(f'{label_path} is {label.shape}, its image is {image.shape[:2]}')
        sample = Sample(image, self._ids[label])
        return sample if self._scale == 1 else scale(sample, self._scale)

    def digest(self) -> str:
        """Give a short hash of the files' names and sizes and the scale: tells data sets apart."""
        digest = hashlib.sha256()
        if self._scale != 1:
            digest.update(f'scale {self._scale}\n'.encode())
        for path in (path for pair in self.pairs for path in pair):
            digest.update(f'{path.name} {path.stat().st_size}\n'.encode())
        return digest.hexdigest()[:16]

    def keep(self, wanted: Callable[[str], bool], what: str) -> None:
        """
        Keep some of the images only.

        :param wanted: says of an image's name, without its ending, whether it stays.
        :param what: names the choice, for the error.
        :raises ValueError: if none stays.
        """
        kept = [pair for pair in self.pairs if wanted(pair[0].stem)]
        if not kept:
            first = self.pairs[0][0].stem
            raise ValueError(f'{what}: none of {len(self.pairs)} images, the first is {first}')
        self.pairs = kept

    def rescale(self, factor: float) -> None:
        """
        Resize on reading: images bilinearly, labels to the nearest.

        :param factor: above 0, at most 4; 1 leaves samples as they are.
        :raises ValueError: for another factor.
        """
        if not 0 < factor <= _MAX_SCALE:
            raise ValueError(f'expected a scale above 0, at most {_MAX_SCALE:g}, got {factor}')
        self._scale = factor


def _images(folder: Path, pattern: str) -> list[Path]:
    found = sorted(folder.glob(pattern))
    if not found:
        raise ValueError(f'no images found: expected {folder / pattern}')
    return found


class CamVid(LabelledImages):
    """
    CamVid with 11 classes: ``image/NAME.jpg`` and ``label/NAME.png``, one byte a pixel.

    Source: Brostow, Fauqueur, Cipolla 2009, in the 11-class form used by SegNet.
    """

    def __init__(self, root: str | Path) -> None:
        """
        List the images of a split.

        :param root: folder that holds ``image`` and ``label``.
        :raises ValueError: if there are no images, or an image has no label.
        """
        root = Path(root)
        pairs = [(p, root / 'label' / f'{p.stem}.png') for p in _images(root / 'image', '*.jpg')]
        super().__init__(pairs, CAMVID, {i: i for i in range(CAMVID.count)})


class Cityscapes(LabelledImages):
    """
    Cityscapes, fine annotations: ``leftImg8bit`` and ``gtFine`` as they are published.

    The label ids of ``*_gtFine_labelIds.png`` become the 19 training classes; what is judged in
    none of them is unlabelled. Source: arXiv:1604.01685; ids of cityscapesScripts.
    """

    #: label id -> class id
    LABEL_IDS: Mapping[int, int] = dict(
        zip((7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33), range(19))
    )

    def __init__(self, root: str | Path) -> None:
        """
        List the images of a split.

        :param root: the data set's folder and the split, as ``/data/cityscapes/train``.
        :raises ValueError: if there are no images, or an image has no label.
        """
        base, split = Path(root).parent, Path(root).name
        ending = '_leftImg8bit.png'
        pairs = []
        for image in _images(base / 'leftImg8bit' / split, f'*/*{ending}'):
            label = image.name.removesuffix(ending) + '_gtFine_labelIds.png'
            pairs.append((image, base / 'gtFine' / split / image.parent.name / label))
        super().__init__(pairs, CITYSCAPES, self.LABEL_IDS)


class Folder(LabelledImages):
    """
    Anything else: ``image/NAME.jpg`` or ``.png``, ``label/NAME.png`` and ``classes.yaml``.

    The class file has ``name``, ``names`` (in order of the class ids), and if wanted ``colours``
    (RGB of each), ``vulnerable`` (names of the classes that are vulnerable road users) and
    ``values`` (from values of the label files to class names; else a value is a class id).
    """

    def __init__(self, root: str | Path) -> None:
        """
        List the images.

        :param root: folder that holds ``image`` and ``label``, and ``classes.yaml`` in it or
            beside it.
        :raises ValueError: if there are no images, an image has no label, or the class file is
            missing or not as described.
        """
        root = Path(root)
        places = [root / 'classes.yaml', root.parent / 'classes.yaml']
        path = next((place for place in places if place.exists()), None)
        if path is None:
            raise ValueError(f'class file missing: expected {places[0]} or {places[1]}')
        classes, values = _read_classes(path)
        images = [p for p in _images(root / 'image', '*') if p.suffix in ('.jpg', '.png')]
        super().__init__([(p, root / 'label' / f'{p.stem}.png') for p in images], classes, values)


def _read_classes(path: Path) -> tuple[ClassSet, dict[int, int]]:
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f'{path}: expected YAML ({error})') from error
    if not isinstance(content, dict) or not {'name', 'names'} <= content.keys():
        raise ValueError(f'{path}: expected the keys name and names')
    if unknown := content.keys() - {'name', 'names', 'colours', 'vulnerable', 'values'}:
        raise ValueError(f'{path}: unknown keys {sorted(unknown)}')
    try:
        names = tuple(str(name) for name in content['names'])
        colours = content.get('colours') or spread_colours(len(names))
        vulnerable = content.get('vulnerable') or []
        if not isinstance(vulnerable, list):
            raise ValueError(f'expected a list of class names as vulnerable, got {vulnerable!r}')
        classes = ClassSet(
            str(content['name']),
            names,
            tuple((r, g, b) for r, g, b in colours),
            tuple(map(str, vulnerable)),
        )
        values = content.get('values') or {i: name for i, name in enumerate(names)}
        return classes, {int(value): classes.id_of(str(name)) for value, name in values.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f'{path}: {error}') from error


DATA_SETS: dict[str, type[CamVid | Cityscapes | Folder]] = {
    'camvid': CamVid,
    'cityscapes': Cityscapes,
    'folder': Folder,
}


def open_samples(description: str) -> LabelledImages:
    """
    Open a data set by a description, as recipes and the command line have it.

    :param description: ``KIND:FOLDER``, KIND one of :data:`DATA_SETS`; after a ``?`` what to
        choose of it, joined by ``&``: ``drives=A,B`` (names that begin so), ``without=A,B`` (all
        but these) and ``list=FILE`` (one name a line); ``scale=F`` resizes on reading, by
        0 < F <= 4.
    :raises ValueError: for another form, or whatever is wrong with the data.
    """
    place, _, choice = description.partition('?')
    kind, _, folder = place.partition(':')
    if kind not in DATA_SETS or not folder:
        raise ValueError(
            f'expected {", ".join(f"{k}:FOLDER" for k in DATA_SETS)}, got {description!r}'
        )
    samples: LabelledImages = DATA_SETS[kind](folder)
    for part in filter(None, choice.split('&')):
        key, _, value = part.partition('=')
        prefixes = tuple(filter(None, value.split(',')))
        if key == 'drives' and prefixes:
            samples.keep(lambda name, p=prefixes: name.startswith(p), part)  # type: ignore[misc]
        elif key == 'without' and prefixes:
            samples.keep(lambda name, p=prefixes: not name.startswith(p), part)  # type: ignore[misc]
        elif key == 'list' and value:
            samples.keep(_listed(Path(value), samples), part)
        elif key == 'scale' and value:
            samples.rescale(_number(value, description))
        else:
            raise ValueError(
                f'{description}: expected drives=, without=, list= or scale= with a value, '
                f'got {part!r}'
            )
    return samples


def _number(text: str, description: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f'{description}: expected a number as scale, got {text!r}') from None


def _listed(path: Path, samples: LabelledImages) -> Callable[[str], bool]:
    try:
        names = {Path(line).stem for line in path.read_text().split()}
    except OSError as error:
        raise ValueError(f'cannot read the list {path}: {error}') from error
    if missing := names - {image.stem for image, _ in samples.pairs}:
        raise ValueError(f'{path}: no image of the name {min(missing)} ({len(missing)} missing)')
    return names.__contains__
