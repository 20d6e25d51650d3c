# SPDX-License-Identifier: Apache-2.0
"""The native plan, which benchmarks ask for and do not replace."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from adpc_ros.runtime.program import Program

if TYPE_CHECKING:
    from adpc_ros.runtime.cpu import CpuPlan


def native_plan(program: Program, dtype: torch.dtype, threads: int) -> CpuPlan:
    """
    Give a native plan.

    :param dtype: float32 or bfloat16.
    :param threads: from 1.
    :raises ValueError: if the kernels are not built or cannot execute the program here.
    """
    try:
        from adpc_ros.runtime.cpu import CpuPlan, Unsupported

        return CpuPlan(program, dtype=dtype, threads=threads)
    except (ImportError, OSError) as error:
        raise ValueError(f'native kernels are not built: {error}') from error
    except Unsupported as error:
        raise ValueError(f'native kernels do not fit: {error}') from error
