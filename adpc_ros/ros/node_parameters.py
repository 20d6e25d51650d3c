# SPDX-License-Identifier: Apache-2.0
"""Nodes whose parameters a dataclass describes: declared, read, judged and warned of alike."""

from __future__ import annotations

import array
import dataclasses
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

from adpc_ros.ros import parameter_file
from adpc_ros.ros.parameter_fields import (
    AT_CONFIGURE,
    LIVE,
    QOS_OVERRIDES,
    listed,
    typed,
    unknown,
)

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_ARRAYS = {int: Parameter.Type.INTEGER_ARRAY, float: Parameter.Type.DOUBLE_ARRAY}


class ParameterNode(Node):
    """
    A node whose parameters are the fields of :attr:`kind`.

    Setting a parameter to the value that it has always succeeds and changes nothing, so that
    ``ros2 param load`` accepts what ``ros2 param dump`` wrote. An empty array of any type, and no
    value, count as an empty array of the parameter's own type.
    """

    kind: ClassVar[type[DataclassInstance]]
    _changed: Callable[[list[Parameter]], None] | None = None

    def after_changes(self, take: Callable[[list[Parameter]], None]) -> None:
        """Call something with the parameters that were changed, each time, once they count."""
        add = getattr(self, 'add_post_set_parameters_callback', None)
        if add is not None:
            add(take)
        else:  # Humble
            self._changed = take

    def declare_described(self, read_only: bool = False) -> None:
        """
        Declare all parameters, with type, range, meaning and when they count.

        :param read_only: whether none can be changed later.
        :raises ValueError: if a value that was given has a wrong type or is out of range; says
            name, expected and got.
        """
        given = {name: p.value for name, p in self._parameter_overrides.items()}
        typed(self.kind, given)
        for each in dataclasses.fields(self.kind):
            items = each.metadata['items']
            descriptor = _descriptor(each, read_only)
            if items is not None:
                self._declare_array(each.name, _ARRAYS[items], descriptor)
            else:
                self.declare_parameter(each.name, each.default, descriptor)

    def _declare_array(
        self, name: str, kind: Parameter.Type, descriptor: ParameterDescriptor
    ) -> None:
        """
        Declare an array that is empty unless something else is given.

        rclpy cannot derive a type from an empty list, neither from a default nor from one in a
        parameter file: it takes both for unset. With one unset parameter it answers no request
        for several parameters (``ros2 param dump``).
        """
        self.declare_parameter(name, kind, ParameterDescriptor())
        if self.get_parameter_or(name).type_ == Parameter.Type.NOT_SET:
            self.set_parameters([Parameter(name, kind, [])])
        descriptor.type = kind.value
        self.set_descriptor(name, descriptor)

    def read_described(self) -> Any:
        """
        Read the declared parameters.

        :return: an instance of :attr:`kind`.
        :raises ValueError: if they contradict each other.
        """
        names = [each.name for each in dataclasses.fields(self.kind)]
        return self.kind(**typed(self.kind, {n: self.get_parameter(n).value for n in names}))

    def described(self, parameters: Iterable[Parameter]) -> dict[str, Any]:
        """Give the values of those that :attr:`kind` describes, by name, lists as tuples."""
        return typed(self.kind, {p.name: p.value for p in parameters})

    def set_parameters_atomically(self, parameter_list: list[Parameter]) -> SetParametersResult:
        """Set parameters as the services ask for it, all or none; see the class."""
        arrays = {
            each.name: _ARRAYS[each.metadata['items']]
            for each in dataclasses.fields(self.kind)
            if each.metadata['items'] is not None
        }
        given = [
            Parameter(p.name, arrays[p.name], []) if p.name in arrays and _is_empty(p.value) else p
            for p in parameter_list
        ]
        try:
            self.described(given)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        changes = [p for p in given if not self._has(p)]
        if not changes:
            return SetParametersResult(successful=True)
        result = super().set_parameters_atomically(changes)
        if result.successful and self._changed is not None:
            self._changed(changes)
        return result

    def _has(self, parameter: Parameter) -> bool:
        """Tell whether a parameter has this type and value already."""
        if not self.has_parameter(parameter.name):
            return False
        present = self.get_parameter_or(parameter.name)
        return bool(present.type_ == parameter.type_ and _plain(present) == _plain(parameter))

    def complaints(self, files: Iterable[str], later: Collection[str] = ()) -> list[str]:
        """
        List, one line each, the files and parameters that were given to the node without effect.

        :param files: paths of the parameter files that were given.
        :param later: parameters that may be given, and are declared later.
        """
        lines = []
        for path in files:
            try:
                file = parameter_file.read(path)
            except (OSError, ValueError) as error:  # though rcl has read it
                lines.append(str(error))
            else:
                lines += file.complaints(self.get_fully_qualified_name())
        given = [name for name in self._parameter_overrides if not name.startswith(QOS_OVERRIDES)]
        return lines + unknown(given, {*self._parameters, *later})

    def unknown_qos(self) -> list[str]:
        """List the overrides of a quality of service that none of the existing topics uses."""
        given = [name for name in self._parameter_overrides if name.startswith(QOS_OVERRIDES)]
        return unknown(given, list(self._parameters))


def _descriptor(each: dataclasses.Field[Any], read_only: bool) -> ParameterDescriptor:
    low, high, choices = (each.metadata[key] for key in ('low', 'high', 'choices'))
    constraints = [f'one of {listed(choices)}'] if choices else []
    if not read_only:
        constraints.append(LIVE if each.metadata['live'] else AT_CONFIGURE)
    descriptor = ParameterDescriptor(
        description=each.metadata['meaning'],
        additional_constraints='; '.join(constraints),
        read_only=read_only,
    )
    if isinstance(each.default, float):
        descriptor.floating_point_range = [
            FloatingPointRange(from_value=float(low), to_value=float(high))
        ]
    elif low is not None:
        descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high))]
    return descriptor


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, (list, tuple, array.array)) and not len(value))


def _plain(parameter: Parameter) -> Any:
    value = parameter.value
    return list(value) if isinstance(value, (list, tuple, array.array)) else value
