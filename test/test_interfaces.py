# SPDX-License-Identifier: Apache-2.0
"""
Every input, output and live parameter of the node, over real DDS.

Two nodes run side by side: /front/adpc as it comes, /rear/adpc with everything else (compressed
images, Bool urgency, other qualities of service, simulated time).
"""

from __future__ import annotations

import io
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from graph import BEST_EFFORT, NODE, Client, NodeProcess
from networks import random_network
from PIL import Image as Pillow
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import (
    DescribeParameters,
    GetParameters,
    ListParameters,
    SetParameters,
)
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from shared import ROOT
from std_msgs.msg import Bool

from adpc_ros.labels import CAMVID
from adpc_ros.msg import SegmentationStatus, Urgency
from adpc_ros.network import checkpoint
from adpc_ros.network.adaptivity import Adaptivity
from adpc_ros.pictures import overlay

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
QOS = 'qos_overrides./rear/adpc/'
TOPIC = 'qos_overrides./front/adpc/output/mask.publisher'
DEFAULTS = {
    'min_exit': 0,
    'max_exit': 0,
    'confidence_encoding': 'mono8',
    'output_scale': 1,
    'adaptive': True,
}


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny random weights lie in it; an image takes a few milliseconds."""
    folder = tmp_path_factory.mktemp('interfaces')
    network = random_network(0, adaptivity=Adaptivity(thresholds=(0.6,) * 3))
    checkpoint.save(folder / 'tiny.safetensors', network, CAMVID, {})
    return folder


def in_namespace(name: str) -> list[str]:
    return [*NODE, '--ros-args', '-r', f'__ns:=/{name}']


@pytest.fixture(scope='module')
def nodes(folder: Path) -> Iterator[tuple[NodeProcess, NodeProcess]]:
    weights = f'weights:={folder / "tiny.safetensors"}'
    special = (
        'compressed_input:=true',
        'urgency_type:=bool',
        'use_sim_time:=true',
        'frame_memory_mib:=512',
        f'{QOS}input/image.subscription.reliability:=reliable',
        f'{QOS}output/mask.publisher.reliability:=best_effort',
        f'{QOS}output/mask.publisher.depth:=2',
    )
    elsewhere, misspelt = folder / 'elsewhere.yaml', folder / 'misspelt.yaml'
    elsewhere.write_text('/rear/adpc: {ros__parameters: {max_exit: 1}}')
    misspelt.write_text(
        f'/**/adpc: {{ros__parameters: {{deadlines_s: 0.1, {TOPIC}: {{depht: 1}}}}}}'
    )
    files = ('--params-file', str(elsewhere), '--params-file', str(misspelt))
    with (
        NodeProcess(folder, weights, command=[*in_namespace('front'), *files]) as front,
        NodeProcess(folder, weights, *special, command=in_namespace('rear')) as rear,
    ):
        yield front, rear


@pytest.fixture(scope='module')
def front_client(nodes: tuple[NodeProcess, NodeProcess]) -> Iterator[Client]:
    client = Client('front/adpc')
    client.connect(nodes[0])
    yield client
    client.close()


@pytest.fixture
def front(front_client: Client, nodes: tuple[NodeProcess, NodeProcess]) -> Client:
    """A client of the node as it comes; what it has received is forgotten for each test."""
    assert front_client.set_parameters(**DEFAULTS).successful
    forget(front_client)
    yield front_client
    assert nodes[0].process.poll() is None and 'Traceback' not in nodes[0].log()


class Rear(Client):
    """A client of the other node; it sends the time, too."""

    def __init__(self) -> None:
        super().__init__('rear/adpc', CompressedImage, Bool)
        reliable = QoSProfile(depth=5)
        self.node.destroy_publisher(self.camera.image)
        self.camera.image = self.node.create_publisher(
            CompressedImage, '/rear/adpc/input/image', reliable
        )
        self.loose_masks: list[Image] = []
        self.node.create_subscription(
            Image, '/rear/adpc/output/mask', self.loose_masks.append, BEST_EFFORT
        )
        self._clock = self.node.create_publisher(Clock, '/clock', 10)

    def tick(self, second: int) -> None:
        self._clock.publish(Clock(clock=Time(sec=second)))
        self.spin(0.1)


@pytest.fixture(scope='module')
def rear_client(nodes: tuple[NodeProcess, NodeProcess]) -> Iterator[Rear]:
    client = Rear()
    client.connect(nodes[1])
    yield client
    client.close()


@pytest.fixture
def rear(rear_client: Rear, nodes: tuple[NodeProcess, NodeProcess]) -> Rear:
    forget(rear_client)
    rear_client.loose_masks.clear()
    yield rear_client
    assert nodes[1].process.poll() is None and 'Traceback' not in nodes[1].log()


def forget(client: Client) -> None:
    for received in (client.masks, client.confidences, client.statuses, client.order):
        received.clear()


def segmented(client: Client, publish: Callable[[], Any], count: int = 1) -> Any:
    """Publish a frame, wait until all of its outputs are there, and give what was sent."""
    before = len(client.statuses)
    sent = publish()
    client.wait(
        lambda: (
            len(client.statuses) == len(client.masks) == len(client.confidences) == before + count
        )
    )
    return sent


def settled(client: Client, last: Image) -> SegmentationStatus:
    """Wait for all outputs of the last frame, when nothing is in flight any more."""
    client.wait(lambda: client.statuses and client.statuses[-1].header == last.header)
    client.wait(lambda: len(client.masks) == len(client.confidences) == len(client.statuses))
    return client.statuses[-1]


def pixels(image: Image) -> np.ndarray:
    kind = {'mono8': np.uint8, 'rgb8': np.uint8, '32FC1': np.float32}[image.encoding]
    return np.frombuffer(image.data, kind).reshape(image.height, image.width, -1).squeeze()


def subscribed(client: Client, kind: type, topic: str, qos: QoSProfile) -> list[Any]:
    """Give a list that fills, once the topic has found its other end."""
    received: list[Any] = []
    subscription = client.node.create_subscription(
        kind, f'/{client.of}/{topic}', received.append, qos
    )
    client.wait(lambda: client.node.count_publishers(subscription.topic_name))
    client.spin(0.5)
    return received


# Outputs


def test_scaled_outputs_are_every_nth_pixel_and_the_calibration_fits_them(front: Client) -> None:
    infos = subscribed(front, CameraInfo, 'output/camera_info', QoSProfile(depth=5))
    sent = segmented(front, lambda: front.image((97, 130)))
    front.spin(0.2)
    assert infos == [], 'none came in'
    camera = front.node.create_publisher(CameraInfo, '/front/adpc/input/camera_info', BEST_EFFORT)
    front.wait(camera.get_subscription_count)
    info = CameraInfo(height=97, width=130, d=[0.1] * 5)
    info.k[[0, 2, 4, 5, 8]] = 100.0, 64.0, 100.0, 48.0, 1.0
    for scale in (1, 2, 4):
        assert front.set_parameters(output_scale=scale).successful
        camera.publish(info)
        front.spin(0.2)
        segmented(front, lambda: front.send(sent))  # the same image again
        front.wait(lambda scale=scale: len(infos) == (1, 2, 4).index(scale) + 1)
        full_mask, full_confidence = pixels(front.masks[0]), pixels(front.confidences[0])
        np.testing.assert_array_equal(pixels(front.masks[-1]), full_mask[::scale, ::scale])
        np.testing.assert_array_equal(
            pixels(front.confidences[-1]), full_confidence[::scale, ::scale]
        )
        got = infos[-1]
        assert got.header == front.masks[-1].header == sent.header
        assert (got.height, got.width) == (front.masks[-1].height, front.masks[-1].width)
        assert (got.k[0], got.k[2], got.k[5]) == (100 / scale, 64 / scale, 48 / scale)
    assert len(infos) == 3
    segmented(front, lambda: front.image((64, 64)))  # not this camera's
    front.spin(0.2)
    assert len(infos) == 3
    front.node.destroy_publisher(camera)


def test_confidence_is_a_float_on_request(front: Client) -> None:
    sent = segmented(front, front.image)
    assert front.set_parameters(confidence_encoding='32FC1').successful
    segmented(front, lambda: front.send(sent))
    eight_bits, floats = front.confidences
    assert (floats.encoding, floats.step) == ('32FC1', 4 * floats.width)
    np.testing.assert_allclose(pixels(floats), pixels(eight_bits) / 255, atol=1e-6)
    assert front.masks[0].data == front.masks[1].data


def test_an_overlay_is_made_only_while_somebody_looks(front: Client) -> None:
    unseen = [segmented(front, front.image).header for _ in range(2)]
    segmented(front, front.image)  # that of the latest result may be made yet
    overlays = subscribed(front, Image, 'debug/overlay', BEST_EFFORT)
    sent = segmented(front, front.image)
    front.wait(lambda: sent.header in [shown.header for shown in overlays])
    assert not [shown for shown in overlays if shown.header in unseen]
    assert (overlays[-1].encoding, overlays[-1].header) == ('rgb8', sent.header)
    expected = overlay(pixels(sent), pixels(front.masks[-1]), CAMVID)
    np.testing.assert_array_equal(pixels(overlays[-1]), expected)


def test_class_names_are_in_a_parameter_that_cannot_be_set(front: Client) -> None:
    request = GetParameters.Request(names=['class_names'])
    (value,) = front.call(GetParameters, 'get_parameters', request).values
    assert tuple(value.string_array_value) == CAMVID.names
    refused = front.set_parameters(class_names=['cat', 'dog'])
    assert not refused.successful and 'cannot be set' in refused.reason


def test_who_comes_late_still_gets_the_class_names(front: Client) -> None:
    label_info = pytest.importorskip('vision_msgs.msg').LabelInfo
    segmented(front, front.image)
    received = subscribed(front, label_info, 'output/label_info', LATCHED)
    front.wait(lambda: received)
    assert [(c.class_id, c.class_name) for c in received[0].class_map] == list(
        enumerate(CAMVID.names)
    )
    assert received[0].threshold == pytest.approx(0.6)


def test_peers_of_either_reliability_get_every_mask_from_when_they_came(front: Client) -> None:
    segmented(front, front.image)
    loose = subscribed(front, Image, 'output/mask', BEST_EFFORT)
    firm = subscribed(front, Image, 'output/mask', QoSProfile(depth=5))
    for _ in range(3):
        segmented(front, front.image)
    front.wait(lambda: len(loose) == len(firm) == 3)
    assert [m.header for m in loose] == [m.header for m in firm]


# Parameters


def test_live_parameters_count_from_the_next_frame_on(front: Client) -> None:
    segmented(front, front.image)
    assert front.set_parameters(max_exit=2).successful
    segmented(front, front.image)
    assert front.set_parameters(max_exit=0, min_exit=3, adaptive=False).successful
    segmented(front, front.image)
    first, limited, dense = front.statuses
    assert (first.exit_index, first.stop_reason) == (4, SegmentationStatus.FINISHED)
    assert (limited.exit_index, limited.stop_reason) == (2, SegmentationStatus.EXIT_LIMIT)
    assert (dense.exit_index, dense.stop_reason) == (4, SegmentationStatus.FINISHED)
    assert dense.gimac > first.gimac


def test_what_was_given_and_is_not_taken_is_warned_of(
    front: Client, nodes: tuple[NodeProcess, NodeProcess], folder: Path
) -> None:
    log = nodes[0].log()
    for text in (
        'elsewhere.yaml has no parameters for /front/adpc, only for /rear/adpc',
        'deadlines_s: no parameter of this node; is deadline_s meant?',
        f'{TOPIC}.depht: no parameter of this node; is {TOPIC}.depth meant?',
    ):
        assert log.count(text) == 1
    assert 'no parameter of this node' not in nodes[1].log()


def test_a_dump_of_the_node_can_be_loaded(front: Client) -> None:
    listed = front.call(ListParameters, 'list_parameters', ListParameters.Request()).result.names
    request = GetParameters.Request(names=listed)
    values = front.call(GetParameters, 'get_parameters', request).values
    assert {'cores', 'class_names', 'use_sim_time', f'{TOPIC}.depth'} <= set(listed)
    dumped = [ParameterMessage(name=name, value=value) for name, value in zip(listed, values)]
    for message in dumped:  # what YAML makes of an empty array
        if message.name == 'cores':
            message.value.type = ParameterType.PARAMETER_BOOL_ARRAY
    loaded = SetParameters.Request(parameters=dumped)
    results = front.call(SetParameters, 'set_parameters', loaded).results
    assert [result.reason for result in results if not result.successful] == []


def test_what_cannot_be_is_refused_as_a_whole_and_says_what_was_expected(front: Client) -> None:
    for values, reason in (
        ({'min_exit': 3, 'max_exit': 2}, 'expected min_exit <= max_exit, got 3, 2'),
        ({'output_scale': 3, 'max_exit': 1}, 'output_scale: expected one of 1, 2, 4, got 3'),
        ({'max_exit': 1, 'threads': 2}, 'threads: read when the node is configured'),
        ({'max_exit': 256}, 'max_exit'),
    ):
        refused = front.set_parameters(**values)
        assert not refused.successful and reason in refused.reason
    segmented(front, front.image)
    assert front.statuses[0].exit_index == 4, 'nothing of it was taken'
    names = ['max_exit', 'threads']
    request = DescribeParameters.Request(names=names)
    live, fixed = front.call(DescribeParameters, 'describe_parameters', request).descriptors
    assert 'live' in live.additional_constraints
    assert 'read when the node is configured' in fixed.additional_constraints


# A planner


def test_the_planner_of_the_readme_plans_and_ends_cleanly(front: Client, folder: Path) -> None:
    (code,) = re.findall('```python\n(.*?)```', (ROOT / 'README.md').read_text(), re.DOTALL)
    script = folder / 'planner.py'
    script.write_text(code)
    remapped = [
        word
        for topic in ('input/urgency', 'output/mask', 'output/confidence', 'output/status')
        for word in ('-r', f'/adpc/{topic}:=/front/adpc/{topic}')
    ]
    command = [sys.executable, str(script), '--ros-args', *remapped]
    with NodeProcess(folder, command=command) as planner:
        for _ in range(200):
            front.image()
            front.spin(0.2)
            if 'exit 4 of 4, 0.' in planner.log() or planner.process.poll() is not None:
                break
        assert 'exit 4 of 4, 0.' in planner.log()
        assert planner.stop() == 0
        assert 'Traceback' not in planner.log()


# Load


def test_a_flood_of_frames_is_counted_to_the_last(front: Client) -> None:
    start = segmented(front, front.image) and front.statuses[-1].frames_received
    for _ in range(200):
        front.image((32, 64))
        front.spin(0.005)
    front.spin(0.5)
    last = settled(front, front.image((32, 64)))
    assert last.frames_received == last.frames_segmented + last.frames_dropped
    # best effort: what the middleware itself lost was never received
    assert 100 <= last.frames_received - start <= 201
    stamps = [(s.header.stamp.sec, s.header.stamp.nanosec) for s in front.statuses]
    assert stamps == sorted(set(stamps))
    assert [m.header for m in front.masks] == [s.header for s in front.statuses]


def test_a_storm_of_urgency_leaves_one_result_for_each_frame(front: Client) -> None:
    for i in range(100):
        front.urgency((Urgency.CRITICAL, Urgency.ROUTINE, Urgency.ELEVATED)[i % 3], 0.5)
        if i % 4 == 0:
            front.image()
        front.spin(0.003)
    front.urgency(Urgency.ROUTINE)
    front.spin(0.5)
    last = settled(front, front.image())
    stamps = [(s.header.stamp.sec, s.header.stamp.nanosec) for s in front.statuses]
    assert len(stamps) == len(set(stamps)) == len(front.masks) == len(front.confidences)
    assert last.stop_reason == SegmentationStatus.FINISHED
    assert last.urgency == Urgency.ROUTINE
    assert last.frames_received == last.frames_segmented + last.frames_dropped


def test_a_camera_that_starts_again_is_heard(front: Client) -> None:
    segmented(front, front.image)
    front.node.destroy_publisher(front.camera.image)
    front.spin(0.2)
    front.camera.image = front.node.create_publisher(Image, '/front/adpc/input/image', BEST_EFFORT)
    front.wait(front.camera.image.get_subscription_count)
    front.spin(0.5)
    segmented(front, front.image)
    assert len(front.masks) == 2


# The other node


def test_nodes_in_two_namespaces_answer_only_their_own_frames(front: Client, rear: Rear) -> None:
    sent = segmented(front, front.image)
    rear.spin(0.3)
    assert rear.statuses == [] and front.statuses[0].header == sent.header
    rear_frame(rear, rear.compressed)
    front.spin(0.3)
    assert len(front.statuses) == 1


def rear_frame(rear: Rear, publish: Callable[[], Any]) -> Any:
    """Publish a frame, wait for its status and its best-effort mask, and give what was sent."""
    before = len(rear.statuses), len(rear.loose_masks)
    sent = publish()
    for heard, count in zip((rear.statuses, rear.loose_masks), before):
        rear.wait(
            lambda heard=heard, count=count: any(m.header == sent.header for m in heard[count:])
        )
    return sent


def test_compressed_images_are_segmented_and_broken_ones_counted(
    rear: Rear, nodes: tuple[NodeProcess, NodeProcess]
) -> None:
    for kind in ('JPEG', 'PNG'):
        sent = rear_frame(rear, lambda kind=kind: rear.compressed(kind))
        assert rear.loose_masks[-1].header == sent.header
        assert (rear.loose_masks[-1].height, rear.loose_masks[-1].width) == (96, 128)
    before = rear.statuses[-1]
    whole = rear.compressed('PNG')
    rear.wait(lambda: len(rear.statuses) == 3)
    huge = io.BytesIO()  # small as a file, gigabytes of features
    Pillow.new('L', (4096, 4096)).save(huge, 'PNG')
    broken = (b'', b'garbage' * 99, whole.data[: len(whole.data) // 2], huge.getvalue())
    for data in broken * 2:
        rear.send(CompressedImage(header=whole.header, format='png', data=data))
        rear.spin(0.1)
    rear_frame(rear, rear.compressed)
    last = rear.statuses[-1]
    assert last.frames_dropped - before.frames_dropped == 8
    assert last.frames_segmented - before.frames_segmented == 2
    log = nodes[1].log()
    assert log.count('expected JPEG or PNG') + log.count('broken PNG') == 1
    assert log.count('expected frames of at most 512 MiB (frame_memory_mib), one of 4096x40') == 1
    assert log.count('image dropped: ') == 2


def test_a_bool_is_an_urgency(rear: Rear) -> None:
    rear.tick(1000)
    rear.brake(True)
    rear.spin(0.2)
    rear_frame(rear, rear.compressed)
    limited = rear.statuses[-1]
    assert (limited.stop_reason, limited.exit_index) == (SegmentationStatus.EXIT_LIMIT, 1)
    assert limited.urgency == Urgency.CRITICAL
    rear.brake(False)
    rear.spin(0.2)
    rear_frame(rear, rear.compressed)
    assert rear.statuses[-1].stop_reason == SegmentationStatus.FINISHED


def test_a_quality_of_service_that_was_overridden_is_in_force(rear: Rear) -> None:
    (image,) = rear.node.get_subscriptions_info_by_topic('/rear/adpc/input/image')
    assert image.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    (mask,) = rear.node.get_publishers_info_by_topic('/rear/adpc/output/mask')
    assert mask.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
    (status,) = rear.node.get_publishers_info_by_topic('/rear/adpc/output/status')
    assert status.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    rear_frame(rear, rear.compressed)
    assert rear.masks == [], 'a reliable peer does not match a best-effort publisher'


def test_a_bag_that_loops_under_simulated_time_is_processed(
    rear: Rear, nodes: tuple[NodeProcess, NodeProcess]
) -> None:
    logged = len(nodes[1].log())

    def frame(second: int) -> SegmentationStatus:
        def publish() -> Any:
            image = CompressedImage(format='png', data=whole.data)
            image.header.stamp.sec = second
            return rear.send(image)

        rear_frame(rear, publish)
        return rear.statuses[-1]

    rear.tick(500)
    whole = rear_frame(rear, lambda: rear.compressed('PNG'))
    for second in (100, 101, 100, 101):
        rear.tick(second)
        status = frame(second)
        assert status.header.stamp.sec == second
        assert 0 <= status.latency.sec < 5, 'on the clock that the bag plays'
    paused = frame(101)  # the clock stands still
    assert 0 <= paused.latency.sec < 5
    assert frame(100).stop_reason == SegmentationStatus.FINISHED  # the clock is not back yet
    assert 'is use_sim_time missing' not in nodes[1].log()
    far = frame(5000)
    assert far.stop_reason == SegmentationStatus.FINISHED
    assert nodes[1].log()[logged:].count('/clock come from the same source') <= 1
    assert nodes[1].log().count('/clock come from the same source') == 1


def test_latency_is_on_the_clock_however_fast_it_runs(rear: Rear) -> None:
    buffer = io.BytesIO()
    Pillow.new('RGB', (2048, 1024)).save(buffer, 'PNG')
    started_s = time.monotonic()

    def now_s() -> float:
        return 2000 + 10 * (time.monotonic() - started_s)

    def run_until(condition: Callable[[], Any]) -> None:
        while not condition():
            assert time.monotonic() < started_s + 60
            rear._clock.publish(Clock(clock=stamp_of(now_s())))
            rear.spin(0.01)

    run_until(lambda: time.monotonic() > started_s + 0.5)
    sent = CompressedImage(format='png', data=buffer.getvalue())
    sent.header.stamp = stamp_of(now_s())
    rear.send(sent)
    run_until(lambda: len(rear.statuses) == len(rear.loose_masks) == 1)
    status = rear.statuses[0]
    latency_s, compute_s = seconds(status.latency), seconds(status.compute_time)
    assert compute_s > 0.02
    assert latency_s > 10 * compute_s - 0.3, 'the clock may be three messages behind'
    assert latency_s < now_s() - seconds(sent.header.stamp)


def stamp_of(at_s: float) -> Time:
    return Time(sec=int(at_s), nanosec=int(at_s % 1 * 1e9))


def seconds(message: Any) -> float:
    return message.sec + message.nanosec / 1e9
