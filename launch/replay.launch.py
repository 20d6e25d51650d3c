# SPDX-License-Identifier: Apache-2.0
"""
Play a bag to the node and record what it says: ros2 launch adpc_ros replay.launch.py bag:=FOLDER.

The bag is played on simulated time, and not before node and recorder listen; then everything
ends. What waits, starts and judges is a process of its own (adpc_ros/replay/launched.py). If it,
the node, the player or the recorder fails, or there is not one mask, this fails. The arguments of
adpc.launch.py count here, too, but for autostart, use_sim_time and respawn.
"""

import os
from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.events.process import ProcessExited
from launch.launch_description_entity import LaunchDescriptionEntity
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.logging import get_logger
from launch_ros.actions import Node

from adpc_ros.ros import launch_arguments

NODE = Path(__file__).resolve().with_name('adpc.launch.py')
FIXED = {'autostart': 'true', 'use_sim_time': 'true', 'respawn': 'false'}  # of the node

# name: (default, description[, choices]); None: it must be given
ARGUMENTS = {
    'bag': (None, 'Bag to be played (a folder, or an mcap file).'),
    'output': ('adpc_replay', 'Bag to be written; there must be none of this name.'),
    'rate': ('1.0', 'How many times as fast as it was recorded the bag is played.'),
    'timeout_s': ('120.0', 'For node, player and recorder to find each other, in seconds.'),
    'storage': ('mcap', 'Format of the bag that is written.', ('mcap', 'sqlite3')),
    'record_images': ('false', 'Write the camera images, too.', launch_arguments.BOOL),
    **{n: what for n, what in launch_arguments.NODE.items() if n not in FIXED},
    'input_image': ('/camera/image_raw', 'Topic of the camera images in the bag.'),
    'input_camera_info': ('/camera/camera_info', 'Topic of their calibration in the bag, if any.'),
}
FORMER = {**launch_arguments.FORMER, 'delay_s': ''}  # nothing waits for a fixed time any more


def absolute(topic: str, namespace: str, name: str) -> str:
    """Give a topic's full name, as the node resolves it."""
    space = f'/{namespace.strip("/")}'.rstrip('/')
    if topic.startswith('~/'):
        return f'{space}/{name}/{topic[2:]}'
    return topic if topic.startswith('/') else f'{space}/{topic}'


def replay(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Make the node and what plays and records, from the values of the arguments."""
    value, warnings = launch_arguments.taken(
        context.launch_configurations, ARGUMENTS, FORMER, context.argv, __file__
    )
    for text in warnings:
        get_logger('adpc_ros').warning(text)
    launch_arguments.check_names(value, launch_arguments.TOPICS)
    launch_arguments.check_positive(value, ('rate', 'timeout_s'))

    def full(topic: str) -> str:
        return absolute(topic, value['namespace'], value['name'])

    image, info, urgency, *outputs = (full(value[name]) for name in launch_arguments.TOPICS)
    record = [urgency, '/diagnostics']
    record += [full(f'~/output/{topic}') for topic in ('camera_info', 'label_info')]
    if value['record_images'] == 'true':
        record += [image, info]
    conduct = Node(
        package='adpc_ros',
        executable='replay_bag',
        arguments=[
            *('--bag', value['bag'], '--output', value['output'], '--storage', value['storage']),
            *('--rate', value['rate'], '--timeout', value['timeout_s'], '--node', full('~/')[:-1]),
            *('--image', image, '--outputs', *outputs),
            *('--play', info, urgency, '--record', *record),
        ],
        additional_env=launch_arguments.profile_environment(value, os.environ),
        output='screen',
    )
    shared = {name: text for name, text in value.items() if name in launch_arguments.NODE}
    node = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(NODE)), launch_arguments=[*(shared | FIXED).items()]
    )

    def ended(event: ProcessExited, context: LaunchContext) -> EmitEvent | None:
        if event.returncode:  # an exception makes ros2 launch end with status 1
            raise RuntimeError(
                f'the replay failed: {event.process_name} ended with status {event.returncode}'
            )
        if context.is_shutdown:
            return None
        return EmitEvent(event=Shutdown(reason=f'{event.process_name} has ended'))

    return [RegisterEventHandler(OnProcessExit(on_exit=ended)), node, conduct]


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments, then start the node and what surrounds it."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text, choices=choices)
        for name, (default, text, *rest) in ARGUMENTS.items()
        for choices in (rest or [None])
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=replay)])
