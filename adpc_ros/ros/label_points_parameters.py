# SPDX-License-Identifier: Apache-2.0
"""Parameters of the node that labels clouds: type, default, range, meaning, in this one place."""

from __future__ import annotations

from dataclasses import dataclass

from adpc_ros.points.projection import Transform, transform_of
from adpc_ros.ros.parameter_fields import check, field


@dataclass(frozen=True)
class LabelPointsParameters:
    """
    The node's parameters; they are read when it starts.

    :raises ValueError: for a value outside its range, and for invalid extrinsics.
    """

    extrinsics: tuple[float, ...] = field(
        (),
        "x y z qx qy qz qw: pose of the cloud's frame in the camera's optical frame "
        '(metres, unit quaternion), as tf2_echo CAMERA CLOUD prints it; empty: from tf2.',
        items=float,
    )
    max_stamp_difference_s: float = field(
        0.05, 'Most between the stamps of a cloud and its mask.', 0.0, 10.0
    )
    max_wait_s: float = field(
        0.3, 'How long a cloud waits for mask, camera_info and transform.', 0.0, 10.0
    )
    publish_unlabelled: bool = field(
        True, 'Publish clouds without a mask, too (class 255, confidence 0); else drop them.'
    )
    label_field: str = field('label', 'Name of the new field with the class id (UINT8).')
    confidence_field: str = field('confidence', 'Name of the new field with it (FLOAT32).')

    def __post_init__(self) -> None:
        """Check the values."""
        check(self)
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
        :raises ValueError: if they are neither empty nor a pose.
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
