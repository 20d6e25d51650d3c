# SPDX-License-Identifier: Apache-2.0
"""The native plan, which benchmarks ask for and replace only where there can be none."""

from __future__ import annotations

import torch

from adpc_ros.network.anytime import AnytimeNetwork
from adpc_ros.runtime.compile import compile_network, has_program
from adpc_ros.runtime.network_plan import NetworkPlan
from adpc_ros.runtime.plan import Plan


def plan_of(network: AnytimeNetwork, dtype: torch.dtype, threads: int) -> Plan:
    """
    Give the native plan of a network; PyTorch's, if no program describes its family.

    :param dtype: float32 or bfloat16.
    :param threads: of the native plan, from 1; PyTorch's are the process's.
    :raises ValueError: if there are no native kernels, or none for this program, and for a type
        that the plan does not compute.
    """
    if not has_program(network):
        return NetworkPlan(network, 'cpu', dtype)
    try:
        from adpc_ros.runtime.cpu import CpuPlan, Unsupported  # loads the library

        return CpuPlan(compile_network(network), dtype=dtype, threads=threads)
    except (ImportError, OSError) as error:
        raise ValueError(f'native kernels are not built: {error}') from error
    except Unsupported as error:
        raise ValueError(f'native kernels do not fit: {error}') from error
