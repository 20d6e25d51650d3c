# SPDX-License-Identifier: Apache-2.0
"""What CUDA asks for beyond the CPU: float32 as it is, and an end when the device is lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

NOT_RUN = 'CUDA has not been run: compare its masks with those of device cpu first'


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """
    Keep CUDA's convolutions in float32 for the block, and not in TF32 with its 10 bits.

    Does nothing for other devices. PyTorch keeps the choice for the whole process; afterwards it
    is as it was before.
    """
    if device.type != 'cuda':
        yield
        return
    settings = (
        torch.backends.cudnn.conv,  # type: ignore[attr-defined]
        torch.backends.cuda.matmul,
    )
    before = [setting.fp32_precision for setting in settings]
    try:
        for setting in settings:
            setting.fp32_precision = 'ieee'
        yield
    finally:
        for setting, value in zip(settings, before):
            setting.fp32_precision = value


def is_lost(error: BaseException | None) -> bool:
    """
    Tell whether an error means that this process can compute nothing more on its CUDA device.

    After most of CUDA's errors every later call fails likewise, until the process ends. Missing
    memory is none of them.
    """
    if isinstance(error, torch.OutOfMemoryError):
        return False
    return isinstance(error, torch.AcceleratorError) or (
        isinstance(error, RuntimeError) and 'CUDA error' in str(error)
    )
