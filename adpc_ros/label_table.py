# SPDX-License-Identifier: Apache-2.0
"""Which class the values of label files mean."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from adpc_ros.image_files import Label, read_label
from adpc_ros.labels import CAMVID, CITYSCAPES, IGNORE_ID, PASCAL_CONTEXT, ClassSet, Colour

_LOG = logging.getLogger(__name__)

MAX_ID = 0xFFFF
_MAX_SAID = 16  # unknown values
_UNKNOWN = -1


class LabelValues(NamedTuple):
    """
    What label files hold: class ids by ``ids`` and by ``colours`` (None: files have no such).

    ``unlabelled`` ids and colours are known and mean no class. With ``red`` the ids are those in
    the red channel of RGB.
    """

    ids: Mapping[int, int] | None
    colours: Iterable[tuple[Colour, int]] | None = None
    unlabelled: frozenset[int | Colour] = frozenset()
    red: bool = False


# fmt: off
# Colour in the original's labels -> class; black is unlabelled. Colours: class_dict.csv as it
# goes with the original; joined as in arXiv:1511.00561's data, e.g. in MATLAB's example.
_CAMVID_COLOURS: Mapping[str, tuple[Colour, ...]] = {
    'sky': ((128, 128, 128),),
    'building': (
        (128, 0, 0), (0, 128, 64), (64, 192, 0), (64, 0, 64), (192, 0, 128),
    ),  # building, bridge, wall, tunnel, archway
    'pole': ((192, 192, 128), (0, 0, 64)),  # column or pole, traffic cone
    'road': ((128, 64, 128), (128, 0, 192), (192, 0, 64)),  # road, lane markings
    'pavement': ((0, 0, 192), (64, 192, 128), (128, 128, 192)),  # and parking block, shoulder
    'tree': ((128, 128, 0), (192, 192, 0)),  # and other vegetation
    'sign': ((192, 128, 128), (128, 128, 64), (0, 64, 64)),  # and text, traffic light
    'fence': ((64, 64, 128),),
    'car': (
        (64, 0, 128), (64, 128, 192), (192, 128, 192), (192, 64, 128), (128, 64, 64),
    ),  # car, pick-up, lorry or bus, train, others that move
    'pedestrian': (
        (64, 64, 0), (192, 128, 64), (64, 0, 192), (64, 128, 64),
    ),  # pedestrian, child, pram or cart, animal
    'bicyclist': ((0, 128, 192), (192, 0, 192)),  # and motorcycle
}
# fmt: on

#: CamVid's label files have class ids, 11 where nothing is labelled; or the original's colours.
CAMVID_VALUES = LabelValues(
    {i: i for i in range(CAMVID.count)},
    [(colour, CAMVID.id_of(name)) for name, each in _CAMVID_COLOURS.items() for colour in each],
    unlabelled=frozenset({11}),
)

# Label id -> class id. Source: cityscapesScripts, helpers/labels.py.
_CITYSCAPES_IDS = dict(zip((7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33), range(19)))

#: Cityscapes' label files by the ending of their names, those that are preferred first.
CITYSCAPES_FORMS: Mapping[str, LabelValues] = {
    'labelIds': LabelValues(
        _CITYSCAPES_IDS, unlabelled=frozenset(range(34)) - _CITYSCAPES_IDS.keys()
    ),
    'labelTrainIds': LabelValues({i: i for i in range(CITYSCAPES.count)}),
}

#: PASCAL-Context's label files as usually converted: 0 is background, classes count from 1.
PASCAL_CONTEXT_VALUES = LabelValues(
    {i + 1: i for i in range(PASCAL_CONTEXT.count)}, unlabelled=frozenset({0})
)


class LabelTable:
    """A class set, and how label files say it."""

    def __init__(
        self, classes: ClassSet, values: LabelValues | None = None, source: str = ''
    ) -> None:
        """
        Hold both.

        :param values: None for CamVid's own with its classes, and class ids with others.
        :param source: of the values, for messages; by default the class set's name.
        """
        if values is None:
            ids = {i: i for i in range(classes.count)}
            values = CAMVID_VALUES if classes == CAMVID else LabelValues(ids)
        self.classes, self.values = classes, values
        self.source = source or classes.name
        self._ids: NDArray[np.int16] | None = None
        self._colours: NDArray[np.int16] | None = None
        self._said = 0

    def read(self, path: Path, size: tuple[int, ...] | None = None) -> NDArray[np.uint8]:
        """
        Read a label file; values that are not known are unlabelled, and a log line says so once.

        :param size: (H, W) that it must have, in pixels; None for any.
        :return: (H, W) uint8 class ids, 255 where unlabelled.
        :raises ValueError: if it cannot be read, has another size, or holds colours where ids are
            expected, or the other way round.
        """
        label = read_label(path)
        height, width = label.values.shape[:2]
        if size is not None and (height, width) != tuple(size[:2]):
            raise ValueError(
                f'{path}: expected the size of its image, {size[1]}x{size[0]}, '
                f'got {width}x{height}'
            )
        codes, table = self._looked_up(label, path)
        found = table[codes]
        unknown = found < 0
        if unknown.any():
            new = np.unique(codes[unknown])
            self._say(new.tolist(), path, table is self._colours)
            table[new] = found[unknown] = IGNORE_ID
        ids: NDArray[np.uint8] = found.astype(np.uint8)
        return ids

    def _looked_up(self, label: Label, path: Path) -> tuple[NDArray[Any], NDArray[np.int16]]:
        """Give what stands at each position, and the class ids of all that can stand there."""
        values, (ids, colours, unlabelled, red) = label.values, self.values
        coloured = values.ndim == 3
        if ids is not None and red == coloured:
            if self._ids is None:
                none = [each for each in unlabelled if isinstance(each, int)]
                self._ids = _table(MAX_ID + 1, ids.items(), [IGNORE_ID, *none])
            return (values[..., 0] if red else values), self._ids
        if coloured and colours is not None:
            if self._colours is None:
                black = {(0, 0, 0)} | {each for each in unlabelled if isinstance(each, tuple)}
                self._colours = _table(1 << 24, self._coded(), map(_code, black))
            wide = values.astype(np.int32)
            return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2], self._colours
        if red:
            expected = 'RGB with ids in the red channel'
        elif ids is None:
            expected = 'the colours of values, in RGB'
        else:
            expected = (
                'ids, grey or of a palette (classes.yaml may say "colours" of RGB, or "values: '
                'red" for ids in its red channel)'
            )
        raise ValueError(f'{path}: expected {expected}, got mode {label.mode} ({self.source})')

    def _coded(self) -> Iterator[tuple[int, int]]:
        seen: dict[Colour, int] = {}
        for colour, class_id in self.values.colours or ():
            if seen.setdefault(colour, class_id) != class_id:
                names = [self.classes.names[each] for each in (seen[colour], class_id)]
                raise ValueError(
                    f'{self.source}: expected a colour for each class to read labels by, got '
                    f'{_hex(_code(colour))} for {" and ".join(names)}'
                )
            yield _code(colour), class_id

    def _say(self, values: list[int], path: Path, coloured: bool) -> None:
        if self._said < _MAX_SAID:
            shown = ', '.join(_hex(v) if coloured else str(v) for v in values[:_MAX_SAID])
            _LOG.warning(
                '%s: taken as unlabelled, since %s has no class for %s%s',
                path, self.source, shown, ', ...' if len(values) > _MAX_SAID else '',
            )  # fmt: skip
        self._said += len(values)


def _table(
    size: int, known: Iterable[tuple[int, int]], unlabelled: Iterable[int]
) -> NDArray[np.int16]:
    table = np.full(size, _UNKNOWN, np.int16)
    table[list(unlabelled)] = IGNORE_ID
    for code, class_id in known:
        table[code] = class_id
    return table


def _code(colour: Colour) -> int:
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def _hex(code: int) -> str:
    return f'#{code:06x}'
