# SPDX-License-Identifier: Apache-2.0
"""The start of a node's process: an error in its arguments gives one line."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import rclpy
from rclpy._rclpy_pybind11 import UnknownROSArgsError
from rclpy.exceptions import NameValidationException, ParameterException
from rclpy.impl.logging_severity import LoggingSeverity
from rclpy.logging import get_logger_level, set_logger_level

from adpc_ros.ros import parameter_file

NodeT = TypeVar('NodeT')


class StartError(Exception):
    """Why a node cannot start, in one line."""


def start(make: Callable[[], NodeT], arguments: Sequence[str] | None = None) -> NodeT:
    """
    Initialise rclpy and make a node.

    :param arguments: without the program's name; those of the process if None.
    :raises StartError: if an argument, a parameter file or a parameter is wrong; rclpy is shut
        down then.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        with _quiet():
            rclpy.init(args=given)
        return make()
    except (RuntimeError, ValueError, ParameterException, NameValidationException) as error:
        rclpy.try_shutdown()
        raise StartError(_why(error, given)) from error


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
    set_logger_level('rcl', LoggingSeverity.FATAL)
    try:
        yield
    finally:
        if get_logger_level('rcl') == LoggingSeverity.FATAL:  # else an argument has set it
            set_logger_level('rcl', LoggingSeverity.UNSET)


def _why(error: Exception, arguments: Sequence[str]) -> str:
    for path in parameter_files(arguments):  # rcl says little of what is wrong with a file
        try:
            parameter_file.read(path)
        except OSError as of_file:
            return f'{path}: {of_file.strerror}'
        except ValueError as of_file:
            return str(of_file)
    if isinstance(error, UnknownROSArgsError):
        return f'unknown ROS arguments: {error}'
    text = re.sub(r', at /\S+:\d+', '', ' '.join(str(error).split()))  # places in rcl's source
    return text.removeprefix('failed to initialize rcl: ')
