# SPDX-License-Identifier: Apache-2.0
"""
A drive of a fleet as a job: what decides its result, where that lies, and the work itself.

A result is a folder with the output bag and ``result.json``. Its name is made of the bag's and of
a hash of all that decides the result, and it is there as a whole or not at all. So whoever finds
it need not repeat the work, whenever and wherever it was done.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
import platform
import re
import shutil
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import adpc_ros
from adpc_ros import json_file
from adpc_ros.class_file import find_class_file
from adpc_ros.files import whole_folder
from adpc_ros.fleet.manifest import state, state_of
from adpc_ros.replay import drive, settings
from adpc_ros.replay.drive import DriveSettings, Outcome
from adpc_ros.replay.verdicts import Status, Verdict, verdict
from adpc_ros.runtime.native import LIBRARY

log = logging.getLogger(__name__)

RETRIES = 3  # of a drive whose process was lost
DRIVES, OUT, RESULT = 'drives', 'out.mcap', 'result.json'  # names of what is kept
_LIBRARIES = ('lz4', 'mcap', 'numpy', 'pillow', 'pyyaml', 'rosbags', 'torch', 'zstandard')
_MAX_STEM = 80  # characters of a folder's name
_MAX_SAID = 20  # warnings of a drive
_NOT_DECIDING = ('weights', 'autostart', 'watchdog_s')  # parameters; weights count by content


@dataclass(frozen=True)
class Job:
    """
    A drive to be replayed; can be pickled.

    :param name: unique in the manifest.
    :param settings: of the drive; its ``threads`` are not 0.
    :param network: identity of the weights.
    :param weights: stem of their file, and hash of its content.
    :param version: of the code, :func:`code_version`.
    :param folder: of the result.
    """

    name: str
    settings: DriveSettings
    network: str
    weights: tuple[str, str]
    version: str
    folder: Path


def make_job(
    name: str, given: DriveSettings, network: str, weights: tuple[str, str], folder: Path
) -> Job:
    """
    Name the place of a drive's result.

    :param folder: that of all results.
    :raises OSError: if a file that decides the result is gone.
    """
    version = code_version()
    key = _key(_deciding(name, given, weights, version))
    stem = re.sub(r'[^\w.-]', '_', given.bag.stem, flags=re.ASCII).lstrip('.')[:_MAX_STEM]
    return Job(name, given, network, weights, version, folder / f'{stem}-{key}')


def _deciding(
    name: str, given: DriveSettings, weights: tuple[str, str], version: str
) -> dict[str, Any]:
    """Give all that decides the result of a drive, as values for JSON."""
    values = {
        field.name: getattr(given, field.name)
        for field in dataclasses.fields(given)
        if field.name not in ('bag', 'weights', 'parameters', 'exit_s')
    }
    labels, expect, against = given.labels, given.expect, given.against
    if labels is not None:
        classes = find_class_file(labels.resolve().parent)
        pictures = sorted(file for file in labels.glob('*') if file.suffix.lower() == '.png')
        values['labels'] = state([*pictures, *([classes] if classes else [])])
    if expect is not None:
        values['expect'] = hashlib.sha256(expect.read_bytes()).hexdigest()
    if against is not None:
        values['against'] = state([against])
    parameters = dataclasses.asdict(given.parameters)
    return {
        'name': name,
        'bag': state_of(given.bag),
        'weights': weights,
        'parameters': {k: v for k, v in parameters.items() if k not in _NOT_DECIDING},
        'exit_s': None if given.exit_s is None else settings.exit_seconds(given.exit_s),
        **values,
        'version': version,
    }


def _key(decides: dict[str, Any]) -> str:
    text = json.dumps(decides)  # ASCII, whatever is in names
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@functools.cache
def code_version() -> str:
    """Hash the code of this package, its native library, and the versions of what it uses."""
    digest = hashlib.sha256()
    sources = Path(adpc_ros.__file__).parent
    for path in sorted(sources.rglob('*.py')):
        digest.update(f'{path.relative_to(sources)}\n'.encode() + path.read_bytes())
    for package in adpc_ros.__path__:
        if (library := Path(package) / 'runtime' / LIBRARY).exists():
            digest.update(library.read_bytes())
            break
    versions = [f'{name} {_version(name)}' for name in _LIBRARIES]
    digest.update('\n'.join((*versions, platform.python_version())).encode())
    return digest.hexdigest()[:16]


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return 'unknown'


def finished(job: Job) -> Verdict | None:
    """
    Give the verdict of a drive that has been replayed; None if that is still to be done.

    A result that is broken is removed, with a warning.
    """
    if not job.folder.exists():
        return None
    try:
        result = read_result(job)
        size = result['output_bytes']
        found = (job.folder / OUT).stat().st_size if size is not None else None
        if found != size:
            raise ValueError(f'{OUT}: expected {size} bytes, got {found}')
        return Verdict(job.name, Status(result['status']), tuple(result['lines']))
    except (KeyError, OSError, TypeError, ValueError) as error:
        log.warning('%s: replayed again, as the result is broken: %s', job.folder, error)
        away = job.folder.with_name(f'.{job.folder.name}.broken.partial')
        shutil.rmtree(away, ignore_errors=True)
        job.folder.rename(away)
        shutil.rmtree(away, ignore_errors=True)
        return None


def read_result(job: Job) -> dict[str, Any]:
    """
    Read what was kept of a drive.

    :raises OSError: if it cannot be opened.
    :raises ValueError: if it is broken.
    """
    result: dict[str, Any] = json.loads((job.folder / RESULT).read_text())
    return result


def run_job(job: Job) -> Verdict:
    """
    Replay a drive into its folder, unless it is there; raises nothing.

    What the drive itself came to is kept: passed, unmet, or a bag that cannot be replayed. An
    error of the program or the system is not, so that the drive is replayed again the next time.
    """
    try:
        if (done := finished(job)) is not None:
            return done
        if (found := code_version()) != job.version:
            raise RuntimeError(
                f'expected the code of the driver, version {job.version}, on {platform.node()}, '
                f'found {found}: install the same on all nodes'
            )
        with _warnings() as said, whole_folder(job.folder) as folder:
            result = _result(job, folder)
            decides = _deciding(job.name, job.settings, job.weights, job.version)
            if not job.folder.name.endswith(_key(decides)):
                raise RuntimeError(f'{job.settings.bag}: a file changed during the replay')
            result |= {'warnings': said, 'decided_by': decides}
            text = json_file.dumps(result, indent=1) + '\n'
            # what was said may name the folder as it was called until now
            (folder / RESULT).write_text(text.replace(folder.name, job.folder.name))
        done = finished(job)
        assert done is not None
        return done
    except OSError as error:
        told = f'{job.settings.bag}, replayed into {job.folder}: {error}'
        return verdict(job.name, Status.FAULT, told.splitlines())
    except Exception:
        lines = traceback.format_exc().splitlines()
        return verdict(job.name, Status.CRASHED, [lines[-1], *lines[-11:-1]])


def _result(job: Job, folder: Path) -> dict[str, Any]:
    """Replay, and give what is kept beside the output bag."""
    out = job.settings.output(folder / OUT)
    try:
        prepared = drive.prepare(job.settings)
        if (found := prepared.checkpoint.identity) != job.network:
            raise RuntimeError(f'{job.settings.weights}: expected {job.network}, found {found}')
        outcome = drive.replay(prepared, out, quiet=True)
    except ValueError as error:
        lines = verdict(job.name, Status.FAULT, str(error).splitlines()).lines
        return {'status': Status.FAULT, 'lines': lines, 'output_bytes': None, 'numbers': None}
    status, lines = outcome.verdict(job.settings)[1:]
    confusion = outcome.confusion
    return {
        'status': status,
        'lines': lines,
        'output_bytes': out.path.stat().st_size,
        'numbers': outcome.numbers,
        'classes': prepared.checkpoint.classes.names,
        'confusion': None if confusion is None else confusion.tolist(),
        'worst_frame': _worst_frame(outcome),
    }


def _worst_frame(outcome: Outcome) -> dict[str, Any] | None:
    """Choose the mask that agrees least with the earlier one, else that with least confidence."""
    masks = [record for record in outcome.replayed.records if record.has_mask]
    if not masks:
        return None
    worst = min(masks, key=lambda record: record.mean_confidence)
    why = f'mean confidence {worst.mean_confidence:.3f}'
    if outcome.agreement is not None and outcome.agreement.shares:
        stamp_ns, share = min(outcome.agreement.shares, key=lambda each: each[1])
        if share < 1:
            worst = next(record for record in masks if record.stamp_ns == stamp_ns)
            why = f'{100 * share:.2f} % equal pixels'
    return {'number': worst.number, 'stamp_ns': worst.stamp_ns, 'why': why}


class _Collector(logging.Handler):
    """Keeps the first warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if len(self.said) < _MAX_SAID:
            self.said.append(record.getMessage())


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """Collect the warnings of this package, which would go to stderr."""
    logger, collector = logging.getLogger(adpc_ros.__name__), _Collector()
    logger.addHandler(collector)
    before, logger.propagate = logger.propagate, False
    try:
        yield collector.said
    finally:
        logger.propagate = before
        logger.removeHandler(collector)
