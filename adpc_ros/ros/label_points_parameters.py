"""Parameters of the node that labels clouds: type, default, range, meaning, in this one place."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter

from adpc_ros.points.projection import Transform, transform_of
from adpc_ros.ros.array_parameter import declare_array


def _field(default: Any, meaning: str, low: float | None = None, high: float | None = None) -> Any:
    return dataclasses.field(
        default=default, metadata={'meaning': meaning, 'low': low, 'high': high}
    )


@dataclass(frozen=True)
class LabelPointsParameters:
    """
    The node's parameters; they are read when it starts.

    :raises ValueError: for a value outside its range, and for extrinsics that are none.
    """

    extrinsics: tuple[float, ...] = _field(
        (),
        "x y z qx qy qz qw: pose of the cloud's frame in the camera's optical frame "
        '(metres, unit quaternion), as tf2_echo CAMERA CLOUD prints it; empty: from tf2.',
    )
    max_stamp_difference_s: float = _field(
        0.05, 'Most between the stamps of a cloud and its mask.', 0.0, 10.0
    )
    max_wait_s: float = _field(
        0.3, 'How long a cloud waits for mask, camera_info and transform.', 0.0, 10.0
    )
    publish_unlabelled: bool = _field(
        True, 'Publish clouds without a mask, too (class 255, confidence 0); else drop them.'
    )
    label_field: str = _field('label', 'Name of the new field with the class id (UINT8).')
    confidence_field: str = _field('confidence', 'Name of the new field with it (FLOAT32).')

    def __post_init__(self) -> None:
        """Check the values."""
        for field in dataclasses.fields(self):
            value, low = getattr(self, field.name), field.metadata['low']
            if low is not None and not low <= value <= field.metadata['high']:
                raise ValueError(
                    f'{field.name}: expected {low} to {field.metadata["high"]}, got {value}'
                )
        if not self.label_field or self.label_field == self.confidence_field:
            raise ValueError(
                'label_field, confidence_field: expected two names, '
                f'got {self.label_field!r}, {self.confidence_field!r}'
            )
        self.transform()

    def transform(self) -> Transform | None:
        """
        Give the extrinsics.

        :return: None where they are left to tf2.
        :raises ValueError: if they are neither none nor a pose.
        """
        if not self.extrinsics:
            return None
        if len(self.extrinsics) != 7:
            raise ValueError(
                f'extrinsics: expected x y z qx qy qz qw, got {len(self.extrinsics)} numbers'
            )
        try:
            return transform_of(self.extrinsics[:3], self.extrinsics[3:])
        except ValueError as error:
            raise ValueError(f'extrinsics: {error}') from None


def declare(node: Node) -> None:
    """Declare all parameters on a node; they cannot be changed later."""
    for field in dataclasses.fields(LabelPointsParameters):
        descriptor = ParameterDescriptor(description=field.metadata['meaning'], read_only=True)
        if field.metadata['low'] is not None:
            descriptor.floating_point_range = [
                FloatingPointRange(
                    from_value=field.metadata['low'], to_value=field.metadata['high']
                )
            ]
        if field.default == ():
            declare_array(node, field.name, Parameter.Type.DOUBLE_ARRAY, descriptor)
        else:
            node.declare_parameter(field.name, field.default, descriptor)


def read(node: Node) -> LabelPointsParameters:
    """
    Read the declared parameters.

    :raises ValueError: if they are not what is expected.
    """
    values = {
        field.name: node.get_parameter(field.name).value
        for field in dataclasses.fields(LabelPointsParameters)
    }
    values['extrinsics'] = tuple(values['extrinsics'])
    return LabelPointsParameters(**values)
