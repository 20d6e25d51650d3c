# SPDX-License-Identifier: Apache-2.0
"""Files that come with the package."""

from __future__ import annotations

from pathlib import Path

WEIGHTS = 'weights/coarse_s_camvid.safetensors'
FASTDDS_PROFILE = 'config/fastdds_shared_memory.xml'


def packaged(relative: str) -> Path:
    """
    Give the path of a file of the package: in the source tree, else where it is installed.

    :param relative: path in the source tree; the file need not exist.
    """
    in_source = Path(__file__).resolve().parents[2] / relative
    if in_source.exists():
        return in_source
    from ament_index_python.packages import get_package_share_directory

    return Path(get_package_share_directory('adpc_ros')) / relative
