# SPDX-License-Identifier: Apache-2.0
"""Pedestrians and bicyclists: sticks around a moving skeleton."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adpc_ros.street.camera import Bend, Floats
from adpc_ros.street.ground import Shadows
from adpc_ros.street.kinds import Kind
from adpc_ros.street.light import Light
from adpc_ros.street.painter import Painter

_COATS = (
    (36, 38, 46), (58, 46, 40), (96, 28, 34), (52, 64, 92), (120, 112, 98), (40, 62, 50),
    (148, 140, 130), (24, 24, 26), (170, 60, 40), (90, 96, 110), (196, 190, 180),
)  # fmt: skip
_TROUSERS = ((34, 36, 44), (52, 60, 82), (84, 76, 64), (28, 28, 30), (66, 66, 70), (110, 100, 84))
_SKIN = ((206, 164, 138), (188, 140, 112), (132, 92, 70), (218, 178, 152))
_HAIR = ((40, 30, 24), (72, 52, 34), (24, 22, 22), (150, 120, 76), (120, 116, 112))
_PHASES = 24
_DETAIL = 26.0  # pixels for a metre, below which only the main sticks are drawn
_RIM = 12  # pieces of a wheel
_CONTOUR = np.linspace(0, 2 * math.pi, 9)[:-1]
_CIRCLE = np.stack((np.cos(_CONTOUR), np.sin(_CONTOUR)), 1)

_Joints = dict[str, tuple[float, float, float]]


def dress(rng: np.random.Generator) -> Floats:
    """Choose clothes: (6, 3) RGB of coat, trousers, skin, hair, shoes and bicycle frame."""
    coat, trousers, skin, hair = (
        np.array(choice[rng.integers(len(choice))]) * rng.uniform(0.85, 1.15)
        for choice in (_COATS, _TROUSERS, _SKIN, _HAIR)
    )
    return np.array((coat, trousers, skin, hair, (32.0, 30, 30), coat[::-1] * 0.9))


class _Figure(NamedTuple):
    """
    How a skeleton is drawn.

    ``poses`` (P, J, 3) are its joints (right, up, ahead) through a cycle, ``sticks`` (2, N, 2)
    the joints that are joined, with the left leg or the right one farther off, ``radii``
    (2, N, 2), ``slots`` (2, N) the rows of :func:`dress`, ``tones`` (2, N) their brightness,
    ``main`` (2, M) the sticks that are seen from afar.
    """

    poses: Floats
    sticks: NDArray[np.intp]
    radii: Floats
    slots: NDArray[np.intp]
    tones: Floats
    main: NDArray[np.intp]


@dataclass(frozen=True)
class Person:
    """
    Somebody who walks, stands or rides.

    ``x`` and ``s`` are the place in the street at time zero, ``velocity`` the metres a second
    across and along it; farther than ``reach`` from the centre line nothing is seen. ``riding``
    says whether on a bicycle, ``size`` is 1 for 1.75 m.
    """

    clothes: Floats
    x: float
    s: float
    velocity: tuple[float, float]
    phase: float
    size: float
    bend: Bend
    reach: float
    riding: bool = False

    @property
    def kind(self) -> Kind:
        """Class of the person, a bicycle included."""
        return Kind.BICYCLIST if self.riding else Kind.PEDESTRIAN

    def place(self, time: float) -> float:
        """Place along the street at a time in seconds."""
        return self.s + self.velocity[1] * time

    def _across(self, time: float) -> float:
        return self.x + self.velocity[0] * time

    def _pose(self, time: float) -> tuple[Floats, Floats]:
        s = self.place(time)
        angle = math.atan2(self.velocity[0], self.velocity[1] + 1e-9) + self.bend.heading(s)
        cos, sin = math.cos(angle) * self.size, math.sin(angle) * self.size
        turn = np.array([[cos, 0, -sin], [0, self.size, 0], [sin, 0, cos]])
        x = self._across(time) + float(self.bend.x(s))
        return turn, np.array((x, 0.0, s))

    def shade(self, shadows: Shadows, light: Light, time: float) -> None:
        """Add the shadow on the ground."""
        if abs(self._across(time)) > self.reach:
            return
        turn, middle = self._pose(time)
        length = 0.85 if self.riding else 0.3
        ring = (0.26 * np.cos(_CONTOUR), 0 * _CONTOUR, length * np.sin(_CONTOUR))
        foot = (np.stack(ring, 1) @ turn + middle)[:, ::2]
        if light.shadows:
            tip = np.array(light.cast(1.35 * self.size))
            side = tip[::-1] * (0.2, -0.2) / math.hypot(*tip)
            trunk = np.stack((-side * 0.6, side * 0.6, tip + side, tip - side)) + middle[::2]
            head = middle[::2] + light.cast(1.62 * self.size) + 0.17 * _CIRCLE
            shadows.add(trunk[None], (0,))
            shadows.add(head[None], (0,))
        shadows.add(foot[None], (80,))

    def paint(self, painter: Painter, time: float) -> None:
        """Draw bicycle and body."""
        if abs(self._across(time)) > self.reach:
            return
        turn, middle = self._pose(time)
        speed = math.hypot(*self.velocity)
        figure = _RIDER if self.riding else _WALKER if speed > 0 else _STANDER
        cycles = (self.phase + time * speed / (5.0 if self.riding else 1.4)) % 1
        pose = figure.poses[int(cycles * len(figure.poses))]
        seen = painter.camera.turn(pose @ turn + middle)
        order = int(seen[_L_KNEE, 2] < seen[_R_KNEE, 2])  # whose leg is farther off
        coarse = painter.camera.focal < _DETAIL * seen[0, 2]
        part = figure.main[order] if coarse else np.s_[:]
        tones = figure.tones[order, part, None] * painter.light.upright
        colours = self.clothes[figure.slots[order, part]] * tones
        radii = figure.radii[order, part] * self.size
        painter.limbs(seen[figure.sticks[order, part]], radii, colours, self.kind)


def _body(hips: tuple[float, float], chest: tuple[float, float], hem: float) -> _Joints:
    """Place trunk and head; ``hips`` and ``chest`` are (up, ahead), ``hem`` the coat's end."""
    lean = chest[1] - hips[1]
    joints: _Joints = {
        'hem': (0.0, hem, hips[1]),
        'chest': (0.0, chest[0] - 0.12, chest[1]),
        'neck': (0.0, chest[0] + 0.08, chest[1] + 0.1 * lean),
        'head': (0.0, chest[0] + 0.19, chest[1] + 0.03 + 0.3 * lean),
        'brow': (0.0, chest[0] + 0.25, chest[1] + 0.03 + 0.3 * lean),
        'crown': (0.0, chest[0] + 0.3, chest[1] - 0.01 + 0.3 * lean),
        'nape': (0.0, chest[0] + 0.2, chest[1] - 0.05 + 0.3 * lean),
    }
    for side, x in (('l', -1), ('r', 1)):
        joints[f'{side}_hip'] = (0.1 * x, hips[0] - 0.04, hips[1])
        joints[f'{side}_shoulder'] = (0.17 * x, chest[0], chest[1])
    return joints


def _walking(turn: float, stride: float) -> _Joints:
    joints = _body((0.92 + 0.02 * math.cos(2 * turn), 0.0), (1.40, 0.02), 0.84)
    for side, x in (('l', -1), ('r', 1)):
        phase = turn + (0 if x < 0 else math.pi)
        swing = 0.45 * stride * math.sin(phase)
        low = swing - 0.55 * stride * max(0.0, math.cos(phase))
        knee = (0.1 * x, 0.9 - 0.42 * math.cos(swing), 0.42 * math.sin(swing))
        foot = (0.1 * x, knee[1] - 0.42 * math.cos(low), knee[2] + 0.42 * math.sin(low))
        elbow = (0.23 * x, 1.4 - 0.28 * math.cos(0.8 * swing), -0.28 * math.sin(0.8 * swing))
        joints |= {
            f'{side}_knee': knee,
            f'{side}_foot': foot,
            f'{side}_toe': (0.12 * x, max(0.03, foot[1] - 0.04), foot[2] + 0.16),
            f'{side}_elbow': elbow,
            f'{side}_hand': (0.24 * x, elbow[1] - 0.24, elbow[2] + 0.06 + 0.1 * stride),
            f'{side}_grip': (0.24 * x, elbow[1] - 0.3, elbow[2] + 0.08 + 0.12 * stride),
        }
    return joints


def _riding(turn: float) -> _Joints:
    joints = _body((1.0, -0.2), (1.42, 0.14), 0.94)
    for side, x in (('l', -1), ('r', 1)):
        phase = turn + (0 if x < 0 else math.pi)
        foot = (0.12 * x, 0.3 + 0.17 * math.sin(phase), 0.02 + 0.17 * math.cos(phase))
        joints |= {
            f'{side}_knee': (0.13 * x, 0.5 * foot[1] + 0.56, 0.5 * foot[2] + 0.14),
            f'{side}_foot': foot,
            f'{side}_toe': (foot[0], foot[1] - 0.04, foot[2] + 0.14),
            f'{side}_elbow': (0.26 * x, 1.16, 0.3),
            f'{side}_hand': (0.24 * x, 1.02, 0.5),
            f'{side}_grip': (0.24 * x, 1.01, 0.55),
        }
    for name, z in (('front', 0.58), ('rear', -0.5)):
        for k in range(_RIM):
            a = 2 * math.pi * k / _RIM
            joints[f'{name}{k}'] = (0.0, 0.34 + 0.32 * math.sin(a), z + 0.32 * math.cos(a))
    return joints | {
        'axle': (0.0, 0.34, -0.5), 'fork': (0.0, 0.34, 0.58), 'crank': (0.0, 0.3, 0.02),
        'saddle': (0.0, 0.92, -0.2), 'bars': (0.0, 0.95, 0.46),
    }  # fmt: skip


_Stick = tuple[str, str, float, float, int, float]  # joints, radii, row of clothes, brightness


def _limbs(far: str, near: str) -> list[_Stick]:
    sticks: list[_Stick] = []
    for side, tone in ((far, 0.84), (near, 1.0)):
        sticks += [
            (f'{side}_knee', f'{side}_foot', 0.062, 0.045, 1, tone),
            (f'{side}_hip', f'{side}_knee', 0.092, 0.066, 1, tone),
            (f'{side}_foot', f'{side}_toe', 0.045, 0.035, 4, 1.0),
        ]
    for side, tone in ((far, 0.84), (near, 1.06)):
        sticks += [
            (f'{side}_shoulder', f'{side}_elbow', 0.062, 0.05, 0, tone),
            (f'{side}_elbow', f'{side}_hand', 0.05, 0.036, 0, tone),
            (f'{side}_hand', f'{side}_grip', 0.04, 0.04, 2, 1.0),
        ]
    sticks[9:9] = [
        ('chest', 'hem', 0.175, 0.165, 0, 1.0),
        ('l_shoulder', 'r_shoulder', 0.085, 0.085, 0, 1.0),
    ]
    return [
        *sticks,
        ('neck', 'head', 0.05, 0.06, 2, 0.9),
        ('head', 'brow', 0.088, 0.09, 2, 1.0),
        ('crown', 'nape', 0.1, 0.08, 3, 1.0),
    ]


def _cycle_sticks() -> list[_Stick]:
    sticks: list[_Stick] = [
        (f'{wheel}{k}', f'{wheel}{(k + 1) % _RIM}', 0.024, 0.024, 4, 0.8)
        for wheel in ('front', 'rear')
        for k in range(_RIM)
    ]
    pairs = (
        ('axle', 'saddle'), ('axle', 'crank'), ('crank', 'saddle'), ('crank', 'bars'),
        ('saddle', 'bars'), ('bars', 'fork'), ('l_hand', 'r_hand'),
    )  # fmt: skip
    return sticks + [(a, b, 0.02, 0.02, 5, 1.0) for a, b in pairs]


def _figure(poses: list[_Joints], first: list[_Stick]) -> _Figure:
    names = sorted(poses[0], key=lambda name: (name not in ('l_knee', 'r_knee'), name))
    both = [first + _limbs(*sides) for sides in ('lr', 'rl')]
    return _Figure(
        np.array([[pose[name] for name in names] for pose in poses]),
        np.array([[[names.index(k) for k in stick[:2]] for stick in order] for order in both]),
        np.array([[stick[2:4] for stick in order] for order in both]),
        np.array([[stick[4] for stick in order] for order in both]),
        np.array([[stick[5] for stick in order] for order in both]),
        np.array([[k for k, stick in enumerate(order) if _is_main(stick)] for order in both]),
    )


def _is_main(stick: _Stick) -> bool:
    return stick[0] in _MAIN or (stick[0].startswith(('front', 'rear')) and stick[0][-1] in '0369')


_L_KNEE, _R_KNEE = 0, 1
_MAIN = (
    'l_knee',
    'r_knee',
    'l_hip',
    'r_hip',
    'l_shoulder',
    'r_shoulder',
    'chest',
    'head',
    'crown',
)
_TURNS = [2 * math.pi * k / _PHASES for k in range(_PHASES)]
_WALKER = _figure([_walking(turn, 1.0) for turn in _TURNS], [])
_STANDER = _figure([_walking(0.0, 0.0)], [])
_RIDER = _figure([_riding(turn) for turn in _TURNS], _cycle_sticks())
