"""The launch file, where launch is installed: its arguments, and a node that it really starts."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from graph import Client
from networks import random_network
from shared import ROOT

from adpc_ros.labels import CAMVID
from adpc_ros.network import checkpoint

REASON = 'launch and launch_ros come with an installed ROS 2, there are no wheels'
# not plain launch: that is found as the repository's folder of this name, too
actions = pytest.importorskip('launch.actions', reason=REASON)
sources = pytest.importorskip('launch.launch_description_sources', reason=REASON)
pytest.importorskip('launch_ros.actions', reason=REASON)

FILE = ROOT / 'launch' / 'adpc.launch.py'
PROFILE = 'FASTRTPS_DEFAULT_PROFILES_FILE'
LAUNCH = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
file, *arguments = sys.argv[1:]
service = LaunchService(argv=arguments)
source = PythonLaunchDescriptionSource(file)
given = [tuple(argument.split(':=')) for argument in arguments]
included = IncludeLaunchDescription(source, launch_arguments=given)
service.include_launch_description(LaunchDescription([included]))
sys.exit(service.run())
"""


def declared() -> dict[str, Any]:
    entities = sources.get_launch_description_from_python_launch_file(str(FILE)).entities
    return {e.name: e for e in entities if isinstance(e, actions.DeclareLaunchArgument)}


def node_of(**arguments: str) -> tuple[list[str], dict[str, str]]:
    """Give the command and the additional environment of the node that would be started."""
    from launch import LaunchContext

    context = LaunchContext()
    context.launch_configurations.update(arguments)
    description = sources.get_launch_description_from_python_launch_file(str(FILE))
    for entity in description.entities:
        for node in entity.visit(context) or []:
            node._perform_substitutions(context)
            names = {'ns': f'__ns:={node.expanded_node_namespace}', 'name': '__node:=?'}
            context.extend_locals({'ros_specific_arguments': names})
            node.prepare(context)
            command = node.process_details['cmd']
            environment = node.process_details['env']
    return command, environment


def parameters(command: list[str]) -> dict[str, Any]:
    """Read what the parameter files of a command say together."""
    files = [command[i + 1] for i, word in enumerate(command) if word == '--params-file']
    result: dict[str, Any] = {}
    for file in files:
        for node in yaml.safe_load(Path(file).read_text()).values():
            result |= node['ros__parameters']
    return result


def test_every_argument_is_described() -> None:
    for name, argument in declared().items():
        assert len(argument.description.split('. Valid choices')[0]) > 10, name


def test_the_defaults_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PROFILE)
    command, environment = node_of()
    assert command[0].endswith('lib/adpc_ros/segmentation_node')
    assert '__ns:=/' in command
    assert '~/input/image:=~/input/image' in command
    assert '~/input/urgency:=~/input/urgency' in command
    config = ROOT / 'config'
    stated = yaml.safe_load((config / 'adpc.param.yaml').read_text())['/**']['ros__parameters']
    assert parameters(command) == stated
    installed = Path(environment[PROFILE])
    assert installed.read_text() == (config / 'fastdds_shared_memory.xml').read_text()


def test_what_is_given_is_passed_on() -> None:
    command, _ = node_of(
        namespace='front',
        input_image='/front/camera/image_raw',
        urgency='/safety/urgency',
        weights='7',
        device='cuda:1',
        threads='3',
        autostart='false',
        use_sim_time='true',
        log_level='debug',
    )
    assert '__ns:=/front' in command
    assert '~/input/image:=/front/camera/image_raw' in command
    assert '~/input/urgency:=/safety/urgency' in command
    assert command[command.index('--log-level') + 1] == 'debug'
    given = {
        'weights': '7',
        'device': 'cuda:1',
        'threads': 3,
        'autostart': False,
        'use_sim_time': True,
    }
    assert parameters(command).items() >= given.items()


def test_a_profile_that_is_set_wins_and_none_leaves_the_environment_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    profile = tmp_path / 'profile.xml'
    profile.touch()
    monkeypatch.setenv(PROFILE, '/mine.xml')
    assert node_of(fastdds_profile=str(profile))[1][PROFILE] == '/mine.xml'
    monkeypatch.delenv(PROFILE)
    assert node_of(fastdds_profile=str(profile))[1][PROFILE] == str(profile)
    assert PROFILE not in node_of(fastdds_profile='')[1]


@pytest.mark.parametrize('argument', ['params_file', 'fastdds_profile'])
def test_a_file_that_does_not_exist_is_an_error(
    argument: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(PROFILE)
    with pytest.raises(FileNotFoundError, match=f'{argument}: expected a file'):
        node_of(**{argument: '/nowhere'})


def test_a_launched_node_segments_under_its_namespace_and_ends_cleanly(tmp_path: Path) -> None:
    path, log = tmp_path / 'tiny.safetensors', tmp_path / 'launch.log'
    checkpoint.save(path, random_network(0), CAMVID, {})
    arguments = ('namespace:=front', f'weights:={path}', 'threads:=1')
    with open(log, 'w') as file:
        launch = subprocess.Popen(
            [sys.executable, '-c', LAUNCH, str(FILE), *arguments],
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    client = Client('front/adpc')
    try:
        client.wait(lambda: 'camvid classes' in log.read_text() or launch.poll() is not None, 60)
        assert launch.poll() is None, log.read_text()

        def answered() -> bool:
            client.image()
            client.spin(0.2)
            return bool(client.statuses)

        client.wait(answered)
        assert client.statuses[0].header.frame_id.startswith('camera_')
        launch.send_signal(signal.SIGINT)
        assert launch.wait(30) == 0
        assert 'process has finished cleanly' in log.read_text()
        assert 'Warning: ' not in log.read_text()
    finally:
        client.close()
        if launch.poll() is None:
            launch.send_signal(signal.SIGINT)
            launch.wait(30)
