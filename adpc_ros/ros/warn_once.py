# SPDX-License-Identifier: Apache-2.0
"""Warnings that are logged once for each kind."""

from __future__ import annotations

from rclpy.impl.rcutils_logger import RcutilsLogger

_MAX_KINDS = 100  # garbage can differ without end


class WarnOnce:
    """Logs the first warning of each kind; callable from any thread."""

    def __init__(self, logger: RcutilsLogger) -> None:
        """Have said nothing yet."""
        self._logger = logger
        self._said: set[str] = set()

    def __call__(self, kind: str, text: str) -> None:
        """
        Warn, unless that was done before.

        :param kind: what counts as the same warning.
        """
        if kind not in self._said and len(self._said) < _MAX_KINDS:
            self._said.add(kind)
            self._logger.warning(f'{text} (said once)')
