# SPDX-License-Identifier: Apache-2.0
"""Stands in for ``ros2``, of which there are no wheels: bag record, bag play, service call."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import rclpy
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions
from rosbags.rosbag2 import StoragePlugin, Writer
from rosgraph_msgs.msg import Clock
from std_srvs.srv import Empty

from adpc_ros.recording.reader import Recording
from adpc_ros.recording.types import typestore

TROUBLE = os.environ.get('STAND_IN', '')  # what is to go wrong


def get_message(kind: str) -> type:
    package, _, name = kind.split('/')
    return getattr(importlib.import_module(f'{package}.msg'), name)


def record(arguments: list[str]) -> int:
    """Subscribe once /clock has come and a topic is published, as rosbag2 does."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--output', required=True)
    parser.add_argument('--topics', nargs='+')
    for flag in ('--use-sim-time', '--disable-keyboard-controls'):
        parser.add_argument(flag, action='store_true')
    parser.add_argument('--storage')
    chosen = parser.parse_args(arguments)
    if TROUBLE == 'recorder':
        return 3
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as rosbag2
    node = rclpy.create_node(
        'rosbag2_recorder', parameter_overrides=[Parameter('use_sim_time', value=True)]
    )
    heard: list[tuple[str, int, bytes]] = []
    kinds: dict[str, str] = {}
    try:
        while not node.get_clock().now().nanoseconds:
            rclpy.spin_once(node, timeout_sec=0.1)
        time.sleep(float(os.environ.get('STAND_IN_LATE_S', '0')))
        while True:
            for topic, (kind, *_) in node.get_topic_names_and_types():
                new = topic in chosen.topics and topic not in kinds
                if new and node.count_publishers(topic):
                    kinds[topic] = kind
                    node.create_subscription(
                        get_message(kind),
                        topic,
                        lambda data, topic=topic: heard.append(
                            (topic, node.get_clock().now().nanoseconds, data)
                        ),
                        QoSProfile(depth=100),
                        raw=True,
                    )
            rclpy.spin_once(node, timeout_sec=0.1)
    except KeyboardInterrupt:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
    store = typestore()
    with Writer(chosen.output, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        known = {t: k for t, k in kinds.items() if k in store.types}
        found = {t: writer.add_connection(t, k, typestore=store) for t, k in known.items()}
        for topic, time_ns, data in heard:
            if topic in found and TROUBLE != 'silence':
                writer.write(found[topic], time_ns, data)
    node.destroy_node()
    rclpy.shutdown()
    return 0


def play(arguments: list[str]) -> int:
    """Publish /clock, and messages once ``~/resume`` was called."""
    parser = argparse.ArgumentParser()
    parser.add_argument('bag')
    parser.add_argument('--topics', nargs='+')
    parser.add_argument('--rate', type=float)
    parser.add_argument('--clock', type=float)
    for flag in ('--start-paused', '--disable-keyboard-controls'):
        parser.add_argument(flag, action='store_true')
    chosen = parser.parse_args(arguments)
    if TROUBLE == 'player':
        return 4
    recording = Recording(chosen.bag)
    topics = [topic for topic in recording.topics if topic.name in chosen.topics]
    messages = list(recording.messages(topics))
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node('rosbag2_player')
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as rosbag2
    publishers = {t: node.create_publisher(get_message(t.kind), t.name, 10) for t in topics}
    clock = node.create_publisher(Clock, '/clock', 1)
    start_ns, state = messages[0][1], {'began_s': 0.0 if chosen.start_paused else time.monotonic()}

    def now_ns() -> int:
        played_s = time.monotonic() - state['began_s'] if state['began_s'] else 0.0
        return start_ns + int(played_s * chosen.rate * 1e9)

    def tick() -> None:
        message = Clock()
        message.clock.sec, message.clock.nanosec = divmod(now_ns(), 10**9)
        clock.publish(message)

    def resume(request: Any, response: Any) -> Any:
        state['began_s'] = time.monotonic()
        return response

    node.create_timer(1 / chosen.clock, tick)
    node.create_service(Empty, '~/resume', resume)
    try:
        for topic, time_ns, data in messages:
            while not state['began_s'] or now_ns() < time_ns:
                rclpy.spin_once(node, timeout_sec=0.01)
            publishers[topic].publish(bytes(data))
            if TROUBLE == 'crash':
                return 5
        time.sleep(0.2)
    except KeyboardInterrupt:
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


def call(arguments: list[str]) -> int:
    """Call a service; its type is taken to be empty."""
    rclpy.init(args=[])
    node = rclpy.create_node('caller')
    client = node.create_client(Empty, arguments[0])
    client.wait_for_service()
    rclpy.spin_until_future_complete(node, client.call_async(Empty.Request()))
    node.destroy_node()
    rclpy.try_shutdown()
    if TROUBLE == 'slow call':
        time.sleep(2)
    return 0


def install(folder: Path) -> None:
    """Write an executable ``ros2`` that runs this file."""
    program = folder / 'ros2'
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} "$@"\n')
    program.chmod(0o755)


if __name__ == '__main__':
    commands = {('bag', 'record'): record, ('bag', 'play'): play, ('service', 'call'): call}
    try:
        sys.exit(commands[sys.argv[1], sys.argv[2]](sys.argv[3:]))
    except KeyboardInterrupt:  # as the real ones, without a word
        sys.exit(130)
