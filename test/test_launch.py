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
import ros2_stand_in
import yaml
from bags import Shot, write_bag
from graph import Client
from networks import random_network
from shared import ROOT

from adpc_ros.labels import CAMVID
from adpc_ros.network import checkpoint
from adpc_ros.replay.launched_arguments import parsed
from adpc_ros.ros.shared_memory import PROFILE_VARIABLES

REASON = 'launch and launch_ros come with an installed ROS 2, there are no wheels'
# not plain launch: that is found as the repository's folder of this name, too
actions = pytest.importorskip('launch.actions', reason=REASON)
sources = pytest.importorskip('launch.launch_description_sources', reason=REASON)
pytest.importorskip('launch_ros.actions', reason=REASON)

FILES = sorted((ROOT / 'launch').glob('*.launch.py'))
FILE, TWO, REPLAY = (
    ROOT / 'launch' / f'{name}.launch.py' for name in ('adpc', 'two_cameras', 'replay')
)
LAUNCH = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
file, *arguments = sys.argv[1:]
service = LaunchService(argv=arguments)
source = PythonLaunchDescriptionSource(file)
given = dict(argument.split(':=') for argument in arguments).items()
included = IncludeLaunchDescription(source, launch_arguments=given)
service.include_launch_description(LaunchDescription([included]))
sys.exit(service.run())
"""


@pytest.fixture
def no_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROFILE_VARIABLES:
        monkeypatch.delenv(name, raising=False)


def profiles(environment: dict[str, str]) -> set[str | None]:
    return {environment.get(name) for name in PROFILE_VARIABLES}


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
    arguments = {'front_cores': '0,1', 'rear_cores': '', 'threads': '2', 'rear_image': '/rear/raw'}
    front, rear = processes_of(TWO, **arguments)
    images = {'front': '/front/camera/image_raw', 'rear': '/rear/raw'}
    for camera, process in (('front', front), ('rear', rear)):
        command = process.process_details['cmd']
        assert f'__ns:=/{camera}' in command
        assert remaps(command) >= {
            f'~/input/image:={images[camera]}',
            f'~/input/camera_info:=/{camera}/camera/camera_info',
            '~/input/urgency:=/urgency',
            '~/output/mask:=~/output/mask',
        }
        assert parameters(command)['threads'] == 2
    assert list(parameters(front.process_details['cmd'])['cores']) == [0, 1]
    assert parameters(rear.process_details['cmd'])['cores'] == []


@pytest.mark.parametrize('name', ['output_mask', 'mask', 'input_image', 'cores'])
def test_what_two_cameras_cannot_share_is_neither_offered_nor_taken(name: str) -> None:
    assert name not in declared(TWO)
    with pytest.raises(ValueError, match=f'^{name}: expected arguments of two_cameras'):
        processes_of(TWO, **{name: '/m'})


@pytest.mark.usefixtures('no_profile')
def test_a_replay_plays_the_inputs_and_records_the_outputs() -> None:
    node, conduct = processes_of(
        REPLAY,
        bag='drive.mcap',
        namespace='front',
        mask='/perception/mask',
        rate='0.5',
        delay_s='3.0',
    )
    command = node.process_details['cmd']
    assert parameters(command)['autostart'] is True
    assert parameters(command)['use_sim_time'] is True
    assert remaps(command) >= {
        '~/input/image:=/camera/image_raw',
        '~/output/mask:=/perception/mask',
    }
    words = conduct.process_details['cmd']
    chosen = parsed(words[1:])
    assert (str(chosen.bag), chosen.rate, chosen.node) == ('drive.mcap', 0.5, '/front/adpc')
    assert chosen.image == '/camera/image_raw'
    urgency = '/front/adpc/input/urgency'
    assert chosen.play == ['/camera/camera_info', urgency], 'no outputs of an earlier run'
    own = '/front/adpc/output'
    assert chosen.outputs == ['/perception/mask', f'{own}/confidence', f'{own}/status']
    recorded = {urgency, '/diagnostics', f'{own}/camera_info', f'{own}/label_info'}
    assert set(chosen.record) == recorded
    for process in (node, conduct):
        (path,) = profiles(process.process_details['env'])
        assert path is not None and path.endswith('fastdds_shared_memory.xml')


@pytest.mark.usefixtures('no_profile')
def test_the_defaults_change_nothing() -> None:
    command, environment = node_of()
    assert command[0].endswith('lib/adpc_ros/segmentation_node')
    assert '__ns:=/' in command
    assert '~/input/image:=~/input/image' in command
    assert '~/input/urgency:=~/input/urgency' in command
    config = ROOT / 'config'
    stated = yaml.safe_load((config / 'adpc.param.yaml').read_text())['/**']['ros__parameters']
    assert parameters(command) == stated
    (path,) = profiles(environment)
    assert path is not None
    assert Path(path).read_text() == (config / 'fastdds_shared_memory.xml').read_text()


def test_what_is_given_is_passed_on() -> None:
    command, _ = node_of(
        namespace='front',
        input_image='/front/camera/image_raw',
        input_urgency='/safety/urgency',
        weights='7',
        device='cuda:1',
        threads='3',
        cores='0,2',
        compressed_input='true',
        output_mask='/perception/mask',
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
        'cores': [0, 2],
        'compressed_input': True,
        'autostart': False,
        'use_sim_time': True,
    }
    found = parameters(command) | {'cores': list(parameters(command)['cores'])}
    assert found.items() >= given.items()


@pytest.mark.usefixtures('no_profile')
@pytest.mark.parametrize('variable', PROFILE_VARIABLES)
def test_a_profile_that_is_set_wins_and_none_leaves_the_environment_alone(
    variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    profile = tmp_path / 'profile.xml'
    profile.touch()
    assert profiles(node_of(fastdds_profile=str(profile))[1]) == {str(profile)}
    assert profiles(node_of(fastdds_profile='')[1]) == {None}
    monkeypatch.setenv(variable, '/mine.xml')
    assert profiles(node_of(fastdds_profile=str(profile))[1]) == {'/mine.xml', None}


@pytest.mark.usefixtures('no_profile')
@pytest.mark.parametrize('argument', ['params_file', 'fastdds_profile'])
def test_a_file_that_does_not_exist_is_an_error(argument: str) -> None:
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


@pytest.mark.parametrize('trouble', ['', 'player', 'node'])
def test_a_replay_plays_records_and_ends_and_fails_where_one_of_them_does(
    trouble: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in for ros2 bag."""
    path, log = (tmp_path / name for name in ('t.safetensors', 'launch.log'))
    checkpoint.save(path, random_network(0), CAMVID, {})
    shots = [Shot(200.0 * i, topic='/camera/image_raw') for i in range(8)]
    bag, output = write_bag(tmp_path / 'drive', shots), tmp_path / 'out'
    ros2_stand_in.install(tmp_path)
    monkeypatch.setenv('PATH', f'{tmp_path}:{os.environ["PATH"]}')
    monkeypatch.setenv('PYTHONPATH', f'{ROOT / "test"}:{os.environ["PYTHONPATH"]}')
    monkeypatch.setenv('STAND_IN', trouble)
    arguments = [f'bag:={bag}', f'output:={output}', f'weights:={path}', 'threads:=1']
    if trouble == 'node':
        arguments.append(f'weights:={tmp_path}/none.safetensors')
    with open(log, 'w') as file:
        launch = subprocess.run(
            [sys.executable, '-c', LAUNCH, str(REPLAY), *arguments],
            stdout=file,
            stderr=subprocess.STDOUT,
            timeout=100,
        )
    said = log.read_text()
    if trouble:
        ended = {'player': 'replay_bag-2', 'node': 'segmentation_node-1'}[trouble]
        assert launch.returncode == 1, said
        assert f'the replay failed: {ended} ended with status 1' in said
        return
    assert launch.returncode == 0, said
    assert f'8 frames received, 8 masks; recorded in {output}' in said
    assert said.count('process has finished cleanly') == 2, said
