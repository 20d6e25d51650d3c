# SPDX-License-Identifier: Apache-2.0
"""All tests stay on this machine, in a domain of their own."""

from __future__ import annotations

import os

from adpc_ros.ros.domain import isolated

os.environ.update(isolated(os.environ))

# The networks here are tiny: more threads only wait for each other, above all on a busy machine.
os.environ.setdefault('OMP_NUM_THREADS', '1')
