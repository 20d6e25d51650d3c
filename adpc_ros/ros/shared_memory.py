# SPDX-License-Identifier: Apache-2.0
"""
Fast DDS's shared memory: which profile counts, what it needs, and what to do if that is missing.

Large images go through it. Without a profile its segments are too small for them. Where /dev/shm
cannot hold the profile's segment, Fast DDS falls back to UDP without a word, many times slower.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from adpc_ros.ros.packaged import FASTDDS_PROFILE, packaged

#: Read by Fast DDS 3 (Kilted and later), and by Fast DDS 2.
PROFILE_VARIABLES = ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE')
SHM = Path('/dev/shm')
_MIB = 2**20
_PROCESSES = 2  # that need a segment at least: camera and node
_ADVICE = 'make it larger (docker run --shm-size=256m), here and where the images are published'


def chosen_profile(environment: Mapping[str, str]) -> str:
    """Give the path of the profile that the environment names; empty for none."""
    return next((p for name in PROFILE_VARIABLES if (p := environment.get(name))), '')


def profile_variables(path: str | Path) -> dict[str, str]:
    """Give the variables that name a profile."""
    return dict.fromkeys(PROFILE_VARIABLES, str(path))


def segment_bytes(profile: str | Path) -> int:
    """
    Read how large a process's segment is in bytes; 0 if the profile asks for no shared memory.

    :raises OSError: if there is no such file.
    :raises ValueError: if it is no XML, or a size no number.
    """
    try:
        root = ElementTree.parse(profile).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(
            f'{profile}: expected a profile of Fast DDS (XML), got: {error}'
        ) from None
    sizes = [0]
    for descriptor in root.iter():
        found = {child.tag.rpartition('}')[2]: child.text or '' for child in descriptor}
        if found.get('type', '').strip() == 'SHM' and 'segment_size' in found:
            text = found['segment_size'].strip()
            if not text.isdigit():
                raise ValueError(f'{profile}: segment_size: expected bytes, got {text!r}')
            sizes.append(int(text))
    return max(sizes)


class Room(NamedTuple):
    """Room for shared memory in bytes: all, what is free, and this process's largest segment."""

    total: int
    free: int
    own: int

    @classmethod
    def now(cls) -> Room:
        """Ask the system."""
        try:
            volume = os.statvfs(SHM)
        except OSError:  # there is none
            return cls(0, 0, 0)
        maps = Path('/proc/self/maps').read_text().splitlines()
        ranges = [line.split()[0].split('-') for line in maps if f'{SHM}/fast' in line]
        own = max((int(end, 16) - int(start, 16) for start, end in ranges), default=0)
        return cls(
            volume.f_blocks * volume.f_frsize,
            volume.f_bavail * volume.f_frsize,
            own,
        )


def complaint(environment: Mapping[str, str], room: Room) -> str:
    """
    Say what keeps large images from going through shared memory, and what to do; else nothing.

    :param room: what there is once the process has joined the graph.
    """
    profile = chosen_profile(environment)
    if not profile and environment.get('FASTDDS_BUILTIN_TRANSPORTS'):
        return ''  # chosen by who knows
    if not profile:
        return (
            f'no profile for Fast DDS ({" or ".join(PROFILE_VARIABLES)}), which loses most large '
            f'images between processes without: use {packaged(FASTDDS_PROFILE)} here and where '
            'the images are published'
        )
    try:
        segment = segment_bytes(profile)
    except OSError as error:
        return f'the profile for Fast DDS cannot be read: {profile}: {error.strerror}'
    except ValueError as error:
        return str(error)
    if not segment or (room.own >= segment and room.total >= _PROCESSES * segment):
        return ''
    return (
        f'{SHM} has {room.total / _MIB:.0f} MiB, of which {room.free / _MIB:.0f} are free; each '
        f'process needs {segment / _MIB:.0f} MiB as {profile} says, else large images go by UDP, '
        f'many times slower: {_ADVICE}'
    )
