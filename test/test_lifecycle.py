# SPDX-License-Identifier: Apache-2.0
"""The managed node: any transition at any time, again and again, and nothing is left behind."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from graph import Client, NodeProcess
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from networks import random_network

from adpc_ros.graph.processes import Footprint
from adpc_ros.labels import CAMVID
from adpc_ros.network import checkpoint

CONFIGURE, CLEANUP = Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_CLEANUP
ACTIVATE, DEACTIVATE = Transition.TRANSITION_ACTIVATE, Transition.TRANSITION_DEACTIVATE
UNCONFIGURED, INACTIVE = State.PRIMARY_STATE_UNCONFIGURED, State.PRIMARY_STATE_INACTIVE
ACTIVE, FINALIZED = State.PRIMARY_STATE_ACTIVE, State.PRIMARY_STATE_FINALIZED
SHUTDOWN = {
    UNCONFIGURED: Transition.TRANSITION_UNCONFIGURED_SHUTDOWN,
    INACTIVE: Transition.TRANSITION_INACTIVE_SHUTDOWN,
    ACTIVE: Transition.TRANSITION_ACTIVE_SHUTDOWN,
}
NEXT = {
    (UNCONFIGURED, CONFIGURE): INACTIVE,
    (INACTIVE, ACTIVATE): ACTIVE,
    (ACTIVE, DEACTIVATE): INACTIVE,
    (INACTIVE, CLEANUP): UNCONFIGURED,
}
CYCLES, WARM = 50, 10


@pytest.fixture(scope='module')
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('weights') / 'tiny.safetensors'
    checkpoint.save(path, random_network(0), CAMVID, {})
    return path


class Manager(Client):
    """A client that also drives the node's states."""

    def __init__(self) -> None:
        super().__init__()
        self._change = self.node.create_client(ChangeState, '/adpc/change_state')
        self._get = self.node.create_client(GetState, '/adpc/get_state')

    def ready(self) -> None:
        self.wait(lambda: self._change.service_is_ready() and self._get.service_is_ready(), 60)

    def change(self, transition: int) -> bool:
        future = self._change.call_async(ChangeState.Request(transition=Transition(id=transition)))
        self.wait(future.done)
        return future.result().success

    def state(self) -> int:
        future = self._get.call_async(GetState.Request())
        self.wait(future.done)
        return future.result().current_state.id

    def segment(self) -> None:
        """Send images until one is answered: endpoints that are new must find each other."""
        count = len(self.statuses)

        def answered() -> bool:
            self.image((32, 64))
            self.spin(0.02)
            return len(self.statuses) > count

        self.wait(answered)


@pytest.fixture
def manager() -> Iterator[Manager]:
    manager = Manager()
    yield manager
    manager.close()


def test_fifty_lives_leave_nothing_behind(manager: Manager, weights: Path, tmp_path: Path) -> None:
    with NodeProcess(tmp_path, f'weights:={weights}', 'autostart:=false') as node:
        manager.ready()

        def endpoints() -> set[str]:
            """Name the node's inputs and outputs that can be seen."""
            graph = manager.node
            own = {
                name
                for name, _ in graph.get_topic_names_and_types()
                for end in (
                    *graph.get_publishers_info_by_topic(name),
                    *graph.get_subscriptions_info_by_topic(name),
                )
                if end.node_name == 'adpc' and name.startswith('/adpc/')
            }
            return {name for name in own if name.split('/')[2] in ('input', 'output')}

        for cycle in range(CYCLES):
            assert manager.change(CONFIGURE) and manager.change(ACTIVATE)
            manager.segment()
            assert manager.change(DEACTIVATE) and manager.change(CLEANUP)
            if cycle == WARM:
                warm = Footprint.of(node.process.pid)
        manager.wait(lambda: not endpoints())
        end = Footprint.of(node.process.pid)
        assert end.threads == warm.threads
        assert end.files <= warm.files
        assert end.memory_mib < warm.memory_mib + 4, 'forty lives'
        assert node.stop() == 0
        assert 'Traceback' not in node.log()


@pytest.mark.parametrize('seed', [0, 1])
def test_transitions_in_any_order_under_load_follow_the_states(
    manager: Manager, weights: Path, tmp_path: Path, seed: int
) -> None:
    choose = random.Random(seed)
    with NodeProcess(tmp_path, f'weights:={weights}', 'autostart:=false') as node:
        manager.ready()
        state, taken = UNCONFIGURED, 0
        for _ in range(60):
            possible = [t for s, t in NEXT if s == state]
            every = [CONFIGURE, CLEANUP, ACTIVATE, DEACTIVATE, SHUTDOWN[ACTIVE]]
            if state == ACTIVE:
                every.remove(SHUTDOWN[ACTIVE])  # that would be the end
            transition = choose.choice(possible if choose.random() < 0.6 else every)
            for _ in range(choose.randrange(4)):
                manager.image((32, 64))
            if choose.random() < 0.2:
                manager.urgency(choose.randrange(3))
            legal = (state, transition) in NEXT
            assert manager.change(transition) == legal
            state = NEXT.get((state, transition), state)
            taken += legal
            assert manager.state() == state
        assert taken > 20
        for (before, transition), _ in list(NEXT.items())[:2]:  # back to active
            if state == before:
                assert manager.change(transition)
                state = NEXT[state, transition]
        manager.segment()
        manager.spin(0.3)
        last = manager.statuses[-1]
        assert last.frames_received >= last.frames_segmented + last.frames_dropped
        assert node.stop() == 0
        assert 'Traceback' not in node.log()


@pytest.mark.parametrize('state', SHUTDOWN)
def test_shutdown_is_final_from_every_state(
    manager: Manager, weights: Path, tmp_path: Path, state: int
) -> None:
    with NodeProcess(tmp_path, f'weights:={weights}', 'autostart:=false') as node:
        manager.ready()
        for transition in {UNCONFIGURED: (), INACTIVE: (CONFIGURE,)}.get(
            state, (CONFIGURE, ACTIVATE)
        ):
            assert manager.change(transition)
        if state == ACTIVE:
            manager.segment()
            manager.image()
        assert manager.change(SHUTDOWN[state])
        assert manager.state() == FINALIZED
        assert not manager.change(CONFIGURE)
        manager.image()
        manager.spin(0.2)
        assert node.process.poll() is None
        assert node.stop() == 0
        assert 'Traceback' not in node.log()


FAILS_TO_STOP = """
import sys
from adpc_ros.ros import node
stop, calls = node.Engine.stop, []
def broken(engine):
    calls.append(1)
    if len(calls) == 1:
        raise RuntimeError('no way')
    stop(engine)
node.Engine.stop = broken
sys.exit(node.main())
"""


def test_an_error_in_a_transition_leads_to_unconfigured_and_on(
    manager: Manager, weights: Path, tmp_path: Path
) -> None:
    command = [sys.executable, '-c', FAILS_TO_STOP]
    with NodeProcess(tmp_path, f'weights:={weights}', command=command) as node:
        manager.ready()
        manager.connect(node)
        manager.segment()
        assert not manager.change(DEACTIVATE)
        assert manager.state() == UNCONFIGURED
        assert manager.change(CONFIGURE) and manager.change(ACTIVATE)
        manager.segment()
        assert manager.change(DEACTIVATE)
        assert node.stop() == 0
        assert 'Traceback' not in node.log()
