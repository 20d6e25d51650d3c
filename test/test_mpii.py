# SPDX-License-Identifier: Apache-2.0
"""MPII's two forms are read alike; windows, heat maps and PCKh are what they say."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from figures import Figure, draw, rect_of, write_hrnet, write_images, write_published, write_truth
from numpy.typing import NDArray
from torch import Tensor

from adpc_ros.learning import heat_maps
from adpc_ros.learning.heat_maps import apply, cut, invert, peaks, targets, unmirrored
from adpc_ros.learning.mpii import open_people
from adpc_ros.learning.people import JOINTS, MIRRORED, Joints, Person, Truth
from adpc_ros.learning.pose import heat_map_losses
from adpc_ros.learning.pose_metrics import Pckh
from adpc_ros.learning.tasks import task_of
from adpc_ros.network.task import Task

FIGURES = [draw(seed) for seed in range(4)]


def assert_is(person: Person, figure: Figure, root: Path) -> None:
    """Compare a person with what was annotated, by MPII's conventions."""
    assert person.image.parent == root / 'images'
    # the window: lower by 15 pixels of scale 1, larger by a quarter; 200 pixels are scale 1
    x, y = figure.centre
    assert person.centre == pytest.approx((x, y + 15 * figure.scale))
    assert person.edge == pytest.approx(200 * 1.25 * figure.scale)
    assert person.truth is not None
    side = figure.box[2] - figure.box[0]
    assert person.truth.head == pytest.approx(math.hypot(side, side))
    for joints in (person.joints, person.truth.joints):
        np.testing.assert_array_equal(joints.known, figure.known)
        np.testing.assert_allclose(joints.places[figure.known], figure.joints[figure.known])


# files


def test_hrnets_form_is_read(tmp_path: Path) -> None:
    write_hrnet(tmp_path, 'valid', FIGURES)
    people = open_people(f'mpii:{tmp_path}/valid', judged=True)
    assert len(people) == 4
    for index, figure in enumerate(FIGURES):
        assert_is(people.people[index], figure, tmp_path)
        np.testing.assert_array_equal(people.image(index), figure.image)
    write_hrnet(tmp_path, 'train', FIGURES[:1], truth=False)
    assert open_people(f'mpii:{tmp_path}/train').people[0].truth is None
    with pytest.raises(ValueError, match='judge 1 of 1 people by: .*/gt_train.mat'):
        open_people(f'mpii:{tmp_path}/train', judged=True)
    assert people.digest() != open_people(f'mpii:{tmp_path}/train').digest()


@pytest.mark.parametrize('folder', ['', 'mpii_human_pose_v1_u12_2'])
def test_the_published_form_gives_the_same_people(
    tmp_path: Path, folder: str, caplog: pytest.LogCaptureFixture
) -> None:
    a, b, c, d = FIGURES
    names = write_images(tmp_path, FIGURES, 0)
    one_joint = {'point': rect_of(c)['annopoints']['point'][0]}
    rects = [
        (names[0], rect_of(a), 1),  # a single struct
        (names[1], np.array([rect_of(b), rect_of(c)], object), 1),  # several
        (names[1], np.array([]), 1),  # nobody
        ('gone.png', rect_of(a, annopoints=None), 0),  # of the test images
        (names[2], rect_of(c, annopoints=None), 1),  # without joints
        (names[2], rect_of(c, annopoints=np.array([])), 1),
        (names[2], rect_of(c, objpos=None), 1),  # without a position
        (names[2], rect_of(c, scale=np.array([])), 1),
        (names[2], rect_of(c, annopoints=one_joint), 1),  # a single point
        (names[3], rect_of(d, x1=None), 1),  # no box of the head
        (names[3], rect_of(d, x1=1, x2=1, y1=2, y2=2), 1),
    ]
    (tmp_path / folder).mkdir(exist_ok=True)
    write_published(tmp_path / folder, rects)
    people = open_people(f'mpii:{tmp_path}/train')
    assert [p.image.name for p in people.people] == [names[i] for i in (0, 1, 1, 2, 3, 3)]
    for person, figure in zip(people.people, (a, b, c)):
        assert_is(person, figure, tmp_path)
    assert people.people[3].joints.known.sum() == 1
    assert [p.truth for p in people.people[4:]] == [None, None]
    assert '2 people without joints' in caplog.text
    assert '2 people without position or scale' in caplog.text
    chosen = open_people(f'mpii:{tmp_path}/train?without={names[3][:-4]}', judged=True)
    assert len(chosen) == 4
    with pytest.raises(ValueError, match='judge 2 of 6 people by: .*_u12_1.mat'):
        open_people(f'mpii:{tmp_path}/train', judged=True)


def test_people_are_chosen_by_their_images(tmp_path: Path) -> None:
    write_hrnet(tmp_path, 'valid', FIGURES)
    (tmp_path / 'list.txt').write_text('images/000000101.png\n000000103\n')
    people = open_people(f'mpii:{tmp_path}/valid?list={tmp_path}/list.txt', judged=True)
    assert [p.image.stem for p in people.people] == ['000000101', '000000103']
    assert_is(people.people[1], FIGURES[3], tmp_path)  # the truth is chosen with them
    with pytest.raises(ValueError, match=r"expected drives=, .* got 'scale=2'"):
        open_people(f'mpii:{tmp_path}/valid?scale=2')
    with pytest.raises(ValueError, match='none of 4 images begins with b'):
        open_people(f'mpii:{tmp_path}/valid?drives=b')


def entries(root: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((root / 'annot' / 'valid.json').read_text())
    return found


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'joints': [[1, 2]] * 15}, r'expected finite numbers \(16, 2\) as joints, got'),
        ({'joints': [[1, 'a']] * 16}, 'as joints'),
        ({'joints': [list(range(16))] * 2}, r'\(16, 2\) as joints'),
        ({'center': [10**400, 1]}, 'as center'),
        ({'center': [1e300, 1]}, 'expected a position of at most 1e\\+06 pixels'),
        ({'scale': '0.4'}, "as scale, got '0.4'"),
        ({'scale': 1e-320}, 'expected a scale from 0.001 to 1000'),
        ({'joints': None}, 'as joints, got None'),
        ({'joints_vis': [1] * 17}, r'\(16,\) as joints_vis'),
        ({'center': [1]}, r'\(2,\) as center, got \[1\]'),
        ({'center': [1, float('nan')]}, 'as center'),
        ({'scale': -1.0}, 'expected a scale above 0, got -1'),
        ({'scale': [1, 2]}, 'as scale'),
        ({'image': 7}, 'expected the name of an image, got 7'),
        (
            {'image': 'gone.jpg'},
            r'image missing: expected .*/gone\.jpg, which .*valid\.json',
        ),
    ],
)
def test_a_wrong_entry_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write_hrnet(tmp_path, 'valid', FIGURES[:2])
    wrong = entries(tmp_path)
    wrong[1] |= changes
    path = tmp_path / 'annot' / 'valid.json'
    path.write_text(json.dumps(wrong))
    with pytest.raises(ValueError, match=message) as caught:
        open_people(f'mpii:{tmp_path}/valid')
    assert str(path) in str(caught.value)
    assert 'image' in changes or 'entry 1' in str(caught.value)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'[', 'expected JSON'),
        (b'\xff\xfe\x00', 'expected JSON'),
        (b'{}', 'expected a list of people, got dict'),
        (b'[]', 'nobody is annotated'),
        (b'[3]', 'entry 0: expected keys and values, got 3'),
        (b'[{"image": "a"}]', r"entry 0: missing keys \['center', 'joints', 'joints_vis', 'scale"),
    ],
)
def test_a_file_of_another_form_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / 'annot').mkdir()
    path = tmp_path / 'annot' / 'valid.json'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        open_people(f'mpii:{tmp_path}/valid')
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'pos_gt_src': np.ones((16, 2, 3))}, r'\(16, 2, 2\) as pos_gt_src, got \(16, 2, 3\)'),
        ({'pos_gt_src': np.ones((2, 16, 2))}, r'as pos_gt_src, got \(2, 16, 2\)'),
        ({'jnt_missing': np.ones((2, 16))}, r'\(16, 2\) as jnt_missing, got \(2, 16\)'),
        ({'headboxes_src': 'a'}, r'\(2, 2, 2\) as headboxes_src, got \(1,\)'),
        ({'headboxes_src': np.array(['abcdefgh'] * 8)}, 'as headboxes_src, got .* of <U'),
        ({'headboxes_src': np.ones((2, 2, 2))}, 'person 0: .* a diagonal above 0, got 0'),
        (
            {'headboxes_src': np.full((2, 2, 2), np.nan)},
            'person 0: .* above 0, got nan',
        ),
        ({'pos_gt_src': np.full((16, 2, 2), np.inf)}, 'person 0: expected finite places'),
        ({'dataset_joints': np.array([['head', 'rank']], object)}, 'head as joint 9, got 0'),
        (None, 'cannot read .* expected a MATLAB file'),
    ],
)
def test_a_wrong_ground_truth_is_named(
    tmp_path: Path, changes: dict[str, Any] | None, message: str
) -> None:
    write_hrnet(tmp_path, 'valid', FIGURES[:2])
    path = tmp_path / 'annot' / 'gt_valid.mat'
    if changes is None:
        path.write_bytes(b'nothing')
    else:
        write_truth(path, FIGURES[:2], **changes)
    with pytest.raises(ValueError, match=message) as caught:
        open_people(f'mpii:{tmp_path}/valid', judged=True)
    assert str(path) in str(caught.value)


def test_the_ground_truth_of_one_person_is_read(tmp_path: Path) -> None:
    write_hrnet(tmp_path, 'valid', FIGURES[:1])  # MATLAB drops the last axis
    assert_is(open_people(f'mpii:{tmp_path}/valid', judged=True).people[0], FIGURES[0], tmp_path)


@pytest.mark.parametrize(
    ('rects', 'split', 'message'),
    [
        ([('a', rect_of(FIGURES[0]), 1)], 'valid', 'expected mpii:.*/train, the only images with'),
        ([], 'train', 'RELEASE with as many annolist as img_train, got 0 and 0'),
        ([('a', np.array([]), 1)] * 2, 'train', 'nobody is annotated'),
        (
            [('a', rect_of(FIGURES[0], scale='b'), 1)] * 2,
            'train',
            'annolist 1: .* as scale',
        ),
        (
            [('a', rect_of(FIGURES[0], annopoints={'point': {'x': 1, 'y': 2, 'id': 16}}), 1)] * 2,
            'train',
            'annolist 1: expected ids of joints from 0 to 15, got 16',
        ),
        (
            [('a', rect_of(FIGURES[0], annopoints={'point': {'x': 1, 'id': 0}}), 1)] * 2,
            'train',
            'annolist 1: expected one y, got 0',
        ),
    ],
)
def test_what_is_wrong_with_the_published_form_is_named(
    tmp_path: Path, rects: list[Any], split: str, message: str
) -> None:
    path = write_published(tmp_path, rects)
    with pytest.raises(ValueError, match=message) as caught:
        open_people(f'mpii:{tmp_path}/{split}')
    assert str(path) in str(caught.value)


def test_what_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match='expected .*/annot/train.json or .*_v1_u12_1.mat'):
        open_people(f'mpii:{tmp_path}/train')
    for wrong in ('camvid:a/b', 'mpii:', 'mpii'):
        with pytest.raises(ValueError, match='expected mpii:FOLDER/SPLIT, got'):
            open_people(wrong)
    (tmp_path / 'mpii_human_pose_v1_u12_1.mat').write_bytes(b'MATLAB 7')
    with pytest.raises(ValueError, match='cannot read .*: expected a MATLAB file'):
        open_people(f'mpii:{tmp_path}/train')
    monkeypatch.setitem(sys.modules, 'scipy.io', None)
    with pytest.raises(ValueError, match='expected SciPy, which reads .mat files'):
        open_people(f'mpii:{tmp_path}/train')
    assert task_of('mpii:a/train') is Task.POSE and task_of('camvid:a') is Task.SEGMENTATION


# windows and heat maps


@pytest.mark.parametrize('turn', [0.0, 30.0, -77.0])
@pytest.mark.parametrize('edge', [40.0, 75.0])
def test_a_window_shows_what_it_maps(turn: float, edge: float) -> None:
    size = (64, 96)
    y, x = np.mgrid[:120, :150]
    image = np.stack([x, y, np.zeros_like(x)], -1).astype(np.uint8)  # places as colours
    matrix = heat_maps.window_matrix((70.0, 60.0), edge, size, turn)
    np.testing.assert_allclose(apply(matrix, np.array([[70.0, 60.0]])), [[48, 32]])
    window = cut(image, matrix, size)
    assert window.shape == (64, 96, 3)
    inside = np.array([[48.0, 32.0], [40, 20], [60, 50], [30, 33]])
    places = apply(invert(matrix), inside)
    shown = np.array([window[int(v), int(u), :2] for u, v in inside])
    assert np.abs(shown - places).max() <= 1  # whole numbers
    lengths = np.linalg.norm(np.diff(places, axis=0), axis=1)
    expected = np.linalg.norm(np.diff(inside, axis=0), axis=1) * edge / 64
    np.testing.assert_allclose(lengths, expected)
    top = apply(invert(matrix), np.array([[48.0, 0.0]]))[0] - (70, 60)
    degrees = math.degrees(math.atan2(top[0], -top[1]))
    assert degrees == pytest.approx(turn)  # clockwise in the image


def test_what_lies_outside_of_the_image_is_black() -> None:
    image = np.full((20, 20, 3), 200, np.uint8)
    window = cut(image, heat_maps.window_matrix((0.0, 0.0), 20, (32, 32)), (32, 32))
    assert not window[:14].any() and not window[:, :14].any() and (window[18:, 18:] == 200).all()


def test_targets_are_gaussians_around_the_nearest_cell() -> None:
    places = torch.tensor([[21.0, 34.0], [0.0, 63.0], [-40.0, 10.0]])
    maps = targets(places, (16, 24))
    assert maps.shape == (3, 16, 24)
    assert maps[0, 9, 5] == 1 and maps[0].max() == 1  # 34 / 4 = 8.5 goes up
    assert maps[0, 9, 7].item() == pytest.approx(math.exp(-0.5))
    assert maps[0, 7, 3].item() == pytest.approx(math.exp(-1))
    assert maps[0, 9, 11].item() == pytest.approx(math.exp(-36 / 8)) and maps[0, 9, 12] == 0
    assert maps[1, 15, 0].item() == pytest.approx(math.exp(-1 / 8))  # its middle is cell 16
    assert not maps[2].any()


def test_a_peak_is_found_to_a_quarter_of_a_cell() -> None:
    maps = np.zeros((4, 16, 24), np.float32)
    maps[0, 8, 5], maps[0, 8, 6], maps[0, 7, 5] = 1, 0.5, 0.2
    maps[1, 0, 0] = 1  # at the border there is no neighbour to look at
    maps[2] = -1  # nothing responds
    maps[3, 1, 5] = 1
    maps[3, 1, 6] = 0.5
    expected = np.array([[5.25, 7.75], [0, 0], [0, 0], [5, 1]]) * 4
    np.testing.assert_allclose(peaks(maps), expected)


def test_drawn_places_are_found_again() -> None:
    rng = np.random.default_rng(0)
    places = rng.uniform(12, 52, (50, 2))
    maps = targets(torch.from_numpy(places).float(), (16, 16)).numpy()
    assert np.abs(peaks(maps) - places).max() <= 2  # half of a cell


def test_a_mirrored_window_finds_the_same_places() -> None:
    rng = np.random.default_rng(1)
    places = torch.from_numpy(rng.uniform(8, 56, (16, 2))).float()
    mirrored = places[list(MIRRORED)].clone()
    mirrored[:, 0] = 63 - mirrored[:, 0]
    found = unmirrored(targets(mirrored, (16, 16))[None], MIRRORED)[0].numpy()
    off = peaks(found) - places.numpy()
    assert np.abs(off).max() <= 4 and abs(off.mean()) < 0.6  # unmoved it would be 3 pixels off
    sides = {'left': 'right', 'right': 'left'}
    words = [name.split() for name in JOINTS.names]
    swapped = [' '.join(sides.get(word, word) for word in each) for each in words]
    assert swapped == [JOINTS.names[i] for i in MIRRORED]


# loss


def test_the_loss_is_half_of_the_mean_squared_error_of_known_joints() -> None:
    torch.manual_seed(0)
    maps = [torch.randn(4, 16, 8, 8) for _ in range(2)]
    places = torch.rand(4, 16, 2) * 32
    known = torch.rand(4, 16) < 0.7
    places[0, 0], known[0, 0] = torch.tensor([500.0, 3.0]), True  # its target lies outside
    expected = []
    for found in maps:
        total = 0.0
        for b in range(4):
            for j in range(16):
                if known[b, j] and (b, j) != (0, 0):
                    wanted = targets(places[b, j], (8, 8))
                    total += 0.5 * ((found[b, j] - wanted) ** 2).sum().item()
        expected.append(total / (4 * 16 * 8 * 8))

    def losses(part: slice) -> Tensor:
        own = [found[part] for found in maps]
        return torch.stack(heat_map_losses(own, places[part], known[part], 4 * 16))

    assert losses(slice(None)).tolist() == pytest.approx(expected)
    torch.testing.assert_close(losses(slice(1)) + losses(slice(1, 4)), losses(slice(None)))


# accuracy


def judged(off: NDArray[np.float64], known: NDArray[np.bool_], head: float = 10.0) -> Pckh:
    """Give the counts of a person whose joints are off by so many pixels."""
    places = np.arange(32, dtype=float).reshape(16, 2)
    pckh = Pckh()
    found = places + np.column_stack([0.6 * off, -0.8 * off])
    pckh.add(found, Truth(Joints(places, known), head))
    return pckh


def test_a_joint_is_found_within_half_of_six_tenths_of_the_heads_diagonal() -> None:
    off = np.zeros(16)
    off[[0, 1, 2, 6]] = 2.999, 3.001, 50, 50
    known = np.ones(16, bool)
    known[5] = False
    pckh = judged(off, known)
    shares = pckh.by_joint()
    assert shares[:5].tolist() == [1, 0, 0, 1, 1] and math.isnan(shares[5])
    parts = pckh.by_part()
    assert (parts['hip'], parts['knee'], parts['head']) == (0.5, 0.5, 1.0)
    assert math.isnan(parts['ankle'])
    # pelvis (6) and thorax are not in the mean: 13 joints are known, 2 of them not found
    assert pckh.mean() == pytest.approx(11 / 13)


def test_the_mean_weighs_joints_by_how_often_they_are_known() -> None:
    off = np.zeros(16)
    off[9] = 50
    pckh = judged(off, np.ones(16, bool))
    only_head = np.zeros(16, bool)
    only_head[9] = True
    places = np.zeros((16, 2))
    pckh.add(places, Truth(Joints(places, only_head), 10.0))
    assert pckh.mean() == pytest.approx(14 / 15)
    assert pckh.by_joint()[9] == 0.5
    assert math.isnan(judged(off, np.zeros(16, bool)).mean())
