# SPDX-License-Identifier: Apache-2.0
"""An isolated ROS graph: demo, tests and benchmarks never reach a vehicle's."""

from __future__ import annotations

import os
from collections.abc import Mapping

from adpc_ros.ros.packaged import FASTDDS_PROFILE, packaged
from adpc_ros.ros.shared_memory import profile_variables

_DOMAINS = 100  # 1 to 100 are free of the ports that Linux hands out


def isolated(environment: Mapping[str, str]) -> dict[str, str]:
    """
    Give an environment for processes that talk to each other on this machine only.

    :param environment: variables to start from; a domain in ``ADPC_DOMAIN_ID`` is taken, else one
        is derived from the process id.
    :return: a copy with domain, discovery range and the shared-memory profile set.
    """
    result = dict(environment)
    result['ROS_DOMAIN_ID'] = environment.get('ADPC_DOMAIN_ID', str(1 + os.getpid() % _DOMAINS))
    result['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    return result | profile_variables(packaged(FASTDDS_PROFILE))
