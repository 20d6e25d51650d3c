# SPDX-License-Identifier: Apache-2.0
"""The process of a node: an error in its arguments is one line, an interrupt a clean end."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import rclpy
import rclpy.logging
from rclpy.exceptions import NameValidationException, ParameterException
from rclpy.executors import Executor, ExternalShutdownException
from rclpy.impl.logging_severity import LoggingSeverity
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from adpc_ros.ros import parameter_file
from adpc_ros.ros.interrupts import Interrupts

NodeT = TypeVar('NodeT', bound=Node)
_LOOK_S = 1.0


class StartError(Exception):
    """Why a node cannot start, in one line."""


def run(
    name: str,
    make: Callable[[], NodeT],
    work: Callable[[NodeT, Interrupts], int],
    arguments: Sequence[str] | None = None,
) -> int:
    """
    Make a node and let it work, until it is interrupted.

    :param name: of the program, for messages.
    :param work: gives the exit status, and frees what it took; the node is destroyed afterwards.
        It ends soon after there was a signal, by itself or by KeyboardInterrupt.
    :param arguments: as for :func:`start`.
    :return: the exit status: 1 if the node cannot start, 0 if it was interrupted.
    """
    interrupts = Interrupts()
    try:
        node = start(make, arguments)
        try:
            interrupts.check()
            return work(node, interrupts)
        finally:
            node.destroy_node()
    except StartError as error:
        print(f'{name}: {error}', file=sys.stderr)
        return 1
    except (KeyboardInterrupt, ExternalShutdownException):
        return 0
    except RuntimeError:  # as rcl's errors, where the context was shut down meanwhile
        if not interrupts.heard:
            raise
        return 0
    finally:
        rclpy.try_shutdown()
        interrupts.over()


def start(make: Callable[[], NodeT], arguments: Sequence[str] | None = None) -> NodeT:
    """
    Initialise rclpy and make a node; signals are left alone.

    :param arguments: without the program's name; those of the process if None.
    :raises StartError: if an argument, a parameter file or a parameter is wrong; rclpy is shut
        down then.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        with _quiet():
            rclpy.init(args=given, signal_handler_options=SignalHandlerOptions.NO)
        return make()
    except (RuntimeError, ValueError, ParameterException, NameValidationException) as error:
        rclpy.try_shutdown()
        raise StartError(_why(error, given)) from error


def spin(
    executor: Executor, interrupts: Interrupts, over: Callable[[], bool] = lambda: False
) -> None:
    """
    Handle what comes until there is a signal, or ``over`` says so.

    rclpy's own ``spin()`` can miss a signal for ever: it is woken before the context is shut down,
    and waits again. In some releases it also burns a core.

    :raises KeyboardInterrupt: if there was a signal before rclpy could hear it.
    """
    interrupts.let_rclpy_hear()
    while rclpy.ok() and not over():
        executor.spin_once(timeout_sec=_LOOK_S)


def parameter_files(arguments: Sequence[str] | None = None) -> list[str]:
    """
    Give the paths of the parameter files among a process's arguments, in their order.

    :param arguments: as for :func:`start`.
    """
    given = sys.argv[1:] if arguments is None else arguments
    found, of_ros = [], False
    for word, following in zip(given, given[1:]):
        if word in ('--ros-args', '--'):
            of_ros = word == '--ros-args'
        elif of_ros and word == '--params-file':
            found.append(following)
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep rcl from also logging the errors that it raises."""
    level_of = getattr(rclpy.logging, 'get_logger_level', None)
    if level_of is None:  # Humble's: it could not be told what an argument has set
        yield
        return
    rclpy.logging.set_logger_level('rcl', LoggingSeverity.FATAL)
    try:
        yield
    finally:
        if level_of('rcl') == LoggingSeverity.FATAL:  # else an argument has set it
            rclpy.logging.set_logger_level('rcl', LoggingSeverity.UNSET)


def _why(error: Exception, arguments: Sequence[str]) -> str:
    for path in parameter_files(arguments):  # rcl says little of what is wrong with a file
        try:
            parameter_file.read(path)
        except OSError as of_file:
            return f'{path}: {of_file.strerror}'
        except ValueError as of_file:
            return str(of_file)
    if type(error).__name__ == 'UnknownROSArgsError':  # of rclpy's inner part, as it says
        return f'unknown ROS arguments: {error}'
    text = re.sub(r', at /\S+:\d+', '', ' '.join(str(error).split()))  # places in rcl's source
    return text.removeprefix('failed to initialize rcl: ')
