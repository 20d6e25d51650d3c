# SPDX-License-Identifier: Apache-2.0
"""The control groups of this process: what a container may take is said there (v2 or v1)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Group(NamedTuple):
    """The folder of a control group, and whether its files are those of version 2."""

    folder: Path
    unified: bool


def groups_of(controller: str, root: Path = Path('/')) -> Iterator[Group]:
    """
    Yield this process's groups for a controller, each followed by those above it.

    What one of them limits is limited for all below, so that the narrowest counts. Folders need
    not exist: within a container only what lies at the top may be seen.

    :param controller: ``cpu`` or ``memory``.
    :param root: of the file system that the kernel's files are read from.
    """
    try:
        lines = (root / 'proc/self/cgroup').read_text().splitlines()
    except OSError:
        return
    mount = root / 'sys/fs/cgroup'
    for line in lines:
        _, controllers, path = line.split(':', 2)
        unified = not controllers
        if not unified and controller not in controllers.split(','):
            continue
        top = mount if unified else mount / controller
        folder = top / path.lstrip('/')
        yield Group(folder, unified)
        for above in folder.parents:
            if not above.is_relative_to(top):
                break
            yield Group(above, unified)
