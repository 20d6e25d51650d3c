# SPDX-License-Identifier: Apache-2.0
"""
What the engine asks of a compiled network: the interface of all plans.

A plan gives what the network gives; wherever it yields the caller may stop, and nothing remains.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from adpc_ros.network.adaptivity import ActiveMap
from adpc_ros.network.families import NetworkConfig
from adpc_ros.runtime.images import Rendered

_ROUNDING = 1e-4  # of a mean of probabilities in float32


class _Fields(NamedTuple):
    exit_index: int
    rendered: Rendered
    mean_confidence: float
    confident_share: float
    macs: int
    active_share: float


class ComputedExit(_Fields):
    """
    One exit of an image.

    ``exit_index`` counts from 1. ``rendered`` holds class ids and confidence, in new arrays;
    ``mean_confidence`` and ``confident_share`` (pixels at or above the threshold), both of the
    published, calibrated confidence, are in [0, 1]; ``macs`` are the multiply-accumulates so far,
    by the paper's convention; ``active_share`` (0 to 1) is what the next exit will compute of the
    positions at this one's resolution.

    :raises ValueError: if the mean confidence is none: plans make it NaN where a class score is
        NaN or infinite, which class ids and confidence would not show.
    """

    __slots__ = ()

    def __new__(
        cls,
        exit_index: int,
        rendered: Rendered,
        mean_confidence: float,
        confident_share: float,
        macs: int,
        active_share: float,
    ) -> ComputedExit:
        """Check what was computed."""
        if not -_ROUNDING <= mean_confidence <= 1.0 + _ROUNDING:  # nor NaN
            raise ValueError(
                f'exit {exit_index}: expected finite class scores and a mean confidence from 0 '
                f'to 1, got a mean confidence of {mean_confidence:g}'
            )
        return super().__new__(
            cls, exit_index, rendered, mean_confidence, confident_share, macs, active_share
        )


class StepTime(NamedTuple):
    """
    How long one step took.

    ``name`` and ``exit_index`` as in :class:`adpc_ros.runtime.program.Step`; ``shape`` (C, H, W)
    of its output; ``active_share`` (0 to 1) of the positions at that size, 1.0 without masks;
    ``kernel`` is ``winograd`` for a convolution that was computed so, else empty.
    """

    name: str
    exit_index: int
    shape: tuple[int, ...]
    seconds: float
    active_share: float
    kernel: str = ''


class Plan(Protocol):
    """A compiled network; segments one image at a time."""

    @property
    def config(self) -> NetworkConfig:
        """The network's configuration."""

    @property
    def exit_count(self) -> int:
        """Number of exits."""

    @property
    def description(self) -> str:
        """What computes, in what precision and where, for people."""

    def segment(
        self,
        image: NDArray[np.uint8],
        adaptive: bool = True,
        active_maps: list[ActiveMap] | None = None,
    ) -> Iterator[ComputedExit | None]:
        """
        Segment an image; the work is done while the iterator is advanced.

        :param image: (H, W, 3) uint8 RGB of any size.
        :param adaptive: False computes every position.
        :param active_maps: given, one for each exit but the last, these rule the stages after
            it; at 1/4 of the padded size, or as coarse as the exit.
        :return: an iterator that yields each exit, and None where it lets the caller look at the
            clock: when it was interrupted, when the time of :meth:`run_until` has come, and
            wherever else a plan likes to (PyTorch: after every step). Every advance does at least
            a small unit of work. Dropping the iterator cancels what is left.
        :raises ValueError: for another shape or dtype; for active maps without adaptivity; at an
            exit whose class scores are not all finite.
        """

    def run_until(self, time_s: float) -> None:
        """
        Let the running segmentation, and those that follow, yield at this time.

        From any thread; it takes effect within about a millisecond, also in a call that is
        running. A time that has come lets every advance yield after a small unit of work.

        :param time_s: as of :func:`time.monotonic`; infinity, as at the start, for never.
        """

    @property
    def progress(self) -> int:
        """Number of units of work done so far; from any thread, also while one segments."""

    @property
    def memory_bytes(self) -> int:
        """
        What weights and features take, in bytes; the latter from the first image on.

        Do not ask while another thread segments.
        """

    def bytes_for(self, size: tuple[int, int]) -> int:
        """
        Give about how many bytes features take for an image; nothing is allocated.

        Do not call it while another thread segments.

        :param size: (H, W) in pixels.
        """

    def logits(self) -> Tensor:
        """
        Give the class scores of the latest exit of the current or last segmentation.

        Call it before you advance the iterator of :meth:`segment` again.

        :return: (1, K, h, w) float32 after carry-over, at the exit's scale of the padded size.
        :raises RuntimeError: if there was no exit yet.
        """

    def interrupt(self) -> None:
        """
        Let the running segmentation yield as soon as it can; from any thread, returns at once.

        It may be dropped then or go on as if nothing had been. If nothing runs, the next
        segmentation may yield early once.
        """

    def close(self) -> None:
        """Free memory and threads; nothing may be computed afterwards."""

    def step_times(self) -> list[StepTime]:
        """Give the times of the last segmentation that was carried to its end."""
