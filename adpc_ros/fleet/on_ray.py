# SPDX-License-Identifier: Apache-2.0
"""Jobs on a Ray cluster. The only place that imports Ray."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from typing import Any

from adpc_ros.fleet.jobs import RETRIES, Job, run_job
from adpc_ros.replay.verdicts import Status, Verdict, verdict

log = logging.getLogger(__name__)

LOCAL = 'local'
_ANSWER_S = 20.0  # for a cluster to answer
_WAITING = 1000  # tasks handed over at once, if there is no limit
_STORE_BYTES = 100 * 2**20  # of a cluster that is started here: nothing but verdicts is kept


def on_ray(
    jobs: Iterable[Job], address: str, cpus: int, most: int | None
) -> Generator[Verdict, None, None]:
    """
    Run jobs, each as one task that takes as many CPUs as it has threads.

    Ray runs a task again whose worker or node was lost, up to
    :data:`~adpc_ros.fleet.jobs.RETRIES` times; then the job counts as crashed. A job's own errors
    are part of its verdict, and never lead to a repetition.

    :param address: of a cluster, whose nodes have this package and see the same files; 'local'
        starts one here.
    :param cpus: of a cluster that is started here.
    :param most: tasks at once; None for as many as the cluster runs.
    :return: the verdicts in the order in which they come.
    :raises ConnectionError: if the cluster cannot be reached.
    :raises ValueError: if Ray is not installed, or no node can take a task.
    """
    ray = _ray()
    quiet = {'logging_level': logging.ERROR, 'log_to_driver': False, 'configure_logging': False}
    if address == LOCAL:
        ray.init(
            'local',
            num_cpus=cpus,
            object_store_memory=_STORE_BYTES,
            include_dashboard=False,
            **quiet,
        )
    else:
        _check(address)
        ray.init(address, **quiet)
    try:
        todo = list(jobs)
        _check_room(ray, todo, grows=address != LOCAL)
        yield from _run(ray, iter(todo), most or _WAITING)
    finally:
        ray.shutdown()


def _check(address: str) -> None:
    """Raise ConnectionError at once where Ray would try for minutes."""
    host, _, port = address.removeprefix('ray://').rpartition(':')
    if host and port.isdecimal():
        try:
            socket.create_connection((host, int(port)), _ANSWER_S).close()
        except (OSError, OverflowError) as error:
            raise ConnectionError(
                f'--ray: expected a Ray cluster at {address}, none answers: {error}'
            ) from error


def _check_room(ray: Any, jobs: Iterable[Job], grows: bool) -> None:
    """
    Say if a task is more than any node can take: Ray waits for one that can, without end.

    :param grows: a cluster may get further nodes: then it is a warning.
    :raises ValueError: otherwise.
    """
    nodes = [node['Resources'] for node in ray.nodes() if node['Alive']]
    for needs in {tuple(_needs(job).items()): _needs(job) for job in jobs}.values():
        if not any(all(node.get(k, 0) >= n for k, n in needs.items()) for node in nodes):
            wanted = ' and '.join(f'{n} {kind}' for kind, n in needs.items())
            line = (
                f'--ray: expected a node with {wanted} (threads, device), none of the cluster has'
            )
            if not grows:
                raise ValueError(line)
            log.warning('%s: waiting for one', line)


def _needs(job: Job) -> dict[str, int]:
    """Give what a task takes of a node, by Ray's names."""
    parameters = job.settings.parameters
    return {'CPU': parameters.threads} | ({'GPU': 1} if parameters.device != 'cpu' else {})


def _ray() -> Any:
    # Before it is imported. Nobody is told of the use; a task that was killed for lack of memory
    # is not tried for ever.
    os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')
    os.environ.setdefault('RAY_task_oom_retries', str(RETRIES))
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ValueError(f'--ray needs the package ray: pip install ray ({error})') from error
    return ray


def _run(ray: Any, jobs: Iterator[Job], most: int) -> Iterator[Verdict]:
    task = ray.remote(max_retries=RETRIES, retry_exceptions=False)(run_job)
    running: dict[Any, Job] = {}
    while True:
        for job in islice(jobs, most - len(running)):
            needs = {f'num_{kind.lower()}s': n for kind, n in _needs(job).items()}
            running[task.options(name=job.folder.name, **needs).remote(job)] = job
        if not running:
            return
        done, _ = ray.wait(list(running), num_returns=1)
        for reference in done:
            job = running.pop(reference)
            yield _verdict(ray, reference, job)


def _verdict(ray: Any, reference: Any, job: Job) -> Verdict:
    try:
        found: Verdict = ray.get(reference)
    except ray.exceptions.RaySystemError:
        raise
    except ray.exceptions.RayError as error:  # its worker was lost, or cannot even begin
        return verdict(job.name, Status.CRASHED, str(error).strip().splitlines())
    return found
