# SPDX-License-Identifier: Apache-2.0
"""Compile a network into the plan that executes it: the native one, or PyTorch's."""

from __future__ import annotations

import logging

import torch

from adpc_ros.network.anytime import AnytimeNetwork
from adpc_ros.network.task import Task
from adpc_ros.runtime.compile import compile_network, has_program
from adpc_ros.runtime.network_plan import NetworkPlan
from adpc_ros.runtime.plan import Plan
from adpc_ros.runtime.program import Program
from adpc_ros.runtime.torch_plan import TorchPlan

log = logging.getLogger(__name__)


def make_plan(
    network: AnytimeNetwork,
    device: str | torch.device = 'cpu',
    dtype: torch.dtype = torch.float32,
    threads: int = 0,
) -> Plan:
    """
    Compile a network; its later changes do not reach the plan.

    On the CPU it is the native plan where that can be had; else PyTorch, with a warning. PyTorch
    also runs the networks that no program describes.

    :param network: trained; used in evaluation mode.
    :param device: where it is computed.
    :param dtype: of weights and activations, float32 or bfloat16.
    :param threads: of the native plan, 0 for one for each core; PyTorch's are the process's.
    :raises ValueError: for weights that are not finite in that type, BatchNorm included; names
        the layer. Or for a network that is not for segmentation.
    """
    network.config.check_task(Task.SEGMENTATION)
    if not has_program(network):
        return NetworkPlan(network, device, dtype)
    program = compile_network(network)
    native = None
    if torch.device(device).type == 'cpu':
        native = _native_plan(program, dtype, threads)
    return native or TorchPlan(program, device, dtype)


def _native_plan(program: Program, dtype: torch.dtype, threads: int) -> Plan | None:
    try:
        from adpc_ros.runtime.cpu import CpuPlan, Unsupported  # loads the library

        return CpuPlan(program, dtype=dtype, threads=threads)
    except OSError as error:
        log.warning('native kernels are not built, PyTorch computes instead: %s', error)
    except Unsupported as error:
        log.warning('native kernels do not fit, PyTorch computes instead: %s', error)
    return None
