# SPDX-License-Identifier: Apache-2.0
"""Workers that hang or die: the frame fails, the books stay right, and the next frame goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from adpc_ros.network.families import NetworkConfig
from adpc_ros.runtime import engine as engine_module
from adpc_ros.runtime.deferred import Deferred
from adpc_ros.runtime.engine import Engine
from adpc_ros.runtime.images import Rendered
from adpc_ros.runtime.ledger import Result
from adpc_ros.runtime.outbox import RESULTS
from adpc_ros.runtime.plan import ComputedExit
from adpc_ros.runtime.scheduler import Counters, DropReason, Level, StopReason
from adpc_ros.runtime.watchdog import LOOKS, MAX_STUCK, Stall, Watch

LIMIT_S = 0.2
DEATH = 'ignore::pytest.PytestUnhandledThreadExceptionWarning'
IMAGE = np.zeros((4, 4, 3), np.uint8)
# first pixel of an image: what befalls it
HANG, HANG_AFTER_EXIT, HEED, DIE, SLOW, COUNT = range(1, 7)


class FakePlan:
    """Computes nothing, and does what an image says."""

    exit_count = 4
    description = 'fake'
    config = NetworkConfig('hrnet_tiny')
    progress = memory_bytes = 0

    def __init__(self, first_s: float = 0.0) -> None:
        self.release = threading.Event()
        self.interrupted = threading.Event()
        self.closed = False
        self.first_s = first_s  # that the first image of a size takes, in one step
        self.sizes: list[tuple[int, ...]] = []  # of images
        self.threads: list[str] = []  # that they were computed in

    def segment(
        self, image: np.ndarray, adaptive: bool = True, active_maps: object = None
    ) -> Iterator[ComputedExit | None]:
        self.interrupted.clear()
        what = int(image[0, 0, 0])
        self.sizes.append(image.shape[:2])
        self.threads.append(threading.current_thread().name)
        if self.sizes.count(image.shape[:2]) == 1:
            self.release.wait(self.first_s)
        if what == HANG:
            self.release.wait()
        elif what == HEED:
            self.interrupted.wait()
        elif what == DIE:
            raise SystemExit
        for _ in range(3 * LOOKS if what == COUNT else 0):  # one step, whose progress is counted
            time.sleep(LIMIT_S / LOOKS)
            self.progress += 1
        for index in range(1, 5):
            for _ in range(LOOKS if what == SLOW else 1):
                time.sleep(LIMIT_S / 3 if what == SLOW else 0)
                yield None
            if what == HANG_AFTER_EXIT and index == 2:
                self.release.wait()
            rendered = Rendered(image[:, :, 0], image[:, :, 0])
            yield ComputedExit(index, rendered, 0.5, 0.5, index, 1.0)

    def interrupt(self) -> None:
        self.interrupted.set()

    def run_until(self, time_s: float) -> None:
        pass

    def close(self) -> None:
        self.closed = True


class Bench:
    """An engine under watch, the plans that were made for it, and what came out."""

    def __init__(
        self, remake: Callable[[], FakePlan] | None = None, first: FakePlan | None = None
    ) -> None:
        self.plans = [first or FakePlan()]
        self.results: list[Result] = []
        self.frames = 0

        def make() -> FakePlan:
            self.plans.append(remake() if remake else FakePlan())
            return self.plans[-1]

        watch = Watch(LIMIT_S, make)
        self.engine = Engine(self.plans[0], on_result=self.results.append, watch=watch)

    def submit(self, what: int = 0) -> None:
        self.frames += 1
        image = IMAGE.copy()
        image[0, 0, 0] = what
        self.engine.submit(image, self.frames)

    def settle(self) -> Counters:
        """Wait until every frame is accounted for."""

        def settled() -> bool:
            counters = self.engine.counters()
            return counters.segmented + counters.dropped == counters.received == self.frames

        wait_for(settled)
        counters = self.engine.counters()
        failed = counters.drops[DropReason.FAILED]
        wait_for(lambda: len(self.results) == counters.segmented + failed)
        tags = [result.frame.tag for result in self.results]
        assert tags == sorted(set(tags)), 'one result each, in order'
        return counters

    def reasons(self) -> list[StopReason]:
        return [result.reason for result in self.results]


def wait_for(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end_s, 'timed out'
        time.sleep(0.002)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    for plan in bench.plans:
        plan.release.set()
    bench.engine.close()


def test_a_stall_is_a_number_of_looks_that_see_the_same() -> None:
    stall = Stall()
    assert [stall.look(x) for x in (1, 1, 1, 2, 2, None, None, 2, 2)] == [
        *(0, 1, 2),
        *(0, 1),
        *(0, 0),
        *(0, 1),
    ]


def test_a_watch_needs_a_limit() -> None:
    with pytest.raises(ValueError, match='limit_s > 0, got 0'):
        Watch(0, FakePlan)


def test_a_worker_that_hangs_is_replaced_and_the_next_frame_goes_on(bench: Bench) -> None:
    bench.submit(HANG)
    wait_for(lambda: bench.engine.health().hung)
    wait_for(lambda: bool(bench.results))
    (failed,) = bench.results
    assert (failed.reason, failed.exit) == (StopReason.FAILED, None)
    assert 'made no progress for 0.2 s' in str(failed.error)
    assert failed.counters.drops[DropReason.FAILED] == 1
    bench.submit()
    assert bench.settle().segmented == 1
    assert bench.reasons() == [StopReason.FAILED, StopReason.FINISHED]
    wait_for(lambda: not bench.engine.health().hung)
    health = bench.engine.health()
    assert (health.restarts, health.stuck) == (1, 1)
    assert time.monotonic() - 20 < health.restarted_s < time.monotonic()
    assert bench.engine.plan is bench.plans[1] and len(bench.plans) == 2
    assert bench.plans[1].sizes == [IMAGE.shape[:2]] * 2, 'warmed at the size of the frame'
    assert bench.plans[1].threads == ['adpc_watchdog', 'adpc_worker']


def test_a_worker_that_comes_back_too_late_is_not_heard_and_frees_its_plan(bench: Bench) -> None:
    bench.submit(HANG)
    wait_for(lambda: bench.engine.health().restarts == 1)
    bench.submit(HANG)  # another worker is at work when the first comes back
    bench.plans[0].release.set()
    wait_for(lambda: bench.plans[0].closed)
    assert bench.engine.health().stuck == 0
    bench.plans[1].release.set()
    bench.settle()
    assert not bench.plans[1].closed


def test_a_plan_that_heeds_an_interrupt_keeps_its_worker(bench: Bench) -> None:
    bench.submit(HEED)
    wait_for(lambda: bool(bench.results))
    bench.submit()
    bench.settle()
    assert bench.reasons() == [StopReason.FAILED, StopReason.FINISHED]
    wait_for(lambda: not bench.engine.health().hung)
    assert bench.engine.health().restarts == 0 and len(bench.plans) == 1


@pytest.mark.filterwarnings(DEATH)
def test_a_worker_that_dies_is_replaced(bench: Bench) -> None:
    bench.submit(DIE)
    wait_for(lambda: bool(bench.results))
    assert 'the worker died' in str(bench.results[0].error)
    bench.submit()
    bench.settle()
    assert bench.reasons() == [StopReason.FAILED, StopReason.FINISHED]
    assert bench.engine.health()[1::2] == (1, 0)


def test_a_worker_that_hangs_while_decoding_is_replaced(bench: Bench) -> None:
    bench.frames += 1
    bench.engine.submit(Deferred((4, 4), lambda: bench.plans[0].release.wait() and IMAGE), 1)
    bench.submit()
    bench.settle()
    assert bench.reasons() == [StopReason.FAILED, StopReason.FINISHED]


def test_a_frame_that_has_its_result_gets_no_second_one(bench: Bench) -> None:
    bench.submit(HANG_AFTER_EXIT)
    wait_for(lambda: bench.engine.latest() is not None)
    bench.submit()  # publishes the first exit of the one that hangs
    counters = bench.settle()
    assert bench.reasons() == [StopReason.NEXT_FRAME, StopReason.FINISHED]
    assert (counters.segmented, counters.dropped) == (2, 0)
    assert bench.engine.health().restarts == 1


def test_frames_that_come_while_it_hangs_are_counted(bench: Bench) -> None:
    bench.submit(HANG)
    for _ in range(5):
        bench.submit()
    counters = bench.settle()
    assert bench.reasons() == [StopReason.FAILED, StopReason.FINISHED]
    assert counters.drops[DropReason.SUPERSEDED] == 4


def test_slow_work_and_slow_publication_are_no_hang() -> None:
    def publish(result: Result) -> None:
        if len(results) == 1:
            time.sleep(3 * LIMIT_S)
        results.append(result)

    def never() -> FakePlan:
        raise AssertionError('called')

    results: list[Result] = []
    engine = Engine(FakePlan(), on_result=publish, watch=Watch(LIMIT_S, never))
    image = IMAGE.copy()
    image[0, 0, 0] = SLOW
    engine.submit(image)
    wait_for(lambda: bool(results))
    for count in range(2, 5 + RESULTS):  # the last ones wait for the publisher, as the worker does
        engine.submit(IMAGE)
        wait_for(lambda count=count: engine.counters().segmented == min(count, 2 + RESULTS))
    wait_for(lambda: len(results) == engine.counters().segmented > 2 + RESULTS)
    time.sleep(3 * LIMIT_S)  # idle is no hang either
    assert engine.close()
    assert results[0].reason is StopReason.FINISHED
    assert engine.health() == (False, 0, -np.inf, 0)


def test_a_plan_that_cannot_be_made_is_tried_again() -> None:
    tries = []

    def remake() -> FakePlan:
        tries.append(1)
        if len(tries) < 3:
            raise MemoryError('no memory')
        return FakePlan()

    bench = Bench(remake)
    bench.submit(HANG)
    bench.submit()
    wait_for(lambda: len(tries) == 2)
    assert bench.engine.health().hung
    assert bench.settle().segmented == 1
    assert bench.engine.health().restarts == 1
    bench.plans[0].release.set()
    bench.engine.close()


@pytest.mark.parametrize('first_s', [5 * LIMIT_S, 20 * LIMIT_S])
def test_a_first_use_slower_than_the_limit_fails_a_frame_and_no_more(first_s: float) -> None:
    bench = Bench(lambda: FakePlan(5 * LIMIT_S), FakePlan(first_s))
    for _ in range(40):
        bench.submit()
        time.sleep(LIMIT_S / 5)
    counters = bench.settle()
    bench.plans[0].release.set()
    bench.engine.close()
    assert counters.drops[DropReason.FAILED] == 1 and counters.segmented >= 5
    assert len(bench.plans) == 2, 'the first one comes back meanwhile, or the other is ready'
    assert bench.engine.health().restarts == (first_s > 10 * LIMIT_S)


def test_progress_within_a_step_is_no_hang(bench: Bench) -> None:
    bench.submit(COUNT)
    bench.settle()
    assert bench.reasons() == [StopReason.FINISHED] and len(bench.plans) == 1


def test_a_plan_that_hangs_in_its_warm_up_is_no_restart_and_keeps_nobody_from_closing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine_module, 'END_S', 0.2)
    bench = Bench(lambda: FakePlan(100.0))
    bench.submit(HANG)
    wait_for(lambda: len(bench.plans) == 2 and bool(bench.plans[1].sizes))
    time.sleep(4 * LIMIT_S)
    assert bench.engine.health()[:2] == (True, 0) and len(bench.plans) == 2
    started_s = time.monotonic()
    assert not bench.engine.close()
    assert time.monotonic() - started_s < 2
    for plan in bench.plans:
        plan.release.set()
    wait_for(lambda: bench.plans[1].closed)


def test_a_plan_that_fails_in_its_warm_up_is_freed_and_another_one_tried() -> None:
    class Broken(FakePlan):
        def segment(self, *arguments: object) -> Iterator[ComputedExit | None]:
            raise MemoryError('no memory')

    bench = Bench(lambda: FakePlan() if len(bench.plans) > 1 else Broken())
    bench.submit(HANG)
    wait_for(lambda: bench.engine.health().restarts == 1)
    assert len(bench.plans) == 3 and bench.plans[1].closed
    bench.plans[0].release.set()
    bench.engine.close()


def test_a_plan_that_always_hangs_takes_memory_a_few_times_only(bench: Bench) -> None:
    for count in range(1, MAX_STUCK + 1):
        bench.submit(HANG)
        wait_for(lambda count=count: bench.engine.health().restarts == count)
    bench.submit(HANG)
    wait_for(lambda: len(bench.results) == MAX_STUCK + 1)
    time.sleep(4 * LIMIT_S)
    assert bench.engine.health()[:2] == (True, MAX_STUCK)
    assert len(bench.plans) == MAX_STUCK + 1
    bench.submit()
    bench.plans[0].release.set()  # one comes back: there is room for another
    assert bench.settle().segmented == 1


def test_a_hung_worker_keeps_nobody_from_closing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, 'END_S', 0.2)
    plan = FakePlan()
    engine = Engine(plan)
    image = IMAGE.copy()
    image[0, 0, 0] = HANG
    engine.submit(image)
    wait_for(lambda: engine._worker.computing)
    started_s = time.monotonic()
    assert not engine.close()
    assert time.monotonic() - started_s < 2
    assert engine.counters().drops[DropReason.INACTIVE] == 1
    plan.release.set()


def test_closing_ends_all_threads(bench: Bench) -> None:
    before = threading.active_count()
    others = [Bench() for _ in range(3)]
    for other in others:
        other.submit()
        other.settle()
        assert other.engine.close()
    wait_for(lambda: threading.active_count() == before)


@pytest.mark.filterwarnings(DEATH)
def test_no_frame_is_lost_whatever_hangs_and_dies(bench: Bench) -> None:
    rng = np.random.default_rng(3)
    for _ in range(150):
        bench.submit(int(rng.choice([0, 0, 0, 0, HANG, HANG_AFTER_EXIT, HEED, DIE])))
        if rng.random() < 0.2:
            bench.engine.urgency(Level(int(rng.integers(3))))
        if rng.random() < 0.1:
            for plan in bench.plans:
                plan.release.set()
        time.sleep(float(rng.uniform(0, 0.09)))
    end_s = time.monotonic() + 20
    while bench.engine.counters().received != sum(  # stuck ones come back, so all have an end
        (bench.engine.counters().segmented, bench.engine.counters().dropped)
    ):
        for plan in list(bench.plans):
            plan.release.set()
        assert time.monotonic() < end_s
        time.sleep(0.01)
    counters = bench.settle()
    assert counters.received == 150
    assert counters.drops[DropReason.FAILED] >= 3
    assert bench.engine.health().restarts >= 3
