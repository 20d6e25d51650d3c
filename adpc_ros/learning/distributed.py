# SPDX-License-Identifier: Apache-2.0
"""
Training in several processes, as torchrun starts them: each computes a share of every batch.

What they compute together equals what one process computes alone, but for rounding.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

_VARIABLES = ('RANK', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT')
_PATIENCE = timedelta(days=7)  # longer than any validation


@dataclass(frozen=True)
class Processes:
    """
    The processes that train together; one alone needs no process group.

    :param rank: of this one, from 0; process 0 validates and writes.
    :param count: of all.
    :param device: that this one computes on.
    :param patient: a group on the CPU, to wait for one another however long it takes.
    """

    rank: int
    count: int
    device: torch.device
    patient: dist.ProcessGroup | None = None

    @property
    def is_main(self) -> bool:
        """Tell whether this is the process that validates and writes."""
        return self.rank == 0

    def sum(self, x: Tensor) -> Tensor:
        """Add up a tensor over the processes, in place; gives it back."""
        if self.count > 1:
            dist.all_reduce(x)
        return x

    def wait(self) -> None:
        """Wait until all processes are here. One that ends meanwhile is an error in the others."""
        if self.count > 1:
            dist.barrier(self.patient)

    def check_same(self, value: str, what: str) -> None:
        """
        Compare what must be the same in all processes.

        :param what: names it in the error.
        :raises ValueError: if it is not.
        """
        if self.count == 1:
            return
        values: list[str] = [''] * self.count
        dist.all_gather_object(values, value, self.patient)
        if other := [rank for rank, found in enumerate(values) if found != values[0]]:
            raise ValueError(
                f'expected the same {what} in all processes, got {values[0]} in process 0 '
                f'and {values[other[0]]} in process {other[0]}'
            )


def environment_rank() -> int:
    """Give this process's rank as torchrun says it, 0 without torchrun."""
    return int(os.environ.get('RANK', '0'))


@contextlib.contextmanager
def start_processes() -> Iterator[Processes]:
    """
    Join the other processes, if torchrun has started any: nccl with CUDA devices, else gloo.

    :raises ValueError: if torchrun's environment is incomplete, or there are too few devices.
    """
    cuda = torch.cuda.is_available()
    count = int(os.environ.get('WORLD_SIZE', '1'))
    if count == 1:
        yield Processes(0, 1, torch.device('cuda' if cuda else 'cpu'))
        return
    if missing := [name for name in _VARIABLES if name not in os.environ]:
        names = ', '.join(missing)
        raise ValueError(f'WORLD_SIZE is {count}: expected {names}, too, as torchrun sets them')
    device = torch.device('cpu')
    if cuda:
        local, devices = int(os.environ['LOCAL_RANK']), torch.cuda.device_count()
        if local >= devices:
            raise ValueError(f'expected one process for each of {devices} devices, got more')
        device = torch.device('cuda', local)
        torch.cuda.set_device(device)
    dist.init_process_group('nccl' if cuda else 'gloo', device_id=device if cuda else None)
    patient = dist.new_group(backend='gloo', timeout=_PATIENCE)
    yield Processes(environment_rank(), count, device, patient)
    # Not after an error: the others may be waiting, and see this one go when it ends.
    dist.destroy_process_group()
