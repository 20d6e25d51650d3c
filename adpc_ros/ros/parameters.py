"""The node's parameters: type, default, range and meaning, in this one place."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adpc_ros.runtime.scheduler import Policy

if TYPE_CHECKING:
    from rclpy.node import Node

PRECISIONS = ('float32', 'bfloat16')


def _field(default: Any, meaning: str, low: float | None = None, high: float | None = None) -> Any:
    return dataclasses.field(
        default=default, metadata={'meaning': meaning, 'low': low, 'high': high}
    )


@dataclass(frozen=True)
class Parameters:
    """
    The node's parameters; they are read when the node is configured.

    :raises ValueError: for a value outside its range.
    """

    weights: str = _field('', 'Weights file (.safetensors); empty for the packaged ones.')
    device: str = _field('cpu', 'Where to compute: cpu, cuda, or cuda:N.')
    threads: int = _field(0, 'Compute threads; 0 for one for each core.', 0, 1024)
    precision: str = _field(
        'float32', 'Of weights and features: float32, or bfloat16 (faster where the CPU has it).'
    )
    autostart: bool = _field(True, 'Configure and activate on start.')
    adaptive: bool = _field(True, 'Let later exits skip pixels that are already confident.')
    warmup_height: int = _field(
        360, 'Height of the image computed before the first frame.', 1, 8192
    )
    warmup_width: int = _field(480, 'Width of that image, in pixels.', 1, 8192)
    min_exit: int = _field(1, 'A newer frame or a deadline stops no frame before this exit.', 1, 4)
    max_exit: int = _field(4, 'No frame goes beyond this exit.', 1, 4)
    deadline_s: float = _field(0.0, "From a frame's stamp to its mask; 0 for none.", 0.0, 60.0)
    target_confidence: float = _field(
        1.0, 'A frame ends once its mean confidence is above; 1 never.', 0.0, 1.0
    )
    elevated_deadline_s: float = _field(
        0.1,
        "From a frame's stamp to its mask while ELEVATED, if the message names none.",
        1e-3,
        60.0,
    )
    urgent_max_exit: int = _field(1, 'No frame begun while CRITICAL goes beyond this exit.', 1, 4)
    max_age_s: float = _field(0.0, 'Older frames are dropped on arrival; 0 for none.', 0.0, 3600.0)

    def __post_init__(self) -> None:
        """Check the ranges."""
        for field in dataclasses.fields(self):
            value, low, high = (
                getattr(self, field.name),
                field.metadata['low'],
                field.metadata['high'],
            )
            if low is not None and not low <= value <= high:
                raise ValueError(f'{field.name}: expected {low} to {high}, got {value}')
        if self.precision not in PRECISIONS:
            raise ValueError(
                f'precision: expected one of {", ".join(PRECISIONS)}, got {self.precision!r}'
            )
        if self.min_exit > self.max_exit:
            raise ValueError(
                f'expected min_exit <= max_exit, got {self.min_exit}, {self.max_exit}'
            )

    def policy(self, exit_count: int) -> Policy:
        """
        Give the scheduler's policy.

        :param exit_count: of the network; exits beyond it are taken as its last.
        """
        return Policy(
            exit_count=exit_count,
            min_exit=min(self.min_exit, exit_count),
            max_exit=min(self.max_exit, exit_count),
            deadline_s=self.deadline_s or math.inf,
            target_confidence=self.target_confidence,
            elevated_deadline_s=self.elevated_deadline_s,
            urgent_max_exit=min(self.urgent_max_exit, exit_count),
            max_age_s=self.max_age_s or math.inf,
        )


NAMES = frozenset(field.name for field in dataclasses.fields(Parameters))


def declare(node: Node) -> None:
    """Declare all parameters on a node, with type, range and meaning."""
    # here, so that a replay needs no ROS to check parameters
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

    for field in dataclasses.fields(Parameters):
        descriptor = ParameterDescriptor(description=field.metadata['meaning'])
        low, high = field.metadata['low'], field.metadata['high']
        if isinstance(field.default, float):
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=float(low), to_value=float(high))
            ]
        elif low is not None:
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high))]
        node.declare_parameter(field.name, field.default, descriptor)


def read(node: Node) -> Parameters:
    """
    Read the declared parameters.

    :raises ValueError: if they contradict each other.
    """
    return Parameters(
        **{
            field.name: node.get_parameter(field.name).value
            for field in dataclasses.fields(Parameters)
        }
    )
