"""Parameters that are arrays, and empty by default."""

from __future__ import annotations

from copy import copy

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter


def declare_array(
    node: Node, name: str, kind: Parameter.Type, descriptor: ParameterDescriptor
) -> None:
    """
    Declare an array that is empty unless something else is given.

    From an empty list rclpy cannot tell of what it is, nor can it from one in a parameter file:
    it takes both for unset. And one unset parameter makes it answer no request for several
    (``ros2 param dump``).
    """
    writable = copy(descriptor)
    writable.read_only = False
    node.declare_parameter(name, kind, writable)
    if node.get_parameter_or(name).type_ == Parameter.Type.NOT_SET:
        node.set_parameters([Parameter(name, kind, [])])
    descriptor.type = kind.value
    node.set_descriptor(name, descriptor)
