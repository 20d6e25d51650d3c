# SPDX-License-Identifier: Apache-2.0
"""Settings of a replay as people write them: durations, urgency, the node's parameters."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adpc_ros.network.checkpoint import Checkpoint
from adpc_ros.replay.output import NAMESPACE
from adpc_ros.replay.source import PlannedUrgency
from adpc_ros.ros import parameter_file
from adpc_ros.ros.parameter_fields import OF_EVERY_NODE, QOS_OVERRIDES, typed, unknown
from adpc_ros.ros.parameters import CLASS_NAMES, NAMES, Parameters
from adpc_ros.runtime.scheduler import Level

log = logging.getLogger(__name__)

#: Parameters of the node that mean nothing to a replay.
PASSED_OVER = OF_EVERY_NODE | {CLASS_NAMES}

#: Seconds that each exit takes after the one before, where weights with four exits do not say it:
#: HRNet-W18-Small-v2 at 480x360, as measured in a node on two cores.
EXIT_S = (0.052, 0.029, 0.024, 0.012)


def exit_seconds_of(checkpoint: Checkpoint) -> tuple[float, ...]:
    """
    Give what each exit costs as the weights say it.

    :return: seconds of each exit after the one before.
    :raises ValueError: if they do not say it, and are of another network than this default.
    """
    if checkpoint.exit_s is not None:
        return checkpoint.exit_s.seconds
    config = checkpoint.network.config
    count = config.exit_count
    if not config.architecture.startswith('hrnet') or count != len(EXIT_S):
        raise ValueError(
            f'{checkpoint.identity} does not say how long its exits take: expected --exit-s with '
            f'the seconds of {count} exits'
        )
    return EXIT_S


def exit_seconds(text: str) -> tuple[float, ...]:
    """
    Read what each exit costs: numbers, or a file of measurements.

    :param text: ``A,B,...``, seconds of each exit after the one before; or the path of a JSON
        file with the seconds from the start of work to each exit: a list under ``seconds``, or
        as ``benchmark masks --json`` writes them (its masked side).
    :return: seconds of each exit after the one before.
    :raises ValueError: if it is neither, or not ascending.
    """
    if not Path(text).is_file():
        values = _numbers(text.split(','))
        if not values:
            raise ValueError(f'expected seconds, as 0.04,0.02,0.02,0.02, or a file, got {text!r}')
        return values
    try:
        document = json.loads(Path(text).read_text())
        found = document.get('seconds') or [e['masked_s'] for e in document['exits']]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f'{text}: expected JSON with a list of seconds, or that of benchmark masks: {error!r}'
        ) from error
    until = _numbers(found if isinstance(found, list) else [])
    seconds = tuple(late - early for early, late in zip((0.0, *until), until))
    if not seconds or min(seconds) <= 0:
        raise ValueError(f'{text}: expected seconds to each exit, ascending, got {found}')
    return seconds


def _numbers(values: Sequence[Any]) -> tuple[float, ...]:
    """Give positive numbers; none if one is not."""
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        return ()
    return numbers if all(0 < number < math.inf for number in numbers) else ()


def urgency(text: str) -> PlannedUrgency:
    """
    Read an urgency message to be added, ``T[:LEVEL[:HOLD]]``.

    :param text: T and HOLD in seconds; LEVEL by name or number, CRITICAL if it is left out.
    :raises ValueError: if it is none.
    """
    at, _, rest = text.partition(':')
    name, _, hold = rest.partition(':')
    levels = {level.name: level for level in Level} | {str(level.value): level for level in Level}
    try:
        level = levels[name.upper()] if name else Level.CRITICAL
        at_s, hold_s = float(at), float(hold or 0)
    except (KeyError, ValueError):
        at_s = math.nan
    if not (math.isfinite(at_s) and 0 <= hold_s < math.inf):
        raise ValueError(
            'expected T[:LEVEL[:HOLD]] in seconds, LEVEL one of '
            f'{", ".join(level.name for level in Level)}, got {text!r}'
        )
    return PlannedUrgency(at_s, level, hold_s)


def parameters(
    path: str | Path | None, changes: dict[str, Any], node: str = NAMESPACE
) -> Parameters:
    """
    Read the node's parameters, and warn of what the node would warn of.

    :param path: a parameter file, as config/adpc.param.yaml; None for the defaults.
    :param changes: by name, on top of it.
    :param node: the node's absolute name, by which the file's sections are chosen.
    :raises OSError: if the file cannot be opened.
    :raises ValueError: if a node could not read it, or would refuse a value.
    """
    values: dict[str, Any] = {}
    if path is not None:
        file = parameter_file.read(path)
        given = {
            name: value or None if isinstance(value, list) else value  # empty: of no type
            for name, value in (file.of(node) or {}).items()
        }
        own = [name for name in given if not name.startswith(QOS_OVERRIDES)]
        for text in (*file.complaints(node), *unknown(own, NAMES | PASSED_OVER)):
            log.warning(text)
        try:
            values = typed(Parameters, given)
        except ValueError as error:
            raise ValueError(f'{path}: {error}') from None
    return Parameters(**{**values, **changes})
