# SPDX-License-Identifier: Apache-2.0
"""
Start the segmentation node: ros2 launch adpc_ros adpc.launch.py [argument:=value ...].

An argument that is left empty is not passed on: the parameter file decides. The node configures
and activates itself (parameter autostart), so nothing here drives its lifecycle.
"""

import os

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.logging import get_logger
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterValue

from adpc_ros.ros import launch_arguments
from adpc_ros.ros.parameters import Parameters

ARGUMENTS = launch_arguments.NODE


def start_node(context: LaunchContext) -> list[LifecycleNode]:
    """Make the node's action from the values of the arguments."""
    value, warnings = launch_arguments.taken(
        context.launch_configurations, ARGUMENTS, launch_arguments.FORMER, context.argv, __file__
    )
    for text in warnings:
        get_logger('adpc_ros').warning(text)
    launch_arguments.check_names(value, launch_arguments.TOPICS)
    chosen = {name: value[name] for name in launch_arguments.PARAMETERS}
    given = launch_arguments.parameters(Parameters, chosen)
    if value['use_sim_time']:
        given['use_sim_time'] = launch_arguments.flag('use_sim_time', value['use_sim_time'])
    given = {
        name: ParameterValue(v, value_type=str) if isinstance(v, str) else v  # not read as YAML
        for name, v in given.items()
    }
    node = LifecycleNode(
        package='adpc_ros',
        executable='segmentation_node',
        namespace=value['namespace'],
        name=value['name'],
        parameters=[launch_arguments.parameter_file_of(value), given],
        remappings=[(topic, value[name]) for name, topic in launch_arguments.TOPICS.items()],
        ros_arguments=['--log-level', value['log_level']],
        additional_env=launch_arguments.profile_environment(value, os.environ),  # its own alone
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
