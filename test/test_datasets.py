# SPDX-License-Identifier: Apache-2.0
"""Data sets are read in the layout in which they are published."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from networks import random_network
from PIL import Image
from samples import blocks, write_sample, write_tree
from shared import camvid

from adpc_ros.labels import CAMVID, CITYSCAPES, IGNORE_ID, ClassSet
from adpc_ros.learning.datasets import CamVid, Cityscapes, PascalContext, open_samples
from adpc_ros.learning.labelled_images import LabelledImages
from adpc_ros.network import checkpoint


def write_cityscapes(root: Path) -> Path:
    """Write one image of each of two cities; every label id is in them."""
    for city, name in (('aachen', 'aachen_000000_000019'), ('ulm', 'ulm_000001_000019')):
        label = np.tile(np.arange(34, dtype=np.uint8), (4, 2))
        for part, ending, content in (
            ('leftImg8bit', 'leftImg8bit', np.full((4, 68, 3), 90, np.uint8)),
            ('gtFine', 'gtFine_labelIds', label),
            ('gtFine', 'gtFine_color', np.zeros((4, 68, 3), np.uint8)),
        ):
            folder = root / part / 'train' / city
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(content).save(folder / f'{name}_{ending}.png')
    return root


def test_label_ids_of_cityscapes_become_training_classes(tmp_path: Path) -> None:
    samples = Cityscapes(write_cityscapes(tmp_path) / 'train')
    assert len(samples) == 2 and samples.classes is CITYSCAPES
    label = samples[0].label[0, :34]
    named = {7: 'road', 8: 'sidewalk', 17: 'pole', 19: 'traffic light', 23: 'sky', 24: 'person'}
    named |= {26: 'car', 28: 'bus', 31: 'train', 33: 'bicycle'}
    for value, name in named.items():
        assert label[value] == CITYSCAPES.id_of(name)
    assert sorted(label[label != IGNORE_ID]) == list(range(19))
    assert (label[[0, 1, 9, 10, 14, 18, 29, 30]] == IGNORE_ID).all()


def test_training_ids_of_cityscapes_are_taken_where_there_are_no_others(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path)
    expected = Cityscapes(root / 'train')[0].label
    for path in root.glob('gtFine/*/*/*_labelIds.png'):
        Image.fromarray(expected).save(path.with_name(path.name.replace('Ids', 'TrainIds')))
        if 'ulm' in path.name:
            path.unlink()
    np.testing.assert_array_equal(Cityscapes(root / 'train')[1].label, expected)


def test_coarse_labels_of_cityscapes_are_taken_where_there_are_no_fine_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_cityscapes(tmp_path)
    for path in root.glob('gtFine/*/*/*_labelIds.png'):
        path.rename(path.with_name(path.name.replace('gtFine', 'gtCoarse')))
    (root / 'gtFine').rename(root / 'gtCoarse')
    (root / 'leftImg8bit/train/ulm/notes.txt').touch()
    samples = Cityscapes(root / 'train')
    assert len(set(samples[1].label.ravel())) == 20
    assert caplog.messages == [
        f'{root}/leftImg8bit/train: left out 1 files that are no *_leftImg8bit.png'
    ]  # every id is known


def test_a_missing_label_of_cityscapes_is_named(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path)
    (root / 'gtFine/train/ulm/ulm_000001_000019_gtFine_labelIds.png').unlink()
    with pytest.raises(ValueError, match='label missing: expected .*ulm_000001_000019_gtFine'):
        Cityscapes(root / 'train')
    with pytest.raises(ValueError, match=r'no images found: expected .*leftImg8bit/test/\*'):
        Cityscapes(root / 'test')


def write_folder(root: Path, **classes: object) -> str:
    for seed in range(3):
        write_sample(root, f'drive{seed}_a', *blocks(seed))
    described = {'name': 'mine', 'names': ['ground', 'thing'], **classes}
    (root / 'classes.yaml').write_text(yaml.safe_dump(described))
    return f'folder:{root}'


def test_a_folder_has_classes_of_its_own(tmp_path: Path) -> None:
    samples = open_samples(write_folder(tmp_path, values={3: 'ground', 8: 'thing'}))
    own = blocks(0).label
    label = samples[0].label
    assert (label[own == 3] == 0).all() and (label[own == 8] == 1).all()
    assert (label[(own != 3) & (own != 8)] == IGNORE_ID).all()
    assert samples.classes.names == ('ground', 'thing') and len(samples.classes.colours) == 2
    assert samples.classes.vulnerable == ()
    samples = open_samples(write_folder(tmp_path, vulnerable=['thing']))
    assert samples.classes.vulnerable == ('thing',)


def test_weights_keep_classes_of_their_own(tmp_path: Path) -> None:
    classes = ClassSet('mine', ('ground', 'thing'), ((1, 2, 3), (4, 5, 6)))
    path = tmp_path / 'w.safetensors'
    checkpoint.save(path, random_network(class_count=2), classes, {})
    assert checkpoint.load(path).classes == classes


def test_a_class_file_must_be_there(tmp_path: Path) -> None:
    write_sample(tmp_path, 'a', *blocks(0))
    with pytest.raises(ValueError, match='class file missing: expected'):
        open_samples(f'folder:{tmp_path}')


def names_of(description: str) -> list[str]:
    return [image.stem for image, _ in open_samples(description).pairs]


def test_drives_and_lists_choose_images(tmp_path: Path) -> None:
    data = write_folder(tmp_path)
    assert names_of(data) == ['drive0_a', 'drive1_a', 'drive2_a']
    assert names_of(f'{data}?drives=drive0,drive2') == ['drive0_a', 'drive2_a']
    assert names_of(f'{data}?without=drive1') == ['drive0_a', 'drive2_a']
    (tmp_path / 'some.txt').write_text('drive2_a.jpg\ndrive1_a\n')
    assert names_of(f'{data}?list={tmp_path}/some.txt&without=drive2') == ['drive1_a']


@pytest.mark.parametrize(
    'content',
    [
        'my drive.v1.0\nb',
        'my drive.v1.0.jpg\nb.jpg\n',
        '\ufeffmy drive.v1.0.png\r\n\r\nb.JPG\r\n',
        '/data/CamVid/train/my drive.v1.0.jpg\n  b  \n',
        'C:\\data\\my drive.v1.0.jpg\nimage/b.jpg label/b.png\n',
    ],
)
def test_a_list_may_be_written_in_many_ways(tmp_path: Path, content: str) -> None:
    for name in ('a', 'b', 'my drive.v1.0', 'my drive.v1.1'):
        write_sample(tmp_path, name, *blocks(0))
    (tmp_path / 'a list.txt').write_bytes(content.encode())
    found = names_of(f'camvid:{tmp_path}?list={tmp_path}/a list.txt')
    assert found == ['b', 'my drive.v1.0']


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'b\nmy drive', r'a\.txt: no image of the name my drive \(1 missing\)'),
        (b'image/b.jpg label/c.png', 'no image of the name image/b.jpg label/c.png'),
        (b'\r\n', 'none of 1 images, the first is b'),
        ('b\nStraße'.encode('latin-1'), r'cannot read the list .*a\.txt: expected text in UTF-8'),
    ],
)
def test_a_wrong_list_says_what(tmp_path: Path, content: bytes, message: str) -> None:
    write_sample(tmp_path, 'b', *blocks(0))
    (tmp_path / 'a.txt').write_bytes(content)
    with pytest.raises(ValueError, match=message):
        open_samples(f'camvid:{tmp_path}?list={tmp_path}/a.txt')


def test_a_scale_resizes_on_reading(tmp_path: Path) -> None:
    data = write_folder(tmp_path, values={0: 'ground', 8: 'thing'})
    full, half = open_samples(data), open_samples(f'{data}?without=drive1&scale=0.5')
    assert len(half) == 2
    sample = half[1]
    assert sample.image.shape == (32, 48, 3) and sample.label.shape == (32, 48)
    # the nearest of an even factor is one of the four; bilinear with antialiasing is their mean
    fours = full[2].label.reshape(32, 2, 48, 2).transpose(0, 2, 1, 3).reshape(32, 48, 4)
    assert (fours == sample.label[..., None]).any(-1).all()
    assert set(np.unique(sample.label)) == {0, 1, IGNORE_ID}
    means = full[2].image.astype(float).reshape(32, 2, 48, 2, 3).mean((1, 3))
    assert np.abs(sample.image - means).mean() < 6
    assert open_samples(f'{data}?scale=1.5')[0].label.shape == (96, 144)


def test_a_scale_counts_in_the_digest(tmp_path: Path) -> None:
    data = write_folder(tmp_path)
    digests = [open_samples(data + c).digest() for c in ('', '?scale=1', '?scale=.5', '?scale=2')]
    assert digests[0] == digests[1] and len(set(digests)) == 3


def test_classes_of_pascal_context_count_from_1_in_its_files(tmp_path: Path) -> None:
    for folder in ('JPEGImages', 'SegmentationClassContext', 'ImageSets/SegmentationContext'):
        (tmp_path / folder).mkdir(parents=True)
    label = np.array([[0, 1, 59, 255]], np.uint8)
    Image.fromarray(np.zeros((1, 4, 3), np.uint8)).save(tmp_path / 'JPEGImages/2008_000002.jpg')
    Image.fromarray(label).save(tmp_path / 'SegmentationClassContext/2008_000002.png')
    names = tmp_path / 'ImageSets/SegmentationContext/val.txt'
    names.write_text('2008_000002\n')
    (tmp_path / 'JPEGImages/2008_000003.jpg').touch()  # of another split
    samples = PascalContext(tmp_path / 'val')
    assert samples.classes.count == 59 and len(samples) == 1
    np.testing.assert_array_equal(samples[0].label, [[255, 0, 58, 255]])
    names.write_text('2008_000002\n2008_000003\n')
    missing = re.escape(str(tmp_path / 'SegmentationClassContext/2008_000003.png'))
    with pytest.raises(ValueError, match=f'val.txt: expected {missing}, which is missing'):
        PascalContext(tmp_path / 'val')
    names.write_text('')
    with pytest.raises(ValueError, match='expected names of images'):
        PascalContext(tmp_path / 'val')
    with pytest.raises(FileNotFoundError, match='train.txt'):
        PascalContext(tmp_path / 'train')


@pytest.mark.parametrize('kind', ['cityscapes', 'folder'])
def test_a_broken_file_is_named(tmp_path: Path, kind: str) -> None:
    if kind == 'cityscapes':
        samples = open_samples(f'cityscapes:{write_cityscapes(tmp_path) / "train"}')
    else:
        samples = open_samples(write_folder(tmp_path))
    for path in reversed(samples.pairs[1]):  # the label is read after the image
        path.write_bytes(path.read_bytes()[:20])
        with pytest.raises(ValueError, match=f'cannot read {path}: expected an? (image|label)'):
            samples[1]
    assert samples[0].image.shape[2] == 3
    image, label = samples.pairs[0]
    image.unlink()
    with pytest.raises(ValueError, match=f'cannot read {image}'):
        samples[0]
    label.unlink()
    with pytest.raises(ValueError, match=f'label missing: expected {label}'):
        LabelledImages(samples.pairs, samples.labels)


@pytest.mark.parametrize(
    ('choice', 'message'),
    [
        ('?scale=0', 'expected a scale above 0, at most 4, got 0.0'),
        ('?scale=4.1', 'expected a scale above 0, at most 4, got 4.1'),
        ('?scale=nan', 'expected a scale above 0'),
        ('?scale=half', "expected a number in 'scale=half'"),
        ('?drives=drive9', 'none of 3 images begins with drive9, the first is drive0_a'),
        ('?drives=drive0,drive9', 'none of 3 images begins with drive9'),
        ('?without=drive9', 'none of 3 images begins with drive9'),
        ('?without=drive', 'without=drive: none of 3 images, the first is drive0_a'),
        ('?drives=', 'expected drives=, .* or agree= with a value'),
        ('?seed=3', 'expected drives=, .* or agree= with a value'),
        ('?list=/nowhere.txt', 'cannot read the list /nowhere.txt: No such file or directory$'),
    ],
)
def test_a_wrong_choice_says_what(tmp_path: Path, choice: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_samples(write_folder(tmp_path) + choice)
    (tmp_path / 'list.txt').write_text('drive7_a')
    with pytest.raises(ValueError, match='no image of the name drive7_a'):
        open_samples(f'folder:{tmp_path}?list={tmp_path}/list.txt')


def test_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match='expected camvid:FOLDER, cityscapes:FOLDER, '):
        open_samples('kitti:somewhere')


def write_camvid(root: Path, layout: str) -> Path:
    """Write two samples in a layout in which CamVid is published; gives the split's folder."""
    image, label, _ = blocks(0)
    folder, labels, ending = {
        'SegNet': (root / 'train', root / 'trainannot', ''),
        'Kaggle': (root / 'train', root / 'train_labels', '_L'),
        'original': (root / '701_StillsRaw_full', root / 'LabeledApproved_full', '_L'),
    }[layout]
    if ending:
        label = np.vstack([CAMVID.colours, [(0, 0, 0)]]).astype(np.uint8)[label]
        label[:8], label[8:16] = (192, 128, 192), (64, 64, 0)  # lorry or bus, pedestrian
    for path, content in ((folder, image), (labels, label)):
        path.mkdir(parents=True)
        for name in ('0001TP_006690', '0016E5_00390'):
            Image.fromarray(content).save(path / f'{name}{ending if path == labels else ""}.png')
    return root if layout == 'original' else folder


@pytest.mark.parametrize('layout', ['SegNet', 'Kaggle', 'original'])
def test_camvid_is_read_as_it_is_published(
    tmp_path: Path, layout: str, caplog: pytest.LogCaptureFixture
) -> None:
    samples = open_samples(f'camvid:{write_camvid(tmp_path, layout)}?drives=0001TP')
    image, label, _ = blocks(0)
    expected = np.where(label == 11, IGNORE_ID, label)
    if layout != 'SegNet':
        expected[:8], expected[8:16] = CAMVID.id_of('car'), CAMVID.id_of('pedestrian')
    np.testing.assert_array_equal(samples[0].image, image)
    np.testing.assert_array_equal(samples[0].label, expected)
    assert not caplog.messages


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    write_sample(tmp_path, 'a', *blocks(0))
    Image.fromarray(blocks(0).image).save(tmp_path / 'image' / 'a.png')
    with pytest.raises(ValueError, match=r'expected a label for each image, got one for .*a\.jpg'):
        CamVid(tmp_path)


@pytest.mark.parametrize('value', [255, 11, 77])
def test_data_without_a_label_are_refused(tmp_path: Path, value: int) -> None:
    image, label, _ = blocks(0)
    write_sample(tmp_path, 'a', image, np.full_like(label, value))
    with pytest.raises(
        ValueError, match=r'nothing is labelled: .* in 1 labels, as .*/label/a\.png'
    ):
        open_samples(f'camvid:{tmp_path}')


def test_camvids_drives_are_told_apart() -> None:
    train = camvid('train')
    held_out, rest = f'camvid:{train}?drives=0001TP', f'camvid:{train}?without=0001TP'
    assert len(open_samples(held_out)) + len(open_samples(rest)) == len(CamVid(train))


def test_a_small_tree_of_camvid_opens(tmp_path: Path) -> None:
    assert len(open_samples(f'camvid:{write_tree(tmp_path) / "train"}')) == 6
