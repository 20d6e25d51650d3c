# SPDX-License-Identifier: Apache-2.0
"""Replay a fleet: what is done already is found, the rest is run."""

from __future__ import annotations

import fcntl
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from adpc_ros.fleet.jobs import DRIVES, Job, finished
from adpc_ros.progress import ProgressBar
from adpc_ros.replay.verdicts import Status, Verdict

log = logging.getLogger(__name__)

_LOCK = '.lock'

Work = Callable[[Sequence[Job]], Generator[Verdict, None, None]]


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """
    Hold the folder of all results, so that no other driver works there; nothing partial is left.

    :param folder: made if it is missing.
    :raises ValueError: if another driver holds it.
    """
    (folder / DRIVES).mkdir(parents=True, exist_ok=True)
    with open(folder / _LOCK, 'w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f'--out: another replay works in {folder}') from None
        except OSError as error:  # file systems without locks
            log.warning('%s: not locked against another replay: %s', folder, error)
        _clear(folder)
        try:
            yield
        finally:
            _clear(folder)


def _clear(folder: Path) -> None:
    """Remove what processes that were killed have left."""
    for partial in (folder / DRIVES).glob('.*.partial'):
        shutil.rmtree(partial, ignore_errors=True)


def run_jobs(jobs: Sequence[Job], work: Work) -> dict[str, Verdict]:
    """
    Give the verdicts of jobs by name; those that are not finished are run.

    :param work: runs jobs and gives their verdicts in any order.
    """
    verdicts = {}
    for job in jobs:
        if (done := finished(job)) is not None:
            verdicts[job.name] = done
    todo = [job for job in jobs if job.name not in verdicts]
    if not todo:
        return verdicts
    counts = Counter(each.status for each in verdicts.values())
    with (
        ProgressBar(desc='replay', total=len(jobs), initial=len(verdicts), unit='drive') as bar,
        closing(work(todo)) as found,  # an interrupt ends what runs
    ):
        for verdict in found:
            verdicts[verdict.name] = verdict
            counts[verdict.status] += 1
            bar.set_postfix_str(_wrong(counts), refresh=False)
            bar.update()
    return verdicts


def _wrong(counts: Counter[Status]) -> str:
    return ', '.join(
        f'{counts[status]} {status.name.lower()}'
        for status in Status
        if status != Status.PASSED and counts[status]
    )
