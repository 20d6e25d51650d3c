# SPDX-License-Identifier: Apache-2.0
"""
Arguments of the launch files: what there are, and how their texts become values.

No part of launch is used, so that all of this is tested where launch is not installed. What is
wrong gives one line that names the argument, what was expected and what came.
"""

from __future__ import annotations

import dataclasses
import difflib
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rclpy.exceptions import NameValidationException
from rclpy.validate_full_topic_name import validate_full_topic_name
from rclpy.validate_namespace import validate_namespace
from rclpy.validate_node_name import validate_node_name

from adpc_ros.ros import parameter_file
from adpc_ros.ros.packaged import FASTDDS_PROFILE, packaged
from adpc_ros.ros.parameter_fields import check, typed
from adpc_ros.ros.shared_memory import chosen_profile, profile_variables

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

#: name: (default, description[, choices]); a default of None: it must be given
Arguments = dict[str, tuple[Any, ...]]

BOOL = ('true', 'false')
LEVELS = ('debug', 'info', 'warn', 'error', 'fatal')
AS_IN_FILE = 'empty: as in params_file'
_WORDS = {int: 'an integer', float: 'a number'}
_LISTS = {int: 'integers, as 0,1', float: 'numbers, as 0.5,1'}
_NEAR = 0.8  # of 1: how alike a name must be to one that is meant

#: of every node
COMMON: Arguments = {
    'namespace': ('', 'Namespace of the node, for example one for each camera.'),
    'use_sim_time': ('', f'Take the time from /clock; {AS_IN_FILE}.', ('', *BOOL)),
    'log_level': ('info', 'Least severity that is logged.', LEVELS),
    'respawn': ('false', 'Start the node again when it ends.', BOOL),
    'fastdds_profile': (
        str(packaged(FASTDDS_PROFILE)),
        'Fast DDS profile of the node, without which large messages are lost; who publishes them '
        'needs it, too. Empty, or one is set in the environment: that is left alone.',
    ),
}

#: arguments of the segmentation node that are topics, and its private names for them
TOPICS = {
    'input_image': '~/input/image',
    'input_camera_info': '~/input/camera_info',
    'input_urgency': '~/input/urgency',
    'output_mask': '~/output/mask',
    'output_confidence': '~/output/confidence',
    'output_status': '~/output/status',
}
#: former names of arguments
FORMER = {
    'camera_info': 'input_camera_info',
    'urgency': 'input_urgency',
    'mask': 'output_mask',
    'confidence': 'output_confidence',
    'status': 'output_status',
}
#: arguments of the segmentation node that are parameters; empty: not passed on
PARAMETERS = ('weights', 'device', 'threads', 'cores', 'compressed_input', 'autostart')

NODE: Arguments = {
    'name': ('adpc', 'Name of the node; its private topics begin with it.'),
    'params_file': (str(packaged('config/adpc.param.yaml')), 'Parameter file (YAML).'),
    'input_image': (TOPICS['input_image'], 'Topic of the camera images.'),
    'input_camera_info': (TOPICS['input_camera_info'], 'Topic of their calibration.'),
    'input_urgency': (TOPICS['input_urgency'], 'Topic of the urgency messages.'),
    'output_mask': (TOPICS['output_mask'], 'Topic on which the masks are published.'),
    'output_confidence': (
        TOPICS['output_confidence'],
        'Topic on which their confidence is published.',
    ),
    'output_status': (TOPICS['output_status'], 'Topic on which their status is published.'),
    'weights': ('', f'Weights file (.safetensors); {AS_IN_FILE}.'),
    'device': (
        '',
        f'Where to compute: cpu, cuda, or cuda:N (CUDA has not been run); {AS_IN_FILE}.',
    ),
    'threads': ('', f'Compute threads, 0 for one for each core; {AS_IN_FILE}.'),
    'cores': ('', f'Cores of the compute threads, for example 0,1; {AS_IN_FILE}.'),
    'compressed_input': (
        '',
        f'Take sensor_msgs/CompressedImage and not Image; {AS_IN_FILE}.',
        ('', *BOOL),
    ),
    'autostart': ('', f'Configure and activate on start; {AS_IN_FILE}.', ('', *BOOL)),
    **COMMON,
}


def taken(
    configurations: MutableMapping[str, str],
    arguments: Arguments,
    former: Mapping[str, str],
    given: Iterable[str] = (),
    file: str = '',
) -> tuple[dict[str, str], list[str]]:
    """
    Take the values of arguments, those with a former name, too.

    :param configurations: launch's; former names are removed from it.
    :param former: names that an argument had, each with the present one; '' for one that has
        no effect any more.
    :param given: arguments of the command line, each NAME:=VALUE.
    :param file: the launch file that they are taken for. If it is what was launched, a name
        that it does not have is an error; if another includes it, which may have arguments of its
        own, a name that is nearly one of ``arguments`` is warned of.
    :return: the values, and lines to be warned of.
    :raises ValueError: if both names of one argument are given, with different values, or for a
        name that there is not.
    """
    values = {name: configurations[name] for name in arguments if name in configurations}
    lines = []
    for old, new in former.items():
        if old in arguments or old not in configurations or (new and new not in arguments):
            continue
        text = configurations.pop(old)
        if not new:
            lines.append(f'{old}:={text} has no effect any more')
            continue
        if values.get(new) not in (None, arguments[new][0], text):
            raise ValueError(f'{new}: expected one value, got {values[new]!r} and {old}:={text}')
        values[new] = text
        lines.append(f'{old}:={text} is now called {new}:={text}')
    known = {*arguments, *former}
    launched = file and any(Path(word).name == Path(file).name for word in sys.argv)
    for name in (word.partition(':=')[0] for word in given):
        if name in known:
            continue
        near = difflib.get_close_matches(name, arguments, 1, _NEAR)
        meant = f'is {near[0]} meant?' if near else f'it has {", ".join(sorted(arguments))}'
        if name in _node_parameters():
            meant = 'a parameter of the node: set it in params_file'
        line = f'{name}: no argument of this launch file; {meant}'
        if launched:
            raise ValueError(line)
        if near and not any(name.endswith(f'_{known_name}') for known_name in known):
            lines.append(line)
    return values, lines


def _node_parameters() -> set[str]:
    """Give the names of the nodes' parameters, most of which are no arguments."""
    from adpc_ros.ros.label_points_parameters import LabelPointsParameters
    from adpc_ros.ros.parameters import Parameters

    kinds = (Parameters, LabelPointsParameters)
    return {field.name for kind in kinds for field in dataclasses.fields(kind)}


def parameters(kind: type[DataclassInstance], given: Mapping[str, str]) -> dict[str, Any]:
    """
    Give the values of parameters.

    :param kind: the dataclass that describes them.
    :param given: texts by name; empty ones are left out.
    :raises ValueError: if a text is no value of its parameter's type and range; says name,
        expected and got.
    """
    fields = {each.name: each for each in dataclasses.fields(kind)}
    values = {name: _value(fields[name], text) for name, text in given.items() if text}
    check(kind(**typed(kind, values)))
    return values


def _value(each: dataclasses.Field[Any], text: str) -> Any:
    if (items := each.metadata['items']) is not None:
        words = text.strip('[]').replace(',', ' ').split()
        return [_number(items, word, each.name, _LISTS[items], text) for word in words]
    if isinstance(each.default, bool):
        return flag(each.name, text)
    if isinstance(each.default, (int, float)):
        number = type(each.default)
        return _number(number, text, each.name, _WORDS[number], text)
    return text


def _number(kind: Callable[[str], Any], word: str, name: str, expected: str, text: str) -> Any:
    try:
        return kind(word)
    except ValueError:
        raise ValueError(f'{name}: expected {expected}, got {text!r}') from None


def flag(name: str, text: str) -> bool:
    """
    Read an argument that is true or false.

    :raises ValueError: if it is neither.
    """
    if text not in BOOL:
        raise ValueError(f'{name}: expected true or false, got {text!r}')
    return text == 'true'


def check_names(values: Mapping[str, str], topics: Collection[str]) -> None:
    """
    Check namespace, name and topics, as far as they are given.

    :raises ValueError: for one that ROS does not take.
    """
    checks: dict[str, tuple[Callable[[str], Any], str]] = {
        'namespace': (_check_namespace, 'a namespace, as front'),
        'name': (validate_node_name, "a node's name, as adpc"),
        **dict.fromkeys(topics, (_check_topic, 'a topic, as /camera/image_raw')),
    }
    for name, (validate, expected) in checks.items():
        if name in values:
            try:
                validate(values[name])
            except NameValidationException as error:
                why = str(error).splitlines()[0]
                raise ValueError(
                    f'{name}: expected {expected}, got {values[name]!r}: {why}'
                ) from None


def _check_namespace(text: str) -> None:
    validate_namespace(text if text.startswith('/') else f'/{text}')


def _check_topic(text: str) -> None:
    """Check as a remapping does: no substitutions, and nothing twice."""
    name = text[1:] if text.startswith('~/') else text
    validate_full_topic_name(name if name.startswith('/') else f'/{name}')


def existing(name: str, path: str) -> str:
    """
    Give the path if there is such a file: the node itself would start without it.

    :raises FileNotFoundError: if there is none.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'{name}: expected a file, got {path!r}')
    return path


def parameter_file_of(values: Mapping[str, str]) -> str:
    """
    Give the path of the parameter file, if a node can read it.

    :raises ValueError: if it cannot; says path and line.
    """
    path = existing('params_file', values['params_file'])
    try:
        parameter_file.read(path)
    except ValueError as error:
        raise ValueError(f'params_file: {error}') from None
    return path


def profile_environment(
    values: Mapping[str, str], environment: Mapping[str, str]
) -> dict[str, str]:
    """
    Give the variables that a process gets for the profile; none if the environment has one.

    :raises FileNotFoundError: if there is no such file.
    """
    profile = values['fastdds_profile']
    if not profile or chosen_profile(environment):
        return {}
    return profile_variables(existing('fastdds_profile', profile))


def check_positive(values: Mapping[str, str], names: Iterable[str]) -> None:
    """
    Check arguments that are numbers above 0.

    :raises ValueError: for one that is none.
    """
    for name in names:
        try:
            number = float(values[name])
        except ValueError:
            number = 0.0
        if not 0 < number < float('inf'):
            raise ValueError(f'{name}: expected a number above 0, got {values[name]!r}')
