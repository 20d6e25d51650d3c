# SPDX-License-Identifier: Apache-2.0
"""The node that labels clouds in its own process, over real DDS."""

from __future__ import annotations

import array
import dataclasses
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
import yaml
from builtin_interfaces.msg import Time
from graph import BEST_EFFORT, NodeProcess
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField
from shared import ROOT
from std_msgs.msg import Header

from adpc_ros.graph.peer import Peer
from adpc_ros.ros.label_points_parameters import LabelPointsParameters

NODE = [sys.executable, '-m', 'adpc_ros.ros.label_points_node']
IDENTITY = 'extrinsics:=[0.0,0.0,0.0,0.0,0.0,0.0,1.0]'
MS = 10**6
# one point for each pixel of a mask of 2x2, one behind the camera, one that is no number
POINTS = [[-0.5, -0.5, 1], [0.5, -0.5, 1], [-0.5, 0.5, 1], [0.5, 0.5, 1], [0, 0, -1], [np.nan] * 3]
PARTS = ('mask', 'confidence', 'camera_info', 'points')


class Rig(Peer):
    """A camera, a lidar, a segmentation and whoever hears the labelled clouds."""

    def __init__(self) -> None:
        self._context = rclpy.Context()
        rclpy.init(context=self._context)
        super().__init__('rig', context=self._context)
        kinds = dict(zip(PARTS, (Image, Image, CameraInfo, PointCloud2)))
        self._inputs = {
            part: self.node.create_publisher(kind, f'/label_points/input/{part}', BEST_EFFORT)
            for part, kind in kinds.items()
        }
        self.clouds: list[PointCloud2] = []
        self.node.create_subscription(
            PointCloud2, '/label_points/output/points', self.clouds.append, QoSProfile(depth=100)
        )

    def close(self) -> None:
        super().close()
        rclpy.shutdown(context=self._context)

    def wait_for(self, node: NodeProcess, condition: Any, timeout_s: float = 40.0) -> None:
        def met() -> Any:
            assert not node.ended, node.log()
            return condition()

        assert self.wait(met, timeout_s), f'timed out; {len(self.clouds)} clouds'

    def connect(self, node: NodeProcess) -> None:
        self.wait_for(
            node,
            lambda: (
                all(p.get_subscription_count() for p in self._inputs.values())
                and self.node.count_publishers('/label_points/output/points')
            ),
        )
        self.spin(1.0)  # the other side has to see the match, too

    def send(self, part: str, message: Any) -> None:
        self._inputs[part].publish(message)

    def camera_info(self, **fields: Any) -> None:
        message = CameraInfo(height=20, width=20)
        message.header.frame_id = 'camera'
        message.k = [10.0, 0.0, 9.5, 0.0, 10.0, 9.5, 0.0, 0.0, 1.0]
        for name, value in fields.items():
            setattr(message, name, value)
        self.send('camera_info', message)

    def plane(self, part: str, stamp_ms: int, values: list[int], **fields: Any) -> None:
        message = Image(height=2, width=2, encoding='mono8', step=2)
        message.data = array.array('B', values)
        message.header.stamp, message.header.frame_id = stamp(stamp_ms), 'camera'
        for name, value in fields.items():
            setattr(message, name, value)
        self.send(part, message)

    def frame(self, stamp_ms: int, first: int = 0) -> None:
        """Publish a mask of four classes, and confidences of 51, 102, 153 and 204."""
        self.plane('mask', stamp_ms, [first, first + 1, first + 2, first + 3])
        self.plane('confidence', stamp_ms, [51, 102, 153, 204])

    def cloud(self, stamp_ms: int, **fields: Any) -> PointCloud2:
        points = np.array(POINTS, np.float32)
        message = PointCloud2(height=1, width=len(points), point_step=12, row_step=72)
        message.fields = [
            PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
            for i, name in enumerate('xyz')
        ]
        message.data = array.array('B', points.tobytes())
        message.header.stamp, message.header.frame_id = stamp(stamp_ms), 'lidar'
        for name, value in fields.items():
            setattr(message, name, value)
        self.send('points', message)
        return message

    def labels(self, node: NodeProcess, count: int = 1) -> tuple[list[int], list[float]]:
        """Wait for so many clouds, and give class ids and confidences of the last."""
        self.wait_for(node, lambda: len(self.clouds) >= count)
        assert len(self.clouds) == count
        return labels_of(self.clouds[-1])


def stamp(stamp_ms: int) -> Time:
    return Time(sec=stamp_ms // 1000, nanosec=stamp_ms % 1000 * MS)


def header(frame_id: str) -> Header:
    return Header(frame_id=frame_id)


def labels_of(cloud: PointCloud2) -> tuple[list[int], list[float]]:
    rows = np.frombuffer(cloud.data, np.uint8).reshape(-1, cloud.point_step)
    at = {field.name: field.offset for field in cloud.fields}
    confidence = rows[:, at['confidence'] : at['confidence'] + 4].copy().view('<f4').ravel()
    return rows[:, at['label']].tolist(), confidence.tolist()


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.close()


class CloudNode(NodeProcess):
    parameters = ()


def start(folder: Path, *parameters: str) -> NodeProcess:
    return CloudNode(folder, *parameters, command=NODE)


def test_a_cloud_is_labelled_by_the_mask_nearest_in_stamp(rig: Rig, tmp_path: Path) -> None:
    with start(tmp_path, IDENTITY, 'max_wait_s:=2.0') as node:
        rig.connect(node)
        rig.camera_info()
        rig.frame(10_000, first=10)
        rig.frame(10_040, first=20)
        sent = rig.cloud(10_030)
        ids, confidence = rig.labels(node)
        assert ids == [20, 21, 22, 23, 255, 255]
        assert confidence == pytest.approx([0.2, 0.4, 0.6, 0.8, 0, 0])
        (result,) = rig.clouds
        assert result.header == sent.header
        rows = np.frombuffer(result.data, np.uint8).reshape(6, -1)
        assert rows[:, :12].tobytes() == bytes(sent.data)
        # a cloud comes before its mask, as always
        rig.cloud(10_100)
        rig.spin(0.3)
        assert len(rig.clouds) == 1
        rig.frame(10_110, first=30)
        assert rig.labels(node, 2)[0] == [30, 31, 32, 33, 255, 255]
        assert 'WARN' not in node.log()
        assert node.stop() == 0
        assert 'Traceback' not in node.log()


def test_without_a_mask_the_waiting_ends_though_the_time_stands_still(
    rig: Rig, tmp_path: Path
) -> None:
    # nobody publishes /clock
    with start(tmp_path, IDENTITY, 'max_wait_s:=0.5', 'use_sim_time:=true') as node:
        rig.connect(node)
        sent_s = time.monotonic()
        rig.cloud(10_000)
        ids, confidence = rig.labels(node)
        assert time.monotonic() - sent_s > 0.45
        assert ids == [255] * 6 and confidence == [0.0] * 6
        assert 'left unlabelled: no mask has come (1 of 1 clouds' in node.log()
        rig.cloud(10_100)
        rig.labels(node, 2)
        rig.frame(10_200)
        rig.cloud(10_200)
        assert rig.labels(node, 3)[0] == [255] * 6
        assert 'no camera_info has come' in node.log()
        rig.camera_info(header=header(''))  # no frame: any will do
        rig.frame(10_300)
        rig.cloud(10_300)
        assert rig.labels(node, 4)[0] == [0, 1, 2, 3, 255, 255]
        rig.camera_info(header=header('another_camera'))
        rig.cloud(10_300)
        assert rig.labels(node, 5)[0] == [255] * 6
        assert 'got another_camera, camera' in node.log()
        assert node.log().count('no mask has come') == 1  # not for every cloud


def test_clouds_without_a_mask_may_be_dropped(rig: Rig, tmp_path: Path) -> None:
    with start(
        tmp_path, IDENTITY, 'max_wait_s:=0.1', 'publish_unlabelled:=false', 'label_field:=class'
    ) as node:
        rig.connect(node)
        rig.camera_info()
        rig.cloud(10_000)
        rig.wait_for(node, lambda: 'cloud dropped: no mask' in node.log())
        rig.frame(10_100)
        rig.cloud(10_100)
        rig.wait_for(node, lambda: rig.clouds)
        assert len(rig.clouds) == 1
        assert [field.name for field in rig.clouds[0].fields][-2:] == ['confidence', 'class']


def test_garbage_does_not_end_the_node(rig: Rig, tmp_path: Path) -> None:
    with start(tmp_path, IDENTITY, 'max_wait_s:=0.1') as node:
        rig.connect(node)
        rig.camera_info()
        empty = array.array('B')
        rig.plane('mask', 10_000, [1, 2, 3, 4], encoding='rgb8')
        rig.plane('mask', 10_000, [1, 2], height=2**31)
        rig.plane('confidence', 10_000, [], data=empty)
        rig.cloud(10_000, fields=[])
        rig.cloud(10_000, width=1000)
        rig.cloud(10_000, point_step=0)
        rig.cloud(10_000, header=header('lidar'))  # a stamp of zero is one, too
        rig.wait_for(node, lambda: rig.clouds)
        negative = header('lidar')
        negative.stamp.sec = -5
        rig.cloud(0, header=negative)
        rig.wait_for(node, lambda: len(rig.clouds) == 2)
        rig.camera_info(k=[float('nan')] * 9)
        rig.frame(10_100)
        rig.cloud(10_100)
        rig.wait_for(node, lambda: len(rig.clouds) == 3)
        assert 'camera_info: expected' in node.log()
        rig.camera_info()
        rig.plane('mask', 10_200, [1])  # too little data: ignored
        rig.plane('mask', 10_200, [1, 2], height=1)
        rig.plane('confidence', 10_200, [1, 2, 3, 4])
        rig.cloud(10_200)
        rig.wait_for(node, lambda: len(rig.clouds) == 4)
        assert 'mask and confidence of one size' in node.log()
        rig.frame(10_300)
        rig.cloud(10_300)
        assert rig.labels(node, 5)[0] == [0, 1, 2, 3, 255, 255]
        for said in ("got 'rgb8'", 'a field x of', '(1x1000 points), got 72', 'point_step > 0'):
            assert node.log().count(said) == 1  # one does not hide another
        assert node.stop() == 0
        assert 'Traceback' not in node.log()


def test_a_cloud_without_points_is_published_without_a_mask(rig: Rig, tmp_path: Path) -> None:
    with start(tmp_path, IDENTITY, 'max_wait_s:=0.1', 'publish_unlabelled:=false') as node:
        rig.connect(node)
        sent = rig.cloud(10_000, width=0, row_step=0, data=array.array('B'))
        assert rig.labels(node) == ([], [])
        (result,) = rig.clouds
        assert (result.header, result.height, result.width) == (sent.header, 1, 0)
        assert [field.name for field in result.fields] == ['x', 'y', 'z', 'confidence', 'label']
        assert 'WARN' not in node.log()


def test_a_lens_that_is_not_known_is_said_once_until_a_known_one_comes(
    rig: Rig, tmp_path: Path
) -> None:
    with start(tmp_path, IDENTITY, 'max_wait_s:=0.1') as node:
        rig.connect(node)
        rig.camera_info(distortion_model='omnidirectional', d=[0.1] * 4)
        for i in range(3):
            rig.frame(10_000 + 100 * i)
            rig.cloud(10_000 + 100 * i)
            assert rig.labels(node, i + 1)[0] == [255] * 6
        assert node.log().count("got 'omnidirectional' with coefficients [0.1") == 1
        rig.camera_info(distortion_model='Kannala_Brandt4', d=[0.0] * 5)
        rig.frame(10_300)
        rig.cloud(10_300)
        assert rig.labels(node, 4)[0] == [0, 1, 2, 3, 255, 255]


@pytest.mark.parametrize(
    'parameter, text',
    [
        ('extrinsics:=[1.0,2.0]', 'expected x y z qx qy qz qw, got 2 numbers'),
        ('extrinsics:=[0.0,0.0,0.0,0.0,0.0,0.0,0.0]', 'unit quaternion'),
        ('max_wait_s:=-1.0', 'max_wait_s'),
        ('confidence_field:=label', 'expected two names'),
        (
            'max_wait_s:=1',
            'label_points: max_wait_s: expected a number with a point, as 1.0, got 1',
        ),
        (
            'qos_overrides./label_points/input/points.subscription.reliability:=sometimes',
            'sometimes',
        ),
    ],
)
def test_what_is_wrong_at_the_start_is_said_and_ends_the_node(
    parameter: str, text: str, tmp_path: Path
) -> None:
    with start(tmp_path, IDENTITY, parameter) as node:
        assert node.process.wait(60) == 1
        assert text in node.log() and 'Traceback' not in node.log()


def test_without_extrinsics_and_tf2_the_node_says_what_it_needs(tmp_path: Path) -> None:
    try:
        import tf2_ros  # noqa: F401
    except ImportError:
        pass
    else:
        pytest.skip('tf2_ros is installed')
    with start(tmp_path) as node:
        assert node.process.wait(60) == 1
        assert 'state the parameter extrinsics, or install ros-jazzy-tf2-ros-py' in node.log()


TF2 = """
class TransformException(Exception):
    pass


class Buffer:
    def __init__(self):
        self.asked = 0

    def lookup_transform(self, target_frame, source_frame, time):
        from geometry_msgs.msg import TransformStamped

        assert (target_frame, source_frame) == ('camera', 'lidar'), (target_frame, source_frame)
        assert time.nanoseconds == 10_000_000_000
        self.asked += 1
        if self.asked < 20:
            raise TransformException('extrapolation into the future')
        result = TransformStamped()
        result.transform.rotation.z, result.transform.rotation.w = 1.0, 0.0
        return result


class TransformListener:
    def __init__(self, buffer, node):
        pass
"""


def test_a_transform_of_tf2_is_waited_for(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a stand-in with the calls of tf2_ros, for which there is no wheel
    (tmp_path / 'tf2_ros.py').write_text(TF2)
    monkeypatch.setenv('PYTHONPATH', str(tmp_path), prepend=':')
    with start(tmp_path, 'max_wait_s:=5.0') as node:
        rig.connect(node)
        rig.camera_info()
        rig.frame(10_000)
        rig.cloud(10_000)
        ids, _ = rig.labels(node)
        assert ids == [3, 2, 1, 0, 255, 255]  # half a turn about the optical axis
        assert 'WARN' not in node.log()


def test_a_static_transform_of_tf2_is_found(rig: Rig, tmp_path: Path) -> None:
    reason = 'tf2_ros comes with an installed ROS 2, there is no wheel'
    tf2_ros = pytest.importorskip('tf2_ros', reason=reason)
    from geometry_msgs.msg import TransformStamped

    with start(tmp_path, 'max_wait_s:=5.0') as node:
        rig.connect(node)
        transform = TransformStamped(child_frame_id='lidar')
        transform.header.frame_id = 'camera'
        transform.transform.rotation.z, transform.transform.rotation.w = 1.0, 0.0
        tf2_ros.StaticTransformBroadcaster(rig.node).sendTransform(transform)
        rig.camera_info()
        rig.frame(10_000)
        rig.cloud(10_000)
        assert rig.labels(node)[0] == [3, 2, 1, 0, 255, 255]


def test_quality_of_service_can_be_overridden(rig: Rig, tmp_path: Path) -> None:
    def reliability(topic: str) -> set[str]:
        ends = rig.node.get_subscriptions_info_by_topic(topic)
        return {e.qos_profile.reliability.name for e in ends if e.node_name == 'label_points'}

    name = 'qos_overrides./label_points/input/points.subscription.reliability'
    with start(tmp_path, IDENTITY, f'{name}:=reliable') as node:
        rig.wait_for(node, lambda: reliability('/label_points/input/points'))
        assert reliability('/label_points/input/points') == {'RELIABLE'}
        rig.wait_for(node, lambda: reliability('/label_points/input/mask'))
        assert reliability('/label_points/input/mask') == {'BEST_EFFORT'}


def test_parameter_file_and_document_state_the_defaults() -> None:
    defaults = dataclasses.asdict(LabelPointsParameters())
    defaults['extrinsics'] = list(defaults['extrinsics'])
    document = yaml.safe_load((ROOT / 'config' / 'label_points.param.yaml').read_text())
    assert document['/**']['ros__parameters'] == defaults
    text = (ROOT / 'docs' / 'label_points.md').read_text()
    rows = re.findall(r'^\| `(\w+)` \| `([^`]+)` \|', text, re.MULTILINE)
    assert {name: yaml.safe_load(value) for name, value in rows} == defaults


def test_parameter_files_are_taken_as_they_are_and_as_launch_writes_them(
    rig: Rig, tmp_path: Path
) -> None:
    given = tmp_path / 'given.yaml'
    numbers = ''.join(f'    - {float(value)}\n' for value in (0, 0, 0, 0, 0, 0, 1))
    given.write_text(f'/**:\n  ros__parameters:\n    extrinsics: !!python/tuple\n{numbers}')
    command = [*NODE, '--ros-args']
    for file in (ROOT / 'config' / 'label_points.param.yaml', given):
        command += ['--params-file', str(file)]
    with NodeProcess(tmp_path, command=command) as node:
        rig.connect(node)
        assert node.stop() == 0
