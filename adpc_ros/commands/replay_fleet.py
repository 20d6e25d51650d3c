# SPDX-License-Identifier: Apache-2.0
"""``replay --manifest``: many bags at once, and one report over all."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import logging
import sys
from collections.abc import Generator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from adpc_ros.commands.options import check_outputs, write_json
from adpc_ros.commands.replay_options import inputs_of, parameters_of, settings_of, weights_of

if TYPE_CHECKING:
    from adpc_ros.fleet.jobs import Job
    from adpc_ros.fleet.manifest import Listed
    from adpc_ros.labels import ClassSet
    from adpc_ros.network.checkpoint import Checkpoint
    from adpc_ros.replay.verdicts import Verdict
    from adpc_ros.ros.parameters import Parameters

log = logging.getLogger(__name__)

_OF_ONE = ('bag', 'live', 'labels', 'report', 'write_expectation')
_SHOWN = 50  # lines on the terminal; the report has all


def replay_fleet(options: argparse.Namespace) -> Sequence[Verdict]:
    """
    Check everything, replay what is not finished, write the report.

    :raises OSError: if a file cannot be opened.
    :raises ValueError: if an option, the manifest or a file that it names is wrong.
    """
    from adpc_ros.fleet import manifest, report, summary
    from adpc_ros.fleet.jobs import DRIVES
    from adpc_ros.fleet.run import run_jobs, working_in
    from adpc_ros.replay.report import NUMBERS, PAGE
    from adpc_ros.replay.verdicts import Status, verdict

    for name in _OF_ONE:
        if getattr(options, name):
            option = 'BAG' if name == 'bag' else f'--{name.replace("_", "-")}'
            raise ValueError(f'{option}: expected no such option with --manifest')
    listed = manifest.read(options.manifest, options.labels_by == 'order')
    check_outputs(
        {'--json': options.json, '--junit': options.junit},
        [*inputs_of(options), *(each.bag for each in listed)],
        {'--out': (options.out, [PAGE, NUMBERS])},
    )
    if options.out.suffix in ('.mcap', '.db3'):
        raise ValueError(f'--out: expected a folder with --manifest, got {options.out}')
    prepared = _Prepared(options, listed)
    jobs = [prepared.job(each, options.out / DRIVES) for each in listed]
    with working_in(options.out):
        verdicts = run_jobs(jobs, lambda todo: _work(options, todo))
        found = [verdicts[job.name] for job in jobs]
        ended = [
            report.Ended(job, one, each.tags, prepared.classes(job))
            for job, one, each in zip(jobs, found, listed)
        ]
        try:
            numbers = report.write(options.out, str(options.manifest), ended)
            write_json(options.json, numbers)
        except OSError as error:  # the verdicts stand, as on a full disk
            line = f'no report in {options.out}: {error}'
            print(f'adpc_ros: {line}', file=sys.stderr)
            return [*found, verdict(str(options.manifest), Status.FAULT, [line])]
    _print(summary.cells(numbers['all']))
    for tag, group in numbers['tags'].items():
        print(f'\n{tag}')
        _print(summary.cells(group))
    wrong = [(v.name, line) for v in verdicts.values() if v.status for line in v.lines]
    if wrong:
        print()
    for name, line in wrong[:_SHOWN]:
        kind = 'not met' if verdicts[name].status == Status.UNMET else 'no verdict'
        print(f'{kind}: {name}: {line}')
    if len(wrong) > _SHOWN:
        print(f'and {len(wrong) - _SHOWN} more lines in the report')
    print(f'report: {options.out / PAGE}')
    return found


def _print(cells: dict[str, str]) -> None:
    for name, value in cells.items():
        if value:
            print(f'{name:32} {value}')


def _work(options: argparse.Namespace, jobs: Sequence[Job]) -> Generator[Verdict, None, None]:
    from adpc_ros.fleet.on_ray import on_ray
    from adpc_ros.fleet.processes import in_processes
    from adpc_ros.runtime.cores import core_count

    threads = max(job.settings.parameters.threads for job in jobs)
    at_once = options.jobs or max(1, core_count() // threads)
    if options.ray is None:
        return in_processes(jobs, at_once)
    return on_ray(jobs, options.ray, at_once * threads, options.jobs)


class _Prepared:
    """What drives have in common is read once, and checked before the work begins."""

    def __init__(self, options: argparse.Namespace, listed: Sequence[Listed]) -> None:
        from adpc_ros.fleet.report import earlier_outputs
        from adpc_ros.network import checkpoint
        from adpc_ros.replay import settings
        from adpc_ros.replay.agreement import open_labels

        self._options = options
        self._earlier: dict[str, Path] = {}
        if options.against is not None:
            if options.against.resolve() == options.out.resolve():
                raise ValueError('--against: expected another folder than that of --out')
            self._earlier = earlier_outputs(options.against)
        for text in options.urgency_at:
            settings.urgency(text)
        self.exit_s = None if options.exit_s is None else settings.exit_seconds(options.exit_s)

        @cache
        def load(weights: Path) -> Checkpoint:
            loaded = checkpoint.load(weights)
            for line in loaded.said_of_exits():
                print(line)
            exit_s = self.exit_s or settings.exit_seconds_of(loaded)
            count = loaded.network.config.exit_count
            if len(exit_s) != count:
                raise ValueError(
                    f'expected the seconds of {count} exits, got '
                    + ', '.join(f'{seconds:g}' for seconds in exit_s)
                )
            return loaded

        @cache
        def parameters(params: Path | None) -> tuple[Parameters, Path]:
            found = parameters_of(options, params)
            loaded = load(weights_of(found))
            count = loaded.network.config.exit_count
            for text in found.warnings(count, loaded.advised_exit):
                log.warning(text)
            # not as many as a machine has cores: masks depend on it
            return dataclasses.replace(found, threads=found.threads or 1), weights_of(found)

        @cache
        def check_labels(labels: Path, weights: Path) -> None:
            open_labels(labels, load(weights).classes)

        @cache
        def digest(weights: Path) -> tuple[str, str]:
            return weights.stem, hashlib.sha256(weights.read_bytes()).hexdigest()

        self._load, self._parameters = load, parameters
        self._check_labels, self._digest = check_labels, digest

    def job(self, listed: Listed, folder: Path) -> Job:
        """
        Make the job of a drive.

        :raises OSError: if a file cannot be opened.
        :raises ValueError: if one is wrong; says which drive.
        """
        from adpc_ros.fleet.jobs import OUT, make_job
        from adpc_ros.replay import drive

        options = self._options
        try:
            parameters, weights = self._parameters(listed.params or options.params)
            against = self._earlier.get(listed.name)
            settings = settings_of(
                options,
                bag=listed.bag,
                weights=weights,
                parameters=parameters,
                topic=listed.topic or options.topic,
                against=against if against is not None and against.is_file() else None,
                labels=listed.labels,
                expect=listed.expect or options.expect,
            )
            settings.output(folder / OUT)
            network = self._load(weights).identity
            job = make_job(listed.name, settings, network, self._digest(weights), folder)
            if not job.folder.exists():  # else they have served already
                drive.expected(settings)
                if listed.labels is not None:
                    self._check_labels(listed.labels, weights)
            return job
        except (OSError, ValueError) as error:
            raise ValueError(f'{options.manifest}: {listed.name}: {error}') from error

    def classes(self, job: Job) -> ClassSet:
        """Give the classes of a job's weights."""
        return self._load(job.settings.weights).classes
