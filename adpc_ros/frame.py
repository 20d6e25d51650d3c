# SPDX-License-Identifier: Apache-2.0
"""What a source of camera frames is: the frames themselves, and a drive as a sequence of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from adpc_ros.labels import ClassSet


class DriveFrame(NamedTuple):
    """
    One camera frame.

    ``stamp_ns`` is the time of recording in nanoseconds, ``image`` (H, W, 3) uint8 RGB, ``label``
    (H, W) uint8 class ids with 255 for unlabelled, or None where nobody labelled the frame.
    """

    stamp_ns: int
    image: NDArray[np.uint8]
    label: NDArray[np.uint8] | None


class Drive(Protocol):
    """
    A sequence of camera frames that can be run through again and again.

    ``name`` says where the frames come from, ``rate_hz`` how many there are in a second,
    ``classes`` what the labels mean (None: no labels). Nothing is read or drawn before the
    iteration asks for it.
    """

    @property
    def name(self) -> str:
        """Short name of the source, for tables and reports."""

    @property
    def rate_hz(self) -> float:
        """Frames per second as recorded."""

    @property
    def classes(self) -> ClassSet | None:
        """Classes of the labels, None if no frame has a label."""

    def __len__(self) -> int:
        """Count the frames."""

    def __iter__(self) -> Iterator[DriveFrame]:
        """Give the frames in order of recording, each made when the iterator reaches it."""
