# SPDX-License-Identifier: Apache-2.0
"""
How SIGINT and SIGTERM end a process: once and cleanly, whatever it is doing.

While a process loads, :func:`end_at_once` ends it on the spot. From then on :class:`Interrupts`
takes note, and the process ends where it can. An exception that is raised wherever a signal
happens to arrive could be swallowed by what is imported, or abort C++ that calls Python.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def end_at_once(status: int = 0) -> None:
    """
    Let SIGINT end the process from now on, and let it through if whoever started it blocks it.

    To be called before anything that takes time is loaded; nothing is open yet then.

    :param status: with which the process ends.
    """
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(status))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


class Interrupts:
    """
    Takes note of SIGINT and SIGTERM.

    Create it in the main thread before ``rclpy.init``, and let that install no handlers of its
    own. :meth:`let_rclpy_hear` installs them where they can do no harm: they wake an executor by
    shutting the context down, and whoever uses the context at that moment gets an error.
    """

    def __init__(self) -> None:
        """Take the signals."""
        self._heard = False
        self._raises = False
        for number in SIGNALS:
            signal.signal(number, self._take)

    @property
    def heard(self) -> bool:
        """Whether there was a signal."""
        return self._heard

    def check(self) -> None:
        """
        End what is being done, if there was a signal.

        :raises KeyboardInterrupt: then.
        """
        if self.heard:
            raise KeyboardInterrupt

    def raise_from_now_on(self) -> None:
        """
        Let a signal raise KeyboardInterrupt wherever the main thread is.

        :raises KeyboardInterrupt: if there was one already.
        """
        self._raises = True
        self.check()

    def raise_no_more(self) -> None:
        """Take note only."""
        self._raises = False

    def let_rclpy_hear(self) -> None:
        """
        Let rclpy's handlers shut the context down, so that an executor that waits ends.

        :raises KeyboardInterrupt: if there was a signal already.
        """
        from rclpy.signals import install_signal_handlers

        install_signal_handlers()
        self.check()

    def over(self) -> None:
        """Ignore further signals: the process ends. To be called when rclpy is shut down."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def _take(self, number: int, frame: FrameType | None) -> None:
        self._heard = True
        if self._raises:
            raise KeyboardInterrupt
