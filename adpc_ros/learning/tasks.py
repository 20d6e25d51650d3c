# SPDX-License-Identifier: Apache-2.0
"""The tasks that can be trained for, by what the recipe's network is for."""

from __future__ import annotations

from typing import Any

from adpc_ros.learning.config import TrainConfig
from adpc_ros.learning.distributed import Processes
from adpc_ros.learning.segmentation import Samples, Segmentation
from adpc_ros.learning.task import LearningTask


def open_task(
    config: TrainConfig, processes: Processes, synthetic: Samples | None = None
) -> LearningTask[Any]:
    """
    Open the data of a recipe.

    :param synthetic: source of the recipe's synthetic share.
    :raises ValueError: if data are missing, or do not fit each other or the recipe.
    """
    return Segmentation(config, processes, synthetic)
