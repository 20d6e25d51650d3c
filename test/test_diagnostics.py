# SPDX-License-Identifier: Apache-2.0
"""What the node says of itself on /diagnostics, over real DDS."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from graph import NODE, Client, NodeProcess
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from networks import random_network
from rosgraph_msgs.msg import Clock

from adpc_ros.graph.processes import memory_mib
from adpc_ros.labels import CAMVID
from adpc_ros.msg import SegmentationStatus
from adpc_ros.network import checkpoint
from adpc_ros.network.adaptivity import Adaptivity

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


@pytest.fixture(scope='module')
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('weights') / 'tiny.safetensors'
    network = random_network(0, adaptivity=Adaptivity(thresholds=(0.6,) * 3))
    checkpoint.save(path, network, CAMVID, {})
    return path


class Monitor(Client):
    """A client that also hears the diagnostics."""

    def __init__(self, name: str = 'adpc') -> None:
        super().__init__(name)
        self.heard: list[DiagnosticArray] = []
        self.node.create_subscription(DiagnosticArray, '/diagnostics', self.heard.append, 10)

    @property
    def status(self) -> DiagnosticStatus:
        return self.heard[-1].status[0]

    @property
    def values(self) -> dict[str, str]:
        return {value.key: value.value for value in self.status.values}

    def change(self, transition: int) -> bool:
        """Ask for a transition."""
        request = ChangeState.Request(transition=Transition(id=transition))
        return self.call(ChangeState, 'change_state', request).success

    def wait_for(self, condition: Callable[[], object], timeout_s: float = 30.0) -> None:
        self.wait(lambda: self.heard and condition(), timeout_s)


@pytest.fixture
def monitor() -> Iterator[Monitor]:
    monitor = Monitor()
    yield monitor
    monitor.close()


def test_rates_latencies_exits_and_reasons_are_those_of_the_statuses(
    monitor: Monitor, weights: Path, tmp_path: Path
) -> None:
    with NodeProcess(tmp_path, f'weights:={weights}') as node:
        monitor.connect(node)
        for count in range(1, 21):
            monitor.image()
            monitor.wait(lambda count=count: len(monitor.statuses) == count)
        monitor.image(encoding='')
        monitor.wait_for(lambda: monitor.values.get('Dropped: invalid') == '1')
        status, values = monitor.status, monitor.values
        assert (status.level, status.name) == (OK, 'adpc: segmentation')
        assert status.message.endswith(' masks per second')
        assert status.hardware_id.endswith(' cpu')
        assert values['State'] == 'active'
        assert values['Masks of exit 4'] == values['Stopped: FINISHED'] == '20'
        assert 0 < float(values['Output rate (Hz)']) < float(values['Input rate (Hz)'])
        latencies = sorted(s.latency.sec + s.latency.nanosec / 1e9 for s in monitor.statuses)
        assert float(values['Latency, 50 % (s)']) == pytest.approx(latencies[9], abs=1e-4)
        assert float(values['Latency, 95 % (s)']) == pytest.approx(latencies[18], abs=1e-4)
        assert float(values['Latency, 99 % (s)']) == pytest.approx(latencies[19], abs=1e-4)
        shares = [float(values[f'Active after exit {i} (%)']) for i in (1, 2, 3)]
        assert 100 >= shares[0] >= shares[1] >= shares[2] >= 0, 'masks are nested'
        assert 'Active after exit 4 (%)' not in values
        assert float(values['Resident memory (MiB)']) == pytest.approx(
            memory_mib(node.process.pid), rel=0.1
        )
        assert 0 < float(values['Plan memory (MiB)']) < float(values['Resident memory (MiB)'])
        assert int(values['Threads']) > 2
        assert node.stop() == 0
        assert 'Traceback' not in node.log()


def test_silence_is_warned_of_only_while_active_and_thresholds_are_live(
    monitor: Monitor, weights: Path, tmp_path: Path
) -> None:
    with NodeProcess(tmp_path, f'weights:={weights}', 'diagnostics_stale_s:=0.5') as node:
        monitor.connect(node)
        monitor.wait_for(lambda: monitor.status.level == WARN)
        assert monitor.status.message.startswith('no image for ')
        assert monitor.set_parameters(diagnostics_stale_s=0.0).successful
        monitor.wait_for(lambda: monitor.status.level == OK)
        assert monitor.set_parameters(diagnostics_stale_s=0.5).successful
        monitor.wait_for(lambda: monitor.status.level == WARN)
        assert monitor.change(Transition.TRANSITION_DEACTIVATE)
        monitor.wait_for(
            lambda: (monitor.status.level, monitor.status.message) == (OK, 'not active')
        )
        assert monitor.change(Transition.TRANSITION_CLEANUP)
        monitor.wait_for(lambda: monitor.status.message == 'not configured')
        assert monitor.values['State'] == 'unconfigured'


def test_a_clock_that_stands_still_stops_no_diagnostics_and_bends_no_rate(
    monitor: Monitor, weights: Path, tmp_path: Path
) -> None:
    clock = monitor.node.create_publisher(Clock, '/clock', 10)
    with NodeProcess(tmp_path, f'weights:={weights}', 'use_sim_time:=true') as node:
        monitor.connect(node)
        stands = Clock()
        stands.clock.sec = 1000
        clock.publish(stands)
        began_s, count = time.monotonic(), len(monitor.heard)
        for _ in range(40):
            monitor.image()
            monitor.spin(0.1)
        took_s = time.monotonic() - began_s
        assert len(monitor.heard) - count == pytest.approx(took_s, abs=1.5), 'one a second'
        assert {array.header.stamp.sec for array in monitor.heard[-2:]} == {1000}
        assert 3 < float(monitor.values['Input rate (Hz)']) < 12


def test_a_node_that_cannot_be_configured_says_so_until_it_can(
    monitor: Monitor, weights: Path, tmp_path: Path
) -> None:
    missing = tmp_path / 'nowhere.safetensors'
    command = [*NODE, '--ros-args', '-r', '__ns:=/front']
    parameters = (f'weights:={missing}', 'autostart:=false')
    with NodeProcess(tmp_path, *parameters, command=command) as node:
        monitor.of = 'front/adpc'
        monitor.wait_for(lambda: monitor.status.message == 'not configured', 60)
        assert monitor.status.name == 'front/adpc: segmentation'
        assert not monitor.change(Transition.TRANSITION_CONFIGURE)
        monitor.wait_for(lambda: monitor.status.level == ERROR)
        assert monitor.status.message.startswith('cannot configure: weights not found')
        assert monitor.set_parameters(weights=str(weights)).successful
        assert monitor.change(Transition.TRANSITION_CONFIGURE)
        monitor.wait_for(
            lambda: (monitor.status.level, monitor.status.message) == (OK, 'not active')
        )
        assert node.stop() == 0


HANGS_ONCE = """
import sys, threading
from adpc_ros.ros import node
make_plan, plans = node.make_plan, []
def hanging_plan(*arguments, **options):
    plan = make_plan(*arguments, **options)
    segment, calls, first = plan.segment, [], not plans
    plans.append(plan)
    def hanging(*arguments):
        calls.append(1)
        for computed in segment(*arguments):
            if first and len(calls) == 3:  # the first is the warm-up
                with plan._use:  # as a call into the library does
                    threading.Event().wait()
            yield computed
    plan.segment = hanging
    return plan
node.make_plan = hanging_plan
sys.exit(node.main())
"""


def test_a_hung_worker_is_an_error_and_segmentation_goes_on(
    monitor: Monitor, weights: Path, tmp_path: Path
) -> None:
    pytest.importorskip('adpc_ros.runtime.cpu')
    command = [sys.executable, '-c', HANGS_ONCE]
    parameters = (f'weights:={weights}', 'watchdog_s:=1.0')
    with NodeProcess(tmp_path, *parameters, command=command) as node:
        monitor.connect(node)
        for count in (1, 2):
            sent = monitor.image()
            monitor.wait(lambda count=count: len(monitor.statuses) == count)
        failed = monitor.statuses[-1]
        assert (failed.stop_reason, failed.header) == (SegmentationStatus.FAILED, sent.header)
        monitor.image()
        monitor.wait(lambda: len(monitor.statuses) == 3)
        last = monitor.statuses[-1]
        assert last.stop_reason == SegmentationStatus.FINISHED
        assert (last.frames_received, last.frames_segmented, last.frames_dropped) == (3, 2, 1)
        monitor.wait_for(lambda: 'the worker was replaced' in monitor.status.message)
        assert monitor.status.level == ERROR
        assert (monitor.values['Worker restarts'], monitor.values['Workers stuck']) == ('1', '1')
        assert 'the worker made no progress for 1 s' in node.log()
        assert monitor.change(Transition.TRANSITION_DEACTIVATE)
        assert monitor.change(Transition.TRANSITION_CLEANUP), 'the stuck one is left'
        assert node.stop() == 0
