# SPDX-License-Identifier: Apache-2.0
"""Class sets: the orders that data sets and messages rely on; and how label files say them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from adpc_ros.class_file import read_classes, table_for
from adpc_ros.label_table import LabelTable
from adpc_ros.labels import (
    CAMVID,
    CITYSCAPES,
    CLASS_SETS,
    IGNORE_ID,
    PASCAL_CONTEXT,
    ClassSet,
    by_name,
)
from adpc_ros.replay.agreement import open_labels


def test_counts_are_those_of_the_data_sets() -> None:
    assert [classes.count for classes in (CITYSCAPES, CAMVID, PASCAL_CONTEXT)] == [19, 11, 59]


def test_camvid_order_is_that_of_its_label_files() -> None:
    assert CAMVID.names == (
        'sky', 'building', 'pole', 'road', 'pavement', 'tree', 'sign', 'fence', 'car',
        'pedestrian', 'bicyclist',
    )  # fmt: skip


def test_cityscapes_order_is_that_of_the_train_ids() -> None:
    ids = {'road': 0, 'traffic light': 6, 'sky': 10, 'car': 13, 'bicycle': 18}
    assert {name: CITYSCAPES.id_of(name) for name in ids} == ids


@pytest.mark.parametrize('classes', CLASS_SETS, ids=lambda classes: classes.name)
def test_colours_tell_all_classes_and_unlabelled_apart(classes: ClassSet) -> None:
    assert len({*classes.colours, (0, 0, 0)}) == classes.count + 1


@pytest.mark.parametrize('classes', CLASS_SETS, ids=lambda classes: classes.name)
def test_colourise_paints_each_class_and_leaves_the_rest_black(classes: ClassSet) -> None:
    ids = np.arange(256, dtype=np.uint8).reshape(16, 16)
    painted = classes.colourise(ids)
    assert painted.shape == (16, 16, 3)
    assert painted.dtype == np.uint8
    assert [tuple(c) for c in painted.reshape(-1, 3)[: classes.count]] == list(classes.colours)
    assert not painted.reshape(-1, 3)[classes.count :].any()


def test_unlabelled_is_no_class() -> None:
    assert all(classes.count <= IGNORE_ID for classes in CLASS_SETS)


@pytest.mark.parametrize('ids', [np.zeros((2, 2), np.int64), np.zeros((1, 2, 2), np.uint8)])
def test_colourise_refuses_what_is_no_mask(ids: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r'expected class ids as \(H, W\) uint8'):
        CAMVID.colourise(ids)


def test_by_name_finds_every_set() -> None:
    assert [by_name(classes.name) for classes in CLASS_SETS] == list(CLASS_SETS)


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match='kitti.*cityscapes, camvid, pascal_context'):
        by_name('kitti')
    with pytest.raises(ValueError, match='no class .dog.*bicyclist'):
        CAMVID.id_of('dog')


def test_people_are_vulnerable_and_the_mark_makes_no_other_set() -> None:
    assert [classes.vulnerable for classes in CLASS_SETS] == [
        ('person', 'rider'),
        ('pedestrian', 'bicyclist'),
        ('person',),
    ]
    assert ClassSet(CAMVID.name, CAMVID.names, CAMVID.colours) == CAMVID
    with pytest.raises(ValueError, match='expected vulnerable classes of the set, got person'):
        ClassSet(CAMVID.name, CAMVID.names, CAMVID.colours, ('person',))


@pytest.mark.parametrize(
    ('names', 'colours', 'complaint'),
    [
        (('a', 'b'), ((1, 2, 3),), 'one colour for each'),
        (('a', 'a'), ((1, 2, 3), (4, 5, 6)), 'there twice'),
        (('a',), ((1, 2, 256),), 'three values in 0..255'),
        ((), (), '1 to 255 classes'),
    ],
)
def test_a_set_that_does_not_fit_is_refused(
    names: tuple[str, ...], colours: tuple[tuple[int, int, int], ...], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        ClassSet('broken', names, colours)


# label files


def write_class_file(folder: Path, text: str | bytes) -> Path:
    path = folder / 'classes.yaml'
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def write_label(folder: Path, values: list[Any], dtype: type = np.uint8) -> Path:
    path = folder / 'a.png'
    Image.fromarray(np.array([values], dtype)).save(path)
    return path


TWO = 'name: mine\nnames: [ground, thing]\n'
COLOURS = "colours: [[128, 64, 128], '#0000E6']\n"
BROWN, BLUE, BLACK, PINK = (128, 64, 128), (0, 0, 230), (0, 0, 0), (255, 0, 200)
NONE = IGNORE_ID


@pytest.mark.parametrize(
    ('text', 'values', 'ids'),
    [
        (TWO, [0, 1, 2, 255], [0, 1, NONE, NONE]),
        (f'{TWO}values: {{3: ground, 8: thing, 9: thing}}', [3, 8, 9, 0], [0, 1, 1, NONE]),
        ('name: a\nnames: {8: thing, 3: ground}', [3, 8, 0, 1], [0, 1, NONE, NONE]),
        (f'{TWO}values: {{255: thing}}', [0, 1, 255], [NONE, NONE, 1]),
        (f'{TWO}values: red', [(0, 9, 9), (1, 0, 0), (2, 0, 0)], [0, 1, NONE]),
        (f'{TWO}values: red', [(1, 0, 0, 0), (0, 0, 0, 255)], [1, 0]),
        ('name: a\nnames: {1: road, 24: line}\nvalues: red', [(24, 0, 0), (0, 0, 0)], [1, NONE]),
        (f'{TWO}values: {{red: {{7: ground, 8: ground}}}}', [(7, 0, 0), (8, 0, 0)], [0, 0]),
        (TWO + COLOURS, [BROWN, BLUE, BLACK, PINK], [0, 1, NONE, NONE]),
        (TWO + COLOURS, [(*BLUE, 255), (*BROWN, 0)], [1, 0]),
        (TWO + COLOURS, [0, 1, 2], [0, 1, NONE]),
        (
            TWO + "values: {'#ff00c8': ground, '#804080': ground, '#000000': thing}",
            [PINK, BROWN, BLACK, BLUE],
            [0, 0, 1, NONE],
        ),
        (TWO + "values: {4: thing, '#ff00c8': ground}", [PINK, BLACK], [0, NONE]),
        (TWO + "values: {4: thing, '#ff00c8': ground}", [4, 0], [1, NONE]),
    ],
)
def test_labels_are_read_as_the_class_file_says(
    tmp_path: Path, text: str, values: list[Any], ids: list[int]
) -> None:
    table = read_classes(write_class_file(tmp_path, text))
    found = table.read(write_label(tmp_path, values), (1, len(values)))
    assert found.dtype == np.uint8 and found.tolist() == [ids]


def test_ids_of_16_bits_are_mapped_and_what_is_out_of_range_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = f'{TWO}values: {{257: ground, 26000: thing}}\nunlabelled: [0]'
    table = read_classes(write_class_file(tmp_path, text))
    label = write_label(tmp_path, [257, 26000, 0, 1, 26001], np.uint16)
    for _ in range(2):
        assert table.read(label).tolist() == [[0, 1, NONE, NONE, NONE]]
    assert caplog.messages == [
        f'{label}: taken as unlabelled, since {tmp_path}/classes.yaml has no class for 1, 26001'
    ]


def test_what_is_known_to_be_unlabelled_is_not_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = TWO + COLOURS + "unlabelled: [7, '#ff00c8']"
    table = read_classes(write_class_file(tmp_path, text))
    assert table.read(write_label(tmp_path, [7, 255, 1])).tolist() == [[NONE, NONE, 1]]
    assert table.read(write_label(tmp_path, [PINK, BLACK])).tolist() == [[NONE, NONE]]
    assert LabelTable(CAMVID).read(write_label(tmp_path, [11, 10])).tolist() == [[NONE, 10]]
    assert not caplog.messages
    table.read(write_label(tmp_path, [(1, 2, 3), BROWN]))
    assert caplog.messages[0].endswith('has no class for #010203')


@pytest.mark.parametrize(
    ('text', 'values', 'message'),
    [
        (TWO, [BROWN], r'expected ids, .* got mode RGB \(.*classes\.yaml\)'),
        (TWO, [(*BROWN, 255)], 'expected ids, .* got mode RGBA'),
        (f'{TWO}values: red', [1], 'expected RGB with ids in the red channel, got mode L'),
        (TWO + "values: {'#ff00c8': thing}", [1], 'expected the colours of values, .* mode L'),
        (TWO, [0, 1, 1], 'expected the size of its image, 1x1, got 3x1'),
        (
            TWO + 'colours: [[1, 2, 3], [1, 2, 3]]',
            [BROWN],
            r'classes\.yaml: .* got #010203 for ground and thing',
        ),
    ],
)
def test_a_label_of_another_kind_is_named(
    tmp_path: Path, text: str, values: list[Any], message: str
) -> None:
    table = read_classes(write_class_file(tmp_path, text))
    with pytest.raises(ValueError, match=message):
        table.read(write_label(tmp_path, values), (1, 1))


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('name: a', 'expected the keys name and names'),
        ('- a', r"expected keys and values, got \['a'\]"),
        (f'{TWO}colors: []', r"unknown keys \['colors'\]: expected name, names, colours"),
        ('name: a\nnames: [a, a]', "class set 'a': a class name is there twice"),
        ('name: a\nnames: {1: a, 1: b}', 'the key 1 is there twice'),
        ('name: a\nnames: {1: a, 2: a}', 'a class name is there twice'),
        ('name: a\nnames: abc', "names: expected a list, or ids and names, got 'abc'"),
        ('name: a\nnames: []', 'expected 1 to 255 classes, got 0'),
        ("name: a\nnames: ['']", 'names: expected texts, got an empty one'),
        ('name: a\nnames: [yes, no]', r'names\[0\]: expected a text, got true \(unquoted yes'),
        ('name: a\nnames: [a, null]', r'names\[1\]: expected a text, got null'),
        ('name: a\nnames: [a, 2]', r'names\[1\]: expected a text, got 2'),
        ('name: a\nnames: {0.9: a}', r'names: expected a whole number, got 0\.9'),
        ("name: a\nnames: {'1': a}", "names: expected a whole number, got the text '1'"),
        ('name: a\nnames: {true: a}', 'names: expected a whole number, got true'),
        ('name: a\nnames: {-1: a}', r'names: expected ids in 0\.\.65535, got -1'),
        ('name: 3\nnames: [a]', 'name: expected a text, got 3'),
        (f'{TWO}values: {{3: nothing}}', "has no class 'nothing'"),
        (f'{TWO}values: {{70000: thing}}', r'values: expected ids in 0\.\.65535, got 70000'),
        (f'{TWO}values: {{0.9: thing}}', r'values: expected a whole number, got 0\.9'),
        (f'{TWO}values: {{1: no}}', 'values: 1: expected a text, got false'),
        (f'{TWO}values: [1]', r'values: expected values and class names, or red, got \[1\]'),
        (f'{TWO}values: blue', "values: expected values and class names, or red, got 'blue'"),
        (f'{TWO}values: {{3: thing, 3: ground}}', 'the key 3 is there twice'),
        (f"{TWO}values: {{'#00ff00': thing, '#00FF00': ground}}", '#00FF00 is there twice'),
        (f'{TWO}values: {{green: thing}}', "expected ids, or colours as '#804080', got 'green'"),
        (f"{TWO}values: {{red: {{'#00ff00': thing}}}}", 'expected ids in red, got colours'),
        ('name: a\nnames: {3: a}\nvalues: {4: a}', 'in names or in values, got them in both'),
        (f'{TWO}vulnerable: [person]', 'expected vulnerable classes of the set, got person'),
        (f'{TWO}vulnerable: thing', "vulnerable: expected a list, got the text 'thing'"),
        (f'{TWO}vulnerable: no', 'vulnerable: expected a list, got false'),
        (f'{TWO}colours: [[1, 2, 3]]', 'expected one colour for each of the 2 names'),
        (f'{TWO}colours: [[1, 2, 3], [1, 2]]', r'colours\[1\]: expected 3 values, got \[1, 2\]'),
        (f'{TWO}colours: [[1, 2, 3], [1, 2, 256]]', r'values in 0\.\.255, got \(1, 2, 256\)'),
        (f'{TWO}colours: [[1, 2, 0.5], [1, 2, 3]]', r'colours\[0\]\[2\]: expected a whole number'),
        (f'{TWO}colours: [[1, 2, yes], [1, 2, 3]]', r'colours\[0\]\[2\]: expected a whole number'),
        (
            f"{TWO}colours: ['#12345', '#123456']",
            r"colours\[0\]: expected \[128, 64, 128\] or '#804080', got '#12345'",
        ),
        (f'{TWO}colours: [[1, 2, 3], 7]', r"colours\[1\]: expected \[.*\] or '#804080', got 7"),
        (f'{TWO}colours: red', "colours: expected a list, in the order of names, got 'red'"),
        (f'{TWO}unlabelled: 7', 'unlabelled: expected a list, got 7'),
        (f'{TWO}unlabelled: [1]', 'unlabelled: 1 is of a class'),
        ('name: a\nnames: [Straße]'.encode('latin-1'), 'expected YAML in UTF-8'),
    ],
)
def test_a_wrong_class_file_says_what(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = write_class_file(tmp_path, text)
    with pytest.raises(ValueError, match=f'(?s){path}: .*{message}'):
        read_classes(path)


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16'])
def test_a_class_file_may_be_in_any_encoding_of_yaml(tmp_path: Path, encoding: str) -> None:
    path = write_class_file(tmp_path, 'name: a\r\nnames: [Straße]\r\n'.encode(encoding))
    assert read_classes(path).classes.names == ('Straße',)


def test_labels_of_camvid_are_read_for_a_replay_as_by_its_data_set(tmp_path: Path) -> None:
    label = write_label(tmp_path, [(64, 0, 64), (0, 0, 192), BLACK])
    building, pavement = CAMVID.id_of('building'), CAMVID.id_of('pavement')
    found = open_labels(tmp_path, CAMVID)
    assert found.table.read(label).tolist() == [[building, pavement, NONE]]


def write_cityscapes(folder: Path, *forms: str) -> list[str]:
    """Write labels of two images in forms of Cityscapes; gives the names of those last written."""
    names = [[f'{image}_gtFine_{form}.png' for image in 'ab'] for form in forms]
    for name in sum(names, []):
        write_label(folder, [BROWN] if 'color' in name else [7, 8]).rename(folder / name)
    return names[-1]


@pytest.mark.parametrize(
    ('forms', 'ids'),
    [
        (['labelIds'], [0, 1]),
        (['color', 'instanceIds', 'labelTrainIds', 'labelIds'], [0, 1]),
        (['color', 'instanceIds', 'labelTrainIds'], [7, 8]),
    ],
)
def test_labels_of_cityscapes_are_read_as_their_names_say(
    tmp_path: Path, forms: list[str], ids: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    names = write_cityscapes(tmp_path, *forms)
    found = open_labels(tmp_path, CITYSCAPES)
    assert [file.name for file in found.files] == names
    assert found.table.read(found.files[0]).tolist() == [ids]
    assert not caplog.messages
    write_label(tmp_path, [0])
    assert open_labels(tmp_path, CITYSCAPES).files == found.files
    (warning,) = caplog.messages
    assert warning == f'{tmp_path}: left out 1 PNGs that are no *_{forms[-1]}'


def test_training_ids_of_cityscapes_are_taken_where_label_ids_are_missing(tmp_path: Path) -> None:
    names = write_cityscapes(tmp_path, 'labelIds', 'labelTrainIds')
    (tmp_path / 'b_gtFine_labelIds.png').unlink()
    found = open_labels(tmp_path, CITYSCAPES)
    assert [file.name for file in found.files] == names
    assert found.table.read(found.files[0]).tolist() == [[7, 8]]


def test_pictures_of_cityscapes_are_no_labels(tmp_path: Path) -> None:
    write_cityscapes(tmp_path, 'color', 'instanceIds')
    with pytest.raises(FileNotFoundError, match='label PNGs at .*4 others, as a_gtFine_color.png'):
        open_labels(tmp_path, CITYSCAPES)


def test_labels_of_a_network_are_read_by_their_class_file(tmp_path: Path) -> None:
    mine = read_classes(write_class_file(tmp_path, f'{TWO}values: {{9: thing}}')).classes
    label = write_label(tmp_path, [9, 0])
    assert table_for(mine, tmp_path).read(label).tolist() == [[1, NONE]]
    with pytest.raises(ValueError, match='expected the classes of camvid, got those of mine'):
        table_for(CAMVID, tmp_path)
    (tmp_path / 'classes.yaml').unlink()
    assert table_for(mine, tmp_path).read(label).tolist() == [[NONE, 0]]
