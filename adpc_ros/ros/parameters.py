# SPDX-License-Identifier: Apache-2.0
"""The node's parameters: type, default, range, meaning and when they count, in this one place."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adpc_ros.ros.parameter_fields import AT_CONFIGURE, check, field
from adpc_ros.runtime.scheduler import Policy

if TYPE_CHECKING:
    from adpc_ros.runtime.window import Thresholds

CLASS_NAMES = 'class_names'  # a parameter that the node sets itself, as the weights say
_EXITS = ('min_exit', 'max_exit', 'urgent_max_exit')


@dataclass(frozen=True)
class Parameters:
    """
    The node's parameters; those that are not live are read when the node is configured.

    :raises ValueError: for a value outside its range, or values that contradict each other.
    """

    weights: str = field('', 'Weights file (.safetensors); empty for the packaged ones.')
    device: str = field(
        'cpu',
        'Where to compute: cpu, cuda, or cuda:N (CUDA has not been run).',
        pattern=(r'cpu|cuda(:\d+)?', 'cpu, cuda or cuda:N'),
    )
    threads: int = field(
        0, "Compute threads; 0 for one for each core, within a container's quota.", 0, 1024
    )
    cores: tuple[int, ...] = field(
        (), 'Cores that the compute threads may use (integers); empty for all.', items=int
    )
    precision: str = field(
        'float32',
        'Of weights and features: float32, or bfloat16 (faster where the CPU has it).',
        choices=('float32', 'bfloat16'),
    )
    autostart: bool = field(True, 'Configure and activate on start.')
    watchdog_s: float = field(
        5.0,
        'Compute threads without progress for so long lose their frame and are replaced; 0 never.',
        0.0,
        3600.0,
    )
    frame_memory_mib: int = field(
        0,
        'A frame that would take more memory is dropped, before any is taken; 0 for half of what '
        'is free when the node is configured.',
        0,
        2**30,
    )
    warmup_height: int = field(
        360,
        "Height of the image computed before the first frame: the camera's, since the first frame "
        'of a larger size takes its memory and is slower by that.',
        1,
        8192,
    )
    warmup_width: int = field(480, 'Width of that image, in pixels.', 1, 8192)
    compressed_input: bool = field(
        False, 'Subscribe to sensor_msgs/CompressedImage (JPEG, PNG) and not to Image.'
    )
    urgency_type: str = field(
        'urgency',
        'Type of the urgency topic: adpc_ros/Urgency, or std_msgs/Bool (true: CRITICAL, false: '
        'ROUTINE).',
        choices=('urgency', 'bool'),
    )
    adaptive: bool = field(
        True, 'Let later exits skip pixels that are already confident.', live=True
    )
    min_exit: int = field(
        0,
        'A newer frame or a deadline stops no frame before this exit; 0 for the first one that '
        'sees vulnerable road users, as the weights advise (1 if they do not say).',
        0,
        255,
        live=True,
    )
    max_exit: int = field(
        0, "No frame goes beyond this exit; 0 for the network's last one.", 0, 255, live=True
    )
    deadline_s: float = field(
        0.0, "From a frame's stamp to its mask; 0 for none.", 0.0, 60.0, live=True
    )
    target_confidence: float = field(
        1.0, 'A frame ends once its mean confidence is above; 1 never.', 0.0, 1.0, live=True
    )
    elevated_deadline_s: float = field(
        0.1,
        "From a frame's stamp to its mask while ELEVATED, if the message names none.",
        1e-3,
        60.0,
        live=True,
    )
    urgent_max_exit: int = field(
        0,
        'No frame begun while CRITICAL goes beyond this exit; 0 for the one that the weights '
        'advise.',
        0,
        255,
        live=True,
    )
    max_age_s: float = field(
        0.0, 'Older frames are dropped on arrival; 0 for none.', 0.0, 3600.0, live=True
    )
    confidence_encoding: str = field(
        'mono8',
        'Of the published confidence: mono8 (0-255 for 0-1), or 32FC1 (0-1, in the same steps).',
        choices=('mono8', '32FC1'),
        live=True,
    )
    output_scale: int = field(
        1,
        'Mask and confidence in full (1), half (2) or quarter (4) resolution: every n-th pixel of '
        'every n-th row, from the first on.',
        choices=(1, 2, 4),
        live=True,
    )

    diagnostics_stale_s: float = field(
        2.0,
        'WARN in /diagnostics after so long without an image; 0 never.',
        0.0,
        3600.0,
        live=True,
    )
    diagnostics_warn_latency_s: float = field(
        0.0,
        'WARN if one mask in twenty is slower, from the stamp to publication; 0 never.',
        0.0,
        3600.0,
        live=True,
    )
    diagnostics_warn_drop_share: float = field(
        0.5,
        'WARN if more than this share of the frames gets no mask; 1 never.',
        0.0,
        1.0,
        live=True,
    )
    diagnostics_warn_late_share: float = field(
        0.1,
        'WARN if more than this share of the results misses its deadline; 1 never.',
        0.0,
        1.0,
        live=True,
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        check(self)
        if 0 < self.max_exit < self.min_exit:
            raise ValueError(
                f'expected min_exit <= max_exit, got {self.min_exit}, {self.max_exit}'
            )

    def changed(self, values: dict[str, Any]) -> Parameters:
        """
        Give the parameters with live ones changed, all at once.

        :param values: by name; one that is not live may be given as it is.
        :raises ValueError: if another value of one that is not live is given, or the result is
            not valid.
        """
        values = {n: v for n, v in values.items() if v != getattr(self, n)}
        if fixed := sorted(values.keys() - LIVE_NAMES):
            raise ValueError(f'{", ".join(fixed)}: {AT_CONFIGURE}: deactivate and clean up first')
        return dataclasses.replace(self, **values)

    def policy(self, exit_count: int, advised_exit: int = 1) -> Policy:
        """
        Give the scheduler's policy.

        :param exit_count: of the network; exits beyond it are taken as its last.
        :param advised_exit: the first that sees vulnerable road users, as the weights say; it
            gives way to a ``max_exit``.
        """
        max_exit = min(self.max_exit or exit_count, exit_count)
        return Policy(
            exit_count=exit_count,
            min_exit=min(self.min_exit or advised_exit, max_exit),
            max_exit=max_exit,
            deadline_s=self.deadline_s or math.inf,
            target_confidence=self.target_confidence,
            elevated_deadline_s=self.elevated_deadline_s,
            urgent_max_exit=min(self.urgent_max_exit or advised_exit, exit_count),
            max_age_s=self.max_age_s or math.inf,
        )

    def warnings(self, exit_count: int, advised_exit: int = 1) -> list[str]:
        """
        List chosen exits that the network does not have, or that see too little.

        :param exit_count: as for :meth:`policy`, and ``advised_exit`` likewise.
        """
        found = []
        for name in _EXITS:
            value = getattr(self, name)
            if value > exit_count:
                found.append(f'{name}: {value} is taken as the last exit, {exit_count}')
            elif 0 < value < advised_exit:
                found.append(
                    f'{name}: {value} lets out masks of exit {value}, which sees too little of '
                    f'vulnerable road users: the weights advise {advised_exit}'
                )
        return found

    def thresholds(self) -> Thresholds:
        """Give those of the diagnostics."""
        from adpc_ros.runtime.window import Thresholds  # loads torch, a launch file does without

        return Thresholds(
            stale_s=self.diagnostics_stale_s or math.inf,
            latency_s=self.diagnostics_warn_latency_s or math.inf,
            drop_share=self.diagnostics_warn_drop_share,
            late_share=self.diagnostics_warn_late_share,
        )


NAMES = frozenset(each.name for each in dataclasses.fields(Parameters))
LIVE_NAMES = frozenset(f.name for f in dataclasses.fields(Parameters) if f.metadata['live'])


def table() -> str:
    """Give the README's table of the parameters, in Markdown."""
    lines = ['| parameter | default | live | meaning |', '|---|---|---|---|']
    for each in dataclasses.fields(Parameters):
        default = each.default if isinstance(each.default, str) else json.dumps(each.default)
        default = default or '""'
        live = 'yes' if each.metadata['live'] else ''
        lines.append(f'| `{each.name}` | `{default}` | {live} | {each.metadata["meaning"]} |')
    return '\n'.join(lines) + '\n'


if __name__ == '__main__':
    print(table(), end='')
