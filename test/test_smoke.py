# SPDX-License-Identifier: Apache-2.0
"""The node starts, segments a frame over DDS and answers: what every distribution must do."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from graph import Client, NodeProcess
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from networks import random_network
from rcl_interfaces.srv import GetParameters
from shared import ROOT

from adpc_ros.graph.processes import Process
from adpc_ros.labels import CAMVID
from adpc_ros.network import checkpoint


@pytest.fixture(scope='module')
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    folder = tmp_path_factory.mktemp('smoke')
    path = folder / 'tiny.safetensors'
    checkpoint.save(path, random_network(0), CAMVID, {})
    with NodeProcess(folder, f'weights:={path}') as running:
        yield running


@pytest.fixture
def client(node: NodeProcess) -> Iterator[Client]:
    client = Client()
    try:
        client.connect(node)
        yield client
    finally:
        client.close()


def test_a_frame_gives_a_mask_a_confidence_and_a_status(client: Client, node: NodeProcess) -> None:
    sent = client.image()
    client.wait(lambda: client.masks and client.confidences and client.statuses)
    for message in (client.masks[0], client.confidences[0], client.statuses[0]):
        assert message.header == sent.header
    assert (client.masks[0].height, client.masks[0].width) == (sent.height, sent.width)
    warnings = [line for line in node.log().splitlines() if 'WARN' in line]
    # Kilted names both variables, of which it reads the newer one: Jazzy needs the other
    assert [line for line in warnings if 'FASTRTPS_DEFAULT_PROFILES_FILE' not in line] == []


def test_parameters_are_read_set_and_refused(client: Client) -> None:
    request = GetParameters.Request(names=['max_exit', 'class_names'])
    max_exit, names = client.call(GetParameters, 'get_parameters', request).values
    assert max_exit.integer_value == 0 and tuple(names.string_array_value) == CAMVID.names
    assert client.set_parameters(max_exit=2).successful
    assert client.set_parameters(cores=[]).successful
    refused = client.set_parameters(threads=7)
    assert not refused.successful and 'read when the node is configured' in refused.reason


def test_the_planner_of_the_readme_gets_whole_frames(
    client: Client, node: NodeProcess, tmp_path: Path
) -> None:
    (snippet,) = re.findall('```python\n(.*?)```', (ROOT / 'README.md').read_text(), re.DOTALL)
    (tmp_path / 'planner.py').write_text(snippet)
    command = [sys.executable, str(tmp_path / 'planner.py')]
    planner = Process('planner', command, tmp_path / 'planner.log')
    try:
        end_s = time.monotonic() + 60
        while planner.log().count(' of 4, ') < 2:
            assert not planner.ended and time.monotonic() < end_s, planner.log()
            client.image()
            time.sleep(0.1)
        planner.interrupt()
        assert planner.end() == 0
    finally:
        planner.kill()
    assert 'Traceback' not in planner.log()


def test_transitions_are_made_and_impossible_ones_refused(
    client: Client, node: NodeProcess
) -> None:
    def change(transition: int) -> bool:
        request = ChangeState.Request(transition=Transition(id=transition))
        return bool(client.call(ChangeState, 'change_state', request).success)

    assert change(Transition.TRANSITION_DEACTIVATE)
    assert not change(Transition.TRANSITION_DEACTIVATE)
    state = client.call(GetState, 'get_state', GetState.Request()).current_state
    assert state.label == 'inactive'
    assert change(Transition.TRANSITION_ACTIVATE)


def test_an_interrupt_ends_it(node: NodeProcess) -> None:
    assert node.stop() == 0
    assert 'Traceback' not in node.log()
