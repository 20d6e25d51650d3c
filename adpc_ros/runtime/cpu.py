# SPDX-License-Identifier: Apache-2.0
"""
The native plan: kernels over lists of active positions, which can be paused within a layer.

What no active position depends on is not computed, and what does not change is not rendered.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adpc_ros.network.adaptivity import ActiveMap
from adpc_ros.network.families import NetworkConfig
from adpc_ros.runtime import native
from adpc_ros.runtime.cores import core_count
from adpc_ros.runtime.images import Rendered, confident_threshold, padded_size
from adpc_ros.runtime.lowering import CRITERIA, NativeOp, Unsupported, lower
from adpc_ros.runtime.native_counts import Counts, cells_of, share_of
from adpc_ros.runtime.plan import ComputedExit, StepTime
from adpc_ros.runtime.program import Program

__all__ = ['CpuPlan', 'Unsupported']

TYPES = {torch.float32: native.FLOAT32, torch.bfloat16: native.BFLOAT16}
KEPT_BUFFERS = 32  # of masks and confidences; what else comes back is freed


class CpuPlan:
    """Executes a program with the native kernels, in threads of its own."""

    def __init__(
        self,
        program: Program,
        dtype: torch.dtype = torch.float32,
        threads: int = 0,
        instruction_set: str | None = None,
    ) -> None:
        """
        Pack the weights.

        :param dtype: of weights and activations, float32 or bfloat16; sums are float32.
        :param threads: 0 for one for each core that this process may use.
        :param instruction_set: one of :func:`adpc_ros.runtime.native.instruction_sets`; None for
            the best.
        :raises Unsupported: for a network or type that the kernels cannot compute.
        :raises OSError: if the library was not built.
        :raises ValueError: for an instruction set that this machine has not; for weights that are
            not finite in that type.
        """
        if dtype not in TYPES:
            raise Unsupported(f'{dtype}: expected float32 or bfloat16')
        program.check(dtype)
        self._library = native.library()
        self._plan: int | None = None
        self._process = os.getpid()
        self._use = threading.Lock()  # held while the library works on the plan
        self._closing = threading.Lock()  # nobody interrupts a plan that is being freed
        self._program, self._dtype = program, dtype
        self._lowered = lower(program, fuse=dtype == torch.float32)
        self._threads = threads or core_count()
        self._plan = self._create(instruction_set)
        type_ = TYPES[dtype]
        for slot in self._lowered.slots[2:]:
            wide = native.FLOAT32 if slot.wide else type_
            if self._call('adpc_add_slot', slot.channels, slot.level, wide) < 0:
                raise MemoryError('no memory for the plan')
        for op in self._lowered.ops:
            self._add(op)
        self._freed: deque[bytearray] = deque(maxlen=KEPT_BUFFERS)
        self._freed_size = (0, 0)
        self._segmentation = 0  # counts them, so that an iterator knows that it is over
        self._size = (0, 0)
        self._exits: list[native.ExitResult] = []
        self._latest = 0  # exit index of the last of them
        self._counts = Counts(program, self._lowered)
        self._times: Callable[[], list[StepTime]] = list

    def _create(self, instruction_set: str | None) -> int:
        config = self._program.config
        adaptivity, classes = config.adaptivity, config.class_count
        thresholds = torch.ones(config.stage_count - 1, classes)
        if adaptivity is not None:
            for i, row in enumerate(thresholds):
                row[:] = torch.tensor(adaptivity.thresholds_of(i + 1))
        values = torch.arange(256, dtype=torch.float32)
        table = torch.stack(
            [(values - mean * 255) / (std * 255) for mean, std in zip(config.mean, config.std)]
        )
        error = ctypes.create_string_buffer(500)
        plan: int | None = self._library.adpc_create(
            instruction_set.encode() if instruction_set else None,
            TYPES[self._dtype],
            self._threads,
            classes,
            config.stage_count,
            self._lowered.slots[native.SCORES].level,
            config.sizes.size_multiple,
            adaptivity is not None and CRITERIA[adaptivity.criterion],
            _floats(thresholds),
            (ctypes.c_float * config.stage_count)(*config.temperatures),
            confident_threshold(config),
            _floats(table),
            error,
            len(error),
        )
        if plan is None:
            raise ValueError(error.value.decode())
        return plan

    def _add(self, op: NativeOp) -> None:
        given = native.Op(
            kind=op.kind,
            step=op.step,
            exit_index=op.exit_index,
            masked=op.masked,
            needed=op.needed,
            output=op.output,
            relu=op.relu,
            gives_exit=op.gives_exit,
            input=op.input,
            residual=op.residual,
            stride=op.stride,
            depthwise=op.depthwise,
            source_count=len(op.sources),
            pooled=op.pooled,
            concatenate=op.concatenate,
            kernel=1 if op.weight is None else op.weight.shape[2],
        )
        given.sources[: len(op.sources)] = op.sources
        tensors = {
            name: tensor.contiguous()  # kept until the library has copied them
            for name in native.TENSORS
            if (tensor := getattr(op, name)) is not None
        }
        for name, tensor in tensors.items():
            setattr(given, name, _floats(tensor))
        if op.window is not None:
            given.window_edge, given.reach = len(op.window), len(op.window) // 2
        if op.head_weight is not None:
            given.head_channels = op.head_weight.shape[1]
        if self._call('adpc_add_op', ctypes.byref(given)):
            raise MemoryError('no memory for the weights')

    def close(self) -> None:
        """Free memory and threads; nothing may be computed afterwards."""
        self.interrupt()
        with self._use, self._closing:
            plan, self._plan = self._plan, None
            if plan is not None and self._process == os.getpid():  # a fork has not its threads
                self._library.adpc_destroy(plan)

    def _call(self, name: str, *arguments: object) -> Any:
        """Call a function of the library on the plan; one thread at a time."""
        with self._use:
            return self._call_held(name, *arguments)

    def _call_held(self, name: str, *arguments: object) -> Any:
        return getattr(self._library, name)(self._open(), *arguments)

    def _open(self) -> int:
        if self._plan is None:
            raise RuntimeError('the plan is closed')
        return self._plan

    def __del__(self) -> None:
        """Close the plan if it was not closed."""
        if getattr(self, '_plan', None) is not None:
            self.close()

    @property
    def config(self) -> NetworkConfig:
        """The network's configuration."""
        return self._program.config

    @property
    def exit_count(self) -> int:
        """Number of exits."""
        return self.config.exit_count

    @property
    def description(self) -> str:
        """What computes, in what precision and where, for people."""
        name: bytes = self._call('adpc_instruction_set')
        type_ = str(self._dtype).removeprefix('torch.')
        return f'native {type_} kernels ({name.decode()})'

    @property
    def memory_bytes(self) -> int:
        """What weights and features take, in bytes; the latter from the first image on."""
        used: int = self._call('adpc_memory_bytes')
        return used

    def bytes_for(self, size: tuple[int, int]) -> int:
        """Give about what an image takes, as :meth:`adpc_ros.runtime.plan.Plan.bytes_for`."""
        features: int = self._call('adpc_bytes_for', *size)
        return features

    def segment(
        self,
        image: NDArray[np.uint8],
        adaptive: bool = True,
        active_maps: list[ActiveMap] | None = None,
    ) -> Iterator[ComputedExit | None]:
        """
        Segment an image, as :meth:`adpc_ros.runtime.plan.Plan.segment` says.

        The image is read in place, with any strides.

        :raises ValueError: also for active maps that are not nested.
        :raises MemoryError: if the image is too large for the memory there is.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise ValueError(
                f'expected an (H, W, 3) uint8 RGB image, got {image.shape} {image.dtype}'
            )
        frame = native.Frame(
            image=image.ctypes.data,
            row_bytes=image.strides[0],
            pixel_bytes=image.strides[1],
            green=image.strides[2],
            blue=2 * image.strides[2],
            height=image.shape[0],
            width=image.shape[1],
        )
        yield from self._run(frame, adaptive, active_maps)
        del image  # the library has read it up to here

    def execute(
        self,
        image: Tensor,
        adaptive: bool = True,
        active_maps: list[ActiveMap] | None = None,
    ) -> Iterator[ComputedExit | None]:
        """
        Segment an image that is normalised already.

        :param image: (1, 3, H, W) float32 on the CPU, of a padded size.
        :return: as :meth:`segment`.
        :raises ValueError: for another shape or type.
        """
        size = (image.shape[-2], image.shape[-1])
        right = image.dtype == torch.float32 and image.device.type == 'cpu'
        if image.shape != (1, 3, *padded_size(size, self.config)) or not right:
            raise ValueError(
                'expected a (1, 3, H, W) float32 image on the CPU, H and W multiples of '
                f'{self.config.sizes.size_multiple}, got {tuple(image.shape)} {image.dtype} '
                f'on {image.device}'
            )
        image = image.contiguous()
        frame = native.Frame(normalised=image.data_ptr(), height=size[0], width=size[1])
        yield from self._run(frame, adaptive, active_maps)
        del image

    def _run(
        self, frame: native.Frame, adaptive: bool, active_maps: list[ActiveMap] | None
    ) -> Iterator[ComputedExit | None]:
        size = (frame.height, frame.width)
        maps = self._maps(
            active_maps, padded_size(size, self.config)
        )  # kept until the end, as the image
        frame.adaptive = 2 if maps else int(adaptive and self.config.adaptivity is not None)
        frame.active[: len(maps)] = [array.ctypes.data for array in maps]
        if max(size) > native.MAX_EDGE:
            raise ValueError(f'expected at most {native.MAX_EDGE} pixels an edge, got {size}')
        with self._use:
            self._open()
            self._segmentation += 1
            segmentation = self._segmentation
            self._exits = []
            if self._call_held('adpc_start', ctypes.byref(frame)):
                raise MemoryError(f'no memory for an image of {size[0]}x{size[1]} pixels')
            self._size = padded_size(size, self.config)
        before: Rendered | None = None
        macs = 0
        while True:
            into = Rendered(self._array(size), self._array(size))
            while True:
                with self._use:
                    if segmentation != self._segmentation:
                        raise RuntimeError('the plan was given another image')
                    status = self._call_held(
                        'adpc_run',
                        *(array.ctypes.data for array in into),
                        *((None, None) if before is None else (a.ctypes.data for a in before)),
                    )
                if status != native.PAUSED:
                    break
                yield None
            if status == native.FINISHED:
                self._times = self._take_times()
                return
            result = native.ExitResult()
            with self._use:
                native.quick().adpc_last_exit(self._open(), ctypes.byref(result))
            self._exits.append(result)
            self._latest = status
            macs += self._counts.macs(self._exits, self._size, status)
            pixels = size[0] * size[1]
            before = into
            yield ComputedExit(
                status,
                into,
                result.confidence_sum / pixels,
                result.confident_pixels / pixels,
                macs,
                share_of(result, self._level_of(status)),
            )

    def _maps(
        self, active_maps: list[ActiveMap] | None, padded: tuple[int, int]
    ) -> list[NDArray[np.uint8]]:
        if active_maps is None:
            return []
        if self.config.adaptivity is None:
            raise ValueError('active maps need a network with adaptivity: it is None')
        sizes = [cells_of(padded, self._level_of(i + 1)) for i in range(len(active_maps))]
        maps = [
            np.ascontiguousarray(active.at(size)[0, 0].cpu().numpy().view(np.uint8))
            for active, size in zip(active_maps, sizes)
        ]
        count = self.config.stage_count - 1
        used = (ActiveMap(active.at(size)) for active, size in zip(active_maps, sizes))
        finest = [active.at(cells_of(padded, native.FINEST)) for active in used]
        if len(maps) != count or any(
            bool((later & ~earlier).any()) for earlier, later in zip(finest, finest[1:])
        ):
            raise ValueError(f'expected {count} active maps, each within the one before')
        return maps

    def _level_of(self, exit_index: int) -> int:
        """Give the log2 of the scale of an exit, which counts those that there are."""
        return self.config.exit_levels[exit_index - 1]

    def _array(self, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Give an array whose memory comes back once nobody holds it or a view of it."""
        if size != self._freed_size:
            self._freed, self._freed_size = deque(maxlen=KEPT_BUFFERS), size
        try:
            buffer = self._freed.pop()
        except IndexError:
            buffer = bytearray(size[0] * size[1])
        flat = np.frombuffer(buffer, np.uint8)  # views hold it, since it owns nothing itself
        weakref.finalize(flat, self._freed.append, buffer).atexit = False
        return flat.reshape(size)

    def logits(self) -> Tensor:
        """
        Give the class scores of the latest exit, (1, K, h, w) float32, at its own scale.

        The next exit's take their place, from the next unit of work on.
        """
        if not self._exits:
            raise RuntimeError('no exit was computed yet')
        rows, columns = cells_of(self._size, self._level_of(self._latest))
        scores = torch.empty((1, self.config.class_count, rows, columns))
        self._call('adpc_read_scores', scores.data_ptr())
        return scores

    def interrupt(self) -> None:
        """Let the running segmentation yield, as :meth:`adpc_ros.runtime.plan.Plan.interrupt`."""
        with self._closing:
            if self._plan is not None:
                native.quick().adpc_interrupt(self._plan)

    def run_until(self, time_s: float) -> None:
        """Let segmentations yield at a time, as :meth:`adpc_ros.runtime.plan.Plan.run_until`."""
        with self._closing:
            if self._plan is not None:
                native.quick().adpc_run_until(self._plan, time_s)

    @property
    def returned_s(self) -> float:
        """When the library gave back the latest unit of work, before Python had its lock."""
        return float(native.quick().adpc_returned_s(self._open()))

    @property
    def progress(self) -> int:
        """Units of work done so far; from any thread."""
        with self._closing:
            return 0 if self._plan is None else int(native.quick().adpc_progress(self._plan))

    def poison(self) -> None:
        """
        Overwrite all features of the last image with nonsense, for tests.

        What a later segmentation of the same size reads, it must have computed.
        """
        self._call('adpc_poison')

    def step_times(self) -> list[StepTime]:
        """Give the times of the last segmentation that was carried to its end."""
        return self._times()

    def _take_times(self) -> Callable[[], list[StepTime]]:
        """Take the times of this segmentation; they are put into words when they are asked for."""
        seconds = (ctypes.c_double * self._counts.seconds)()
        winograd = (ctypes.c_uint8 * len(seconds))()
        with self._use:
            native.quick().adpc_steps(self._open(), seconds, winograd, len(seconds))
        return partial(self._counts.step_times, self._exits, self._size, seconds, winograd)


def _floats(tensor: Tensor) -> ctypes.Array[ctypes.c_float]:
    return ctypes.cast(tensor.data_ptr(), native.Floats)  # type: ignore[return-value]
