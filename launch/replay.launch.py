# SPDX-License-Identifier: Apache-2.0
"""
Play a bag to the node and record what it says: ros2 launch adpc_ros replay.launch.py bag:=FOLDER.

The node is brought up first; then the bag is played on simulated time, then everything ends. The
arguments of adpc.launch.py count here, too, but for autostart and use_sim_time.
"""

import os
from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    TimerAction,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.launch_description_entity import LaunchDescriptionEntity
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState, StateTransition
from launch_ros.events.matchers import matches_node_name
from lifecycle_msgs.msg import Transition

NODE = Path(__file__).resolve().with_name('adpc.launch.py')
PROFILE = 'FASTRTPS_DEFAULT_PROFILES_FILE'
BOOL = ('true', 'false')
LAST_FRAME_S = 3.0  # after the bag: for the last frame, and for the recorder to write it down

# name: (default, description[, choices]); None: it must be given
ARGUMENTS = {
    'bag': (None, 'Bag to be played (a folder, or an mcap file).'),
    'output': ('adpc_replay', 'Bag to be written; there must be none of this name.'),
    'input_image': ('/camera/image_raw', 'Topic of the camera images in the bag.'),
    'camera_info': ('/camera/camera_info', 'Topic of their calibration in the bag, if any.'),
    'rate': ('1.0', 'How many times as fast as it was recorded the bag is played.'),
    'delay_s': ('2.0', 'From advertising the topics to the first message, in seconds; above 0.'),
    'storage': ('mcap', 'Format of the bag that is written.', ('mcap', 'sqlite3')),
    'record_images': ('false', 'Write the camera images, too.', BOOL),
}
OUTPUTS = ('mask', 'confidence', 'status')


def absolute(topic: str, namespace: str, name: str) -> str:
    """Give a topic's full name, as the node resolves it."""
    space = f'/{namespace.strip("/")}'.rstrip('/')
    if topic.startswith('~/'):
        return f'{space}/{name}/{topic[2:]}'
    return topic if topic.startswith('/') else f'{space}/{topic}'


def replay(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Make recorder, player and what starts and ends them, from the values of the arguments."""
    value = context.launch_configurations
    namespace, name = value['namespace'], value['name']
    inputs, outputs = (
        [absolute(value[argument], namespace, name) for argument in arguments]
        for arguments in (('input_image', 'camera_info', 'urgency'), OUTPUTS)
    )
    outputs += [
        absolute(f'~/output/{topic}', namespace, name) for topic in ('camera_info', 'label_info')
    ]
    environment = {}
    if value['fastdds_profile'] and not os.environ.get(PROFILE):
        environment[PROFILE] = value['fastdds_profile']  # images are lost where they are written
    recorded = [*outputs, inputs[2], '/diagnostics']
    if value['record_images'] == 'true':
        recorded += inputs[:2]
    record = ExecuteProcess(
        cmd=[
            *('ros2', 'bag', 'record', '--use-sim-time', '--disable-keyboard-controls'),
            *('--storage', value['storage'], '--output', value['output'], '--topics', *recorded),
        ],
        additional_env=environment,
        output='screen',
    )
    play = ExecuteProcess(
        cmd=[
            *('ros2', 'bag', 'play', value['bag'], '--clock', '100', '--rate', value['rate']),
            *('--delay', value['delay_s'], '--disable-keyboard-controls', '--topics', *inputs),
        ],
        additional_env=environment,
        output='screen',
    )
    is_node = matches_node_name(absolute('~/', namespace, name).rstrip('/'))

    def change(transition: int) -> EmitEvent:
        return EmitEvent(
            event=ChangeState(lifecycle_node_matcher=is_node, transition_id=transition)
        )

    def once(state: str, *actions: LaunchDescriptionEntity) -> RegisterEventHandler:
        return RegisterEventHandler(
            OnStateTransition(
                matcher=lambda event: (
                    isinstance(event, StateTransition)
                    and is_node(event.action)
                    and event.goal_state == state
                ),
                entities=list(actions),
                handle_once=True,
            )
        )

    end = EmitEvent(event=Shutdown(reason='the bag is over'))
    return [
        once('inactive', change(Transition.TRANSITION_ACTIVATE)),
        once('active', play),
        RegisterEventHandler(
            OnProcessExit(
                target_action=play, on_exit=[TimerAction(period=LAST_FRAME_S, actions=[end])]
            )
        ),
        record,
        change(Transition.TRANSITION_CONFIGURE),
    ]


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments, then start the node and what surrounds it."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text, choices=choices)
        for name, (default, text, *rest) in ARGUMENTS.items()
        for choices in (rest or [None])
    ]
    node = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(NODE)),
        launch_arguments=[('autostart', 'false'), ('use_sim_time', 'true')],
    )
    return LaunchDescription([*arguments, node, OpaqueFunction(function=replay)])
