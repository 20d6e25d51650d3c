"""How soon a frame stops: CRITICAL at random instants, as the engine and its worker see it."""

from __future__ import annotations

import random
import statistics
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from adpc_ros.network.adaptivity import ActiveMap
from adpc_ros.runtime.engine import Engine, Frame, RenderedExit, Result
from adpc_ros.runtime.plan import ComputedExit, Plan
from adpc_ros.runtime.scheduler import Level, StopReason

_WHOLE_FRAMES = 3  # run to the end, to know how long that takes; the first is a warm-up
_PATIENCE_S = 600.0


class Preemption(NamedTuple):
    """
    One frame that was stopped.

    ``idle_s`` until the worker has stopped computing and ``published_s`` until the result was
    handed out, both in seconds from CRITICAL; ``exit_index`` is the exit that went out.
    """

    idle_s: float
    published_s: float
    exit_index: int


class _Watched:
    """A plan that tells when its worker has left a frame."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.idle_s = 0.0
        self.idle = threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plan, name)

    def segment(
        self,
        image: NDArray[np.uint8],
        adaptive: bool = True,
        active_maps: list[ActiveMap] | None = None,
    ) -> Iterator[ComputedExit | None]:
        try:
            yield from self._plan.segment(image, adaptive, active_maps)
        finally:  # whatever the plan had under way has ended
            self.idle_s = time.monotonic()
            self.idle.set()


class _Trial:
    """Runs one frame at a time through an engine."""

    def __init__(self, plan: Plan, image: NDArray[np.uint8]) -> None:
        self._image = image
        self._watched = _Watched(plan)
        self._first_exit, self._published = threading.Event(), threading.Event()
        self._exits_s: list[float] = []
        self._result: tuple[Result, float] | None = None
        engine_plan = cast(Plan, self._watched)
        self._engine = Engine(engine_plan, None, self._on_result, self._on_exit)

    def _on_exit(self, frame: Frame, done: RenderedExit) -> None:
        self._exits_s.append(done.time_s)
        self._first_exit.set()

    def _on_result(self, result: Result) -> None:
        self._result = result, time.monotonic()
        self._published.set()
        if result.error is not None:
            self._first_exit.set()

    def _start(self) -> None:
        for event in (self._first_exit, self._published, self._watched.idle):
            event.clear()
        self._exits_s = []
        self._engine.submit(self._image)

    def _ended(self) -> tuple[Result, float]:
        for event in (self._published, self._watched.idle):
            if not event.wait(_PATIENCE_S):
                raise TimeoutError(f'a frame took longer than {_PATIENCE_S:.0f} s')
        assert self._result is not None
        if self._result[0].error is not None:
            raise self._result[0].error
        return self._result

    def whole_frame(self) -> float:
        """Let a frame finish; gives the seconds from its first exit to its last."""
        self._start()
        self._ended()
        return self._exits_s[-1] - self._exits_s[0]

    def preempt(self, after_s: float) -> Preemption | None:
        """Send CRITICAL that long after exit 1; None if the frame was done before."""
        self._start()
        if not self._first_exit.wait(_PATIENCE_S):
            raise TimeoutError(f'exit 1 took longer than {_PATIENCE_S:.0f} s')
        time.sleep(after_s)
        sent_s = time.monotonic()
        self._engine.urgency(Level.CRITICAL)
        result, published_s = self._ended()
        self._engine.urgency(Level.ROUTINE)
        if result.reason is not StopReason.URGENT or result.exit is None:
            return None
        idle_s = self._watched.idle_s - sent_s
        return Preemption(idle_s, published_s - sent_s, result.exit.exit_index)

    def close(self) -> None:
        """End the worker."""
        self._engine.close()


def preempt(plan: Plan, image: NDArray[np.uint8], number: int, seed: int = 0) -> list[Preemption]:
    """
    Stop frames at instants spread evenly over what follows their first exit.

    :param plan: with early exits.
    :param image: (H, W, 3) uint8 RGB, computed again and again.
    :param number: of frames that are stopped; those that finish before are not counted.
    """
    instants = random.Random(seed)
    trial = _Trial(plan, image)
    try:
        whole_s = [trial.whole_frame() for _ in range(_WHOLE_FRAMES)]
        duration_s = statistics.median(whole_s[1:])
        found: list[Preemption] = []
        with tqdm(total=number, desc='preempt') as progress:
            while len(found) < number:
                done = trial.preempt(instants.uniform(0, duration_s))
                if done is not None:
                    found.append(done)
                    progress.update()
        return found
    finally:
        trial.close()
