# SPDX-License-Identifier: Apache-2.0
"""
Training: all exits at once, resumable to the step, every random draw fixed by the seed.

What is learnt is a task's (:mod:`adpc_ros.learning.task`). Source of the recipe's form:
arXiv:2104.00749 (a loss at every exit, polynomial decay).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from adpc_ros.learning.averaging import WeightAverage
from adpc_ros.learning.batches import draw_batches, image_seeds, normalised
from adpc_ros.learning.config import TrainConfig
from adpc_ros.learning.distributed import Processes, start_processes
from adpc_ros.learning.norms import average_norms, synchronise_norms
from adpc_ros.learning.output import OutputFolder, Scalars
from adpc_ros.learning.preparation import (
    build_network,
    build_optimizer,
    build_schedule,
    check_batches,
)
from adpc_ros.learning.segmentation import Samples
from adpc_ros.learning.task import Batch
from adpc_ros.learning.tasks import open_task
from adpc_ros.network import checkpoint
from adpc_ros.network.anytime import AnytimeNetwork, Learnt, TrainingStep
from adpc_ros.progress import ProgressBar

log = logging.getLogger(__name__)

SPARSITY_WEIGHT = 0.1  # the paper's
_SCALARS_EVERY = 10  # optimizer steps


def train(config: TrainConfig, synthetic: Samples | None = None) -> Path:
    """
    Train, or go on where an earlier run with the same output folder stopped.

    Under torchrun, together with the other processes; data and output folder must be the same
    for all of them. On the CPU an interrupted run gives the same bits as one that was not.

    :param synthetic: source of the synthetic share.
    :return: the weights file with the best validation result at the last exit.
    :raises ValueError: if the data are missing, a synthetic share is asked for without source, the
        recipe does not fit the data or the processes, or the earlier run had another recipe or
        other data.
    """
    with start_processes() as processes:
        return Training(config, synthetic, processes).run()


class _Learner(nn.Module):
    """Calls what a training gets of a network, so that processes can share it."""

    def __init__(self, network: AnytimeNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, adaptive: bool, now: TrainingStep) -> Learnt:
        return self.network.learn(image, adaptive, now)


class Training:
    """A training in one process, alone or as one of several."""

    def __init__(
        self, config: TrainConfig, synthetic: Samples | None, processes: Processes
    ) -> None:
        """
        Open the data, build the network, and take up what an earlier run saved.

        :raises ValueError: as :func:`train` does.
        """
        self.config, self.processes = config, processes
        self.task = open_task(config, processes, synthetic)
        self.classes = self.task.classes
        check_batches(config, self.task.sample_count, processes.count)
        self.output = OutputFolder(config.output)
        self.output.folder.mkdir(parents=True, exist_ok=True)
        self.recipe = json.dumps({**dataclasses.asdict(config), 'data_digest': self.task.digest()})
        state = self.output.read_state(self.recipe, processes.device)
        network = build_network(config, self.classes.count, fresh=state is None)
        if processes.count > 1:
            synchronise_norms(network)
        network.to(processes.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network = network
        self.optimizer = build_optimizer(config, network)
        self.steps_per_epoch = self.task.sample_count // config.batch_size
        self.schedule = build_schedule(
            config, self.optimizer, config.epochs * self.steps_per_epoch
        )
        self.average = WeightAverage(network, config.ema) if config.ema else None
        self.epoch, self.step, self.best = 0, 0, -1.0
        self.losses: list[Tensor] = []  # (exits,) float of each step of the epoch
        self.seconds = 0.0
        self.task.begin(state)
        if state is not None:
            self._take_up(state)
        processes.check_same(f'{self.recipe} at {self.epoch}, {self.step}', 'recipe, data, state')
        weights = config.exit_weights or (1.0,) * network.config.exit_count
        self.exit_weights = torch.tensor(
            weights, dtype=torch.get_default_dtype(), device=processes.device
        )
        self.model = self._share_gradients()
        self.scalars: Scalars | None = None

    def run(self) -> Path:
        """Train what is left of the epochs; gives the weights file."""
        if self.epoch < self.config.epochs and self.processes.is_main:
            self.output.forget_records(self.epoch)
            self.scalars = Scalars(self.output.folder, self._steps())
        try:
            while self.epoch < self.config.epochs:
                self._run_epoch()
        finally:
            if self.scalars is not None:
                self.scalars.close()
        return self.output.best

    @property
    def judged(self) -> AnytimeNetwork:
        """What is validated and saved as weights: the average, if there is one."""
        return self.network if self.average is None else self.average.network

    def _steps(self) -> int:
        return self.epoch * self.steps_per_epoch + self.step

    def _run_epoch(self) -> None:
        config, processes, epoch = self.config, self.processes, self.epoch
        adaptive = self.network.config.adaptivity is not None and epoch >= config.adaptive_from
        self.network.train()
        draws = self.task.draws(epoch)
        started, before = time.monotonic(), self.seconds
        steps = ProgressBar(
            draw_batches(draws, processes, self.step),
            f'epoch {epoch + 1}/{config.epochs}',
            self.steps_per_epoch,
            initial=self.step,
            disable=not processes.is_main,
        )
        for parts in steps:
            self.losses.append(self._optimize(parts, adaptive))
            self.step += 1
            self.seconds = before + time.monotonic() - started
            self._report()
            if config.save_every and self._steps() % config.save_every == 0:
                self._save()
        losses = torch.stack(self.losses)
        record = {
            'epoch': epoch + 1,
            'loss': float((losses * self.exit_weights).sum(1).double().mean()),
            'seconds': self.seconds,
        }
        if (epoch + 1) % config.evaluate_every == 0 or epoch + 1 == config.epochs:
            if config.norm_batches:
                again = draw_batches(draws, processes, 0, config.norm_batches)
                images = (self._input(part) for parts in again for part in parts)
                average_norms(self.judged, images, adaptive)
            if processes.is_main:
                record |= self._validate(adaptive)
        self.epoch, self.step, self.losses, self.seconds = epoch + 1, 0, [], 0.0
        if processes.is_main:
            self.output.add_record(record)
            info = {'epoch': str(self.epoch)}
            checkpoint.save(self.output.last, self.judged, self.classes, info)
        self._save()
        processes.wait()  # for the validation

    def _share_gradients(self) -> nn.Module:
        """Give the network as the processes compute it together."""
        learner = _Learner(self.network)
        if self.processes.count == 1:
            return learner
        device = self.processes.device
        return DistributedDataParallel(
            learner,
            device_ids=[device] if device.type == 'cuda' else None,
            forward_sync_buffers=False,  # SyncBatchNorm2d's are the same everywhere
            # The interpolation's parameters are unused before adaptivity begins; then they must
            # be looked for in every step.
            find_unused_parameters=self.config.adaptive_from > 0,
        )

    def _input(self, batch: Batch) -> Tensor:
        return normalised(batch.image, self.network.config, self.processes.device)

    def _now(self, index: int) -> TrainingStep:
        """Tell the network where it is, at a part of the present step's batch."""
        config, steps = self.config, self._steps()
        part = self.step * config.accumulate + index
        seeds = image_seeds(part, self.epoch, config, self.processes)
        return TrainingStep(
            steps,
            seeds,
            unrolled=steps < config.unrolled_steps,
            done=steps / (config.epochs * self.steps_per_epoch),
        )

    def _optimize(self, parts: list[Batch], adaptive: bool) -> Tensor:
        """
        Take one optimizer step.

        :param parts: this process's share of each part of the batch.
        :return: (exits,) float, the loss of each exit over the whole batch.
        """
        processes, device = self.processes, self.processes.device
        sparsity = self.config.sparsity_weight
        sparsity = SPARSITY_WEIGHT if sparsity is None else sparsity
        autocast = torch.autocast(
            device.type, torch.bfloat16, enabled=self.config.autocast == 'bfloat16'
        )
        # The losses of all parts and processes add up to those of the batch, so that a gradient
        # which is averaged over the processes is multiplied before.
        objective = self.task.objective(parts, self.epoch)
        self.optimizer.zero_grad(set_to_none=True)
        seen = torch.zeros_like(self.exit_weights)
        for index, part in enumerate(parts):
            image = self._input(part)
            with contextlib.ExitStack() as stack:
                if index + 1 < len(parts) and isinstance(self.model, DistributedDataParallel):
                    stack.enter_context(self.model.no_sync())
                with autocast:
                    learnt: Learnt = self.model(image, adaptive, self._now(index))
                losses = objective(learnt.outputs, part)
                share = len(image) / self.config.batch_size
                loss = (losses * self.exit_weights).sum() + sparsity * share * learnt.penalty
                torch.autograd.backward(loss * processes.count)
            seen += losses.detach()
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.network, self._steps())
        self.schedule.step()
        return processes.sum(seen)

    def _report(self) -> None:
        if self.scalars is not None and (self._steps() - 1) % _SCALARS_EVERY == 0:
            rate = max(float(rate) for rate in self.schedule.get_last_lr())
            self.scalars.add('loss', self.losses[-1].tolist(), self._steps())
            self.scalars.add('learning_rate', [rate], self._steps())

    def _validate(self, adaptive: bool) -> dict[str, Any]:
        """Judge the network, and keep it if it is the best so far; gives the record's part."""
        verdict = self.task.validate(self.judged, adaptive)
        by_exit = verdict.by_exit
        if self.scalars is not None:
            self.scalars.add(verdict.key, by_exit, self._steps())
        judged = float(np.nan_to_num(by_exit[-1]))  # nothing to judge by counts as 0
        if judged > self.best:
            self.best = judged
            exits = f'exits 1-{len(by_exit)}' if len(by_exit) > 1 else 'the exit'
            shown = ' '.join(f'{100 * m:.1f}' for m in by_exit)
            info = {
                'data': self.config.data,
                'result': f'{verdict.name} at {exits}: {shown} % on {self.config.validation}',
                'epoch': str(self.epoch + 1),
                'recipe': self.recipe,
            }
            checkpoint.save(self.output.best, self.judged, self.classes, info)
        return {verdict.key: verdict.by_exit, 'masked_share': verdict.masked_share}

    def _save(self) -> None:
        if not self.processes.is_main:
            return
        self.output.write_state(
            {
                'network': self.network.state_dict(),
                'average': self.average and self.average.network.state_dict(),
                'optimizer': self.optimizer.state_dict(),
                'schedule': self.schedule.state_dict(),
                'epoch': self.epoch,
                'step': self.step,
                'losses': self.losses,
                'seconds': self.seconds,
                'best': self.best,
                'recipe': self.recipe,
                **self.task.state(),
            }
        )

    def _take_up(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state['network'])
        if self.average is not None:
            self.average.network.load_state_dict(state['average'])
        self.optimizer.load_state_dict(state['optimizer'])
        self.schedule.load_state_dict(state['schedule'])
        self.epoch, self.step, self.best = state['epoch'], state.get('step', 0), state['best']
        self.losses, self.seconds = state.get('losses', []), state.get('seconds', 0.0)
        if self.processes.is_main:
            log.info('resumed after epoch %d, step %d', self.epoch, self.step)
