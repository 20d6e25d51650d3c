# SPDX-License-Identifier: Apache-2.0
"""A plan for networks that no program describes: PyTorch runs their modules, step by step."""

from __future__ import annotations

import copy
import dataclasses
import time
import weakref
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from adpc_ros.network.adaptivity import ActiveMap
from adpc_ros.network.anytime import AnytimeNetwork, Exit
from adpc_ros.network.families import NetworkConfig, build_network
from adpc_ros.network.macs import ConvCost, count_maps, exit_costs
from adpc_ros.runtime.cuda import full_float32
from adpc_ros.runtime.images import inverse_temperatures, padded_size, to_input
from adpc_ros.runtime.plan import ComputedExit, StepTime
from adpc_ros.runtime.torch_plan import render_exit

_SIZES = 64  # of images that costs are kept of
_WORKSPACE = 1.25  # PyTorch's layers need up to a quarter of the features again (measured)


class Costs(NamedTuple):
    """What images of a size cost: convolutions of each exit, and bytes of features."""

    convolutions: list[list[ConvCost]]
    feature_bytes: int


class NetworkPlan:
    """Runs a network's own steps (:meth:`AnytimeNetwork.steps`), in PyTorch's threads."""

    def __init__(
        self,
        network: AnytimeNetwork,
        device: str | torch.device = 'cpu',
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """
        Copy the network; its later changes do not reach the plan.

        :param network: trained; used in evaluation mode.
        :param device: where it runs.
        :param dtype: float32; nothing else is computed here.
        :raises ValueError: for another type, and for weights that are not finite; names the first.
        """
        if dtype is not torch.float32:
            raise ValueError(
                f'{network.config.architecture}: expected float32, which is all that networks '
                f'without a program compute in, got {dtype}'
            )
        for name, tensor in network.state_dict().items():
            if not tensor.isfinite().all():
                raise ValueError(f'{name}: expected finite numbers')
        self.device = torch.device(device)
        self._network = copy.deepcopy(network).to(self.device).eval()
        for module in self._network.modules():
            if isinstance(module, nn.Conv2d):  # a step may be an iteration of many seconds
                module.register_forward_hook(self._advance)
        self._weight_bytes = sum(p.nbytes for p in self._network.parameters())
        self._feature_bytes = 0
        self._costs: dict[tuple[tuple[int, int], bool], Costs] = {}  # by padded size and masks
        self._logits: Tensor | None = None
        self._times: list[StepTime] = []
        self._progress = 0
        self._closed = False

    @property
    def config(self) -> NetworkConfig:
        """The network's configuration."""
        return self._network.config

    @property
    def exit_count(self) -> int:
        """Number of exits."""
        return self.config.exit_count

    @property
    def description(self) -> str:
        """What computes, for people."""
        return f'PyTorch float32 on {self.device}, module by module'

    @property
    def progress(self) -> int:
        """Number of convolutions computed so far; from any thread."""
        return self._progress

    def _advance(self, *_: object) -> None:
        self._progress += 1

    @property
    def memory_bytes(self) -> int:
        """What weights and features take, as :attr:`adpc_ros.runtime.plan.Plan.memory_bytes`."""
        return self._weight_bytes + self._feature_bytes

    def bytes_for(self, size: tuple[int, int]) -> int:
        """Give about what an image takes, as :meth:`adpc_ros.runtime.plan.Plan.bytes_for`."""
        return int(_WORKSPACE * peak_bytes(self.config, padded_size(size, self.config)))

    @torch.inference_mode()
    def segment(
        self,
        image: NDArray[np.uint8],
        adaptive: bool = True,
        active_maps: list[ActiveMap] | None = None,
    ) -> Iterator[ComputedExit | None]:
        """Segment an image, as :meth:`adpc_ros.runtime.plan.Plan.segment`."""
        if active_maps is not None and self.config.adaptivity is None:
            raise ValueError('active maps need a network with adaptivity: it is None')
        if self._closed:
            raise RuntimeError('the plan is closed')
        x = to_input(image, self.config, self.device)
        size, padded = (image.shape[0], image.shape[1]), (x.shape[2], x.shape[3])
        self._logits = None
        key = padded, adaptive and self.config.adaptivity is not None
        costs = self._costs.get(key)
        if costs is None:  # each of the two takes seconds for a large network
            if len(self._costs) == _SIZES:
                del self._costs[next(iter(self._costs))]
            convolutions = exit_costs(self.config, padded, adaptive)
            yield None
            costs = self._costs[key] = Costs(convolutions, self.bytes_for(size))
            yield None
        self._feature_bytes = costs.feature_bytes
        times: list[StepTime] = []
        maps: list[ActiveMap | None] = []
        inverse: Tensor | None = None
        steps = self._network.steps(x, adaptive, active_maps)
        while True:
            started_s = time.perf_counter()
            with full_float32(self.device):
                done = next(steps, steps)
            if done is steps:
                break
            took_s = time.perf_counter() - started_s
            index = len(maps) + 1
            times.append(StepTime(f'exit{index}.step{len(times) + 1}', index, (), took_s, 1.0))
            yield None
            if not isinstance(done, Exit):
                continue
            maps.append(done.active)
            self._logits = logits = done.logits.float()
            carried = done.logits is not done.raw_logits
            inverse = inverse_temperatures(
                *(logits, self.config, done.exit_index),
                *(done.active if carried else None, inverse),
            )
            cells = (logits.shape[2], logits.shape[3])
            shown = done.next_active or done.active  # at the last exit what it computed itself
            yield from render_exit(
                logits,
                size,
                self.config,
                done.exit_index,
                count_maps(costs.convolutions[: len(maps)], maps)[-1],
                1.0 if shown is None else shown.share(cells),
                inverse,
            )
        self._times = times

    def logits(self) -> Tensor:
        """Give the latest class scores, as :meth:`adpc_ros.runtime.plan.Plan.logits`."""
        if self._logits is None:
            raise RuntimeError('no exit yet: expected a segmentation up to its first exit')
        return self._logits

    def interrupt(self) -> None:
        """Do nothing: the running segmentation yields after every step."""

    def run_until(self, time_s: float) -> None:
        """Do nothing: the running segmentation yields after every step."""

    def step_times(self) -> list[StepTime]:
        """Give the last complete segmentation's times; of CUDA, until a step was handed over."""
        return self._times

    def close(self) -> None:
        """Free the weights; nothing may be computed afterwards."""
        self._closed = True
        self._network.to('meta')
        self._weight_bytes = self._feature_bytes = 0


class _Peak(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's is untyped
    """Adds up the bytes of the tensors that are alive, and remembers the most."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self._known: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        size = self._known[storage] = storage.nbytes()
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._free, size)

    def _free(self, size: int) -> None:
        self.now -= size


def peak_bytes(config: NetworkConfig, size: tuple[int, int]) -> int:
    """
    Give the most bytes of features that a network holds at once; nothing is computed.

    :param size: (H, W) in pixels, as the network takes it.
    """
    with torch.device('meta'):
        network = build_network(dataclasses.replace(config, adaptivity=None)).eval()
    image = torch.empty(1, 3, *size, device='meta')
    with torch.inference_mode(), _Peak() as peak:
        for _ in network.steps(image):
            pass
    most: int = peak.most
    return most
