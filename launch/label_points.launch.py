# SPDX-License-Identifier: Apache-2.0
"""
Label point clouds: ros2 launch adpc_ros label_points.launch.py [argument:=value ...].

An argument that is left empty is not passed on: the parameter file decides.
"""

import os
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch_ros.actions import Node

CONFIG = Path(get_package_share_directory('adpc_ros')) / 'config'
PROFILE = 'FASTRTPS_DEFAULT_PROFILES_FILE'
BOOL = ('true', 'false')
LEVELS = ('debug', 'info', 'warn', 'error', 'fatal')
AS_IN_FILE = 'empty: as in params_file'

# argument: topic it stands for
TOPICS = {
    'input_points': '~/input/points',
    'input_mask': '~/input/mask',
    'input_confidence': '~/input/confidence',
    'input_camera_info': '~/input/camera_info',
    'output_points': '~/output/points',
}

# name: (default, description[, choices])
ARGUMENTS = {
    'namespace': ('', 'Namespace of the node, for example one for each camera.'),
    'name': ('label_points', 'Name of the node; its private topics begin with it.'),
    'params_file': (str(CONFIG / 'label_points.param.yaml'), 'Parameter file (YAML).'),
    'input_points': ('~/input/points', 'Topic of the clouds (sensor_msgs/PointCloud2).'),
    'input_mask': ('adpc/output/mask', "Topic of the segmentation node's masks."),
    'input_confidence': ('adpc/output/confidence', 'Topic of their confidences.'),
    'input_camera_info': (
        '~/input/camera_info',
        'Topic of the camera_info of the images that are segmented.',
    ),
    'output_points': ('~/output/points', 'Topic of the labelled clouds.'),
    'extrinsics': (
        '',
        "Pose of the cloud's frame in the camera's optical frame, as seven numbers: "
        f'"x y z qx qy qz qw"; {AS_IN_FILE}.',
    ),
    'use_sim_time': ('', f'Take the time from /clock; {AS_IN_FILE}.', ('', *BOOL)),
    'log_level': ('info', 'Least severity that is logged.', LEVELS),
    'respawn': ('false', 'Start the node again when it ends.', BOOL),
    'prefix': (
        'nice -n 5',
        'Command that starts the node; by default one that lets the segmentation go first.',
    ),
    'fastdds_profile': (
        str(CONFIG / 'fastdds_shared_memory.xml'),
        'Fast DDS profile of the node, without which large clouds are lost. '
        f'Empty, or {PROFILE} set: the environment is left alone.',
    ),
}


def existing(argument: str, path: str) -> str:
    """Give the path if there is such a file: the node itself would start without it."""
    if not Path(path).is_file():
        raise FileNotFoundError(f'{argument}: expected a file, got {path!r}')
    return path


def start_node(context: LaunchContext) -> list[Node]:
    """Make the node's action from the values of the arguments."""
    value = {name: context.launch_configurations[name] for name in ARGUMENTS}
    environment = {}
    if value['fastdds_profile'] and not os.environ.get(PROFILE):
        environment[PROFILE] = existing('fastdds_profile', value['fastdds_profile'])
    given = {}
    if value['extrinsics']:
        given['extrinsics'] = [float(v) for v in value['extrinsics'].replace(',', ' ').split()]
    if value['use_sim_time']:
        given['use_sim_time'] = value['use_sim_time'] == 'true'
    node = Node(
        package='adpc_ros',
        executable='label_points_node',
        namespace=value['namespace'],
        name=value['name'],
        parameters=[existing('params_file', value['params_file']), given],
        remappings=[(topic, value[argument]) for argument, topic in TOPICS.items()],
        ros_arguments=['--log-level', value['log_level']],
        additional_env=environment,  # this node's alone
        prefix=value['prefix'],
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
