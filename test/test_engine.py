# SPDX-License-Identifier: Apache-2.0
"""The engine over a real worker thread: what comes out, when it stops, and that it goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from networks import random_network

from adpc_ros.network.adaptivity import ActiveMap, Adaptivity
from adpc_ros.network.anytime import AnytimeNetwork
from adpc_ros.runtime.compile import compile_network
from adpc_ros.runtime.deferred import Deferred
from adpc_ros.runtime.engine import Engine
from adpc_ros.runtime.images import render, to_input
from adpc_ros.runtime.ledger import RenderedExit, Result
from adpc_ros.runtime.outbox import RESULTS
from adpc_ros.runtime.plan import ComputedExit
from adpc_ros.runtime.scheduler import DropReason, Level, Policy, StopReason
from adpc_ros.runtime.torch_plan import TorchPlan

SIZE = (50, 70)


def picture(seed: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def plan_of(network: AnytimeNetwork) -> TorchPlan:
    return TorchPlan(compile_network(network))


class GatedPlan(TorchPlan):
    """A plan that waits before it gives an exit, until the test lets it."""

    def __init__(self) -> None:
        network = random_network(0, adaptivity=Adaptivity(thresholds=(0.6,) * 3))
        super().__init__(compile_network(network))
        self.gates = threading.Semaphore(0)
        self.fail_at: int | None = None
        self.interrupts = 0
        self.looks: list[float] = []  # times of run_until

    def segment(
        self,
        image: np.ndarray,
        adaptive: bool = True,
        active_maps: list[ActiveMap] | None = None,
    ) -> Iterator[ComputedExit | None]:
        for computed in super().segment(image, adaptive, active_maps):
            while computed is not None and not self.gates.acquire(timeout=0.001):
                yield None  # a small unit of work
            if computed is not None and computed.exit_index == self.fail_at:
                raise RuntimeError('the kernel is broken')
            yield computed

    def interrupt(self) -> None:
        self.interrupts += 1

    def run_until(self, time_s: float) -> None:
        self.looks.append(time_s)


def named(done: RenderedExit) -> tuple[int, int]:
    return done.frame_id, done.computed.exit_index


class Recorder:
    def __init__(self) -> None:
        self.results: list[Result] = []
        self.threads: list[str] = []
        self.exits: list[tuple[int, int]] = []

    def on_result(self, result: Result) -> None:
        self.results.append(result)
        self.threads.append(threading.current_thread().name)

    def on_exit(self, done: Result) -> None:
        assert done.exit is not None and done.reason is None
        self.exits.append(named(done.exit))


def wait_for(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end_s, 'timed out'
        time.sleep(0.001)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def gated(recorder: Recorder) -> Iterator[tuple[Engine, GatedPlan]]:
    plan = GatedPlan()
    engine = Engine(plan, on_result=recorder.on_result, on_exit=recorder.on_exit)
    yield engine, plan
    engine.close()


def run_exits(engine: Engine, plan: GatedPlan, frame_id: int, count: int) -> None:
    """Let the frame complete ``count`` exits."""
    for index in range(1, count + 1):
        plan.gates.release()
        wait_for(
            lambda index=index: (
                (latest := engine.latest()) is not None and named(latest) == (frame_id, index)
            )
        )


def test_results_equal_the_networks_exits(recorder: Recorder) -> None:
    network = random_network(2, adaptivity=Adaptivity(thresholds=(0.6,) * 3))
    rendered = []
    engine = Engine(
        plan_of(network),
        on_result=recorder.on_result,
        on_exit=lambda done: rendered.append(done.exit),
    )
    for seed, size in enumerate([SIZE, SIZE, (33, 95)]):
        engine.submit(picture(seed, size), tag=seed)
        wait_for(lambda seed=seed: len(rendered) == 4 * (seed + 1))
        with torch.inference_mode():
            x = to_input(picture(seed, size), network.config, torch.device('cpu'))
            for out, got in zip(network.exits(x), rendered[-4:]):
                expected, mean_confidence = render(out.logits, size, 4)
                same = got.computed.rendered.class_ids == expected.class_ids
                assert same.mean() > 0.999
                difference = got.computed.rendered.confidence.astype(int) - expected.confidence
                assert abs(difference).max() <= 1
                assert got.computed.mean_confidence == pytest.approx(mean_confidence, abs=1e-3)
        result = recorder.results[-1]
        assert (result.frame.tag, result.reason) == (seed, StopReason.FINISHED)
        assert result.exit is rendered[-1]
    engine.close()
    counters = recorder.results[-1].counters
    assert (counters.received, counters.segmented, counters.dropped) == (3, 3, 0)


def test_next_frame_stops_the_running_one_and_starts(gated, recorder) -> None:
    engine, plan = gated
    engine.submit(picture(), 'a')
    run_exits(engine, plan, 1, 2)
    engine.submit(picture(), 'b')
    wait_for(lambda: len(recorder.results) == 1)
    result = recorder.results[0]
    assert (result.frame.tag, result.reason) == ('a', StopReason.NEXT_FRAME)
    assert result.exit is not None and result.exit.computed.exit_index == 2
    assert recorder.threads == ['adpc_publisher']  # the image callback must not publish
    for _ in range(4):
        plan.gates.release()
    wait_for(lambda: len(recorder.results) == 2)
    assert recorder.results[1].frame.tag == 'b'


def test_critical_publishes_from_the_callers_thread_before_it_returns(gated, recorder) -> None:
    engine, plan = gated
    engine.submit(picture(), 'a')
    run_exits(engine, plan, 1, 1)
    engine.urgency(Level.CRITICAL, stamp='now')
    (result,) = recorder.results
    assert recorder.threads == [threading.current_thread().name]
    assert (result.reason, result.decision.urgency_stamp) == (StopReason.URGENT, 'now')
    assert result.exit is not None and result.exit.computed.exit_index == 1


def test_critical_without_an_exit_ends_at_the_first(gated, recorder) -> None:
    engine, plan = gated
    engine.submit(picture())
    engine.urgency(Level.CRITICAL)
    assert not recorder.results
    plan.gates.release()
    wait_for(lambda: len(recorder.results) == 1)
    assert recorder.results[0].reason is StopReason.URGENT
    assert recorder.exits == [(1, 1)]


def test_only_the_newest_waiting_frame_is_computed(gated, recorder) -> None:
    engine, plan = gated
    for tag in range(5):
        engine.submit(picture(), tag)
    for _ in range(5):
        plan.gates.release()
    wait_for(lambda: len(recorder.results) == 2)
    assert [r.frame.tag for r in recorder.results] == [0, 4]
    counters = recorder.results[-1].counters
    assert (counters.received, counters.segmented, counters.dropped) == (5, 2, 3)


def test_a_failure_is_reported_and_the_next_frame_goes_on(gated, recorder) -> None:
    engine, plan = gated
    plan.fail_at = 2
    engine.submit(picture(), 'a')
    for _ in range(2):
        plan.gates.release()
    wait_for(lambda: len(recorder.results) == 1)
    failed = recorder.results[0]
    assert (failed.reason, failed.exit) == (StopReason.FAILED, None)
    assert 'the kernel is broken' in str(failed.error)
    plan.fail_at = None
    engine.submit(picture(), 'b')
    for _ in range(4):
        plan.gates.release()
    wait_for(lambda: len(recorder.results) == 2)
    assert recorder.results[1].reason is StopReason.FINISHED
    assert recorder.results[1].error is None


def test_an_error_in_a_callback_does_not_stop_the_worker(recorder: Recorder) -> None:
    calls = []

    def broken(*args: object) -> None:
        calls.append(args)
        raise RuntimeError('subscriber is gone')

    engine = Engine(plan_of(random_network()), on_result=broken, on_exit=broken)
    for count in (5, 10):
        engine.submit(picture())
        wait_for(lambda count=count: len(calls) == count)
    engine.close()


def test_stop_drops_the_frame_and_the_engine_can_be_used_again(gated, recorder) -> None:
    engine, plan = gated
    engine.submit(picture())
    run_exits(engine, plan, 1, 1)
    engine.stop()
    engine.submit(picture(), 'b')
    for _ in range(4):
        plan.gates.release()
    wait_for(lambda: len(recorder.results) == 1)
    assert recorder.results[0].frame.tag == 'b'
    counters = recorder.results[0].counters
    assert (counters.received, counters.segmented, counters.dropped) == (2, 1, 1)


def test_nothing_of_a_failed_frame_is_kept(gated, recorder) -> None:
    engine, plan = gated
    plan.fail_at = 1
    engine.submit(picture())
    plan.gates.release()
    wait_for(lambda: len(recorder.results) == 1)
    assert engine._ledger._error is None and not engine._ledger._frames


def test_a_closed_engine_takes_no_frame() -> None:
    engine = Engine(plan_of(random_network()))
    engine.close()
    with pytest.raises(RuntimeError, match='closed'):
        engine.submit(picture())


def test_a_policy_for_another_network_is_an_error() -> None:
    with pytest.raises(ValueError, match='expected a policy for 4 exits, got 3'):
        Engine(plan_of(random_network()), Policy(3))


@pytest.mark.parametrize('event', ['frame', 'critical', 'stop', 'close'])
def test_whatever_cancels_a_frame_interrupts_the_plan(gated, event: str) -> None:
    engine, plan = gated
    engine.submit(picture())
    run_exits(engine, plan, 1, 1)
    assert plan.interrupts == 0
    {
        'frame': lambda: engine.submit(picture()),
        'critical': lambda: engine.urgency(Level.CRITICAL),
        'stop': engine.stop,
        'close': engine.close,
    }[event]()
    assert plan.interrupts == 1


def test_a_frame_that_ends_by_itself_interrupts_nothing(gated, recorder) -> None:
    engine, plan = gated
    engine.submit(picture())
    run_exits(engine, plan, 1, 4)
    wait_for(lambda: len(recorder.results) == 1)
    assert plan.interrupts == 0


def test_a_warm_up_computes_every_exit_and_publishes_nothing(gated, recorder) -> None:
    engine, plan = gated
    for _ in range(4):
        plan.gates.release()
    engine.warm_up(SIZE)
    assert len(plan.step_times()) == len(plan.program.steps)
    assert not recorder.results and engine.latest() is None


def test_close_ends_the_worker_in_mid_frame_and_twice_is_fine(recorder: Recorder) -> None:
    engine = Engine(GatedPlan(), on_result=recorder.on_result)
    engine.submit(picture())
    engine.close()
    engine.close()
    assert not recorder.results
    assert engine.counters().dropped == 1


def test_many_frames_and_urgencies_from_two_threads_keep_the_books() -> None:
    recorder = Recorder()
    turn, together = threading.Lock(), []

    def one_at_a_time(result: Result) -> None:
        if not turn.acquire(blocking=False):
            together.append(result)
            return
        time.sleep(0.0005)
        recorder.on_result(result)
        turn.release()

    engine = Engine(
        plan_of(random_network(0, adaptivity=Adaptivity(thresholds=(0.6,) * 3))),
        Policy(4, elevated_deadline_s=0.005),
        one_at_a_time,
        recorder.on_exit,
        afterwards=lambda result: time.sleep(0.002),
    )
    done = threading.Event()

    def storm() -> None:
        rng = np.random.default_rng(1)
        while not done.is_set():
            engine.urgency(Level(int(rng.integers(3))), hold_s=float(rng.choice([0.0, 0.002])))
            time.sleep(float(rng.uniform(0, 0.003)))

    thread = threading.Thread(target=storm)
    thread.start()
    rng = np.random.default_rng(2)
    for i in range(300):
        engine.submit(picture(0, SIZE), i)
        time.sleep(float(rng.uniform(0, 0.02)))
    done.set()
    thread.join()
    engine.urgency(Level.ROUTINE)

    def settled() -> bool:
        counters = engine.counters()
        return counters.segmented + counters.dropped == 300

    wait_for(settled)
    engine.close()
    assert not together
    tags = [r.frame.tag for r in recorder.results]
    assert tags == sorted(set(tags)) and len(tags) == engine.counters().segmented
    assert {StopReason.NEXT_FRAME, StopReason.URGENT} <= {r.reason for r in recorder.results}


def test_only_frames_that_are_computed_are_decoded(
    gated: tuple[Engine, GatedPlan], recorder: Recorder
) -> None:
    engine, plan = gated
    decoded = []

    def deferred(number: int) -> Deferred:
        return Deferred(SIZE, lambda: (decoded.append(number), picture(number))[1])

    engine.submit(deferred(1))
    wait_for(lambda: decoded == [1])
    engine.submit(deferred(2))  # replaced before it begins
    engine.submit(deferred(3))
    for _ in range(5):  # the first exit of the preempted frame, four of the last
        plan.gates.release()
    wait_for(lambda: len(recorder.results) == 2)
    assert decoded == [1, 3]
    for result, number in zip(recorder.results, decoded):
        np.testing.assert_array_equal(result.frame.image, picture(number))


def test_a_frame_that_cannot_be_decoded_counts_as_rejected_and_the_next_goes_on(
    recorder: Recorder,
) -> None:
    def broken() -> np.ndarray:
        raise ValueError('no image')

    engine = Engine(plan_of(random_network(0)), on_result=recorder.on_result)
    engine.submit(Deferred(SIZE, broken))
    wait_for(lambda: engine.counters().dropped == 1)
    engine.submit(picture())
    wait_for(lambda: len(recorder.results) == 1)
    engine.close()
    assert recorder.results[0].reason is StopReason.FINISHED
    assert engine.counters().drops[DropReason.INVALID] == 1


def test_another_policy_counts_from_the_next_frame_on(
    gated: tuple[Engine, GatedPlan], recorder: Recorder
) -> None:
    engine, plan = gated
    engine.submit(picture())
    run_exits(engine, plan, 1, 1)
    engine.change_policy(Policy(4, max_exit=1), adaptive=False)
    for _ in range(3):
        plan.gates.release()
    wait_for(lambda: len(recorder.results) == 1)
    engine.submit(picture())
    plan.gates.release()
    wait_for(lambda: len(recorder.results) == 2)
    assert [r.exit.computed.exit_index for r in recorder.results] == [4, 1]
    assert recorder.results[1].reason is StopReason.EXIT_LIMIT


# When the plan yields


def test_a_deadline_that_comes_moves_or_goes_reaches_the_running_plan(gated, recorder) -> None:
    engine, plan = gated
    engine.submit(picture())
    run_exits(engine, plan, 1, 1)
    assert not plan.looks, 'no deadline, no look'
    received_s = time.monotonic()
    engine.urgency(Level.ELEVATED, deadline_s=90.0)
    assert received_s + 80 < plan.looks[-1] < received_s + 90
    engine.urgency(Level.ELEVATED, deadline_s=60.0)
    assert received_s + 50 < plan.looks[-1] < received_s + 60
    engine.urgency(Level.ELEVATED, deadline_s=60.0, hold_s=30.0)  # over before the deadline is
    assert plan.looks[-1] == np.inf and len(plan.looks) == 3
    engine.urgency(Level.ELEVATED, deadline_s=60.0)
    engine.urgency(Level.CRITICAL)  # ends the frame
    assert plan.looks[-1] == np.inf and len(plan.looks) == 5


def test_a_frame_ends_at_its_deadline_though_the_plan_yields_only_then(recorder) -> None:
    class Silent(GatedPlan):
        """Yields at the time that it was told, and else only its first exit."""

        def __init__(self) -> None:
            super().__init__()
            self.told = threading.Condition()

        def segment(self, image, adaptive=True, active_maps=None):
            yield next(done for done in TorchPlan.segment(self, image) if done is not None)
            while True:
                with self.told:
                    until_s = self.looks[-1] if self.looks else np.inf
                    left_s = until_s - time.monotonic()
                    if left_s > 0:
                        self.told.wait(min(left_s, 60))
                        continue
                yield None

        def run_until(self, time_s: float) -> None:
            with self.told:
                self.looks.append(time_s)
                self.told.notify_all()

    engine = Engine(Silent(), on_result=recorder.on_result)
    engine.submit(picture())
    wait_for(lambda: engine.latest() is not None)
    engine.urgency(Level.ELEVATED, deadline_s=0.5)
    wait_for(lambda: bool(recorder.results))
    (result,) = recorder.results
    assert result.reason is StopReason.DEADLINE and result.exit.computed.exit_index == 1
    assert result.decision.deadline_s - result.decided_s < 0.05, 'it was given its time'
    engine.close()


def test_the_native_plan_comes_back_for_its_exits_and_the_deadline_alone(recorder) -> None:
    cpu = pytest.importorskip('adpc_ros.runtime.cpu')

    class Counting(cpu.CpuPlan):
        looks = 0

        def segment(self, *arguments: Any) -> Iterator[ComputedExit | None]:
            for computed in super().segment(*arguments):
                self.looks += computed is None
                yield computed

    network = random_network(0, adaptivity=Adaptivity(thresholds=(0.6,) * 3))
    plan = Counting(compile_network(network), threads=1)
    engine = Engine(plan, None, recorder.on_result)
    image = picture(size=(1536, 1536))
    engine.submit(image)
    wait_for(lambda: len(recorder.results) == 1)
    assert recorder.results[0].reason is StopReason.FINISHED and plan.looks == 0
    submitted_s = time.monotonic()
    engine.submit(image)
    wait_for(lambda: engine.latest().frame_id == 2)
    engine.urgency(Level.ELEVATED, deadline_s=time.monotonic() - submitted_s + 0.02)
    wait_for(lambda: len(recorder.results) == 2)
    assert recorder.results[1].reason is StopReason.DEADLINE
    assert recorder.results[1].exit.computed.exit_index < 4 and plan.looks <= 2
    engine.close()
    plan.close()


# Publication


class Slow(Recorder):
    """Hands out nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.go = threading.Semaphore(0), threading.Semaphore(0)

    def on_result(self, result: Result) -> None:
        self.entered.release()
        assert self.go.acquire(timeout=20)
        super().on_result(result)


def test_a_publisher_that_blocks_stops_the_worker_only_when_a_few_results_wait() -> None:
    slow = Slow()
    plan = plan_of(random_network(0))
    engine = Engine(plan, on_result=slow.on_result)
    for count in range(1, 2 + RESULTS):  # one is being published
        engine.submit(picture(), count)
        wait_for(lambda count=count: engine.counters().segmented == count)
    for tag in ('superseded', 'newest'):
        engine.submit(picture(), tag)
    time.sleep(0.1)
    assert engine.counters().segmented == 1 + RESULTS, 'the worker waits'
    assert not slow.results
    for _ in range(2 + RESULTS):
        slow.go.release()
    wait_for(lambda: len(slow.results) == 2 + RESULTS)
    assert [r.frame.tag for r in slow.results] == [*range(1, 2 + RESULTS), 'newest']
    assert set(slow.threads) == {'adpc_publisher'}
    engine.close()


@pytest.mark.parametrize('blocked', ['on_exit', 'afterwards'])
def test_critical_waits_for_no_report_and_nothing_that_comes_afterwards(blocked: str) -> None:
    recorder, plan = Recorder(), GatedPlan()
    entered, go = threading.Event(), threading.Event()

    def block(_: Result) -> None:
        entered.set()
        assert go.wait(20)

    engine = Engine(plan, on_result=recorder.on_result, **{blocked: block})
    if blocked == 'afterwards':
        engine.submit(picture(), 'before')
        run_exits(engine, plan, 1, 4)
        assert entered.wait(20)
    run_exits(engine, plan, engine.submit(picture(), 'urgent'), 1)
    assert entered.wait(20)
    engine.urgency(Level.CRITICAL)
    assert (recorder.results[-1].frame.tag, recorder.threads[-1]) == (
        *('urgent', threading.current_thread().name),
    )
    go.set()
    engine.close()


def test_critical_hands_out_what_goes_before_its_result() -> None:
    slow, plan = Slow(), GatedPlan()
    engine = Engine(plan, on_result=slow.on_result)
    engine.submit(picture(), 'a')
    run_exits(engine, plan, 1, 4)
    assert slow.entered.acquire(timeout=20)  # the publisher has it in hand
    engine.submit(picture(), 'b')
    wait_for(lambda: engine._started == 2)
    run_exits(engine, plan, 2, 1)
    urgent = threading.Thread(target=engine.urgency, args=(Level.CRITICAL,), name='urgent')
    urgent.start()
    slow.go.release()
    slow.go.release()
    urgent.join(20)
    assert [r.frame.tag for r in slow.results] == ['a', 'b']
    assert slow.threads == ['adpc_publisher', 'urgent']
    engine.close()


@pytest.mark.parametrize('end', [Engine.stop, Engine.close])
def test_what_was_decided_before_a_stop_is_out_when_it_returns(end) -> None:
    recorder, plan = Recorder(), GatedPlan()

    def slow(result: Result) -> None:
        time.sleep(0.1)
        recorder.on_result(result)

    engine = Engine(plan, on_result=slow)
    engine.submit(picture(), 'a')
    run_exits(engine, plan, 1, 4)
    engine.submit(picture(), 'b')
    wait_for(lambda: engine._started == 2)
    run_exits(engine, plan, 2, 4)
    wait_for(lambda: engine.counters().segmented == 2)
    end(engine)
    assert [r.frame.tag for r in recorder.results] == ['a', 'b']
    engine.close()


def test_reports_follow_the_result_of_their_frame_and_the_newest_is_shown_last() -> None:
    said: list[tuple[str, Any]] = []
    shown = threading.Event()

    def show(result: Result) -> None:
        said.append(('shown', result.frame.tag))
        assert shown.wait(20)

    plan = GatedPlan()
    engine = Engine(
        plan,
        on_result=lambda r: said.append(('result', r.frame.tag)),
        on_exit=lambda r: said.append((f'exit {r.exit.computed.exit_index}', r.frame.tag)),
        afterwards=show,
    )
    for tag in range(1, 5):
        engine.submit(picture(), tag)
        wait_for(lambda tag=tag: engine._started == tag)
        run_exits(engine, plan, tag, 4)
        wait_for(lambda tag=tag: tag > 1 or ('shown', 1) in said)
    shown.set()
    wait_for(lambda: ('shown', 4) in said)
    engine.close()
    assert [tag for what, tag in said if what == 'shown'] == [1, 4]
    for frame in range(1, 5):
        order = [what for what, tag in said if tag == frame]
        assert [what for what in order if 'exit' in what] == [f'exit {i}' for i in range(1, 5)]
        assert order.index('result') < order.index('exit 4')


def test_whatever_a_callback_raises_the_next_result_goes_out() -> None:
    tags = []

    def broken(result: Result) -> None:
        tags.append(result.frame.tag)
        raise SystemExit

    engine = Engine(plan_of(random_network(0)), None, broken, broken, afterwards=broken)
    for tag, count in (('a', 6), ('b', 12)):  # a result, four exits, and what comes afterwards
        engine.submit(picture(), tag)
        wait_for(lambda count=count: len(tags) == count)
    engine.close()


def test_what_publication_takes_is_learnt_and_kept_free_before_a_deadline() -> None:
    plan, recorder = GatedPlan(), Recorder()

    def slow(result: Result) -> None:
        time.sleep(0.03)
        recorder.on_result(result)

    engine = Engine(plan, Policy(4, deadline_s=100.0), slow)
    engine.submit(picture())
    run_exits(engine, plan, 1, 1)
    assert engine._scheduler._publish_s == 0.005
    deadline_s = engine._ledger.frame(1).captured_s + 100.0
    assert plan.looks == [pytest.approx(deadline_s - 0.005, abs=1e-4)]
    for _ in range(3):
        plan.gates.release()
    wait_for(lambda: engine._scheduler._publish_s > 0.005)
    assert 0.03 <= engine._scheduler._publish_s <= 0.05
    engine.close()
