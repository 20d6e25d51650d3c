# SPDX-License-Identifier: Apache-2.0
"""The launch file of the node for clouds, where launch is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from shared import ROOT

from adpc_ros.ros.shared_memory import PROFILE_VARIABLES

REASON = 'launch and launch_ros come with an installed ROS 2, there are no wheels'
# not plain launch: that is found as the repository's folder of this name, too
actions = pytest.importorskip('launch.actions', reason=REASON)
sources = pytest.importorskip('launch.launch_description_sources', reason=REASON)
pytest.importorskip('launch_ros.actions', reason=REASON)

FILE = ROOT / 'launch' / 'label_points.launch.py'
CONFIG = ROOT / 'config' / 'label_points.param.yaml'
TOPICS = ('points', 'mask', 'confidence', 'camera_info')


class Loader(yaml.SafeLoader):
    """Reads lists as launch_ros writes them; the node's own parser looks at no such tags."""


Loader.add_constructor('tag:yaml.org,2002:python/tuple', Loader.construct_sequence)


def command_of(**arguments: str) -> tuple[list[str], dict[str, str]]:
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
        for node in yaml.load(Path(file).read_text(), Loader).values():
            result |= node['ros__parameters']
    return result


def test_every_argument_is_described() -> None:
    entities = sources.get_launch_description_from_python_launch_file(str(FILE)).entities
    declared = [e for e in entities if isinstance(e, actions.DeclareLaunchArgument)]
    assert len(declared) > 10
    for argument in declared:
        assert len(argument.description.split('. Valid choices')[0]) > 10, argument.name


def test_the_defaults_take_the_masks_of_the_segmentation_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in PROFILE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    command, environment = command_of()
    assert command[:3] == ['nice', '-n', '5']
    assert command[3].endswith('lib/adpc_ros/label_points_node')
    assert '~/input/mask:=adpc/output/mask' in command
    assert '~/input/confidence:=adpc/output/confidence' in command
    assert '~/input/points:=~/input/points' in command
    assert parameters(command) == yaml.safe_load(CONFIG.read_text())['/**']['ros__parameters']
    assert all(Path(environment[name]).is_file() for name in PROFILE_VARIABLES)


def test_what_is_given_is_passed_on() -> None:
    command, _ = command_of(
        namespace='front',
        extrinsics='1 2 3.5, 0 0 0 1',
        use_sim_time='true',
        prefix='',
        output_points='/labelled',
        **{f'input_{topic}': f'/some/{topic}' for topic in TOPICS},
    )
    assert command[0].endswith('label_points_node') and '__ns:=/front' in command
    for topic in TOPICS:
        assert f'~/input/{topic}:=/some/{topic}' in command
    assert '~/output/points:=/labelled' in command
    given = {'extrinsics': [1.0, 2.0, 3.5, 0.0, 0.0, 0.0, 1.0], 'use_sim_time': True}
    assert parameters(command).items() >= given.items()


def test_a_file_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(FileNotFoundError, match='params_file: expected a file'):
        command_of(params_file='/nowhere')
