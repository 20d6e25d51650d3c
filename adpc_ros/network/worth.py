# SPDX-License-Identifier: Apache-2.0
"""What is known of a network's exits: their worth on held-out images, and how long they take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from adpc_ros.labels import ClassSet

MIN_IOU = 0.1  # of every vulnerable class, at an exit that is advised


@dataclass(frozen=True)
class Worth:
    """
    What a mask of each exit is worth.

    :param data: the images that it was measured on, which training had not seen.
    :param iou: for each exit the intersection over union of each class, 0 to 1; None for a class
        that does not occur in these images.
    :raises ValueError: if there are no exits, they have different classes, or a value is out of
        range.
    """

    data: str
    iou: tuple[tuple[float | None, ...], ...]

    def __post_init__(self) -> None:
        """Check the values."""
        occurring = {tuple(value is not None for value in values) for values in self.iou}
        if len(occurring) != 1:
            raise ValueError('worth: expected IoU of the same classes for each exit')
        for value in (value for values in self.iou for value in values):
            if value is not None and not (_is_number(value) and 0 <= value <= 1):
                raise ValueError(f'worth: expected IoU in [0, 1] or null, got {value!r}')

    def check(self, exit_count: int, class_count: int) -> None:
        """Raise ValueError if it is not of so many exits and classes."""
        if (len(self.iou), len(self.iou[0])) != (exit_count, class_count):
            raise ValueError(
                f'worth: expected IoU of {exit_count} exits with {class_count} classes each, '
                f'got {len(self.iou)} with {len(self.iou[0])}'
            )

    @property
    def mean_iou(self) -> list[float | None]:
        """Mean over the classes that occur, of each exit; None if none does."""
        return [_mean([v for v in values if v is not None]) for values in self.iou]

    def of_vulnerable(self, classes: ClassSet) -> list[dict[str, float]]:
        """Give, for each exit, the IoU of each vulnerable class that occurs."""
        ids = {name: classes.id_of(name) for name in classes.vulnerable}
        return [
            {name: iou for name, i in ids.items() if (iou := values[i]) is not None}
            for values in self.iou
        ]

    def advised_exit(self, classes: ClassSet) -> int:
        """
        Give the first exit that sees vulnerable road users.

        :param classes: what the values are of.
        :return: the first exit, from 1, at which the IoU of every vulnerable class that occurs is
            at least :data:`MIN_IOU`; the last one if no exit does.
        """
        for exit_index, iou in enumerate(self.of_vulnerable(classes), start=1):
            if all(value >= MIN_IOU for value in iou.values()):
                return exit_index
        return len(self.iou)

    def described(self, classes: ClassSet) -> list[str]:
        """Say it for people, one line for each exit."""
        lines: list[str] = []
        for mean, vulnerable in zip(self.mean_iou, self.of_vulnerable(classes)):
            shares = [('mean', mean), *vulnerable.items()]
            cells = (f'{name} {100 * value:.1f}' for name, value in shares if value is not None)
            lines.append(f'exit {len(lines) + 1}: IoU, %: {", ".join(cells)}')
        judged = self.of_vulnerable(classes)[0]
        if unknown := [name for name in classes.vulnerable if name not in judged]:
            lines.append(f'not known of: {", ".join(unknown)} (not in {self.data})')
        if judged:
            advised = f'advised: exit {self.advised_exit(classes)} and later'
            lines.append(f'{advised} (judged on {self.data})')
        return lines


@dataclass(frozen=True)
class ExitTimes:
    """
    How long the exits take, for a simulated clock.

    :param seconds: of each exit after the one before.
    :param measured: on images of which size, and by what they were computed.
    :raises ValueError: if it is empty, or a value is not a positive number.
    """

    seconds: tuple[float, ...]
    measured: str

    def __post_init__(self) -> None:
        """Check the values."""
        if not self.seconds or not all(_is_number(s) and 0 < s < 1e6 for s in self.seconds):
            raise ValueError(
                f'exit_s: expected the seconds of each exit, above 0, got {list(self.seconds)}'
            )

    def check(self, exit_count: int) -> None:
        """Raise ValueError if it is not of so many exits."""
        if len(self.seconds) != exit_count:
            raise ValueError(
                f'exit_s: expected the seconds of {exit_count} exits, got {len(self.seconds)}'
            )


def worth_from(values: Any) -> Worth:
    """
    Build a worth from plain values, as JSON has them.

    :raises ValueError: if they are not those of one.
    """
    data, iou = _fields('worth', values, ('data', 'iou'))
    if not isinstance(data, str) or not isinstance(iou, list) or not all(map(_is_list, iou)):
        raise ValueError('worth: expected data as a text and iou as a list for each exit')
    return Worth(data, tuple(map(tuple, iou)))


def exit_times_from(values: Any) -> ExitTimes:
    """
    Build the times of exits from plain values, as JSON has them.

    :raises ValueError: if they are not those of one.
    """
    seconds, measured = _fields('exit_s', values, ('seconds', 'measured'))
    if not _is_list(seconds) or not isinstance(measured, str):
        raise ValueError('exit_s: expected seconds as a list and measured as a text')
    return ExitTimes(tuple(seconds), measured)


def _fields(what: str, values: Any, keys: tuple[str, str]) -> Iterable[Any]:
    if not isinstance(values, Mapping) or values.keys() != set(keys):
        got = sorted(values) if isinstance(values, Mapping) else values
        raise ValueError(f'{what}: expected the keys {" and ".join(keys)}, got {got}')
    return (values[key] for key in keys)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
