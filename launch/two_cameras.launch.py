# SPDX-License-Identifier: Apache-2.0
"""
Two cameras, a node for each: ros2 launch adpc_ros two_cameras.launch.py [argument:=value ...].

An example to start from. Both listen to the same urgency; each has cores of its own, so that one
camera's load leaves the other's timing alone. What they publish is below /front/adpc and
/rear/adpc. Arguments without front_ or rear_ go to both.
"""

from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    GroupAction,
    IncludeLaunchDescription,
    OpaqueFunction,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.logging import get_logger

from adpc_ros.ros import launch_arguments

NODE = Path(__file__).resolve().with_name('adpc.launch.py')
CAMERAS = ('front', 'rear')  # namespaces
OF_EACH = ('input_image', 'input_camera_info', 'cores')  # for each camera on its own
# what would put both on one topic: they keep their own names
KEPT = tuple(name for name in launch_arguments.TOPICS if name.startswith('output_'))

# name: (default, description[, choices])
ARGUMENTS = {
    'namespace': ('', 'Namespace of both, above front and rear.'),
    'input_urgency': ('/urgency', 'Topic of the urgency messages of both.'),
    **{
        f'{camera}_{name}': (default, f'{text} of the {camera} camera{rest}.')
        for camera in CAMERAS
        for name, default, text, rest in (
            ('input_image', f'/{camera}/camera/image_raw', 'Topic of the images', ''),
            ('input_camera_info', f'/{camera}/camera/camera_info', 'Topic of the calibration', ''),
            ('cores', '', 'Cores for the frames', ', for example 0,1; empty: as in params_file'),
        )
    },
    **{
        name: what
        for name, what in launch_arguments.NODE.items()
        if name not in (*OF_EACH, *KEPT, 'namespace', 'input_urgency')
    },
}
FORMER = {
    'urgency': 'input_urgency',
    **{f'{camera}_image': f'{camera}_input_image' for camera in CAMERAS},
    **{f'{camera}_camera_info': f'{camera}_input_camera_info' for camera in CAMERAS},
}


def segmented(context: LaunchContext) -> list[GroupAction]:
    """Give the nodes; what is set for one does not reach the other."""
    refused = {*OF_EACH, *KEPT, *launch_arguments.FORMER} - FORMER.keys()
    if wrong := sorted(refused & context.launch_configurations.keys()):
        raise ValueError(
            f'{wrong[0]}: expected arguments of {Path(__file__).name}, where each camera has its '
            f'own ({", ".join(OF_EACH)} begin with front_ or rear_, outputs cannot be moved), got '
            f'{wrong[0]}:={context.launch_configurations[wrong[0]]}'
        )
    value, warnings = launch_arguments.taken(
        context.launch_configurations, ARGUMENTS, FORMER, context.argv, __file__
    )
    for text in warnings:
        get_logger('adpc_ros').warning(text)
    shared = {name: text for name, text in value.items() if name in launch_arguments.NODE}
    nodes = []
    for camera in CAMERAS:
        given = {
            **shared,
            **{name: value[f'{camera}_{name}'] for name in OF_EACH},
            'namespace': f'{value["namespace"].rstrip("/")}/{camera}',
        }
        node = IncludeLaunchDescription(
            PythonLaunchDescriptionSource(str(NODE)), launch_arguments=given.items()
        )
        nodes.append(GroupAction([node], scoped=True))
    return nodes


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments, then start a node for each camera."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text, choices=choices)
        for name, (default, text, *rest) in ARGUMENTS.items()
        for choices in (rest or [None])
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=segmented)])
