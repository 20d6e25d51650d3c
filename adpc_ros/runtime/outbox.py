# SPDX-License-Identifier: Apache-2.0
"""
Results on their way out: in order, one at a time, by a thread that computes nothing.

Who cannot wait for that thread hands out the results itself, up to its own.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from adpc_ros.runtime.ledger import Result

log = logging.getLogger(__name__)

RESULTS = 3  # that wait at most before the worker does
REPORTS = 16  # likewise, of exits


class Outbox:
    """
    What was decided and is not out yet.

    Results go first, each in a turn of its own. A report of an exit goes out when all results
    that were put before it are out, and what is done afterwards when nothing else waits. Neither
    keeps a result waiting that is flushed.
    """

    def __init__(
        self,
        on_result: Callable[[Result], None],
        on_exit: Callable[[Result], None] | None = None,
        afterwards: Callable[[Result], None] | None = None,
        published: Callable[[float], None] = lambda took_s: None,
    ) -> None:
        """
        Start the thread.

        :param on_result: hands out a result; never called by two threads at once.
        :param on_exit: hands out a report; called by the thread of the outbox alone.
        :param afterwards: called by that thread with a result that is out. A newer result takes
            the place of one that waits for this.
        :param published: told how many seconds it took from the decision until a mask was out.
        """
        self._on_result, self._on_exit = on_result, on_exit
        self._afterwards, self._published = afterwards, published
        self._changed = threading.Condition()  # around everything below
        self._results: deque[Result] = deque()
        self._reports: deque[Result] = deque()
        self._shown: Result | None = None  # waits for what is done afterwards
        self._put = self._taken = 0  # results so far
        self._turn: int | None = None  # the thread that hands out a result
        self._depth = 0  # of its turns: a result may be flushed from within on_result
        self._holding = 0  # threads that hand out results themselves
        self._ended = False
        self._thread = threading.Thread(target=self._run, name='adpc_publisher', daemon=True)
        self._thread.start()

    def put(self, result: Result) -> None:
        """Add a result; :meth:`wake` or :meth:`flush` must follow."""
        with self._changed:
            self._put += 1
            self._results.append(result)

    def report(self, result: Result) -> None:
        """Add a report of an exit; :meth:`wake` must follow."""
        if self._on_exit is not None:
            with self._changed:
                self._reports.append(result)

    def wake(self) -> None:
        """Let the thread hand out what there is."""
        with self._changed:
            if self._results or self._reports or self._shown:
                self._changed.notify_all()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the thread from beginning anything, so that the caller can flush what it puts."""
        with self._changed:
            self._holding += 1
        try:
            yield
        finally:
            with self._changed:
                self._holding -= 1
                self._changed.notify_all()

    def flush(self) -> None:
        """Hand out all results that were put so far; they are out on return."""
        with self.held():
            with self._changed:
                last = self._put
            while (result := self._take(last)) is not None:
                self._hand_out(result)

    def wait_for_room(self) -> None:
        """Wait while too much waits; not once the outbox was ended."""
        with self._changed:
            while not self._ended and (
                len(self._results) >= RESULTS or len(self._reports) >= REPORTS
            ):
                self._changed.wait()

    def end(self, timeout_s: float) -> None:
        """Hand out all results and reports, and end the thread; no result may follow."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)

    def _take(self, last: int) -> Result | None:
        """Give the next result for this thread to hand out; None once ``last`` are out."""
        me = threading.get_ident()
        with self._changed:
            while self._turn not in (None, me) and self._taken <= last:
                self._changed.wait()
            return self._begin_turn() if self._taken < last else None

    def _begin_turn(self) -> Result:
        self._turn = threading.get_ident()
        self._depth += 1
        self._taken += 1
        return self._results.popleft()

    def _hand_out(self, result: Result) -> None:
        try:
            self._on_result(result)
            if result.exit is not None:
                self._published(time.monotonic() - result.decided_s)
        except Exception:
            log.exception('publishing frame %d failed', result.frame.frame_id)
        finally:
            with self._changed:
                self._depth -= 1
                if not self._depth:
                    self._turn = None
                if self._afterwards is not None and result.exit is not None:
                    self._shown = result
                self._changed.notify_all()

    # The thread

    def _run(self) -> None:
        while (work := self._next()) is not None:
            try:
                work()
            except BaseException:  # whatever it is, later results must go out
                log.exception('publication failed')
            del work  # it holds a frame

    def _next(self) -> Callable[[], None] | None:
        """Wait for something to do; None if that was all."""
        with self._changed:
            while True:
                if self._turn is None and not self._holding:
                    if self._results:
                        return partial(self._hand_out, self._begin_turn())
                    if self._reports:
                        return partial(self._give_report, self._reports.popleft())
                    if self._ended:
                        return None
                    if self._shown is not None:
                        shown, self._shown = self._shown, None
                        return partial(self._show, shown)
                self._changed.wait()

    def _give_report(self, report: Result) -> None:
        assert self._on_exit is not None
        try:
            self._on_exit(report)
        except Exception:
            log.exception('reporting an exit of frame %d failed', report.frame.frame_id)
        with self._changed:
            self._changed.notify_all()  # there is room

    def _show(self, result: Result) -> None:
        assert self._afterwards is not None
        try:
            self._afterwards(result)
        except Exception:
            log.exception('what follows the result of frame %d failed', result.frame.frame_id)
