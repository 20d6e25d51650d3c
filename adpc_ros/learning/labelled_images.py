# SPDX-License-Identifier: Apache-2.0
"""Images with labels, and with a teacher's soft labels if wanted, read when asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from adpc_ros.image_files import check_file, read_image, read_label
from adpc_ros.label_table import LabelTable
from adpc_ros.labels import IGNORE_ID
from adpc_ros.learning.sample import Sample
from adpc_ros.learning.soft_labels import agreement, path_of, planes_of
from adpc_ros.learning.transforms import scale

_MAX_SCALE = 4.0


class LabelledImages:
    """Pairs of image and label files, read when they are asked for."""

    def __init__(self, pairs: Sequence[tuple[Path, Path]], labels: LabelTable) -> None:
        """
        Hold the pairs.

        :param pairs: image and label of each sample.
        :param labels: what the values of the label files mean.
        :raises ValueError: if there are no pairs, a label is missing, a file is empty or a folder,
            or two images have one name.
        """
        if not pairs:
            raise ValueError('no images found')
        seen: dict[Path, Path] = {}
        for image, label in pairs:
            if not label.exists():
                raise ValueError(f'label missing: expected {label}')
            if (other := seen.setdefault(label, image)) is not image:
                raise ValueError(f'expected a label for each image, got one for {other}, {image}')
            for path in (image, label):
                check_file(path)
        self.labels, self.classes = labels, labels.classes
        self.pairs = list(pairs)
        self._scale = 1.0
        self._soft: Path | None = None

    def __len__(self) -> int:
        """Give the number of images."""
        return len(self.pairs)

    def __iter__(self) -> Iterator[Sample]:
        """Read one after the other."""
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Sample:
        """
        Read one image and its label, and the soft labels if they were asked for.

        :raises ValueError: for a broken file, or labels of another size or kind.
        """
        image_path, label_path = self.pairs[index]
        image = read_image(image_path)
        label = self.labels.read(label_path, image.shape)
        sample = Sample(image, label)
        if self._soft is not None:
            path = path_of(self._soft, image_path.stem)
            soft = planes_of(read_label(path).values, self.classes.count, label.shape, path)
            sample = sample._replace(soft=soft)
        return sample if self._scale == 1 else scale(sample, self._scale)

    def check_labelled(self) -> None:
        """
        Check that any pixel has a class; reads labels until one has.

        :raises ValueError: if none has, or a label that was read is broken or of another kind.
        """
        if not any((self.labels.read(label) != IGNORE_ID).any() for _, label in self.pairs):
            raise ValueError(
                f'nothing is labelled: expected values of {self.labels.source} in '
                f'{len(self.pairs)} labels, as {self.pairs[0][1]}'
            )

    def digest(self) -> str:
        """Give a short hash of scale and the files' names and sizes: tells data sets apart."""
        digest = hashlib.sha256()
        if self._scale != 1:
            digest.update(f'scale {self._scale}\n'.encode())
        paths = [path for pair in self.pairs for path in pair]
        if self._soft is not None:
            paths += [path_of(self._soft, image.stem) for image, _ in self.pairs]
        for path in paths:
            digest.update(f'{path.name} {path.stat().st_size}\n'.encode())
        return digest.hexdigest()[:16]

    def keep(self, wanted: Callable[[Path], bool], what: str) -> None:
        """
        Keep some of the images only.

        :param wanted: says of an image's path whether it stays.
        :param what: names the choice, for the error.
        :raises ValueError: if none stays.
        """
        kept = [pair for pair in self.pairs if wanted(pair[0])]
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

    @property
    def has_soft(self) -> bool:
        """Whether samples have soft labels."""
        return self._soft is not None

    def add_soft(self, folder: str | Path) -> None:
        """
        Read a teacher's soft labels as well.

        :param folder: has a ``NAME.png`` for every image: one byte a position, a quarter of the
            image's size, a plane for each class one below the other, 0 to 255 for 0 to 1.
        :raises ValueError: if one is missing.
        """
        self._soft = Path(folder)
        for image, _ in self.pairs:
            if not (path := path_of(self._soft, image.stem)).exists():
                raise ValueError(f'soft label missing: expected {path}')

    def keep_agreed(self, min_share: float, what: str) -> None:
        """
        Leave out images on which teacher and label disagree; reads all of them.

        :param min_share: 0 to 1, of the labelled positions that the teacher puts in their class.
            An image without any stays.
        :param what: names the choice, for the error.
        :raises ValueError: if none stays, there are no soft labels, or a file is broken.
        """
        if not self.has_soft:
            raise ValueError(f'{what}: expected soft=FOLDER before it')
        images = [image for image, _ in self.pairs]
        agreed = {image for image, sample in zip(images, self) if agreement(sample) >= min_share}
        self.keep(agreed.__contains__, what)
