# SPDX-License-Identifier: Apache-2.0
"""Training samples from synthetic streets."""

from __future__ import annotations

from adpc_ros.learning.sample import Sample
from adpc_ros.street import StreetDrive

FIRST_SEED = 1000  # far from those of the demonstration and the tests: nobody trains on these


class StreetSamples:
    """
    Labelled frames of many synthetic streets, with the classes of CamVid.

    A street is drawn when one of its frames is first asked for; its frames are kept (0.7 MB
    each), the street itself, which is larger, is not.
    """

    def __init__(self, streets: int = 32, frames: int = 16, interval_s: float = 0.6) -> None:
        """
        Plan the streets.

        :param streets: number of different streets.
        :param frames: taken of each.
        :param interval_s: time between two of them.
        """
        self._frames = frames
        self._rate_hz = 1 / interval_s
        self._drawn: list[list[Sample] | None] = [None] * streets

    def __len__(self) -> int:
        """Count the frames of all streets."""
        return len(self._drawn) * self._frames

    def __getitem__(self, index: int) -> Sample:
        """
        Give a frame; the same index always gives the same.

        :raises IndexError: if there is no such frame.
        """
        if not 0 <= index < len(self):
            raise IndexError(f'expected an index from 0 to {len(self) - 1}, got {index}')
        street, frame = divmod(index, self._frames)
        samples = self._drawn[street]
        if samples is None:
            samples = self._draw(street)
            self._drawn[street] = samples
        return samples[frame]

    def _draw(self, street: int) -> list[Sample]:
        drive = StreetDrive(self._frames, rate_hz=self._rate_hz, seed=FIRST_SEED + street)
        samples = []
        for frame in drive:
            assert frame.label is not None
            samples.append(Sample(frame.image, frame.label))
        return samples
