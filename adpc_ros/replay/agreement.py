# SPDX-License-Identifier: Apache-2.0
"""Masks of a replay beside those of an earlier one, and beside labels."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from adpc_ros.class_file import table_for
from adpc_ros.drive import by_number
from adpc_ros.label_table import CITYSCAPES_FORMS, LabelTable
from adpc_ros.labels import CITYSCAPES, ClassSet
from adpc_ros.learning.metrics import Confusion
from adpc_ros.replay.output import NAMESPACE, read_output, values_of
from adpc_ros.replay.records import Counted, FrameRecord, Key
from adpc_ros.replay.source import nanoseconds
from adpc_ros.ros.publication import scaled
from adpc_ros.runtime.scheduler import StopReason

_LOG = logging.getLogger(__name__)

# What Cityscapes has for an image: labels in two forms, and pictures that are none.
_FORM = re.compile(rf'(_gt(Fine|Coarse))?_({"|".join(CITYSCAPES_FORMS)})$')
_PICTURE = re.compile(r'_(color|instanceIds|instanceTrainIds)$')
_OWN_PICTURE = re.compile(rf'_gt(Fine|Coarse){_PICTURE.pattern}')


class Change(NamedTuple):
    """A frame that ended otherwise: (exit, stop reason's name) before and now."""

    stamp_ns: int
    before: tuple[int, str]
    now: tuple[int, str]


class Agreement(NamedTuple):
    """
    How two output bags agree, frame by frame (same stamp; the n-th of it).

    ``shares`` are (stamp in nanoseconds, share of pixels with the same class id, 0 for another
    size) of the frames that both have a mask of; ``only_before`` and ``only_now`` are the stamps
    of those that one of them has a mask of.
    """

    shares: list[tuple[int, float]]
    only_before: list[int]
    only_now: list[int]
    changes: list[Change]

    @property
    def mean(self) -> float:
        """Mean share; NaN without frames."""
        shares = [share for _, share in self.shares]
        return sum(shares) / len(shares) if shares else math.nan

    @property
    def min(self) -> float:
        """Smallest share; NaN without frames."""
        return min((share for _, share in self.shares), default=math.nan)


def _masks(path: Path, namespace: str) -> Iterator[tuple[Key, Any]]:
    key = Counted()
    for _, message in read_output(path, 'output/mask', namespace):
        yield key(nanoseconds(message.header.stamp)), message


def _ends(path: Path, namespace: str) -> dict[Key, tuple[int, str]]:
    """Give exit and stop reason of every frame that did not fail."""
    key = Counted()
    return {
        key(nanoseconds(status.header.stamp)): (
            int(status.exit_index),
            StopReason(status.stop_reason).name,
        )
        for _, status in read_output(path, 'output/status', namespace)
        if status.stop_reason != StopReason.FAILED
    }


def check(path: Path, namespace: str = NAMESPACE) -> None:
    """
    Make sure that a file can be compared with.

    :raises FileNotFoundError: if it is missing.
    :raises ValueError: if it is no output bag.
    """
    for topic in ('output/mask', 'output/status'):
        next(read_output(path, topic, namespace), None)


def compare(now: Path, before: Path, namespace: str = NAMESPACE) -> Agreement:
    """
    Compare two output bags; one mask of each is in memory at a time.

    :param namespace: of the topics in both.
    :raises FileNotFoundError: if one is missing.
    :raises ValueError: if one is no output bag, or their common frames come in another order.
    """
    keys_before, keys_now = (
        dict.fromkeys(key for key, _ in _masks(path, namespace)) for path in (before, now)
    )
    common = keys_before.keys() & keys_now.keys()
    shares = []
    for (key, mine), (other_key, other) in zip(
        *(((k, m) for k, m in _masks(path, namespace) if k in common) for path in (now, before)),
        strict=True,
    ):
        if key != other_key:
            raise ValueError(f'{before}: expected the frames in the order of {now}')
        ids, other_ids = values_of(mine), values_of(other)
        same = float((ids == other_ids).mean()) if ids.shape == other_ids.shape else 0.0
        shares.append((key[0], same))
    ends_before, ends_now = _ends(before, namespace), _ends(now, namespace)
    return Agreement(
        shares,
        [key[0] for key in keys_before if key not in common],
        [key[0] for key in keys_now if key not in common],
        [
            Change(key[0], end, ends_now[key])
            for key, end in ends_before.items()
            if key in ends_now and end != ends_now[key]
        ],
    )


class Labels(NamedTuple):
    """Label files of a ``folder`` in the order of their names, and how they say the classes."""

    folder: Path
    files: list[Path]
    table: LabelTable


def open_labels(folder: Path, classes: ClassSet) -> Labels:
    """
    List label PNGs, numbers in names by value, and read the first.

    Where some are Cityscapes' ``*_labelIds.png`` or ``*_labelTrainIds.png``, only these are taken
    (the first kind if there are as many).

    :param folder: the files hold class ids, or what the ``classes.yaml`` in the folder that holds
        it, or beside, says; those of Cityscapes what their names say.
    :raises FileNotFoundError: if there are none.
    :raises ValueError: if the class file is of other classes, or the first label cannot be read.
    """
    found = [file for file in folder.glob('*') if file.suffix.lower() == '.png']
    files, form = _labels_among(found)
    files.sort(key=lambda file: by_number(file.stem))
    if not files:
        rest = f', found {len(found)} others, as {min(found).name}' if found else ''
        raise FileNotFoundError(f'expected a folder of label PNGs at {folder}{rest}')
    own = (_FORM, _PICTURE) if form else (_OWN_PICTURE,)
    taken = set(files)
    others = [f for f in found if f not in taken and not any(o.search(f.stem) for o in own)]
    if others:
        _LOG.warning('%s: left out %d PNGs that are no *_%s', folder, len(others), form)
    values = CITYSCAPES_FORMS.get(form) if classes == CITYSCAPES else None
    table = table_for(classes, folder.resolve().parent, values)
    table.read(files[0])
    return Labels(folder, files, table)


def _labels_among(found: Sequence[Path]) -> tuple[list[Path], str]:
    """Choose the labels among PNGs, and give the form of Cityscapes that they have, or ''."""
    forms = {f: [p for p in found if p.stem.endswith(f'_{f}')] for f in CITYSCAPES_FORMS}
    form = max(forms, key=lambda each: len(forms[each]))  # the first of equals
    if forms[form]:
        return forms[form], form
    return [file for file in found if not _OWN_PICTURE.search(file.stem)], ''


def judge(
    output: Path,
    records: Sequence[FrameRecord],
    labels: Labels,
    by_stamp: bool,
    namespace: str = NAMESPACE,
    scale: int = 1,
) -> NDArray[np.int64]:
    """
    Judge the published masks of labelled frames.

    :param records: of all frames.
    :param labels: values that are no class are not judged.
    :param by_stamp: files are named by the frame's stamp in nanoseconds; else the n-th file,
        numbers in names by value, is of the n-th frame received.
    :param scale: pixels of a label for one of the masks, along an edge.
    :return: (K, K) counts of (labelled class, predicted class).
    :raises ValueError: if there are more labels than frames, one has another size than its mask,
        or none is of a frame with a mask.
    """
    folder, files, table = labels
    if by_stamp:
        named = {_FORM.sub('', file.stem): file for file in files}
        of_frame = {r.number: named.get(str(r.stamp_ns)) for r in records}
    else:
        if len(files) > len(records):
            raise ValueError(f'{folder}: {len(files)} labels for {len(records)} frames')
        of_frame = dict(enumerate(files))
    confusion = Confusion(table.classes.count)
    key = Counted()
    places = {key(record.stamp_ns): record.number for record in records if record.has_mask}
    judged = 0
    for place, message in _masks(output, namespace):
        file = of_frame.get(places.get(place, -1))
        if file is not None:
            mask = values_of(message)
            label = scaled(table.read(file), scale)
            if label.shape != mask.shape:
                raise ValueError(
                    f'{file}: expected the size of its mask, {mask.shape[1]}x{mask.shape[0]}'
                    + (f' times {scale}' if scale > 1 else '')
                    + f', got {label.shape[1]}x{label.shape[0]}'
                )
            confusion.add(label, mask)
            judged += 1
    if math.isnan(confusion.mean_iou()):
        raise ValueError(f'{folder}: expected labels of frames with a mask, {judged} fit')
    return confusion.matrix
