"""Where the packaged weights are."""

from __future__ import annotations

from pathlib import Path

PACKAGED_WEIGHTS = 'weights/hrnet_w18_small_v2_camvid.safetensors'


def packaged_weights() -> Path:
    """Give the demonstration weights: in the source tree, else in the installed package."""
    in_source = Path(__file__).resolve().parents[2] / PACKAGED_WEIGHTS
    if in_source.exists():
        return in_source
    from ament_index_python.packages import get_package_share_directory

    return Path(get_package_share_directory('adpc_ros')) / PACKAGED_WEIGHTS
