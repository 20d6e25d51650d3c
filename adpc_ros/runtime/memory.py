# SPDX-License-Identifier: Apache-2.0
"""What memory a frame may take: counted before anything of it is allocated."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from adpc_ros.runtime.cgroups import groups_of

if TYPE_CHECKING:
    from adpc_ros.runtime.plan import Plan

MIB = 2**20
_IMAGE_BYTES = 16  # for each pixel: decoded, and class ids and confidence of some exits
_MEASURED = (1024, 1024)
_NO_LIMIT = 1 << 60  # cgroup v1 says a number near 2^63
_FILES = {  # of a cgroup, v2 or not
    True: ('memory.current', 'memory.max'),
    False: ('memory.usage_in_bytes', 'memory.limit_in_bytes'),
}


class Budget(NamedTuple):
    """What a frame may take, and takes for each pixel, in bytes."""

    bytes: int
    bytes_per_pixel: float

    def check(self, size: tuple[int, int]) -> None:
        """
        Make sure that an image fits.

        :param size: (H, W) in pixels.
        :raises ValueError: if it would take more.
        """
        needed = self.bytes_per_pixel * size[0] * size[1]
        if needed > self.bytes:
            raise ValueError(
                f'expected frames of at most {self.bytes / MIB:.0f} MiB (frame_memory_mib), '
                f'one of {size[0]}x{size[1]} would take {needed / MIB:.0f} MiB'
            )


def budget_of(plan: Plan, limit_mib: int, device: str) -> Budget:
    """
    Give the budget of the frames of a plan that segments nothing yet.

    :param limit_mib: MiB for a frame; 0 for half of what is free.
    :param device: where features lie: cpu, cuda or cuda:N.
    """
    per_pixel = plan.bytes_for(_MEASURED) / (_MEASURED[0] * _MEASURED[1]) + _IMAGE_BYTES
    return Budget(limit_mib * MIB or free_bytes(device) // 2, per_pixel)


def free_bytes(device: str = 'cpu', root: Path = Path('/')) -> int:
    """
    Give what this process may still take: of the machine, its cgroup (v2 or v1) or a GPU.

    :param device: cpu, cuda or cuda:N.
    :param root: of the file system that the kernel's files are read from.
    """
    if device.partition(':')[0] == 'cuda':
        import torch  # those who ask for the memory of the machine do without

        return int(torch.cuda.mem_get_info(torch.device(device))[0])
    found = [_available(root / 'proc/meminfo')]
    for folder, unified in groups_of('memory', root):
        usage, limit = _FILES[unified]
        most, used = _number(folder / limit), _number(folder / usage)
        if most is not None and used is not None and most < _NO_LIMIT:
            found.append(max(most - used + _cache(folder / 'memory.stat'), 0))
    return min(found)


def _available(meminfo: Path) -> int:
    for line in meminfo.read_text().splitlines():
        if line.startswith('MemAvailable:'):
            return int(line.split()[1]) * 1024
    raise ValueError(f'{meminfo}: expected a line MemAvailable')


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no such file, or 'max'
        return None


def _cache(stat: Path) -> int:
    """Give the bytes of files that a cgroup holds and would give back."""
    try:
        lines = stat.read_text().splitlines()
    except OSError:
        return 0
    values = dict(line.split() for line in lines)
    return int(values.get('inactive_file', values.get('total_inactive_file', 0)))
