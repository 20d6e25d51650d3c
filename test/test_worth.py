# SPDX-License-Identifier: Apache-2.0
"""What the exits are worth, and which one is advised for that."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from adpc_ros.labels import CAMVID, ClassSet
from adpc_ros.learning.evaluate import Evaluation
from adpc_ros.learning.worth import exit_times_of, worth_of
from adpc_ros.network.worth import ExitTimes, Worth

CLASSES = ClassSet(
    'street', ('road', 'walker', 'rider'), ((1, 2, 3), (4, 5, 6), (7, 8, 9)), ('walker', 'rider')
)


@pytest.mark.parametrize(
    ('iou', 'advised'),
    [
        ([(0.9, 0.0, 0.5), (0.9, 0.1, 0.5), (0.9, 0.2, 0.6)], 2),
        ([(0.9, 0.1, 0.1), (0.9, 0.0, 0.5)], 1),
        ([(0.9, 0.5, 0.0999), (0.9, 0.5, 0.05), (0.9, 0.5, 0.09)], 3),  # none of them will do
        ([(0.9, 0.0, None), (0.9, 0.3, None)], 2),  # who does not occur is not judged
        ([(0.9, None, None), (0.9, None, None)], 1),
    ],
)
def test_the_first_exit_that_sees_all_vulnerable_classes_is_advised(
    iou: list[tuple[float | None, ...]], advised: int
) -> None:
    assert Worth('x', tuple(iou)).advised_exit(CLASSES) == advised


def test_a_set_without_vulnerable_classes_has_the_first_exit_advised() -> None:
    unmarked = dataclasses.replace(CLASSES, vulnerable=())
    assert Worth('x', ((0.1, 0.0, 0.0), (0.9, 0.9, 0.9))).advised_exit(unmarked) == 1


def test_it_is_said_in_a_line_for_each_exit() -> None:
    worth = Worth('camvid:val', ((0.8, 0.0012, None), (0.9, 0.25, None)))
    assert worth.described(CLASSES) == [
        'exit 1: IoU, %: mean 40.1, walker 0.1',
        'exit 2: IoU, %: mean 57.5, walker 25.0',
        'not known of: rider (not in camvid:val)',
        'advised: exit 2 and later (judged on camvid:val)',
    ]
    unknown = Worth('camvid:val', ((0.8, None, None), (0.9, None, None)))
    assert unknown.described(CLASSES)[2:] == ['not known of: walker, rider (not in camvid:val)']


def test_the_values_are_those_of_the_classes_by_name() -> None:
    iou = [0.5] * CAMVID.count
    iou[CAMVID.id_of('pedestrian')] = 0.01
    (first,) = Worth('x', (tuple(iou),)).of_vulnerable(CAMVID)
    assert first == {'pedestrian': 0.01, 'bicyclist': 0.5}


def test_a_class_that_is_not_labelled_is_worth_nothing_known() -> None:
    matrix = np.zeros((2, 1, 3, 3), np.int64)  # two exits, one image, three classes
    matrix[0, 0, 0] = (6, 0, 2)  # of class 0; what is taken for class 2 is labelled nowhere
    matrix[1, 0, 0] = (8, 0, 0)
    matrix[:, 0, 1, 1] = 4
    seconds = np.array([[0.1, 0.3], [0.2, 0.4], [0.2, 0.5]])
    evaluation = Evaluation(matrix, [], [], [], seconds, [], computed_by='by hand')
    assert worth_of(evaluation, 'x') == Worth('x', ((0.75, 1.0, None), (1.0, 1.0, None)))
    assert exit_times_of(evaluation, (3, 4), 2) == ExitTimes((0.2, 0.2), '3x4, by hand, 2 threads')
