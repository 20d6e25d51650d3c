"""The data sets: where their files lie, and which values of their labels mean which class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import yaml

from adpc_ros.labels import CAMVID, CITYSCAPES, ClassSet, spread_colours
from adpc_ros.learning.labelled_images import LabelledImages


def _images(folder: Path, pattern: str) -> list[Path]:
    found = sorted(folder.glob(pattern))
    if not found:
        raise ValueError(f'no images found: expected {folder / pattern}')
    return found


class CamVid(LabelledImages):
    """
    CamVid with 11 classes: ``image/NAME.jpg`` and ``label/NAME.png``, one byte a pixel.

    Other images with these classes, too, if they are laid out like this.
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
        0 < F <= 4; ``soft=FOLDER`` has a teacher's soft labels, and ``agree=F`` after it leaves
        out images on whose labelled pixels it is right in a share of less than F.
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
            samples.rescale(_number(value, part, description))
        elif key == 'soft' and value:
            samples.add_soft(value)
        elif key == 'agree' and value:
            samples.keep_agreed(_number(value, part, description), part)
        else:
            raise ValueError(
                f'{description}: expected drives=, without=, list=, scale=, soft= or agree= '
                f'with a value, got {part!r}'
            )
    return samples


def _number(text: str, part: str, description: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f'{description}: expected a number in {part!r}') from None


def _listed(path: Path, samples: LabelledImages) -> Callable[[str], bool]:
    try:
        names = {Path(line).stem for line in path.read_text().split()}
    except OSError as error:
        raise ValueError(f'cannot read the list {path}: {error}') from error
    if missing := names - {image.stem for image, _ in samples.pairs}:
        raise ValueError(f'{path}: no image of the name {min(missing)} ({len(missing)} missing)')
    return names.__contains__
