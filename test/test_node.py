# SPDX-License-Identifier: Apache-2.0
"""The node in its own process, over real DDS: the contract that integrators rely on."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from builtin_interfaces.msg import Duration, Time
from graph import BEST_EFFORT, NODE, Client, NodeProcess
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from networks import equilibrium_network, random_network
from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from adpc_ros.labels import CAMVID
from adpc_ros.learning.people import JOINTS
from adpc_ros.msg import SegmentationStatus, Urgency
from adpc_ros.network import checkpoint
from adpc_ros.network.adaptivity import Adaptivity, Criterion
from adpc_ros.network.families import NetworkConfig, build_network
from adpc_ros.network.worth import Worth

SLOW = (320, 416)  # long enough to be preempted by a network that is not tiny


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp('node')


@pytest.fixture(scope='module')
def weights(folder: Path) -> Path:
    """Tiny random weights; an image takes a few milliseconds."""
    path = folder / 'tiny.safetensors'
    network = random_network(0, adaptivity=Adaptivity(thresholds=(0.6,) * 3))
    checkpoint.save(path, network, CAMVID, {'licence': 'none'})
    return path


@pytest.fixture(scope='module')
def equilibrium_weights(folder: Path) -> Path:
    """The same of a network that no program describes."""
    (folder / 'mdeq').mkdir()
    path = folder / 'mdeq' / 'tiny.safetensors'
    checkpoint.save(path, equilibrium_network(), CAMVID, {'licence': 'none'})
    return path


@pytest.fixture(scope='module')
def sampled_weights(folder: Path) -> Path:
    """The same of one whose masks are predicted from features."""
    (folder / 'sampled').mkdir()
    path = folder / 'sampled' / 'tiny.safetensors'
    masks = Adaptivity(Criterion.PREDICTED)
    network = random_network(adaptivity=masks, architecture='hrnet_tiny_sampled')
    checkpoint.save(path, network, CAMVID, {'licence': 'none'})
    return path


@pytest.fixture(scope='module')
def slow_weights(folder: Path) -> Path:
    """Random weights of a real size; an image takes some hundred milliseconds."""
    path = folder / 'slow.safetensors'
    torch.manual_seed(0)
    checkpoint.save(path, build_network(NetworkConfig('hrnet_w18', class_count=11)), CAMVID, {})
    return path


@pytest.fixture
def client() -> Iterator[Client]:
    client = Client()
    yield client
    client.close()


def seconds(duration: Duration) -> float:
    return duration.sec + duration.nanosec / 1e9


def settle(client: Client, received: int) -> SegmentationStatus:
    """Wait until the last of the frames has its result, and check the books."""
    client.wait(
        lambda: (
            client.statuses
            and client.statuses[-1].frames_received == received
            and client.statuses[-1].frames_segmented + client.statuses[-1].frames_dropped
            == received
        )
    )
    client.wait(lambda: len(client.masks) == len(client.statuses))
    return client.statuses[-1]


@pytest.mark.parametrize('network', ['weights', 'sampled_weights', 'equilibrium_weights'])
def test_every_frame_yields_mask_confidence_and_status_with_its_header(
    client: Client, folder: Path, network: str, request: pytest.FixtureRequest
) -> None:
    weights = request.getfixturevalue(network)
    with NodeProcess(folder, f'weights:={weights}') as node:
        client.connect(node)
        sent = []
        sizes = [(96, 128), (96, 128), (50, 70), (97, 33), (96, 128)]  # changes in mid-stream
        for i, (size, encoding) in enumerate(
            zip(sizes, ['rgb8', 'bgr8', 'rgba8', 'mono8', 'bgra8'])
        ):
            sent.append(client.image(size, encoding))
            client.wait(lambda i=i: len(client.statuses) == i + 1)
        client.wait(lambda: len(client.order) == 15)
        outputs = zip(sent, client.masks, client.confidences, client.statuses)
        for image, mask, confidence, status in outputs:
            for output in (mask, confidence):
                assert output.header == image.header
                assert (output.height, output.width) == (image.height, image.width)
                assert (output.encoding, output.step) == ('mono8', image.width)
                assert len(output.data) == image.height * image.width
            assert max(mask.data) < CAMVID.count
            assert len(set(confidence.data)) > 1
            assert status.header == image.header
            assert status.stop_reason == SegmentationStatus.FINISHED
            assert (status.exit_index, status.exit_count) == (4, 4)
            assert 0 < status.mean_confidence <= 1 and 0 <= status.confident_share <= 1
            assert status.gimac > 0
            assert seconds(status.latency) > seconds(status.compute_time) > 0
            assert status.network.startswith('tiny@')
        last = client.statuses[-1]
        assert (last.frames_received, last.frames_segmented, last.frames_dropped) == (5, 5, 0)
        assert 'none' in node.log(), 'the licence of the weights is logged'


def test_a_camera_faster_than_the_last_exit_preempts(
    client: Client, slow_weights: Path, folder: Path
) -> None:
    with NodeProcess(folder, f'weights:={slow_weights}') as node:
        client.connect(node)
        for _ in range(30):
            client.image(SLOW)
            client.spin(0.1)
        last = settle(client, 30)
        reasons = [s.stop_reason for s in client.statuses]
        assert reasons.count(SegmentationStatus.NEXT_FRAME) >= 3
        assert last.frames_segmented == len(client.statuses) == len(client.masks)
        stamps = [(s.header.stamp.sec, s.header.stamp.nanosec) for s in client.statuses]
        assert stamps == sorted(set(stamps)), 'in frame order, one for each'
        assert [m.header for m in client.masks] == [s.header for s in client.statuses]
        preempted = [s for s in client.statuses if s.stop_reason == SegmentationStatus.NEXT_FRAME]
        assert all(1 <= s.exit_index < 4 for s in preempted)
        assert all(s.preempt_time.sec == 0 and s.preempt_time.nanosec > 0 for s in preempted)


def test_a_camera_faster_than_the_first_exit_still_gets_masks(
    client: Client, slow_weights: Path, folder: Path
) -> None:
    with NodeProcess(folder, f'weights:={slow_weights}') as node:
        client.connect(node)
        for _ in range(150):
            client.image(SLOW)
            client.spin(0.01)
        last = settle(client, 150)
        assert last.frames_segmented >= 5
        assert last.frames_dropped >= 20
        assert all(s.exit_index >= 1 for s in client.statuses)


def test_critical_urgency_preempts_once_and_then_limits(
    client: Client, slow_weights: Path, folder: Path
) -> None:
    with NodeProcess(folder, f'weights:={slow_weights}') as node:
        exits: list[SegmentationStatus] = []
        client.node.create_subscription(
            SegmentationStatus, '/adpc/progress/status', exits.append, BEST_EFFORT
        )
        client.connect(node)
        client.image(SLOW)
        client.wait(lambda: len(client.statuses) == 1 and exits)
        sent = client.image(SLOW)
        client.wait(lambda: exits[-1].header.stamp == sent.header.stamp)
        stamp = client.urgency(Urgency.CRITICAL)
        client.wait(lambda: len(client.statuses) == 2)
        urgent = client.statuses[1]
        assert urgent.stop_reason == SegmentationStatus.URGENT
        assert urgent.urgency == Urgency.CRITICAL
        assert urgent.urgency_stamp == stamp
        assert 1 <= urgent.exit_index < 4
        client.urgency(Urgency.CRITICAL)  # a heartbeat
        for count in (3, 4):
            client.image(SLOW)
            client.wait(lambda count=count: len(client.statuses) == count)
            limited = client.statuses[-1]
            assert limited.stop_reason == SegmentationStatus.EXIT_LIMIT
            assert limited.exit_index == 1
            assert limited.urgency_stamp.sec == 0
        client.urgency(Urgency.ROUTINE)
        client.spin(0.2)
        client.image(SLOW)
        client.wait(lambda: len(client.statuses) == 5)
        assert client.statuses[-1].stop_reason == SegmentationStatus.FINISHED


def test_elevated_urgency_sets_a_deadline_that_is_kept(
    client: Client, slow_weights: Path, folder: Path
) -> None:
    with NodeProcess(folder, f'weights:={slow_weights}') as node:
        client.connect(node)
        for count in (1, 2):
            client.image(SLOW)
            client.wait(lambda count=count: len(client.statuses) == count)
        whole_s = seconds(client.statuses[-1].compute_time)
        client.urgency(Urgency.ELEVATED, deadline_s=0.6 * whole_s)
        client.spin(0.2)
        client.image(SLOW)
        client.wait(lambda: len(client.statuses) == 3)
        assert client.statuses[-1].stop_reason == SegmentationStatus.DEADLINE
        assert 1 <= client.statuses[-1].exit_index < 4
        client.urgency(Urgency.ELEVATED, deadline_s=1e-6)
        client.spin(0.2)
        client.image(SLOW)
        client.wait(lambda: len(client.statuses) == 4)
        assert client.statuses[-1].deadline_missed
        assert client.statuses[-1].exit_index == 1


def test_no_frame_is_cut_to_an_exit_that_sees_no_people_unless_that_is_asked_for(
    client: Client, folder: Path
) -> None:
    path = folder / 'coarse.safetensors'
    worth = Worth('some images', ((0.05,) * 11, (0.5,) * 11, (0.6,) * 11))
    checkpoint.save(path, random_network(architecture='coarse_tiny'), CAMVID, {}, worth)
    with NodeProcess(folder, f'weights:={path}') as node:
        client.connect(node)
        client.urgency(Urgency.CRITICAL)
        client.spin(0.2)
        client.image()
        client.wait(lambda: len(client.statuses) == 1)
        assert 'exit 1: IoU, %: mean 5.0, pedestrian 5.0, bicyclist 5.0' in node.log()
        assert 'advised: exit 2 and later (judged on some images)' in node.log()
        assert 'lets out masks' not in node.log()
        for count in (2, 3):
            assert client.set_parameters(urgent_max_exit=1, max_exit=9 + count).successful
            client.image()
            client.wait(lambda count=count: len(client.statuses) == count)
        limited = SegmentationStatus.EXIT_LIMIT
        ends = [(s.exit_index, s.exit_count, s.stop_reason) for s in client.statuses]
        assert ends == [(2, 3, limited), (1, 3, limited), (1, 3, limited)]
        assert node.log().count('urgent_max_exit: 1 lets out masks of exit 1') == 1
        assert node.log().count('max_exit: 11 is taken as the last exit, 3') == 1
        client.urgency(Urgency.ELEVATED, deadline_s=1e-6)
        client.spin(0.2)
        client.image()
        client.wait(lambda: len(client.statuses) == 4)
        late = client.statuses[-1]
        assert (late.exit_index, late.stop_reason) == (2, SegmentationStatus.DEADLINE)


def test_garbage_is_dropped_counted_and_warned_of_once(
    client: Client, weights: Path, folder: Path
) -> None:
    with NodeProcess(folder, f'weights:={weights}') as node:
        client.connect(node)
        garbage = (
            {'encoding': 'abacus'},
            {'encoding': ''},
            {'height': 0},
            {'width': 0},
            {'step': 7},
            {'data': b'\0' * 100},
            {'data': b''},
        )
        for fields in garbage * 2:
            client.image(**fields)
            client.spin(0.02)
        client.urgency(77)
        client.image(header=Header(stamp=Time(sec=-1)))
        client.wait(lambda: len(client.statuses) == 1)
        client.urgency(Urgency.CRITICAL, deadline_s=-3.0)  # its level counts all the same
        client.spin(0.2)
        client.image()
        last = settle(client, 16)
        assert (last.frames_segmented, last.frames_dropped) == (2, 14)
        first = client.statuses[0]
        assert first.stop_reason == SegmentationStatus.FINISHED, 'no level that does not exist'
        assert first.header.stamp.sec == -1
        assert last.stop_reason == SegmentationStatus.EXIT_LIMIT
        log = node.log()
        assert (
            log.count("encoding 'abacus' needs the package cv_bridge")
            + log.count("cannot turn 'abacus' into rgb8")
            == 1
        )
        assert log.count('expected an image with pixels') == 1
        assert log.count('expected step >= 384') == 1
        assert log.count('expected 36864 bytes (96 rows of step 384)') == 1
        assert log.count('expected level 0 ROUTINE, 1 ELEVATED, 2 CRITICAL, got 77') == 1
        assert log.count('expected deadline and hold >= 0') == 1
        assert 'Traceback' not in log
        assert node.stop() == 0


FAILS_ONCE = """
import sys
from adpc_ros.ros import node
make_plan, calls = node.make_plan, []
def broken_plan(*arguments, **options):
    plan = make_plan(*arguments, **options)
    segment = plan.segment
    def broken(*arguments):
        calls.append(1)
        for computed in segment(*arguments):
            if len(calls) == 3:  # the first is the warm-up
                raise RuntimeError('out of everything')
            yield computed
    plan.segment = broken
    return plan
node.make_plan = broken_plan
sys.exit(node.main())
"""


def test_a_worker_failure_gives_a_status_and_the_next_frame_goes_on(
    client: Client, weights: Path, folder: Path
) -> None:
    command = [sys.executable, '-c', FAILS_ONCE]
    with NodeProcess(folder, f'weights:={weights}', command=command) as node:
        client.connect(node)
        for count in (1, 2, 3):
            sent = client.image()
            client.wait(lambda count=count: len(client.statuses) == count)
            if count == 2:
                failed, header = client.statuses[-1], sent.header
        client.spin(0.2)
        assert failed.stop_reason == SegmentationStatus.FAILED
        assert (failed.header, failed.exit_index) == (header, 0)
        assert len(client.masks) == len(client.confidences) == 2
        last = client.statuses[-1]
        assert (last.frames_segmented, last.frames_dropped) == (2, 1)
        assert 'out of everything' in node.log()


@pytest.mark.parametrize(
    'error', ['torch.AcceleratorError("broken")', 'RuntimeError("CUDA error: broken")']
)
def test_a_lost_device_ends_the_node_with_a_status(
    error: str, client: Client, weights: Path, folder: Path
) -> None:
    fails = FAILS_ONCE.replace("RuntimeError('out of everything')", error)
    command = [sys.executable, '-c', f'import torch{fails}']
    with NodeProcess(folder, f'weights:={weights}', command=command) as node:
        client.connect(node)
        for count in (1, 2):
            client.image()
            client.wait(lambda count=count: len(client.statuses) == count)
        assert client.statuses[-1].stop_reason == SegmentationStatus.FAILED
        assert node.process.wait(20) == 1
        assert 'the device is lost, so this process ends: ' in node.log()


def test_stamps_that_go_backwards_or_come_from_another_clock_are_processed(
    client: Client, weights: Path, folder: Path
) -> None:
    with NodeProcess(folder, f'weights:={weights}') as node:
        client.connect(node)
        for i, second in enumerate((100, 101, 100, 0)):
            image = Image().header
            image.stamp.sec = second
            client.image(header=image)
            client.wait(lambda i=i: len(client.statuses) == i + 1)
        assert [s.header.stamp.sec for s in client.statuses] == [100, 101, 100, 0]
        assert node.log().count('is use_sim_time missing?') == 1


@pytest.mark.parametrize('with_signal', [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_node_cleanly_in_mid_frame(
    client: Client, slow_weights: Path, folder: Path, with_signal: int
) -> None:
    with NodeProcess(folder, f'weights:={slow_weights}') as node:
        client.connect(node)
        client.image(SLOW)
        client.spin(0.1)
        started_s = time.monotonic()
        assert node.stop(with_signal) == 0
        assert time.monotonic() - started_s < 5
        assert 'Traceback' not in node.log()


@pytest.mark.parametrize(
    'fault, message',
    [
        ('missing', 'weights not found'),
        ('corrupt', 'expected a safetensors file'),
        ('pose', 'expected a network for segmentation, got pose_hrnet_tiny'),
        ('device', 'CUDA is not available'),
        ('device', 'device cuda: CUDA has not been run'),
        ('xpu', "adpc_ros: device: expected cpu, cuda or cuda:N, got 'abacus'\n"),
        ('exits', 'expected min_exit <= max_exit'),
        ('precision', "expected one of float32, bfloat16, got 'half'"),
        ('type', "adpc_ros: max_exit: expected an integer, got 'two'\n"),
        ('file', 'adpc_ros: nope.yaml: No such file or directory\n'),
    ],
)
def test_what_is_wrong_at_the_start_is_said_and_ends_the_node(
    weights: Path, folder: Path, fault: str, message: str
) -> None:
    if fault == 'device' and torch.cuda.is_available():
        pytest.skip('there is a CUDA device')
    path = weights
    if fault == 'missing':
        path = folder / 'nowhere.safetensors'
    elif fault == 'corrupt':
        path = folder / 'corrupt.safetensors'
        path.write_bytes(weights.read_bytes()[:1000])
    elif fault == 'pose':
        path = folder / 'pose.safetensors'
        network = random_network(class_count=16, architecture='pose_hrnet_tiny')
        checkpoint.save(path, network, JOINTS, {})
    extra = {
        'device': ['device:=cuda'],
        'xpu': ['device:=abacus'],
        'exits': ['min_exit:=3', 'max_exit:=2'],
        'precision': ['precision:=half'],
        'type': ['max_exit:=two'],
    }.get(fault, [])
    command = [*NODE, '--ros-args', '--params-file', 'nope.yaml'] if fault == 'file' else NODE
    with NodeProcess(folder, f'weights:={path}', *extra, command=command) as node:
        assert node.process.wait(60) == 1
        assert message in node.log()
        assert '\n' not in message or node.log() == message, 'one line'
        assert 'Traceback' not in node.log()


def test_the_node_is_managed(client: Client, weights: Path, folder: Path) -> None:
    with NodeProcess(folder, f'weights:={weights}', 'autostart:=false') as node:
        get = client.node.create_client(GetState, '/adpc/get_state')
        change = client.node.create_client(ChangeState, '/adpc/change_state')
        set_ = client.node.create_client(SetParameters, '/adpc/set_parameters')
        call = client.ask

        def transition(transition_id: int) -> int:
            request = ChangeState.Request(transition=Transition(id=transition_id))
            assert call(change, request).success
            return call(get, GetState.Request()).current_state.id

        def set_parameter(name: str, value: object):
            parameter = Parameter(name, value=value).to_parameter_msg()
            assert parameter.value.type != ParameterType.PARAMETER_NOT_SET
            return call(set_, SetParameters.Request(parameters=[parameter])).results[0]

        assert call(get, GetState.Request()).current_state.id == State.PRIMARY_STATE_UNCONFIGURED
        assert set_parameter('max_exit', 3).successful
        assert not set_parameter('max_exit', 256).successful
        for cycle in (1, 2):
            assert transition(Transition.TRANSITION_CONFIGURE) == State.PRIMARY_STATE_INACTIVE
            refused = set_parameter('threads', 2)
            assert not refused.successful and 'clean up first' in refused.reason
            assert transition(Transition.TRANSITION_ACTIVATE) == State.PRIMARY_STATE_ACTIVE
            client.connect(node)
            client.image()
            client.wait(lambda cycle=cycle: len(client.statuses) == cycle)
            assert client.statuses[-1].stop_reason == SegmentationStatus.EXIT_LIMIT
            assert client.statuses[-1].exit_index == 3
            client.urgency(Urgency.CRITICAL)
            client.spin(0.2)
            assert transition(Transition.TRANSITION_DEACTIVATE) == State.PRIMARY_STATE_INACTIVE
            client.image()
            client.spin(0.2)
            assert len(client.statuses) == cycle
            assert transition(Transition.TRANSITION_CLEANUP) == State.PRIMARY_STATE_UNCONFIGURED
        assert node.stop() == 0
        assert 'Traceback' not in node.log()


def test_deactivation_under_load_loses_no_result(
    client: Client, weights: Path, folder: Path
) -> None:
    with NodeProcess(folder, f'weights:={weights}') as node:
        client.connect(node)
        change = client.node.create_client(ChangeState, '/adpc/change_state')
        client.wait(change.service_is_ready, 60)
        for _ in range(15):
            for transition_id in (
                Transition.TRANSITION_DEACTIVATE,
                Transition.TRANSITION_ACTIVATE,
            ):
                for _ in range(4):
                    client.image((32, 64))
                    client.spin(0.006)
                request = ChangeState.Request(transition=Transition(id=transition_id))
                future = change.call_async(request)
                client.wait(future.done)
        client.connect(node)
        client.image()
        last = client.statuses[-1] if client.statuses else None
        client.wait(lambda: client.statuses[-1:] != [last] and client.statuses[-1].exit_index == 4)
        client.spin(0.3)
        last = client.statuses[-1]
        assert last.frames_segmented == len(client.statuses) == len(client.masks)
        assert last.frames_received == last.frames_segmented + last.frames_dropped
        assert 'Traceback' not in node.log()


def test_services_answer_while_the_processor_is_saturated(
    client: Client, slow_weights: Path, folder: Path
) -> None:
    with NodeProcess(folder, f'weights:={slow_weights}', 'threads:=0') as node:
        client.connect(node)
        state = client.node.create_client(GetState, '/adpc/get_state')
        set_ = client.node.create_client(SetParameters, '/adpc/set_parameters')
        client.wait(lambda: state.service_is_ready() and set_.service_is_ready(), 60)
        took_s: dict[str, list[float]] = {'state': [], 'parameters': []}
        frames = 0
        for count in range(40):
            for _ in range(2):
                frames += 1
                client.image(SLOW)
                client.spin(0.03)
            asked_s = time.monotonic()
            future = state.call_async(GetState.Request())
            client.wait(future.done)
            took_s['state'].append(time.monotonic() - asked_s)
            change = Parameter('max_exit', value=2 + count % 3).to_parameter_msg()
            asked_s = time.monotonic()
            future = set_.call_async(SetParameters.Request(parameters=[change]))
            client.wait(future.done)
            took_s['parameters'].append(time.monotonic() - asked_s)
            assert future.result().results[0].successful
        last = settle(client, frames)
        cut = sum(s.stop_reason == SegmentationStatus.NEXT_FRAME for s in client.statuses)
        assert last.frames_dropped + cut > frames // 4, 'there was mostly something to compute'
        for name, times_s in took_s.items():
            assert sorted(times_s)[len(times_s) * 9 // 10] < 0.05, name


def test_progress_shows_every_exit_while_somebody_listens(
    client: Client, weights: Path, folder: Path
) -> None:
    with NodeProcess(folder, f'weights:={weights}') as node:
        client.connect(node)
        shown: dict[str, list[Any]] = {'mask': [], 'confidence': [], 'status': []}
        for topic, into in shown.items():
            kind = SegmentationStatus if topic == 'status' else Image
            client.node.create_subscription(
                kind, f'/adpc/progress/{topic}', into.append, BEST_EFFORT
            )
        client.spin(0.5)
        sent = client.image()
        client.wait(lambda: all(len(images) == 4 for images in shown.values()))
        assert all(i.header == sent.header for images in shown.values() for i in images)
        client.wait(lambda: len(client.masks) == 1)
        assert shown['mask'][-1].data == client.masks[0].data
        assert shown['mask'][0].data != shown['mask'][-1].data
        reasons = {status.stop_reason for status in shown['status']}
        assert reasons == {SegmentationStatus.RUNNING}
        assert [status.exit_index for status in shown['status']] == [1, 2, 3, 4]
        spent = [status.gimac for status in shown['status']]
        assert spent == sorted(spent) and spent[-1] == client.statuses[0].gimac


def test_an_urgency_level_ends_with_its_hold_and_old_frames_are_dropped(
    client: Client, weights: Path, folder: Path
) -> None:
    with NodeProcess(folder, f'weights:={weights}', 'max_age_s:=0.5') as node:
        client.connect(node)
        client.urgency(Urgency.CRITICAL, hold_s=0.4)
        client.spin(0.1)
        client.image()
        client.wait(lambda: len(client.statuses) == 1)
        client.spin(0.5)
        client.image(header=Header(stamp=Time(sec=1)))  # half a century old
        client.image()
        client.wait(lambda: len(client.statuses) == 2)
        reasons = [status.stop_reason for status in client.statuses]
        assert reasons == [SegmentationStatus.EXIT_LIMIT, SegmentationStatus.FINISHED]
        assert client.statuses[-1].frames_dropped == 1
