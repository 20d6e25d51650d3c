#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
The segmentation node: frames and urgency in, the latest exit's mask out.

Callbacks store or signal; the engine's threads compute and publish. The one exception is
urgency: CRITICAL publishes the latest exit from its own callback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial

from adpc_ros.ros.interrupts import Interrupts, end_at_once

if __name__ == '__main__':
    end_at_once()  # loading torch takes seconds

# PyTorch's threads that wait spin for some ten microseconds, long enough to find the next layer,
# then sleep, so that a message gets its core; read when torch is loaded.
os.environ.setdefault('GOMP_SPINCOUNT', '20000')

import rclpy
import torch
from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.executors import Executor, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter

from adpc_ros.network.anytime import AnytimeNetwork
from adpc_ros.network.checkpoint import load
from adpc_ros.ros import shared_memory
from adpc_ros.ros.allocator import give_freed_memory_back, keep_freed_memory
from adpc_ros.ros.diagnostics import Diagnostics
from adpc_ros.ros.inputs import Inputs, nanoseconds
from adpc_ros.ros.lifecycle import refuse_impossible_transitions
from adpc_ros.ros.node_parameters import ParameterNode
from adpc_ros.ros.outputs import Outputs
from adpc_ros.ros.packaged import WEIGHTS, packaged
from adpc_ros.ros.parameters import CLASS_NAMES, Parameters
from adpc_ros.ros.plans import watch_of
from adpc_ros.ros.publication import Network
from adpc_ros.ros.starting import parameter_files, run, spin
from adpc_ros.ros.warn_once import WarnOnce
from adpc_ros.runtime import cuda
from adpc_ros.runtime.cores import core_count, on_cores
from adpc_ros.runtime.engine import Engine
from adpc_ros.runtime.images import confident_threshold
from adpc_ros.runtime.ledger import Result
from adpc_ros.runtime.make_plan import make_plan
from adpc_ros.runtime.memory import Budget, budget_of
from adpc_ros.runtime.plan import Plan
from adpc_ros.runtime.trace import from_environment, traced_plan


class SegmentationNode(ParameterNode, LifecycleNode):
    """A managed node around the engine; topics and their meaning are in the README."""

    kind = Parameters

    def __init__(self) -> None:
        """Declare parameters; everything else waits for ``configure``."""
        self.trace = from_environment()
        super().__init__('adpc')
        refuse_impossible_transitions(self)
        self.declare_described()
        self._configuring = False
        self._check: Callable[[], None] = _go_on  # whether to go on with the configuration
        self.lost = False  # the device: only another process can compute on it
        self.add_on_set_parameters_callback(self._judge_parameters)
        self.after_changes(self._take_parameters)
        self._warn_once = WarnOnce(self.get_logger())
        self._plan: Plan | None = None
        self._engine: Engine | None = None
        self._outputs: Outputs | None = None
        self._inputs: Inputs | None = None
        self._budget: Budget | None = None
        self._diagnostics = Diagnostics(self)

    # Lifecycle

    def start_by_itself(self, check: Callable[[], None]) -> bool:
        """
        Configure and activate.

        :param check: called in between, may raise KeyboardInterrupt to end that.
        :return: whether it succeeded.
        """
        self._check = check
        try:
            for trigger in (self.trigger_configure, self.trigger_activate):
                if trigger() != TransitionCallbackReturn.SUCCESS:
                    return False
                check()
        finally:
            self._check = _go_on
        return True

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the weights, compile, warm up, advertise."""
        self._configuring = True
        try:
            self._configure(self.read_described())
        except Exception as error:  # whatever it is, it must be said: rclpy would swallow it
            self.get_logger().error(f'cannot configure: {error or type(error).__name__}')
            self._free()
            self._diagnostics.failed(f'cannot configure: {error or type(error).__name__}')
            self._end_if_lost(error)
            return TransitionCallbackReturn.FAILURE
        finally:
            self._configuring = False
        advice = ''
        if 'fastrtps' in rclpy.get_rmw_implementation_identifier():
            advice = shared_memory.complaint(os.environ, shared_memory.Room.now())
        if advice:
            self.get_logger().warning(advice)
        self._diagnostics.advise(advice)
        return TransitionCallbackReturn.SUCCESS

    def _configure(self, values: Parameters) -> None:
        device = torch.device(values.device)
        if device.type == 'cuda':
            self.get_logger().warning(f'device {values.device}: {cuda.NOT_RUN}')
        if device.type == 'cuda' and not torch.cuda.is_available():
            raise ValueError(f'device: {values.device} asked for, but CUDA is not available')
        weights = values.weights or packaged(WEIGHTS)
        checkpoint = load(weights)
        self._check()
        dtype: torch.dtype = getattr(torch, values.precision)

        def planned(network: AnytimeNetwork) -> Plan:
            plan = make_plan(network, device, dtype, threads)
            return plan if self.trace is None else traced_plan(plan, self.trace)

        with on_cores(values.cores):
            threads = values.threads or core_count()
            torch.set_num_threads(threads)
            plan = self._plan = planned(checkpoint.network)
        self._check()
        size = (values.warmup_height, values.warmup_width)
        self._budget = budget_of(plan, values.frame_memory_mib, values.device)
        self._budget.check(size)
        network = Network(
            checkpoint.identity,
            checkpoint.classes,
            plan.exit_count,
            float(confident_threshold(checkpoint.network.config)),
            checkpoint.advised_exit,
        )
        outputs = self._outputs = Outputs(self, network, values, self._warn_once, self.trace)
        watch = watch_of(values.watchdog_s, weights, checkpoint.identity, planned)
        handed_out = self._results(self._diagnostics.results(outputs.publish))
        reported = self._diagnostics.exits(outputs.publish_progress)
        shown = outputs.publish_overlay
        if (trace := self.trace) is not None:
            handed_out = trace.results(handed_out, lambda frame: nanoseconds(frame.tag.stamp))
            reported = trace.timed('report', reported)
            shown = trace.timed('overlay', shown)
        engine = self._engine = Engine(
            plan,
            values.policy(network.exit_count, network.advised_exit),
            handed_out,
            reported,
            values.adaptive,
            watch,
            shown,
            values.cores,  # but not the outputs: publisher and middleware are free
        )
        with on_cores(values.cores):
            engine.warm_up(size)
        self._diagnostics.configured(engine, outputs, values.device)
        self._say_class_names(network.classes.names)
        licence = checkpoint.info.get('licence')
        self.get_logger().info(
            f'{checkpoint.identity}: {checkpoint.classes.name} classes, {plan.exit_count} exits, '
            f'{plan.description}, {threads} threads' + (f'; licence: {licence}' if licence else '')
        )
        for line in checkpoint.said_of_exits():
            self.get_logger().info(line)
        self._warn_of(values, network)

    def _results(self, publish: Callable[[Result], None]) -> Callable[[Result], None]:
        def published(result: Result) -> None:
            try:
                publish(result)
            finally:
                self._end_if_lost(result.error)

        return published

    def _end_if_lost(self, error: Exception | None) -> None:
        """Let main() end the process if it can compute nothing more."""
        if cuda.is_lost(error) and not self.lost:
            self.lost = True
            self.get_logger().fatal(f'the device is lost, so this process ends: {error}')

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe."""
        engine, outputs, budget = self._engine, self._outputs, self._budget
        assert engine is not None and outputs is not None and budget is not None
        try:
            inputs = Inputs(self, engine, outputs, budget, self._warn_once, self.trace)
        except Exception as error:
            self.get_logger().error(f'cannot activate: {error or type(error).__name__}')
            return TransitionCallbackReturn.FAILURE
        self._inputs = inputs
        self._diagnostics.listening(inputs)
        result = super().on_activate(state)
        outputs.publish_label_info()
        for text in self.unknown_qos():
            self._warn_once(text, text)
        return result

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
        if self._inputs is not None:
            self._inputs.close()
        self._inputs = None

    def _free(self) -> None:
        self._diagnostics.unconfigured()
        if self._engine is None:
            ended = True
        else:
            ended, self._plan = self._engine.close(), self._engine.plan
        if ended and self._plan is not None:  # a plan that hangs cannot be freed
            self._plan.close()
        if self._outputs is not None:
            self._outputs.close()
        self._engine = self._plan = self._outputs = None
        give_freed_memory_back()

    # Parameters

    def _judge_parameters(self, changed: list[Parameter]) -> SetParametersResult:
        """Refuse what cannot be, with the reason; parameters set together are judged together."""
        if CLASS_NAMES in {p.name for p in changed} and not self._configuring:
            return SetParametersResult(
                successful=False, reason=f'{CLASS_NAMES}: the weights say it, it cannot be set'
            )
        if self._outputs is not None:  # else they are judged when the node is configured
            try:
                self._outputs.parameters.changed(self.described(changed))
            except ValueError as error:
                return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _take_parameters(self, changed: list[Parameter]) -> None:
        """Apply live parameters from the next frame on."""
        live = self.described(changed)
        if not live or self._engine is None or self._outputs is None:
            return
        values, network = self._outputs.parameters.changed(live), self._outputs.network
        self._outputs.parameters = values
        policy = values.policy(network.exit_count, network.advised_exit)
        self._engine.change_policy(policy, values.adaptive)
        self._warn_of(values, network)

    def _warn_of(self, values: Parameters, network: Network) -> None:
        """Warn of exits that the network does not have, or that see too little."""
        for text in values.warnings(network.exit_count, network.advised_exit):
            self._warn_once(f'{network.identity} {text}', text)

    def _say_class_names(self, names: tuple[str, ...]) -> None:
        """Say in a parameter what the class ids mean, in their order."""
        if self.has_parameter(CLASS_NAMES):  # another network than before
            self.set_parameters([Parameter(CLASS_NAMES, value=list(names))])
            return
        descriptor = ParameterDescriptor(
            description='Names of the class ids 0, 1 and so on.',
            additional_constraints='read only: as the weights say',
        )
        self.declare_parameter(CLASS_NAMES, list(names), descriptor, ignore_override=True)


def _executor() -> Executor:
    try:
        from rclpy.experimental.events_executor import EventsExecutor
    except ImportError:
        return SingleThreadedExecutor()
    executor: Executor = EventsExecutor()
    return executor


def _go_on() -> None:
    pass


def _work(node: SegmentationNode, interrupts: Interrupts, args: list[str] | None) -> int:
    executor = _executor()
    executor.add_node(node)
    try:
        for text in node.complaints(parameter_files(args), {CLASS_NAMES}):
            node.get_logger().warning(text)
        if node.get_parameter('autostart').value and not node.start_by_itself(interrupts.check):
            return 1
        spin(executor, interrupts, lambda: node.lost)
    finally:
        node.on_shutdown(LifecycleState(state_id=0, label='unknown'))
        executor.shutdown()
        if node.trace is not None:
            node.trace.write()
    return 1 if node.lost else 0


def main(args: list[str] | None = None) -> int:
    """Run the node until it is interrupted; returns the exit status."""
    keep_freed_memory()
    return run('adpc_ros', SegmentationNode, partial(_work, args=args), args)


if __name__ == '__main__':
    sys.exit(main())
