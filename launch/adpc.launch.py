# SPDX-License-Identifier: Apache-2.0
"""
Start the segmentation node: ros2 launch adpc_ros adpc.launch.py [argument:=value ...].

An argument that is left empty is not passed on: the parameter file decides. The node configures
and activates itself (parameter autostart), so nothing here drives its lifecycle.
"""

import os
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterValue

CONFIG = Path(get_package_share_directory('adpc_ros')) / 'config'
PROFILE = 'FASTRTPS_DEFAULT_PROFILES_FILE'
BOOL = ('true', 'false')
LEVELS = ('debug', 'info', 'warn', 'error', 'fatal')
AS_IN_FILE = 'empty: as in params_file'

# arguments that are parameters
PARAMETERS = {
    'weights': str,
    'device': str,
    'threads': int,
    'compressed_input': bool,
    'autostart': bool,
    'use_sim_time': bool,
}

# name: (default, description[, choices])
ARGUMENTS = {
    'namespace': ('', 'Namespace of the node, for example one for each camera.'),
    'name': ('adpc', 'Name of the node; its private topics begin with it.'),
    'params_file': (str(CONFIG / 'adpc.param.yaml'), 'Parameter file (YAML).'),
    'input_image': ('~/input/image', 'Topic of the camera images.'),
    'camera_info': ('~/input/camera_info', 'Topic of their calibration.'),
    'urgency': ('~/input/urgency', 'Topic of the urgency messages.'),
    'mask': ('~/output/mask', 'Topic on which the masks are published.'),
    'confidence': ('~/output/confidence', 'Topic on which their confidence is published.'),
    'status': ('~/output/status', 'Topic on which their status is published.'),
    'weights': ('', f'Weights file (.safetensors); {AS_IN_FILE}.'),
    'device': (
        '',
        f'Where to compute: cpu, cuda, or cuda:N (CUDA has not been run); {AS_IN_FILE}.',
    ),
    'threads': ('', f'Compute threads, 0 for one for each core; {AS_IN_FILE}.'),
    'cores': ('', f'Cores of the compute threads, for example 0,1; {AS_IN_FILE}.'),
    'compressed_input': (
        '',
        f'Take sensor_msgs/CompressedImage and not Image; {AS_IN_FILE}.',
        ('', *BOOL),
    ),
    'autostart': ('', f'Configure and activate on start; {AS_IN_FILE}.', ('', *BOOL)),
    'use_sim_time': ('', f'Take the time from /clock; {AS_IN_FILE}.', ('', *BOOL)),
    'log_level': ('info', 'Least severity that is logged.', LEVELS),
    'respawn': ('false', 'Start the node again when it ends.', BOOL),
    'fastdds_profile': (
        str(CONFIG / 'fastdds_shared_memory.xml'),
        'Fast DDS profile of the node, without which large images are lost; the camera driver '
        f'needs it, too. Empty, or {PROFILE} set: the environment is left alone.',
    ),
}

# private names of the node, by the arguments that say what they are called
TOPICS = {
    'input_image': '~/input/image',
    'camera_info': '~/input/camera_info',
    'urgency': '~/input/urgency',
    'mask': '~/output/mask',
    'confidence': '~/output/confidence',
    'status': '~/output/status',
}


def existing(argument: str, path: str) -> str:
    """Give the path if there is such a file: the node itself would start without it."""
    if not Path(path).is_file():
        raise FileNotFoundError(f'{argument}: expected a file, got {path!r}')
    return path


def start_node(context: LaunchContext) -> list[LifecycleNode]:
    """Make the node's action from the values of the arguments."""
    value = {name: context.launch_configurations[name] for name in ARGUMENTS}
    environment = {}
    if value['fastdds_profile'] and not os.environ.get(PROFILE):
        environment[PROFILE] = existing('fastdds_profile', value['fastdds_profile'])
    given = {
        name: ParameterValue(LaunchConfiguration(name), value_type=kind)
        for name, kind in PARAMETERS.items()
        if value[name]
    }
    if value['cores']:
        given['cores'] = [int(core) for core in value['cores'].split(',')]
    node = LifecycleNode(
        package='adpc_ros',
        executable='segmentation_node',
        namespace=value['namespace'],
        name=value['name'],
        parameters=[existing('params_file', value['params_file']), given],
        remappings=[(topic, value[argument]) for argument, topic in TOPICS.items()],
        ros_arguments=['--log-level', value['log_level']],
        additional_env=environment,  # this node's alone
        output='screen',
        respawn=value['respawn'] == 'true',
        respawn_delay=1.0,
    )
    return [node]


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments, then start the node."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text, choices=choices)
        for name, (default, text, *rest) in ARGUMENTS.items()
        for choices in (rest or [None])
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=start_node)])
