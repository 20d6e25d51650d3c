# SPDX-License-Identifier: Apache-2.0
"""Processes that make up a graph: started together, interrupted together, each with its log."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adpc_ros.graph.schedule import Act, write_acts
from adpc_ros.ros.domain import isolated

NODE = 'adpc_ros.ros.node'
_RUN = [sys.executable, '-m', 'adpc_ros.graph']
_POLL_S = 0.1
_END_S = 30.0  # for a process to end once it was interrupted
_TERMINATED = 128 + signal.SIGTERM  # exit status


def python(module: str, *arguments: object) -> list[str]:
    """Give the command that runs a module's ``main()``, and ends cleanly when interrupted."""
    return [*_RUN, module, *map(str, arguments)]


def with_parameters(command: Sequence[str], parameters: Sequence[str]) -> list[str]:
    """Add parameters, each as NAME:=VALUE, to the command of a node."""
    options = [option for parameter in parameters for option in ('-p', parameter)]
    return [*command, '--ros-args', *options]


class Process:
    """
    A process that writes its output into a log.

    :param name: for messages.
    :param log: file to be made; None: it writes where this process does.
    :param environment: its variables; None for those of this process.
    :param apart: whether Ctrl-C in a terminal does not reach it, but by :meth:`interrupt`.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path | None,
        environment: Mapping[str, str] | None = None,
        apart: bool = False,
    ) -> None:
        """Start it."""
        self.name, self.log_file = name, log
        self._shown = 0  # bytes of the log
        self._interrupted = False
        own = list(command[: len(_RUN)]) == _RUN  # it lets SIGINT through as soon as it can
        with (
            contextlib.nullcontext() if log is None else open(log, 'wb') as file,
            _interrupt_heard(),
            _interrupt_blocked() if own else contextlib.nullcontext(),
        ):
            self.process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL if apart else None,
                stdout=file,
                stderr=None if log is None else subprocess.STDOUT,
                start_new_session=apart,
            )

    @property
    def ended(self) -> bool:
        """Whether it runs no more."""
        return self.process.poll() is not None

    def log(self) -> str:
        """Give what it has written so far."""
        return '' if self.log_file is None else self.log_file.read_text(errors='replace')

    def show(self) -> None:
        """Write what is new in the log to stderr."""
        if self.log_file is None:
            return
        with open(self.log_file, 'rb') as file:
            file.seek(self._shown)
            new = file.read()
        self._shown += len(new)
        sys.stderr.write(new.decode(errors='replace'))
        sys.stderr.flush()

    def interrupt(self, number: int = signal.SIGINT) -> None:
        """Send it a signal, once, if it still runs."""
        if not self.ended and not self._interrupted:
            self._interrupted = True
            self.process.send_signal(number)

    def end(self, within_s: float = _END_S) -> int:
        """
        Wait until it ends.

        :return: its exit status.
        :raises ChildProcessError: if it does not end in time; it is killed then, and its shared
            memory stays behind.
        """
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired as error:
            raise self.error(f'did not end within {within_s:.0f} s') from error
        finally:
            self.kill()

    def kill(self) -> None:
        """Kill it if it still runs."""
        if not self.ended:
            self.process.kill()
            self.process.wait()

    def error(self, what: str) -> ChildProcessError:
        """Make the error that says what it did, and where its log is."""
        where = '' if self.log_file is None else f'; its log: {self.log_file}'
        return ChildProcessError(f'the {self.name} {what}{where}')


class Processes:
    """
    Named processes; whatever still runs when the ``with`` block is left is ended then.

    They share ``folder``, a temporary one, for what they exchange. It is removed at the end; if
    one of them failed, the logs stay. Logs are also shown on stderr while one waits.

    :param environment: variables that all of them get; None for those of this process, in a
        domain of their own on this machine.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        """Make the folder."""
        self._environment = dict(isolated(os.environ) if environment is None else environment)
        if sys.stderr.isatty():  # progress bars are written to the logs, and shown from there
            columns, lines = shutil.get_terminal_size()
            self._environment |= {'COLUMNS': str(columns), 'LINES': str(lines)}
        else:
            self._environment.setdefault('TQDM_DISABLE', '1')
        self._running: dict[str, Process] = {}
        self.folder = Path(tempfile.mkdtemp(prefix='adpc_ros_'))

    def start(self, name: str, command: Sequence[str]) -> int:
        """Start one; gives its process id."""
        log = self.folder / f'{name}.log'
        self._running[name] = Process(name, command, log, self._environment)
        return self._running[name].process.pid

    def start_node(self, *parameters: str) -> int:
        """Start a segmentation node with parameters, each as NAME:=VALUE; gives its process id."""
        return self.start('node', with_parameters(python(NODE), parameters))

    def play(self, acts: Sequence[Act], images: Iterable[NDArray[np.uint8]]) -> Path:
        """
        Start a camera and wait until it has played all acts; a recorder must have been started.

        :param images: each (H, W, 3) uint8 RGB, sent again and again.
        :return: what it sent, a file for :meth:`adpc_ros.graph.recording.Played.read`.
        :raises ChildProcessError: if it fails, or another process ends before it.
        """
        files = [self.folder / name for name in ('acts.json', 'images.npz', 'sent.json')]
        write_acts(files[0], acts)
        np.savez(files[1], *images)
        self.start('camera', python('adpc_ros.graph.camera', *files))
        self.wait_for('camera')
        return files[2]

    def wait_for(self, name: str) -> None:
        """
        Wait until one ends by itself.

        :raises ChildProcessError: if it fails, or another ends before it.
        """
        awaited = self._running[name]
        while not awaited.ended:
            for process in self._running.values():
                process.show()
                if process is not awaited and process.ended:
                    raise process.error('ended too early')
            time.sleep(_POLL_S)
        self._check(awaited)

    def log(self, name: str) -> str:
        """Give what one has written so far."""
        return self._running[name].log()

    def stop(self) -> None:
        """
        Interrupt those that still run, the latest first, and wait for them.

        :raises ChildProcessError: if one does not end, or ends with an error.
        """
        self._interrupt()
        for process in self._running.values():
            self._check(process)

    def _interrupt(self) -> None:
        for process in reversed(self._running.values()):
            process.interrupt()

    def _check(self, process: Process) -> None:
        try:
            status = process.end()
        finally:
            process.show()
        if status != 0:
            raise process.error(f'ended with status {status}')

    def __enter__(self) -> Processes:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, _terminate)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._interrupt()
            for process in self._running.values():
                with contextlib.suppress(ChildProcessError):
                    self._check(process)
        finally:
            for process in self._running.values():
                process.kill()  # whoever interrupts twice is in a hurry
            self._remove(keep_logs=isinstance(error, ChildProcessError))
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, self._before)

    def _remove(self, keep_logs: bool) -> None:
        if not keep_logs:
            shutil.rmtree(self.folder)
            return
        for file in self.folder.iterdir():
            if file.suffix != '.log':
                file.unlink()


def cpu_seconds(process_id: int) -> float:
    """Give the processor time that a process has used, in seconds."""
    after_name = Path(f'/proc/{process_id}/stat').read_text().rpartition(')')[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf('SC_CLK_TCK')  # user, system


def memory_mib(process_id: int) -> float:
    """Give the memory of a process that is resident, in MiB."""
    pages = int(Path(f'/proc/{process_id}/statm').read_text().split()[1])
    return pages * os.sysconf('SC_PAGE_SIZE') / 2**20


class Footprint(NamedTuple):
    """
    What a process takes: resident memory in MiB, and numbers of threads and of open files.

    Memory is what is its own, and files: of what it shares with others (the middleware's segments
    of 64 MiB, its own and its peers') the system counts the pages that happened to be used.
    """

    memory_mib: float
    threads: int
    files: int

    @classmethod
    def of(cls, process_id: int) -> Footprint:
        """Look at a process."""
        process = Path(f'/proc/{process_id}')
        threads, files = (len(os.listdir(process / name)) for name in ('task', 'fd'))
        lines = (process / 'status').read_text().splitlines()
        kib = dict(line.split()[:2] for line in lines if line.startswith('Rss'))
        own_kib = int(kib['RssAnon:']) + int(kib['RssFile:'])
        return cls(own_kib / 2**10, threads, files)


@contextlib.contextmanager
def _interrupt_blocked() -> Iterator[None]:
    """Start processes that hear SIGINT once they can handle it; none is lost meanwhile."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _terminate(number: int, frame: FrameType | None) -> None:
    sys.exit(_TERMINATED)  # so that the others end, too


@contextlib.contextmanager
def _interrupt_heard() -> Iterator[None]:
    """Let processes that are started hear SIGINT, though a shell's background job ignores it."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
