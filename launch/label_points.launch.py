# SPDX-License-Identifier: Apache-2.0
"""
Label point clouds: ros2 launch adpc_ros label_points.launch.py [argument:=value ...].

An argument that is left empty is not passed on: the parameter file decides.
"""

import os

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.logging import get_logger
from launch_ros.actions import Node

from adpc_ros.ros import launch_arguments
from adpc_ros.ros.label_points_parameters import LabelPointsParameters
from adpc_ros.ros.packaged import packaged

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
    **launch_arguments.COMMON,
    'name': ('label_points', 'Name of the node; its private topics begin with it.'),
    'params_file': (str(packaged('config/label_points.param.yaml')), 'Parameter file (YAML).'),
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
        f'"x y z qx qy qz qw"; {launch_arguments.AS_IN_FILE}.',
    ),
    'prefix': (
        'nice -n 5',
        'Command that starts the node; by default one that lets the segmentation go first.',
    ),
}


def start_node(context: LaunchContext) -> list[Node]:
    """Make the node's action from the values of the arguments."""
    value, warnings = launch_arguments.taken(
        context.launch_configurations, ARGUMENTS, {}, context.argv, __file__
    )
    for text in warnings:
        get_logger('adpc_ros').warning(text)
    launch_arguments.check_names(value, TOPICS)
    chosen = {'extrinsics': value['extrinsics']}
    given = launch_arguments.parameters(LabelPointsParameters, chosen)
    if value['use_sim_time']:
        given['use_sim_time'] = launch_arguments.flag('use_sim_time', value['use_sim_time'])
    node = Node(
        package='adpc_ros',
        executable='label_points_node',
        namespace=value['namespace'],
        name=value['name'],
        parameters=[launch_arguments.parameter_file_of(value), given],
        remappings=[(topic, value[argument]) for argument, topic in TOPICS.items()],
        ros_arguments=['--log-level', value['log_level']],
        additional_env=launch_arguments.profile_environment(value, os.environ),  # its own alone
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
