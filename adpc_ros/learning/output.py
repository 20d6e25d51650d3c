# SPDX-License-Identifier: Apache-2.0
"""What a training leaves in its output folder: weights, state, log and TensorBoard's scalars."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from adpc_ros import json_file
from adpc_ros.files import replacing
from adpc_ros.learning.config import changes
from adpc_ros.network.tensors import CheckpointError, read_pytorch

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class OutputFolder:
    """
    Names and forms of the files.

    ``best.safetensors``: the weights of the best validation; ``last.safetensors``: those after
    the latest epoch; ``last.pt``: all that it takes to go on; ``log.jsonl``: one record for each
    epoch.
    """

    def __init__(self, folder: str | Path) -> None:
        """Name the files; nothing is made yet."""
        self.folder = Path(folder)
        self.best = self.folder / 'best.safetensors'
        self.last = self.folder / 'last.safetensors'
        self.state = self.folder / 'last.pt'
        self.log = self.folder / 'log.jsonl'

    def read_state(self, recipe: str, device: torch.device) -> dict[str, Any] | None:
        """
        Read what an earlier run saved.

        :param recipe: JSON of the present one.
        :return: None if there is nothing.
        :raises ValueError: if it is broken, or was saved with another recipe or other data.
        """
        if not self.state.exists():
            return None
        state = read_pytorch(self.state, device)
        if not isinstance(state, dict):
            raise CheckpointError(
                f'{self.state}: expected the state of a training, got {type(state).__name__}'
            )
        if found := changes(json.loads(state.get('recipe') or '{}'), json.loads(recipe)):
            raise ValueError(
                f'{self.state} is of another recipe ({"; ".join(found)}): '
                'expected the same, or another output folder'
            )
        return state

    def write_state(self, state: Mapping[str, Any]) -> None:
        """Write what it takes to go on; the file is replaced only once the new one is complete."""
        with replacing(self.state) as partial:
            torch.save(dict(state), partial)

    def add_record(self, record: Mapping[str, Any]) -> None:
        """Add an epoch's record to the log."""
        with open(self.log, 'a') as file:
            file.write(json_file.dumps(record) + '\n')

    def forget_records(self, epochs: int) -> None:
        """Drop the log's records of what comes after so many epochs, which will come again."""
        if self.log.exists():
            lines = self.log.read_text().splitlines()
            kept = [line for line in lines if json.loads(line)['epoch'] <= epochs]
            if len(kept) < len(lines):
                self.log.write_text(''.join(f'{line}\n' for line in kept))


class Scalars:
    """Curves for TensorBoard, in the folder ``tensorboard``."""

    def __init__(self, folder: Path, first_step: int) -> None:
        """
        Begin, or go on with, the curves.

        :param first_step: what an earlier run wrote from here on is superseded.
        :raises ValueError: if TensorBoard is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ValueError(
                f'training writes curves for TensorBoard, which is missing ({error}): '
                'expected the package tensorboard, as pyproject.toml pins it'
            ) from error
        self._writer: SummaryWriter = SummaryWriter(
            str(folder / 'tensorboard'), purge_step=first_step
        )

    def add(self, name: str, values: Sequence[float], step: int) -> None:
        """
        Add a point to the curve of each exit, or to one curve if there is one value.

        :param name: as ``loss``, which gives ``loss/exit1`` and so on.
        :param step: optimizer steps so far.
        """
        for index, value in enumerate(values, start=1):
            curve = f'{name}/exit{index}' if len(values) > 1 else name
            self._writer.add_scalar(curve, value, step)

    def close(self) -> None:
        """Write what is pending."""
        self._writer.close()
