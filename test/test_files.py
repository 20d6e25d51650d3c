# SPDX-License-Identifier: Apache-2.0
"""Files that are written have the umask's mode, and are there once they are complete."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from networks import random_network

from adpc_ros.commands.options import write_json
from adpc_ros.files import replacing
from adpc_ros.labels import CAMVID
from adpc_ros.learning.output import OutputFolder
from adpc_ros.network import checkpoint
from adpc_ros.replay.output import OutputBag


@pytest.fixture(params=[0o022, 0o077, 0o002], ids=oct)
def mode(request: pytest.FixtureRequest) -> Iterator[int]:
    """Set a umask, and give the mode of a new file under it."""
    before = os.umask(request.param)
    yield 0o666 & ~request.param
    os.umask(before)


def save_weights(path: Path) -> None:
    checkpoint.save(path, random_network(), CAMVID, {})


def save_state(path: Path) -> None:
    folder = OutputFolder(path.parent)
    folder.write_state({'step': 1})
    folder.state.rename(path)


def save_bag(path: Path) -> None:
    with OutputBag(path):
        pass


@pytest.mark.parametrize(
    'name, write',
    [
        ('weights.safetensors', save_weights),
        ('state.pt', save_state),
        ('output.mcap', save_bag),
        ('numbers.json', lambda path: write_json(str(path), {})),
    ],
)
def test_files_have_the_mode_of_the_umask(
    tmp_path: Path, mode: int, name: str, write: Callable[[Path], None]
) -> None:
    path = tmp_path / name
    write(path)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_a_file_is_replaced_once_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / 'new folder' / 'file'
    with replacing(path) as partial:
        partial.write_text('first')
        assert not path.exists()
    left_behind = path.with_name('file.partial')  # by a run that was killed
    left_behind.write_text('x')
    left_behind.chmod(0o400)
    with pytest.raises(KeyboardInterrupt), replacing(path) as partial:
        partial.write_text('second')
        raise KeyboardInterrupt
    assert path.read_text() == 'first'
    assert list(path.parent.iterdir()) == [path]
