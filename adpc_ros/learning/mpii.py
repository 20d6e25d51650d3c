# SPDX-License-Identifier: Apache-2.0
"""
MPII Human Pose, in HRNet's form (JSON) or as it is published (.mat).

Sources: Andriluka, Pishchulin, Gehler, Schiele 2014; windows around people and the order of the
joints as in the released HRNet for poses (arXiv:1902.09212).
"""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adpc_ros.learning.choices import chosen_images, parts_of
from adpc_ros.learning.people import JOINTS, Joints, People, Person, Truth
from adpc_ros.yaml_file import read_data

KIND = 'mpii'
_LOG = logging.getLogger(__name__)
_PUBLISHED = 'mpii_human_pose_v1_u12_1.mat'
_FOLDERS = ('', 'mpii_human_pose_v1_u12_2', 'annot')  # that it may lie in
_PIXELS = 200  # of a person of scale 1, by the definition of the data
_SCALES = (1e-3, 1e3)  # far beyond what any person has
_FARTHEST = 1e6  # pixels, likewise of a position
_LARGER, _LOWER = 1.25, 15  # the window, so that it cuts no limbs off; pixels of scale 1
_NUMBERS = 'biuf'  # kinds of NumPy's types
_CODES = {  # of dataset_joints in HRNet's ground truth
    **{'rank': 0, 'rkne': 1, 'rhip': 2, 'lhip': 3, 'lkne': 4, 'lank': 5, 'head': 9},
    **{'rwri': 10, 'relb': 11, 'rsho': 12, 'lsho': 13, 'lelb': 14, 'lwri': 15},
}


def open_people(description: str, judged: bool = False) -> People:
    """
    Open MPII by a description, as recipes and the command line have it.

    :param description: ``mpii:FOLDER/SPLIT``; after a ``?`` what to choose of it, joined by ``&``:
        ``drives=A,B``, ``without=A,B`` and ``list=FILE``, by the names of images.
    :param judged: predictions will be judged: what it takes must be there.
    :raises ValueError: for another form, or whatever is wrong with the data.
    """
    place, parts = parts_of(description)
    kind, _, folder = place.partition(':')
    if kind != KIND or not Path(folder).name:
        raise ValueError(f'expected {KIND}:FOLDER/SPLIT, got {description!r}')
    root, split = Path(folder).parent, Path(folder).name
    listed = root / 'annot' / f'{split}.json'
    places = (root / folder / _PUBLISHED for folder in _FOLDERS)
    published = next(filter(Path.exists, places), None)
    if listed.exists():
        people = _from_json(root, listed)
    elif published is not None:
        people = _from_mat(root, published, split)
    else:
        raise ValueError(f'annotations not found: expected {listed} or {root / _PUBLISHED}')
    for part in parts:
        wanted = chosen_images(part, people.images)
        if wanted is None:
            raise ValueError(
                f'{description}: expected drives=, without= or list= with a value, got {part!r}'
            )
        people.keep(wanted, part)
    if judged and (count := sum(person.truth is None for person in people.people)):
        where = root / 'annot' / f'gt_{split}.mat' if listed.exists() else published
        raise ValueError(
            f'nothing to judge {count} of {len(people)} people by: expected the boxes of their '
            f'heads in {where}'
        )
    return people


def _window(x: float, y: float, scale: float) -> tuple[tuple[float, float], float]:
    """Give centre and edge of the window of a person, whose position counts from 1."""
    if not _SCALES[0] <= scale <= _SCALES[1]:
        raise ValueError(f'expected a scale from {_SCALES[0]:g} to {_SCALES[1]:g}, got {scale:g}')
    if max(abs(x), abs(y)) > _FARTHEST:
        raise ValueError(
            f'expected a position of at most {_FARTHEST:g} pixels on either axis, '
            f'got ({x:g}, {y:g})'
        )
    return (x - 1, y + _LOWER * scale - 1), scale * _LARGER * _PIXELS


# HRNet's form


def _from_json(root: Path, path: Path) -> People:
    try:
        entries = json.loads(read_data(path))
    except (RecursionError, ValueError) as error:
        raise ValueError(f'cannot read {path}: expected JSON ({error})') from error
    if not isinstance(entries, list):
        raise ValueError(f'{path}: expected a list of people, got {type(entries).__name__}')
    truths = _truths(path.with_name(f'gt_{path.stem}.mat'), len(entries))
    people = []
    for index, entry in enumerate(entries):
        try:
            person = _person(root, entry)
        except ValueError as error:
            raise ValueError(f'{path}: entry {index}: {error}') from error
        people.append(person._replace(truth=truths[index]))
    return People(people, path)


def _person(root: Path, entry: object) -> Person:
    if not isinstance(entry, Mapping):
        raise ValueError(f'expected keys and values, got {entry!r:.80}')
    if missing := {'image', 'center', 'scale', 'joints', 'joints_vis'} - entry.keys():
        raise ValueError(f'missing keys {sorted(missing)}')
    if not isinstance(entry['image'], str) or not Path(entry['image']).name:
        raise ValueError(f'expected the name of an image, got {entry["image"]!r:.80}')
    count = JOINTS.count
    (scale,) = _numbers(entry, 'scale', (1,))
    x, y = _numbers(entry, 'center', (2,))
    if scale <= 0:
        raise ValueError(f'expected a scale above 0, got {scale:g}')
    known = _numbers(entry, 'joints_vis', (count,)) > 0
    places = _numbers(entry, 'joints', (count, 2)) - 1
    return Person(root / 'images' / entry['image'], *_window(x, y, scale), Joints(places, known))


def _numbers(values: Mapping[str, Any], key: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Give an array of an entry; of the shape (1,) also a single number."""
    try:
        found = np.asarray(values[key])
    except ValueError:  # lists of several lengths
        found = np.empty(0)
    shapes = (shape, ()) if shape == (1,) else (shape,)
    numbers = found.shape in shapes and found.dtype.kind in _NUMBERS
    if not (numbers and np.isfinite(found).all()):
        raise ValueError(f'expected finite numbers {shape} as {key}, got {values[key]!r:.80}')
    return found.astype(np.float64).reshape(shape)


def _truths(path: Path, count: int) -> Sequence[Truth | None]:
    """Read HRNet's ground truth for each of so many people; None for each if there is none."""
    if not path.exists():
        return [None] * count
    content = _loadmat(path)
    shapes = {
        'jnt_missing': (JOINTS.count, count),
        'pos_gt_src': (JOINTS.count, 2, count),
        'headboxes_src': (2, 2, count),
    }
    found = {}
    for key, shape in shapes.items():
        value = content.get(key)
        array = np.array([] if value is None else value)
        # MATLAB drops a last axis of 1
        possible = (shape, shape[:-1]) if count == 1 else (shape,)
        if array.shape not in possible or array.dtype.kind not in _NUMBERS:
            got = 'nothing' if value is None else f'{array.shape} of {array.dtype}'
            raise ValueError(f'{path}: expected numbers {shape} as {key}, got {got}')
        found[key] = array.astype(np.float64).reshape(shape)
    names = np.ravel(content.get('dataset_joints', []))
    for index, name in enumerate(str(np.squeeze(cell)) for cell in names):
        if _CODES.get(name, index) != index:
            raise ValueError(f'{path}: expected {name} as joint {_CODES[name]}, got {index}')
    missing, places, boxes = found.values()
    truths = []
    for i in range(count):
        joints = Joints(places[..., i] - 1, missing[:, i] == 0)
        try:
            truths.append(_truth(joints, boxes[1, :, i] - boxes[0, :, i]))
        except ValueError as error:
            raise ValueError(f'{path}: person {i}: {error}') from error
    return truths


def _truth(joints: Joints, diagonal: Sequence[float] | NDArray[np.float64]) -> Truth:
    """Join joints and the diagonal (x, y) of the head's box, in pixels."""
    head = math.hypot(*diagonal)
    if not (math.isfinite(head) and head > 0):
        raise ValueError(f'expected a box of the head with a diagonal above 0, got {head:g}')
    if not np.isfinite(joints.places[joints.known]).all():
        raise ValueError('expected finite places of all joints that are not missing')
    return Truth(joints, head)


# the published form


def _from_mat(root: Path, path: Path, split: str) -> People:
    if split != 'train':
        raise ValueError(
            f'{path}: expected {KIND}:{root}/train, the only images with joints '
            f'(list= chooses of them), got {KIND}:{root}/{split}'
        )
    release = _loadmat(path, squeeze_me=True, struct_as_record=False).get('RELEASE')
    images, train = _items(release, 'annolist'), _items(release, 'img_train')
    if not images or len(images) != len(train):
        raise ValueError(
            f'{path}: expected RELEASE with as many annolist as img_train, '
            f'got {len(images)} and {len(train)}'
        )
    people, left_out = [], Counter[str]()
    for index, (image, used) in enumerate(zip(images, train)):
        for rect in _items(image, 'annorect') if used else ():
            try:
                name = str(_single(_single(image, 'image'), 'name'))
                points = _items(_single(rect, 'annopoints', None), 'point')
                position = _single(rect, 'objpos', None)
                scale = _number(_single(rect, 'scale', 0), 'scale')
                if not points or position is None or scale <= 0:
                    left_out['joints' if not points else 'position or scale'] += 1
                    continue
                window = _window(*_place(position), scale)
                joints = _joints(points)
                truth = _truth_of(rect, joints)
            except ValueError as error:
                raise ValueError(f'{path}: annolist {index + 1}: {error}') from error
            people.append(Person(root / 'images' / name, *window, joints, truth))
    for what, count in left_out.items():
        _LOG.warning('%s: left out %d people without %s', path, count, what)
    return People(people, path)


def _joints(points: list[Any]) -> Joints:
    """Give the joints that are annotated, hidden ones (``is_visible`` 0) among them."""
    places, known = np.zeros((JOINTS.count, 2)), np.zeros(JOINTS.count, np.bool_)
    for point in points:
        index = _number(_single(point, 'id'), 'id')
        if index not in range(JOINTS.count):
            raise ValueError(f'expected ids of joints from 0 to {JOINTS.count - 1}, got {index:g}')
        places[int(index)], known[int(index)] = np.array(_place(point)) - 1, True
    return Joints(places, known)


def _truth_of(rect: object, joints: Joints) -> Truth | None:
    corners = [_single(rect, key, None) for key in ('x1', 'y1', 'x2', 'y2')]
    if any(corner is None for corner in corners):
        return None
    x1, y1, x2, y2 = (_number(corner, 'box of the head') for corner in corners)
    return None if (x1, y1) == (x2, y2) else _truth(joints, (x2 - x1, y2 - y1))


def _place(value: object) -> tuple[float, float]:
    return _number(_single(value, 'x'), 'x'), _number(_single(value, 'y'), 'y')


_REQUIRED = object()


def _items(struct: object, field: str) -> list[Any]:
    """Give a field as a list; MATLAB has no field, an empty one, a single struct or many."""
    value = getattr(struct, field, None)
    if value is None:
        return []
    return list(np.ravel(value)) if isinstance(value, np.ndarray) else [value]


def _single(struct: object, field: str, default: object = _REQUIRED) -> Any:
    """Give a field that holds one value."""
    items = _items(struct, field)
    if len(items) == 1:
        return items[0]
    if not items and default is not _REQUIRED:
        return default
    raise ValueError(f'expected one {field}, got {len(items)}')


def _number(value: object, name: str) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f'expected a finite number as {name}, got {value!r:.80}')
    return number


def _loadmat(path: Path, **options: bool) -> dict[str, Any]:
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ValueError(
            f'{path}: expected SciPy, which reads .mat files ({error}): '
            'pip install scipy, as pyproject.toml pins it'
        ) from error
    try:
        content: dict[str, Any] = loadmat(path, **options)
    except Exception as error:  # of broken files it raises nearly anything
        raise ValueError(f'cannot read {path}: expected a MATLAB file ({error})') from error
    return content
