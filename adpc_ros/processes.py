"""Processes that make up a graph: started together, interrupted together."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from types import TracebackType

_POLL_S = 0.1
_END_S = 30.0  # for a process to end once it was interrupted
_GRACE_S = 5.0  # likewise, where something went wrong


class Processes:
    """Named processes; whatever still runs when the ``with`` block is left is ended then."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Keep the variables that all of them get."""
        self._environment = environment
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: Sequence[str]) -> int:
        """Start one; gives its process id."""
        self._running[name] = subprocess.Popen(command, env=self._environment)
        return self._running[name].pid

    def wait_for(self, name: str) -> None:
        """
        Wait until one ends by itself.

        :raises ChildProcessError: if it fails, or another ends before it.
        """
        others = {n: process for n, process in self._running.items() if n != name}
        while self._running[name].poll() is None:
            for other, process in others.items():
                if process.poll() is not None:
                    raise ChildProcessError(f'the {other} ended too early')
            time.sleep(_POLL_S)
        self._check(name)

    def stop(self) -> None:
        """
        Interrupt those that still run, the latest first, and wait for them.

        :raises ChildProcessError: if one does not end, or ends with an error.
        """
        for process in reversed(self._running.values()):
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for name in self._running:
            self._check(name)

    def _check(self, name: str) -> None:
        try:
            status = self._running[name].wait(_END_S)
        except subprocess.TimeoutExpired as error:
            raise ChildProcessError(f'the {name} did not end within {_END_S:.0f} s') from error
        if status != 0:
            raise ChildProcessError(f'the {name} ended with status {status}')

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in reversed(self._running.values()):
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for process in self._running.values():
            try:
                process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()  # leaves its shared memory behind
                process.wait()
