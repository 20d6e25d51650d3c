# SPDX-License-Identifier: Apache-2.0
"""An isolated ROS graph: demo, tests and benchmarks never reach a vehicle's."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from adpc_ros.ros.packaged import FASTDDS_PROFILE, packaged
from adpc_ros.ros.shared_memory import profile_variables

_DOMAINS = 100  # 1 to 100 are free of the ports that Linux hands out


def isolated(environment: Mapping[str, str]) -> dict[str, str]:
    """
    Give an environment for processes that talk to each other on this machine only.

    :param environment: variables to start from; a domain in ``ADPC_DOMAIN_ID`` is taken, else one
        that no other process took this way, for as long as this process lives.
    :return: a copy with domain, discovery range and the shared-memory profile set.
    """
    result = dict(environment)
    result['ROS_DOMAIN_ID'] = environment.get('ADPC_DOMAIN_ID') or str(take_domain(os.getpid()))
    result['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    return result | profile_variables(packaged(FASTDDS_PROFILE))


@cache
def take_domain(near: int) -> int:
    """
    Take a domain that no other process took, for as long as this one lives.

    :param near: any number; where the search begins, and the same gives the same domain again.
    :return: 1 to 100; that of another process if all are taken.
    """
    folder = Path(tempfile.gettempdir())
    for domain in (1 + (near + i) % _DOMAINS for i in range(_DOMAINS)):
        try:
            lock = os.open(folder / f'adpc_ros_domain_{domain}', os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:  # another user's
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return domain  # the lock stays until the process ends
        except OSError:
            os.close(lock)
    return 1 + near % _DOMAINS
