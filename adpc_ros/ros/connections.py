# SPDX-License-Identifier: Apache-2.0
"""How the diagnostics name the counts of a node: of frames, and of who is connected to it."""

from __future__ import annotations

RECEIVED, SEGMENTED, DROPPED = 'Frames received', 'Frames segmented', 'Frames dropped'
CAMERAS = 'Publishers of input/image'


def subscribers(topic: str) -> str:
    """Name the value that counts the subscribers of a topic, as ``output/mask``."""
    return f'Subscribers of {topic}'
