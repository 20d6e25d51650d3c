# SPDX-License-Identifier: Apache-2.0
"""The launch files, where launch is installed: arguments, commands, a node really started."""

from __future__ import annotations

import os
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

FILES = sorted((ROOT / 'launch').glob('*.launch.py'))
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


def declared(file: Path = FILE) -> dict[str, Any]:
    entities = sources.get_launch_description_from_python_launch_file(str(file)).entities
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
        for node in yaml.load(Path(file).read_text(), yaml.FullLoader).values():  # tuples, too
            result |= node['ros__parameters']
    return result


def processes_of(file: Path, **arguments: str) -> list[Any]:
    """Visit a launch file as the service does, and give the processes that it would start."""
    from launch import LaunchContext

    context = LaunchContext()
    context.launch_configurations.update(arguments)
    found = []

    def visit(entity: Any) -> None:
        if isinstance(entity, actions.ExecuteProcess):
            names = {}
            if hasattr(entity, '_perform_substitutions'):
                entity._perform_substitutions(context)
                names = {'ns': f'__ns:={entity.expanded_node_namespace}', 'name': '__node:=?'}
            context.extend_locals({'ros_specific_arguments': names})
            entity.prepare(context)
            found.append(entity)
        elif isinstance(entity, actions.RegisterEventHandler):
            handler = entity.event_handler
            for inner in getattr(handler, 'entities', None) or []:
                visit(inner)
        elif not isinstance(entity, actions.EmitEvent):
            for inner in entity.visit(context) or []:
                visit(inner)

    for entity in sources.get_launch_description_from_python_launch_file(str(file)).entities:
        visit(entity)
    return found


def remaps(command: list[str]) -> set[str]:
    return {command[i + 1] for i, word in enumerate(command) if word == '-r'}


@pytest.mark.parametrize('file', FILES, ids=lambda file: file.name)
def test_every_argument_is_described(file: Path) -> None:
    assert declared(file)
    for name, argument in declared(file).items():
        assert len(argument.description.split('. Valid choices')[0]) > 10, name


def test_two_cameras_are_two_nodes_that_share_urgency_and_nothing_else() -> None:
    arguments = {'front_cores': '0,1', 'rear_cores': '', 'threads': '2'}
    front, rear = processes_of(ROOT / 'launch' / 'two_cameras.launch.py', **arguments)
    for camera, process in (('front', front), ('rear', rear)):
        command = process.process_details['cmd']
        assert f'__ns:=/{camera}' in command
        assert remaps(command) >= {
            f'~/input/image:=/{camera}/camera/image_raw',
            f'~/input/camera_info:=/{camera}/camera/camera_info',
            '~/input/urgency:=/urgency',
        }
        assert parameters(command)['threads'] == 2
    assert parameters(front.process_details['cmd'])['cores'] == (0, 1)
    assert parameters(rear.process_details['cmd'])['cores'] == []


def test_a_replay_plays_the_inputs_and_records_the_outputs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(PROFILE)
    node, play, record = processes_of(
        ROOT / 'launch' / 'replay.launch.py',
        bag='drive.mcap',
        namespace='front',
        mask='/perception/mask',
        rate='0.5',
    )
    command = node.process_details['cmd']
    assert parameters(command)['autostart'] is False
    assert parameters(command)['use_sim_time'] is True
    assert '~/input/image:=/camera/image_raw' in remaps(command)
    words = play.process_details['cmd']
    assert words[:5] == ['ros2', 'bag', 'play', 'drive.mcap', '--clock']
    assert words[words.index('--rate') + 1] == '0.5'
    inputs = ['/camera/image_raw', '/camera/camera_info', '/front/adpc/input/urgency']
    assert words[words.index('--topics') + 1 :] == inputs, 'no outputs of an earlier run'
    words = record.process_details['cmd']
    assert words[:4] == ['ros2', 'bag', 'record', '--use-sim-time']
    recorded = words[words.index('--topics') + 1 :]
    assert set(recorded) == {
        '/perception/mask',
        '/front/adpc/output/confidence',
        '/front/adpc/output/status',
        '/front/adpc/output/camera_info',
        '/front/adpc/output/label_info',
        '/front/adpc/input/urgency',
        '/diagnostics',
    }
    for process in (node, play, record):
        assert process.process_details['env'][PROFILE].endswith('fastdds_shared_memory.xml')


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
        cores='0,2',
        compressed_input='true',
        mask='/perception/mask',
        autostart='false',
        use_sim_time='true',
        log_level='debug',
    )
    assert '__ns:=/front' in command
    assert '~/input/image:=/front/camera/image_raw' in command
    assert '~/input/urgency:=/safety/urgency' in command
    assert '~/output/mask:=/perception/mask' in command
    assert command[command.index('--log-level') + 1] == 'debug'
    given = {
        'weights': '7',
        'device': 'cuda:1',
        'threads': 3,
        'cores': (0, 2),
        'compressed_input': True,
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
    core = min(os.sched_getaffinity(0))
    arguments = ('namespace:=front', f'weights:={path}', 'threads:=1', f'cores:={core}')
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


FAKE_ROS2 = """#!{python}
import signal, sys, time
with open({log!r}, 'a') as log:
    print(*sys.argv[1:3], 'began', file=log, flush=True)
    if sys.argv[2] == 'record':
        signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
        time.sleep(60)
    time.sleep(0.5)
    print(*sys.argv[1:3], 'over', file=log, flush=True)
"""


def test_a_replay_brings_the_node_up_then_plays_then_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in for ros2 bag, which has no wheels."""
    path, log, bag_log = (tmp_path / name for name in ('t.safetensors', 'launch.log', 'bag.log'))
    checkpoint.save(path, random_network(0), CAMVID, {})
    ros2 = tmp_path / 'bin' / 'ros2'
    ros2.parent.mkdir()
    ros2.write_text(FAKE_ROS2.format(python=sys.executable, log=str(bag_log)))
    ros2.chmod(0o755)
    monkeypatch.setenv('PATH', f'{ros2.parent}:{os.environ["PATH"]}')
    file = ROOT / 'launch' / 'replay.launch.py'
    arguments = ('bag:=drive.mcap', f'weights:={path}', 'threads:=1')
    with open(log, 'w') as output:
        launch = subprocess.run(
            [sys.executable, '-c', LAUNCH, str(file), *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=100,
        )
    said = log.read_text()
    assert launch.returncode == 0, said
    assert bag_log.read_text().splitlines() == [
        'bag record began',
        'bag play began',
        'bag play over',
    ]
    assert said.index('camvid classes') < said.index('[ros2-3]: process started')
    assert said.count('process has finished cleanly') == 3, said
