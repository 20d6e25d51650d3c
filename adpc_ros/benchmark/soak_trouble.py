# SPDX-License-Identifier: Apache-2.0
"""What happens to the node in a stretch of the soak, drawn at random."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from builtin_interfaces.msg import Duration

from adpc_ros.benchmark.soak_images import Picture
from adpc_ros.benchmark.stream_planner import random_parameters
from adpc_ros.graph.schedule import Answer, Event, Frame, Urgent
from adpc_ros.msg import Urgency

RATE_HZ = 30.0
ACT = 'soak'
PATIENCE_S = 60.0
DEFAULTS = {
    'min_exit': 0,
    'max_exit': 0,
    'target_confidence': 1.0,
    'deadline_s': 0.0,
    'adaptive': True,
    'output_scale': 1,
    'confidence_encoding': 'mono8',
}
IMPOSSIBLE: tuple[dict[str, Any], ...] = (
    {'adaptive': False, 'min_exit': 3, 'max_exit': 2},
    {'adaptive': False, 'output_scale': 3},
    {'deadline_s': -1.0},
    {'deadline_s': 1},
    {'target_confidence': float('nan')},
    {'confidence_encoding': 'mono16'},
    {'threads': 7},
    {'class_names': ['none']},
    {'no_such_parameter': 1},
)


def answered(image: int = 0, at_s: float = 0.0) -> Iterator[Event]:
    """Give a frame whose answer is waited for."""
    yield Frame(at_s, ACT, image=image)
    yield Answer(PATIENCE_S)


class Trouble:
    """
    Draws what a camera, a planner and an operator do.

    ``done`` counts garbage and urgency that were sent.
    """

    def __init__(self, draw: random.Random) -> None:
        """Begin."""
        self._draw = draw
        self._change_s = 0.0
        self.done: Counter[str] = Counter()

    def events(
        self, pictures: Sequence[Picture], duration_s: float, now: Callable[[], Any]
    ) -> Iterator[Event]:
        """
        Give frames, garbage and urgency, and a good frame at last that is answered.

        :param pictures: as of :func:`adpc_ros.benchmark.soak_images.pictures`; the first of all
            frames is the largest.
        :param now: the time, as rclpy's clocks give it.
        """
        draw, good = self._draw, [i for i, picture in enumerate(pictures) if picture.size]
        chosen, next_s = 0, 0.0
        self._change_s, urgent_s = draw.uniform(0.1, 1.0), draw.uniform(0.1, 1.0)
        while next_s < duration_s:
            if draw.random() < 0.02:
                chosen = draw.choice(good)
            for _ in range(draw.randint(2, 10) if draw.random() < 0.01 else 1):
                garbage = draw.random() < 0.05
                self.done['garbage'] += garbage
                image = draw.randrange(len(good), len(pictures)) if garbage else chosen
                yield Frame(next_s, ACT, image=image)
            if urgent_s <= next_s:
                for _ in range(
                    draw.randint(5, 30) if draw.random() < 0.1 else 1
                ):  # a storm, or one
                    delay_s = draw.uniform(0.0, 1 / RATE_HZ)
                    yield Urgent(next_s + delay_s, 0, self._urgency(now()))
                urgent_s = next_s + draw.uniform(0.05, 1.0)
            next_s += 1 / RATE_HZ
        yield Urgent(next_s, 0, self._urgency(now(), Urgency.ROUTINE))
        yield from answered(chosen, next_s)

    def change(self, now_s: float, exit_count: int) -> tuple[dict[str, Any], bool] | None:
        """
        Give parameters to be set, and whether that is possible; None if it is not yet time.

        :param now_s: since :meth:`events` began.
        """
        if now_s < self._change_s:
            return None
        self._change_s = now_s + self._draw.uniform(0.2, 2.0)
        if self._draw.random() < 0.3:
            return self._draw.choice(IMPOSSIBLE), False
        return random_parameters(self._draw, exit_count), True

    def _urgency(self, now: Any, level: int | None = None) -> Urgency:
        draw = self._draw
        message = Urgency(level=draw.randrange(3) if level is None else level)
        message.header.stamp = now.to_msg()
        if level is None:
            message.deadline = _duration(draw.choice((0.0, 0.02, 0.1, 0.3)))
            message.hold = _duration(draw.choice((0.0, 0.05, 0.5)))
        self.done['urgency'] += 1
        return message


def _duration(value_s: float) -> Duration:
    return Duration(sec=int(value_s), nanosec=round(value_s % 1 * 1e9))
