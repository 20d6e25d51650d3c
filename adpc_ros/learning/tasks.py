# SPDX-License-Identifier: Apache-2.0
"""The tasks that can be learnt, by what a recipe's network is for, and by the kind of data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from adpc_ros.learning import mpii
from adpc_ros.learning.config import TrainConfig
from adpc_ros.learning.datasets import DATA_SETS
from adpc_ros.learning.distributed import Processes
from adpc_ros.learning.pose import Poses
from adpc_ros.learning.segmentation import Samples, Segmentation
from adpc_ros.learning.task import LearningTask
from adpc_ros.network.task import Task

_OF_KIND = {**dict.fromkeys(DATA_SETS, Task.SEGMENTATION), mpii.KIND: Task.POSE}


def open_task(
    config: TrainConfig, processes: Processes, synthetic: Samples | None = None
) -> LearningTask[Any]:
    """
    Open the data of a recipe.

    :param synthetic: source of the recipe's synthetic share.
    :raises ValueError: if data are missing, or do not fit each other or the recipe.
    """
    openers: dict[Task, Callable[[], LearningTask[Any]]] = {
        Task.SEGMENTATION: lambda: Segmentation(config, processes, synthetic),
        Task.POSE: lambda: Poses(config, processes),
    }
    return openers[config.task]()


def task_of(description: str) -> Task:
    """
    Give what data are for.

    :param description: ``KIND:FOLDER``.
    :raises ValueError: for another form.
    """
    kind, _, folder = description.partition(':')
    if kind not in _OF_KIND or not folder:
        raise ValueError(
            f'expected {", ".join(f"{k}:FOLDER" for k in _OF_KIND)}, got {description!r}'
        )
    return _OF_KIND[kind]
