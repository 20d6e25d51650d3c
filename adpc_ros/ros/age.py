# SPDX-License-Identifier: Apache-2.0
"""How old a message is, on the node's clock."""

from __future__ import annotations

from builtin_interfaces.msg import Time
from rclpy.clock import Clock, ROSClock


def is_simulated(clock: Clock) -> bool:
    """Tell whether the time comes from ``/clock``."""
    return isinstance(clock, ROSClock) and clock.ros_time_is_active


def age_of(stamp: Time, clock: Clock) -> float | None:
    """
    Give the time since a stamp.

    :param clock: the node's.
    :return: in seconds; None before the first message on ``/clock``.
    """
    now_ns: int = clock.now().nanoseconds
    if is_simulated(clock) and now_ns == 0:
        return None
    # plain numbers: rclpy's Time takes no negative seconds
    return float(now_ns - stamp.sec * 10**9 - stamp.nanosec) / 1e9
