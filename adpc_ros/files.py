# SPDX-License-Identifier: Apache-2.0
"""How files are written whose readers must never see half of one."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """
    Give a path to write to, and put what was written there in a file's place at the end.

    The file has the mode that the umask gives a new one, whatever mode the writer chose
    (safetensors chooses one for the owner alone). After an error the old file stays, and what
    was written is removed.

    :param path: of the file; its folder is made if it is missing.
    :return: a context manager that gives the path of an empty file beside it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'{path.name}.partial')
    partial.unlink(missing_ok=True)  # of a run that was killed; it may have another mode
    partial.touch()
    mode = partial.stat().st_mode & 0o777  # os.umask cannot be asked without being changed
    try:
        yield partial
        partial.chmod(mode)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """
    Give a folder to write into, and put it in its place at the end, all files at once.

    If somebody else was there first, their folder stays. After an error nothing is left; what a
    killed process leaves begins with a point and ends in ``.partial``.

    :param path: of the folder, whose own folder is there.
    """
    partial = Path(tempfile.mkdtemp(prefix=f'.{path.name}.', suffix='.partial', dir=path.parent))
    try:
        yield partial
        partial.chmod(path.parent.stat().st_mode & 0o777)  # mkdtemp makes one for the owner alone
        try:
            partial.rename(path)
        except OSError:
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
