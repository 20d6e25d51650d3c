"""Class sets: the orders that data sets and messages rely on."""

from __future__ import annotations

import numpy as np
import pytest

from adpc_ros.labels import (
    CAMVID,
    CITYSCAPES,
    CLASS_SETS,
    IGNORE_ID,
    PASCAL_CONTEXT,
    ClassSet,
    by_name,
)


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
