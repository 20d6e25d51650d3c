#!/usr/bin/env python3
"""
The segmentation node: frames and urgency in, the latest exit's mask out.

Callbacks store or signal; the engine's worker computes and publishes. The one exception is
urgency: CRITICAL publishes what is there from its own callback.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable
from typing import Any

# PyTorch's threads that wait spin for some ten microseconds, long enough to find the next layer,
# then sleep, so that a message gets its core; read when torch is loaded.
os.environ.setdefault('GOMP_SPINCOUNT', '20000')

import rclpy
import torch
from builtin_interfaces.msg import Duration, Time
from rcl_interfaces.msg import SetParametersResult
from rclpy._rclpy_pybind11 import RCLError
from rclpy.exceptions import ParameterException
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, Publisher, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import Image

from adpc_ros.msg import SegmentationStatus, Urgency
from adpc_ros.network.checkpoint import load
from adpc_ros.ros import parameters
from adpc_ros.ros.conversions import InvalidImage, array_to_image, image_to_rgb
from adpc_ros.ros.packaged import FASTDDS_PROFILE, WEIGHTS, packaged
from adpc_ros.runtime.engine import Engine, Frame, RenderedExit, Result
from adpc_ros.runtime.plan import Plan, core_count, make_plan
from adpc_ros.runtime.scheduler import Level, Publish

FAR_OFF_S = 10.0  # a stamp this far from the clock was made by another clock


class SegmentationNode(LifecycleNode):
    """A managed node around the engine; topics and their meaning are in the README."""

    def __init__(self) -> None:
        """Declare parameters; everything else waits for ``configure``."""
        super().__init__('adpc')
        parameters.declare(self)
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self._engine: Engine | None = None
        self._plan: Plan | None = None
        self._identity, self._exit_count, self._max_age_s = '', 0, math.inf
        self._outputs: list[Publisher] = []
        self._inputs: list[Subscription] = []
        self._warned: set[str] = set()

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the weights, compile, warm up, advertise."""
        try:
            self._compile(parameters.read(self))
            self._advertise()
        except Exception as error:  # whatever it is, it must be said: rclpy would swallow it
            self.get_logger().error(f'cannot configure: {error or type(error).__name__}')
            self._free()
            return TransitionCallbackReturn.FAILURE
        if not os.environ.get('FASTRTPS_DEFAULT_PROFILES_FILE'):
            self.get_logger().warning(
                'FASTRTPS_DEFAULT_PROFILES_FILE is not set: Fast DDS loses most large images '
                f'between processes; use {FASTDDS_PROFILE} here and at the camera'
            )
        return TransitionCallbackReturn.SUCCESS

    def _compile(self, values: parameters.Parameters) -> None:
        device = torch.device(values.device)
        if device.type == 'cuda' and not torch.cuda.is_available():
            raise ValueError(f'device: {values.device} asked for, but CUDA is not available')
        checkpoint = load(values.weights or packaged(WEIGHTS))
        threads = values.threads or core_count()
        torch.set_num_threads(threads)
        dtype: torch.dtype = getattr(torch, values.precision)
        plan = self._plan = make_plan(checkpoint.network, device, dtype, threads)
        policy = values.policy(plan.exit_count)
        self._engine = Engine(plan, policy, self._publish, self._publish_progress, values.adaptive)
        self._engine.warm_up((values.warmup_height, values.warmup_width))
        self._identity, self._exit_count = checkpoint.identity, plan.exit_count
        self._max_age_s = policy.max_age_s
        licence = checkpoint.info.get('licence')
        self.get_logger().info(
            f'{checkpoint.identity}: {checkpoint.classes.name} classes, {plan.exit_count} exits, '
            f'{plan.description}, {threads} threads' + (f'; licence: {licence}' if licence else '')
        )

    def _advertise(self) -> None:
        reliable = QoSProfile(depth=5)
        best_effort = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)

        def advertise(kind: type, topic: str, qos: QoSProfile) -> Publisher:
            self._outputs.append(self.create_lifecycle_publisher(kind, topic, qos))
            return self._outputs[-1]

        self._mask = advertise(Image, '~/output/mask', reliable)
        self._confidence = advertise(Image, '~/output/confidence', reliable)
        self._status = advertise(SegmentationStatus, '~/output/status', QoSProfile(depth=10))
        self._progress_mask = advertise(Image, '~/progress/mask', best_effort)
        self._progress_confidence = advertise(Image, '~/progress/confidence', best_effort)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe."""
        result = super().on_activate(state)
        newest = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._inputs = [
            self.create_subscription(
                Urgency, '~/input/urgency', self._guarded(self._on_urgency), QoSProfile(depth=10)
            ),
            self.create_subscription(
                Image, '~/input/image', self._guarded(self._on_image), newest
            ),
        ]
        return result

    def _guarded(self, callback: Callable[[Any], None]) -> Callable[[Any], None]:
        """Keep whatever a message provokes from ending the node."""

        def guarded(message: Any) -> None:
            try:
                callback(message)
            except Exception as error:
                self._warn_once(f'{callback.__name__} {error}', f'message ignored: {error!r}')

        return guarded

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe, stop the worker and drop the frame."""
        self._unsubscribe()
        if self._engine is not None:
            self._engine.stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free network and memory."""
        self._free()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and free everything."""
        self._unsubscribe()
        self._free()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Go back to unconfigured."""
        self._unsubscribe()
        self._free()
        return TransitionCallbackReturn.SUCCESS

    def _unsubscribe(self) -> None:
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        self._inputs = []

    def _free(self) -> None:
        if self._engine is not None:
            self._engine.close()
        if self._plan is not None:
            self._plan.close()
        for publisher in self._outputs:
            self.destroy_lifecycle_publisher(publisher)
        self._engine = self._plan = None
        self._outputs = []

    def _on_set_parameters(self, changed: list[Parameter]) -> SetParametersResult:
        own = {p.name for p in changed} & parameters.NAMES
        if own and self._engine is not None:
            return SetParametersResult(
                successful=False,
                reason=f'{", ".join(sorted(own))}: read when the node is configured: '
                'deactivate and clean up first',
            )
        return SetParametersResult(successful=True)

    # Inputs

    def _on_image(self, message: Image) -> None:
        assert self._engine is not None
        try:
            image = image_to_rgb(message)
        except InvalidImage as error:
            self._engine.reject()
            self._warn_once(error.kind, f'image dropped: {error}')
            return
        stamp = message.header.stamp  # plain numbers: rclpy's Time takes no negative seconds
        now_ns: int = self.get_clock().now().nanoseconds
        age_s = (now_ns - stamp.sec * 10**9 - stamp.nanosec) / 1e9
        if abs(age_s) > FAR_OFF_S:
            self._warn_once(
                'stamp', f'image stamps are {age_s:.1f} s off the clock: is use_sim_time missing?'
            )
        elif age_s > self._max_age_s:
            self._warn_once(
                'age', f'image dropped: {age_s:.3f} s old, max_age_s is {self._max_age_s}'
            )
        self._engine.submit(image, message.header, age_s)

    def _on_urgency(self, message: Urgency) -> None:
        assert self._engine is not None
        try:
            level = Level(message.level)
        except ValueError:
            expected = ', '.join(f'{level.value} {level.name}' for level in Level)
            self._warn_once(
                f'level {message.level}',
                f'urgency ignored: expected level {expected}, got {message.level}',
            )
            return
        deadline_s, hold_s = _seconds(message.deadline), _seconds(message.hold)
        if deadline_s < 0 or hold_s < 0:  # the level counts all the same
            self._warn_once(
                'negative urgency',
                f'expected deadline and hold >= 0 s, got {deadline_s}, {hold_s}: taken as 0',
            )
            deadline_s, hold_s = max(deadline_s, 0.0), max(hold_s, 0.0)
        self._engine.urgency(level, deadline_s, hold_s, message.header.stamp)

    # Outputs

    def _publish(self, result: Result) -> None:
        """Publish mask, confidence and status of a frame; called in frame order."""
        header = result.frame.tag
        if result.exit is not None:
            self._mask.publish(array_to_image(result.exit.rendered.class_ids, header))
            self._confidence.publish(array_to_image(result.exit.rendered.confidence, header))
        elif result.error is not None:
            self.get_logger().error(f'frame failed: {result.error}')
        self._status.publish(self._status_of(result))

    def _publish_progress(self, frame: Frame, done: RenderedExit) -> None:
        """Publish an exit as it completes, to whoever has subscribed."""
        for publisher, values in (
            (self._progress_mask, done.rendered.class_ids),
            (self._progress_confidence, done.rendered.confidence),
        ):
            if _is_heard(publisher):
                publisher.publish(array_to_image(values, frame.tag))

    def _status_of(self, result: Result) -> SegmentationStatus:
        now_s = time.monotonic()
        status = SegmentationStatus()
        status.header = result.frame.tag
        status.exit_count = self._exit_count
        status.stop_reason = int(result.reason)
        status.urgency = int(result.level)
        decision, done = result.decision, result.exit
        if isinstance(decision, Publish):
            status.urgency_stamp = decision.urgency_stamp or Time()
            status.deadline_missed = now_s > decision.deadline_s
            if decision.event_s is not None:
                status.preempt_time = _duration(now_s - decision.event_s)
        if done is not None:
            status.exit_index = done.exit_index
            status.mean_confidence = done.mean_confidence
            status.confident_share = done.confident_share
            status.gimac = done.gimac
            status.compute_time = _duration(done.time_s - result.started_s)
        status.latency = _duration(now_s - result.frame.captured_s)
        status.frames_received = result.counters.received
        status.frames_segmented = result.counters.segmented
        status.frames_dropped = result.counters.dropped
        status.network = self._identity
        return status

    def _warn_once(self, kind: str, text: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            self.get_logger().warning(f'{text} (said once)')


def _is_heard(publisher: Publisher) -> bool:
    try:
        return bool(publisher.get_subscription_count())
    except RCLError:  # interrupted in mid-frame: publish itself bears that, this does not
        return False


def _seconds(duration: Duration) -> float:
    return float(duration.sec + duration.nanosec * 1e-9)


def _duration(seconds: float) -> Duration:
    nanoseconds = round(seconds * 1e9)
    return Duration(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)


def _executor() -> Executor:
    try:
        from rclpy.experimental.events_executor import EventsExecutor
    except ImportError:
        return SingleThreadedExecutor()
    executor: Executor = EventsExecutor()
    return executor


def main(args: list[str] | None = None) -> int:
    """Run the node until it is interrupted; returns the exit status."""
    rclpy.init(args=args)
    try:
        node = SegmentationNode()
    except ParameterException as error:
        print(f'adpc_ros: {error}', file=sys.stderr)
        return 1
    executor = _executor()
    executor.add_node(node)
    try:
        if node.get_parameter('autostart').value:
            for trigger in (node.trigger_configure, node.trigger_activate):
                if trigger() != TransitionCallbackReturn.SUCCESS:
                    return 1
        while rclpy.ok():
            executor.spin_once(timeout_sec=1.0)  # its spin() burns a core in some releases
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.on_shutdown(LifecycleState(state_id=0, label='unknown'))
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
