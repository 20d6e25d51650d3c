# SPDX-License-Identifier: Apache-2.0
"""
Two cameras, a node for each: ros2 launch adpc_ros two_cameras.launch.py [argument:=value ...].

An example to start from. Both listen to the same urgency; each has cores of its own, so that one
camera's load leaves the other's timing alone. Other arguments of adpc.launch.py go to both.
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, GroupAction, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

NODE = Path(__file__).resolve().with_name('adpc.launch.py')
CAMERAS = ('front', 'rear')  # namespaces

# name: (default, description)
ARGUMENTS = {
    'urgency': ('/urgency', 'Topic of the urgency messages of both.'),
    **{
        f'{camera}_{name}': (default, f'{text} of the {camera} camera{rest}.')
        for camera in CAMERAS
        for name, default, text, rest in (
            ('image', f'/{camera}/camera/image_raw', 'Topic of the images', ''),
            ('camera_info', f'/{camera}/camera/camera_info', 'Topic of the calibration', ''),
            ('cores', '', 'Cores for the frames', ', for example 0,1; empty: all'),
        )
    },
}


def segmented(camera: str) -> GroupAction:
    """Give the node of a camera; what is set for it does not reach the other's."""
    given = {
        'namespace': camera,
        'input_image': LaunchConfiguration(f'{camera}_image'),
        'camera_info': LaunchConfiguration(f'{camera}_camera_info'),
        'cores': LaunchConfiguration(f'{camera}_cores'),
    }
    node = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(NODE)), launch_arguments=given.items()
    )
    return GroupAction([node], scoped=True)


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments, then start a node for each camera."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in ARGUMENTS.items()
    ]
    return LaunchDescription([*arguments, *map(segmented, CAMERAS)])
