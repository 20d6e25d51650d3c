# SPDX-License-Identifier: Apache-2.0
"""What the options of ``replay`` say of a drive, for one bag and for many."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adpc_ros.replay.drive import DriveSettings
    from adpc_ros.ros.parameters import Parameters

#: Options with numbers, the node's parameters that they set, and what these mean.
NUMBERS: dict[str, tuple[str, type, str]] = {
    '--min-exit': (
        'min_exit',
        int,
        'a newer frame or a deadline stops no frame before this exit; 0 as the weights advise',
    ),
    '--max-exit': ('max_exit', int, 'no frame goes beyond this exit; 0 for the last one'),
    '--target-confidence': ('target_confidence', float, 'mean confidence that ends a frame'),
    '--elevated-deadline-s': ('elevated_deadline_s', float, 'deadline while ELEVATED'),
    '--urgent-max-exit': (
        'urgent_max_exit',
        int,
        'no frame begun while CRITICAL goes beyond; 0 as the weights advise',
    ),
    '--max-age-s': ('max_age_s', float, 'older frames are dropped; 0 for none'),
}


def inputs_of(options: argparse.Namespace) -> list[Any]:
    """Give what is read, None where nothing is."""
    return [
        getattr(options, name)
        for name in ('bag', 'manifest', 'against', 'labels', 'expect', 'params', 'exit_s')
    ]


def settings_of(options: argparse.Namespace, **of_drive: Any) -> DriveSettings:
    """Join what the options say of every drive with what is said of this one."""
    from adpc_ros.replay.drive import DriveSettings

    return DriveSettings(
        namespace=options.namespace,
        exit_s=options.exit_s,
        urgency_at=tuple(options.urgency_at),
        recorded_urgency=not options.no_recorded_urgency,
        progress=options.progress,
        labels_by_stamp=options.labels_by == 'stamp',
        allow_dropped=options.allow_dropped,
        **of_drive,
    )


def weights_of(parameters: Parameters) -> Path:
    """Give the weights that parameters name, else the packaged ones."""
    from adpc_ros.ros.packaged import WEIGHTS, packaged

    return Path(parameters.weights or packaged(WEIGHTS))


def parameters_of(options: argparse.Namespace, params: str | Path | None) -> Parameters:
    """Read a parameter file, options on top of it."""
    from adpc_ros.replay.settings import parameters

    changes: dict[str, Any] = {
        name: getattr(options, name)
        for name in ('weights', 'threads', 'deadline_s', *(n for n, _, _ in NUMBERS.values()))
        if getattr(options, name) is not None
    }
    if options.no_masks:
        changes['adaptive'] = False
    return parameters(params, changes, options.namespace)
