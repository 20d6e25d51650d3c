# SPDX-License-Identifier: Apache-2.0
"""The native plan, which benchmarks ask for and replace only where there can be none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from adpc_ros.network.anytime import AnytimeNetwork
from adpc_ros.runtime.compile import compile_network, has_program
from adpc_ros.runtime.network_plan import NetworkPlan
from adpc_ros.runtime.plan import Plan
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


def plan_of(network: AnytimeNetwork, dtype: torch.dtype, threads: int) -> Plan:
    """
    Give the native plan of a network; PyTorch's, if no program describes its family.

    :param dtype: float32 or bfloat16.
    :param threads: of the native plan, from 1; PyTorch's are the process's.
    :raises ValueError: as :func:`native_plan` does, and for a type that the plan does not compute.
    """
    if has_program(network):
        return native_plan(compile_network(network), dtype, threads)
    return NetworkPlan(network, 'cpu', dtype)
