# SPDX-License-Identifier: Apache-2.0
"""The messages are built, importable next to the package, and cross processes."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

rclpy = pytest.importorskip('rclpy')

PUBLISH_FOREVER = """
import time, rclpy
from adpc_ros.msg import SegmentationStatus
rclpy.init()
node = rclpy.create_node('publisher')
publisher = node.create_publisher(SegmentationStatus, 'status', 10)
message = SegmentationStatus(stop_reason=SegmentationStatus.URGENT, exit_index=2, exit_count=4)
message.header.frame_id = 'camera'
message.latency.nanosec = 5
message.frames_received = 2**40
message.network = 'tiny@1234'
while rclpy.ok():
    publisher.publish(message)
    time.sleep(0.05)
"""


def test_messages_import_from_any_directory():
    code = (
        'import adpc_ros.labels; from adpc_ros.msg import Urgency, SegmentationStatus as S; '
        'print(Urgency.CRITICAL, S.FAILED)'
    )
    for folder in (Path(__file__).parent.parent, '/'):
        output = subprocess.check_output([sys.executable, '-c', code], cwd=folder, text=True)
        assert output == '2 6\n'


def test_a_status_crosses_processes_unchanged():
    from adpc_ros.msg import SegmentationStatus

    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node('subscriber', context=context)
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(node)
    received = []
    node.create_subscription(SegmentationStatus, 'status', received.append, 10)
    publisher = subprocess.Popen([sys.executable, '-c', PUBLISH_FOREVER])
    try:
        end = time.monotonic() + 30
        while not received and time.monotonic() < end:
            executor.spin_once(timeout_sec=0.1)
    finally:
        publisher.kill()
        publisher.wait()
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown(context=context)
    status = received[0]
    assert (status.stop_reason, status.exit_index, status.exit_count) == (2, 2, 4)
    assert (status.header.frame_id, status.latency.nanosec) == ('camera', 5)
    assert (status.frames_received, status.network) == (2**40, 'tiny@1234')
