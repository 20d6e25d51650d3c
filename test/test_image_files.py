# SPDX-License-Identifier: Apache-2.0
"""Image and label files: every form gives the right values, or an error that names the file."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adpc_ros.image_files import LabelFolder, labels_beside, list_images, read_image, read_label

RNG = np.random.default_rng(1)
PICTURE = RNG.integers(0, 256, (4, 6, 3), np.uint8)
WIDE = RNG.integers(0, 65536, (4, 6, 3), np.uint16)
GREY, RGB, GREY_ALPHA = 0, 2, 4  # colour types of PNG
# what is upright of what is stored: EXIF 2.32, tag 274
UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: np.rot90(stored),
}


def write_png(path: Path, values: np.ndarray, depth: int, colour_type: int = GREY) -> Path:
    """Write a PNG of a depth that Pillow does not write: (H, W) or (H, W, C) values."""
    height, width = values.shape[:2]
    rows = values.reshape(height, -1)
    if depth == 16:
        lines = rows.astype('>u2').view(np.uint8)
    else:
        bits = np.unpackbits(rows.astype(np.uint8)[..., None], axis=2)[..., 8 - depth :]
        lines = np.packbits(bits.reshape(height, -1), axis=1)
    data = b''.join(b'\0' + line.tobytes() for line in lines)
    head = struct.pack('>IIBBBBB', width, height, depth, colour_type, 0, 0, 0)
    chunks = ((b'IHDR', head), (b'IDAT', zlib.compress(data)), (b'IEND', b''))
    path.write_bytes(
        b'\x89PNG\r\n\x1a\n'
        + b''.join(
            struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body))
            for kind, body in chunks
        )
    )
    return path


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[274] = orientation
    return tags


# images


@pytest.mark.parametrize(
    'mode', ['RGB', 'RGBA', 'P', 'P with transparency', 'L', 'LA', '1', 'CMYK']
)
def test_eight_bits_come_as_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ('a.tif' if mode == 'CMYK' else 'a.png')
    source, expected = Image.fromarray(PICTURE), PICTURE
    if mode.startswith('P'):
        source = source.quantize(24)
        expected = np.array(source.convert('RGB'))
        source.save(path, **({'transparency': bytes(range(24))} if mode != 'P' else {}))
    elif mode == 'CMYK':
        Image.fromarray(
            255 - np.dstack([PICTURE, np.full((4, 6), 255)]).astype(np.uint8), mode
        ).save(path)
    else:
        source = source.convert(mode)
        source.save(path)
        grey = np.array(source.convert('L'))[..., None].repeat(3, 2)
        expected = expected if mode.startswith('RGB') else grey
    np.testing.assert_array_equal(read_image(path), expected)


@pytest.mark.parametrize('kind', ['grey png', 'rgb png', 'grey tiff'])
def test_of_sixteen_bits_the_upper_eight_count(tmp_path: Path, kind: str) -> None:
    expected = (WIDE >> 8).astype(np.uint8)
    if kind == 'rgb png':
        path = write_png(tmp_path / 'a.png', WIDE, 16, RGB)
    elif kind == 'grey png':
        path = write_png(tmp_path / 'a.png', WIDE[..., 0], 16)
    else:
        path = tmp_path / 'a.tif'
        Image.fromarray(WIDE[..., 0]).save(path)
    if kind.startswith('grey'):
        expected = expected[..., :1].repeat(3, 2)
    np.testing.assert_array_equal(read_image(path), expected)


@pytest.mark.parametrize('orientation', UPRIGHT)
@pytest.mark.parametrize('ending', ['png', 'tif', 'jpg'])
def test_images_are_upright(tmp_path: Path, orientation: int, ending: str) -> None:
    stored = np.kron(PICTURE[:2, :3, :1].repeat(3, 2), np.ones((16, 16, 1), np.uint8))
    path = tmp_path / f'a.{ending}'
    Image.fromarray(stored).save(path, exif=exif(orientation))
    found, expected = read_image(path), UPRIGHT[orientation](stored)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= (3 if ending == 'jpg' else 0)


@pytest.mark.parametrize('dtype', [np.float32, np.int32])
def test_what_has_not_8_or_16_bits_is_refused(tmp_path: Path, dtype: type) -> None:
    path = tmp_path / 'a.tif'
    Image.fromarray(np.ones((4, 6), dtype)).save(path)
    with pytest.raises(ValueError, match=rf'{path}: .*expected 8 or 16 bits .* got mode [FI]\)'):
        read_image(path)


@pytest.mark.parametrize('read', [read_image, read_label])
@pytest.mark.parametrize(
    'fault', ['missing', 'empty', 'folder', 'text', 'truncated', 'broken', 'bomb', 'large bomb']
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, read, fault: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / 'a.png'
    big = np.tile(PICTURE[..., 0], (30, 30))
    whole = write_png(path, big, 8).read_bytes()
    if fault == 'missing':
        path.unlink()
    elif fault == 'folder':
        path.unlink()
        path.mkdir()
    elif 'bomb' in fault:
        side = struct.pack('>I', 10_000 if fault == 'bomb' else 20_000)
        head = b'IHDR' + side * 2 + whole[24:29]
        path.write_bytes(whole[:12] + head + struct.pack('>I', zlib.crc32(head)) + whole[33:])
    else:
        broken = whole[:50] + b'\xff' * 30 + whole[80:]
        kinds = {'empty': b'', 'text': b'nothing' * 20, 'broken': broken}
        path.write_bytes(kinds.get(fault, whole[: len(whole) // 2]))
    with pytest.raises(ValueError, match=f'cannot read {path}: expected an? (image|label PNG) '):
        read(path)


def test_a_folder_lists_its_images_and_says_what_it_leaves_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = ['a.JPG', 'b.jpeg', 'c.PNG', 'd.tiff']
    for name in (*names, '.hidden.png', 'e.gif', 'notes.txt'):
        (tmp_path / name).write_bytes(b'1')
    assert [path.name for path in list_images(tmp_path)] == names
    (line,) = caplog.messages
    assert line.startswith(f'{tmp_path}: left out 3 that are no images by their names')
    (tmp_path / 'b.jpeg').write_bytes(b'')
    with pytest.raises(ValueError, match=r'b\.jpeg: expected an image, got an empty file'):
        list_images(tmp_path)
    (tmp_path / 'b.jpeg').unlink()
    (tmp_path / 'b.jpeg').mkdir()
    with pytest.raises(ValueError, match=r'b\.jpeg: expected an image, got a folder'):
        list_images(tmp_path)
    for name in ('a.JPG', 'c.PNG', 'd.tiff'):
        (tmp_path / name).unlink()
    (tmp_path / 'b.jpeg').rmdir()
    with pytest.raises(FileNotFoundError, match=r'no images found: .*found 3 others, as \.hidden'):
        list_images(tmp_path)


# labels


@pytest.mark.parametrize('depth', [1, 2, 4, 8, 16])
def test_grey_labels_of_any_depth_are_ids(tmp_path: Path, depth: int) -> None:
    ids = RNG.integers(0, 1 << depth, (5, 7))
    found = read_label(write_png(tmp_path / 'a.png', ids, depth))
    np.testing.assert_array_equal(found.values, ids)


@pytest.mark.parametrize('bits', [1, 2, 4, 8])
@pytest.mark.parametrize('transparent', [False, True])
def test_palette_labels_of_any_depth_are_ids(tmp_path: Path, bits: int, transparent: bool) -> None:
    ids = RNG.integers(0, 1 << bits, (5, 7), np.uint8)
    picture = Image.fromarray(ids).convert('P')
    picture.putdata(ids.ravel().tolist())
    picture.putpalette(RNG.permutation(768).astype(np.uint8).tolist())
    options = {'transparency': 0} if transparent else {}
    picture.save(tmp_path / 'a.png', bits=bits, **options)
    assert (tmp_path / 'a.png').read_bytes()[24] == bits
    found = read_label(tmp_path / 'a.png')
    np.testing.assert_array_equal(found.values, ids)
    assert found.mode == 'P'


@pytest.mark.parametrize('mode', ['LA', 'RGB', 'RGBA'])
def test_labels_keep_their_channels_without_alpha(tmp_path: Path, mode: str) -> None:
    source = Image.fromarray(PICTURE).convert(mode)
    if mode != 'RGB':
        source.putalpha(Image.fromarray(PICTURE[..., 2]))
    source.save(tmp_path / 'a.png')
    expected = np.array(source)[..., 0] if mode == 'LA' else PICTURE
    found = read_label(tmp_path / 'a.png')
    np.testing.assert_array_equal(found.values, expected)
    assert found.mode == mode


@pytest.mark.parametrize('orientation', UPRIGHT)
def test_labels_are_upright_if_they_say_how(tmp_path: Path, orientation: int) -> None:
    stored = PICTURE[..., 0]
    Image.fromarray(stored).save(tmp_path / 'a.png', exif=exif(orientation))
    np.testing.assert_array_equal(
        read_label(tmp_path / 'a.png').values, UPRIGHT[orientation](stored)
    )


@pytest.mark.parametrize('kind', ['JPEG', 'WEBP', 'BMP', 'rgb of 16 bits', 'grey, alpha of 16'])
def test_labels_that_may_have_lost_their_values_are_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / 'a.png'
    if kind == 'rgb of 16 bits':
        write_png(path, WIDE, 16, RGB)
    elif kind == 'grey, alpha of 16':
        write_png(path, WIDE[..., :2], 16, GREY_ALPHA)
    else:
        Image.fromarray(PICTURE).save(path, kind)
    got = kind if kind.isupper() else '16 bits for each channel'
    with pytest.raises(ValueError, match=rf'{path}: expected a label PNG \(got {got}'):
        read_label(path)


def test_labels_are_found_by_the_names_of_their_images(tmp_path: Path) -> None:
    for name in ('a.png', 'a.jpg', 'b.PNG', 'c_L.png', 'd.jpg'):
        (tmp_path / name).write_bytes(b'1')
    labels = LabelFolder(tmp_path)
    assert [labels.of(Path(f'{stem}.jpg')).name for stem in 'abce'] == [
        'a.png',
        'b.PNG',
        'c_L.png',
        'e.png',
    ]
    with pytest.raises(ValueError, match=r'd\.jpg: expected a PNG as label, .* got \.jpg'):
        labels.of(Path('d.png'))


@pytest.mark.parametrize(
    ('image', 'there', 'found'),
    [
        ('image', [], 'label'),
        ('images', ['labels', 'label'], 'labels'),
        ('images', ['label'], 'label'),
        ('train', ['trainannot', 'label'], 'trainannot'),
        ('val', ['val_labels'], 'val_labels'),
        ('drive', ['trainannot'], 'label'),
        ('701_StillsRaw_full', ['LabeledApproved_full'], 'LabeledApproved_full'),
    ],
)
def test_labels_lie_beside_their_images(
    tmp_path: Path, image: str, there: list[str], found: str
) -> None:
    for name in (image, *there):
        (tmp_path / name).mkdir()
    assert labels_beside(tmp_path / image) == tmp_path / found


def test_labels_lie_beside_a_link_or_beside_what_it_leads_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ('far/image', 'far/label', 'near/label'):
        (tmp_path / name).mkdir(parents=True)
    for name in ('near/image', 'link'):
        (tmp_path / name).symlink_to(tmp_path / 'far' / 'image')
    assert labels_beside(tmp_path / 'near/image') == tmp_path / 'near/label'
    assert labels_beside(tmp_path / 'link') == tmp_path / 'far/label'
    monkeypatch.chdir(tmp_path / 'far/image')
    assert labels_beside(Path('.')) == tmp_path / 'far/label'
    monkeypatch.chdir(tmp_path)
    assert labels_beside(Path('far/image')) == Path('far/label')
