# SPDX-License-Identifier: Apache-2.0
"""The data sets: where their files lie, and which values of their labels mean which class."""

from __future__ import annotations

import logging
from pathlib import Path

from adpc_ros.class_file import find_class_file, read_classes
from adpc_ros.image_files import LabelFolder, images_of, labels_beside, list_images
from adpc_ros.label_table import CITYSCAPES_FORMS, PASCAL_CONTEXT_VALUES, LabelTable
from adpc_ros.labels import CAMVID, CITYSCAPES, PASCAL_CONTEXT
from adpc_ros.learning.choices import chosen_images, parts_of
from adpc_ros.learning.labelled_images import LabelledImages

_LOG = logging.getLogger(__name__)


def _pairs(root: Path) -> list[tuple[Path, Path]]:
    """Pair images and labels of a folder, in any of the layouts of docs/data.md."""
    folder = images_of(root)
    labels = labels_beside(folder)
    if folder == root and not labels.is_dir():
        raise ValueError(
            f'no images found: expected them in {root / "image"} and their labels in '
            f'{root / "label"}, or in {root} and {root}annot'
        )
    by_name = LabelFolder(labels)
    return [(image, by_name.of(image)) for image in list_images(folder)]


class CamVid(LabelledImages):
    """
    CamVid with 11 classes: their ids (11 is unlabelled), or the colours of the original's 32.

    Other images with these classes, too, if they are laid out like this.
    Source: Brostow, Fauqueur, Cipolla 2009, in the 11-class form used by SegNet.
    """

    def __init__(self, root: str | Path) -> None:
        """
        List the images of a split.

        :param root: folder that holds ``image`` and ``label``, or another layout of docs/data.md.
        :raises FileNotFoundError: if there are no images.
        :raises ValueError: likewise, or if an image has no label.
        """
        super().__init__(_pairs(Path(root)), LabelTable(CAMVID))


class Cityscapes(LabelledImages):
    """
    Cityscapes: ``leftImg8bit`` with ``gtFine``, or else ``gtCoarse``, as they are published.

    The label ids of ``*_labelIds.png`` become the 19 training classes; what is judged in none of
    them is unlabelled. Where an image has none, all are taken from ``*_labelTrainIds.png``.
    Source: arXiv:1604.01685; ids of cityscapesScripts.
    """

    def __init__(self, root: str | Path) -> None:
        """
        List the images of a split.

        :param root: the data set's folder and the split, as ``/data/cityscapes/train``.
        :raises ValueError: if there are no images, or an image has no label.
        """
        base, split = Path(root).parent, Path(root).name
        ending = '_leftImg8bit.png'
        folder = base / 'leftImg8bit' / split
        images = sorted(folder.glob(f'*/*{ending}'))
        if not images:
            raise ValueError(f'no images found: expected {folder / "*" / f"*{ending}"}')
        if others := len(list(folder.glob('*/*'))) - len(images):
            _LOG.warning('%s: left out %d files that are no *%s', folder, others, ending)
        kind = next((k for k in ('gtFine', 'gtCoarse') if (base / k / split).is_dir()), 'gtFine')

        def labels(form: str) -> list[Path]:
            return [
                base / kind / split / image.parent.name
                / f'{image.name.removesuffix(ending)}_{kind}_{form}.png'
                for image in images
            ]  # fmt: skip

        forms = {form: labels(form) for form in CITYSCAPES_FORMS}
        complete = (f for f, paths in forms.items() if all(path.exists() for path in paths))
        form = next(complete, next(iter(forms)))
        table = LabelTable(CITYSCAPES, CITYSCAPES_FORMS[form])
        super().__init__(list(zip(images, forms[form])), table)


class PascalContext(LabelledImages):
    """
    PASCAL-Context with 59 classes, beside the images of PASCAL VOC 2010.

    Labels are PNG with 1 to 59 for the classes and 0 for background, which is unlabelled, as the
    usual converters write them. Source: Mottaghi et al. 2014.
    """

    def __init__(self, root: str | Path) -> None:
        """
        List the images of a split.

        :param root: the folder of VOC 2010 and the split, as ``/data/VOC2010/train``.
        :raises FileNotFoundError: if the list of the split is missing.
        :raises ValueError: if the list names no images, or an image or a label is missing.
        """
        base, split = Path(root).parent, Path(root).name
        listed = base / 'ImageSets' / 'SegmentationContext' / f'{split}.txt'
        names = listed.read_text().split()
        if not names:
            raise ValueError(f'{listed}: expected names of images, one a line, got none')
        pairs = [
            (
                base / 'JPEGImages' / f'{name}.jpg',
                base / 'SegmentationClassContext' / f'{name}.png',
            )
            for name in names
        ]
        for path in (path for pair in pairs for path in pair):
            if not path.is_file():
                raise ValueError(f'{listed}: expected {path}, which is missing')
        super().__init__(pairs, LabelTable(PASCAL_CONTEXT, PASCAL_CONTEXT_VALUES))


class Folder(LabelledImages):
    """Anything else: images, label PNGs and ``classes.yaml``, as docs/data.md describes it."""

    def __init__(self, root: str | Path) -> None:
        """
        List the images.

        :param root: folder that holds ``image`` and ``label``, or another layout of docs/data.md,
            and ``classes.yaml`` in it or beside it.
        :raises FileNotFoundError: if there are no images.
        :raises ValueError: likewise, or if an image has no label, or the class file is missing or
            not as described.
        """
        root = Path(root)
        if (path := find_class_file(root)) is None:
            raise ValueError(
                f'class file missing: expected {root / "classes.yaml"} or '
                f'{root.parent / "classes.yaml"}'
            )
        table = read_classes(path)
        super().__init__(_pairs(root), table)


DATA_SETS: dict[str, type[CamVid | Cityscapes | PascalContext | Folder]] = {
    'camvid': CamVid,
    'cityscapes': Cityscapes,
    'pascal_context': PascalContext,
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
    place, parts = parts_of(description)
    kind, _, folder = place.partition(':')
    if kind not in DATA_SETS or not folder:
        raise ValueError(
            f'expected {", ".join(f"{k}:FOLDER" for k in DATA_SETS)}, got {description!r}'
        )
    samples: LabelledImages = DATA_SETS[kind](folder)
    for part in parts:
        key, _, value = part.partition('=')
        wanted = chosen_images(part, [image for image, _ in samples.pairs])
        if wanted is not None:
            samples.keep(wanted, part)
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
    samples.check_labelled()
    return samples


def _number(text: str, part: str, description: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f'{description}: expected a number in {part!r}') from None
