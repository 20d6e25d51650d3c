# SPDX-License-Identifier: Apache-2.0
"""The commands of ``python -m adpc_ros``; each module has ``add``, which describes its own."""
