# SPDX-License-Identifier: Apache-2.0
"""A whole street, laid out by chance from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from adpc_ros.street.camera import Bend
from adpc_ros.street.furniture import Post, Tree
from adpc_ros.street.ground import Ground, Markings, Shadows
from adpc_ros.street.houses import Builder, Character, Lot
from adpc_ros.street.light import Light, make_light
from adpc_ros.street.painter import Painter
from adpc_ros.street.people import Person, dress
from adpc_ros.street.plants import Sprite
from adpc_ros.street.vehicles import PAINTS, SHAPES, Vehicle, build_mesh
from adpc_ros.street.walls import Scene

VIEW_M = 130.0  # how far the camera sees
_LANE_M = 3.15
_PARKING_M = 2.1


class Actor(Protocol):
    """Something that stands or moves in the street."""

    def place(self, time: float) -> float:
        """Place along the street at a time in seconds."""

    def shade(self, shadows: Shadows, light: Light, time: float) -> None:
        """Add its shadow on the ground."""

    def paint(self, painter: Painter, time: float) -> None:
        """Draw it."""


@dataclass(frozen=True)
class World:
    """
    The street of one seed.

    ``lots`` go from far to near, ``scene`` are their elements, ``lane_x`` and ``speed`` are the
    camera's, in metres and m/s.
    """

    light: Light
    bend: Bend
    ground: Ground
    lots: tuple[Lot, ...]
    scene: Scene
    actors: tuple[Actor, ...]
    lane_x: float
    speed: float


def make_world(rng: np.random.Generator, duration_s: float) -> World:
    """
    Lay out a street.

    :param duration_s: how long the camera drives along it.
    :return: the street, long enough for the view from its last place.
    """
    light = make_light(rng)
    bend = Bend(rng.uniform(-3.5, 3.5), rng.uniform(160, 300), rng.uniform(0, 6.28))
    speed = rng.uniform(6.5, 9.5)
    end = speed * duration_s + VIEW_M
    parking = tuple(bool(rng.random() < 0.55) for _ in range(2))
    left, right = (_LANE_M + rng.uniform(0, 0.5) + _PARKING_M * on for on in parking)
    pavements = rng.uniform(2.0, 3.6, 2)
    character = Character(
        shops=float(rng.choice([0.1, 0.45, 0.85])),
        gaps=rng.uniform(0.06, 0.3),
        gardens=rng.uniform(0.05, 0.5),
        leafy=bool(rng.random() < 0.6),
        green=rng.uniform(0.3, 1.1),
    )
    crossings = tuple(float(s) for s in np.arange(rng.uniform(25, 60), end, rng.uniform(70, 140)))
    dashes = ((2.0, 4.0), (4.0, 2.0), (3.0, 3.0))[rng.integers(3)]
    markings = Markings(*dashes, bool(rng.random() < 0.5), crossings)
    ground = Ground(rng, bend, light, left, right, end, markings)
    builder = Builder(rng, character, bend, light)
    lots = []
    for side, front in ((-1, left + pavements[0]), (1, right + pavements[1])):
        lots += builder.build(side, float(front), -16.0, end)
        lots += builder.backdrop(side, -16.0, end)
    lots.sort(key=lambda lot: -lot.start)
    filler = _Filler(
        rng, bend, character, (left, right), (pavements[0], pavements[1]), end, duration_s
    )
    traffic = filler.traffic(speed)
    actors = [
        *filler.posts(lots, crossings),
        *filler.street_trees(builder.trees),
        *filler.parked(parking, crossings),
        *filler.people(),
        *filler.crossing_people(speed, crossings, traffic),
        *traffic,
    ]
    lots.insert(0, builder.close(end))
    scene = Scene([element for lot in lots for element in lot.elements])
    return World(light, bend, ground, tuple(lots), scene, tuple(actors), -1.35, speed)


class _Filler:
    """Puts things and people on the street."""

    def __init__(
        self,
        rng: np.random.Generator,
        bend: Bend,
        character: Character,
        kerbs: tuple[float, float],
        pavements: tuple[float, float],
        end: float,
        duration_s: float,
    ) -> None:
        self._rng = rng
        self._bend = bend
        self._character = character
        self._kerbs = {-1: kerbs[0], 1: kerbs[1]}
        self._pavements = {-1: pavements[0], 1: pavements[1]}
        self._end = end
        self._duration = duration_s
        self._meshes = [
            build_mesh(shape, PAINTS[i])
            for shape in SHAPES
            for i in rng.choice(len(PAINTS), 3, replace=False)
        ]

    def _post(self, what: str, style: int, side: int, off: float, s: float) -> Post:
        return Post(what, style, side * (self._kerbs[side] + off), s, -side, self._bend)

    def posts(self, lots: list[Lot], crossings: tuple[float, ...]) -> list[Actor]:
        """Place lamps, signs, beacons or lights at crossings, bollards, and boards on shops."""
        rng = self._rng
        actors: list[Actor] = []
        style = int(rng.integers(6))
        spacing = rng.uniform(24, 34)
        for index, lamp in enumerate(np.arange(rng.uniform(6, 14), self._end, spacing)):
            actors.append(self._post('lamp', style, (-1, 1)[index % 2], 0.5, float(lamp)))
        s = rng.uniform(10, 18)
        while s < self._end:
            side = int(rng.choice([-1, 1], p=[0.65, 0.35]))
            actors.append(self._post('sign', int(rng.integers(24)), side, 0.5, float(s)))
            s += rng.uniform(12, 34)
        for place in crossings:
            what = str(rng.choice(['beacon', 'lights']))
            for side in (-1, 1):
                actors.append(self._post(what, 0, side, 0.35, place - 2.0))
        for _ in range(rng.poisson(self._end / 60)):
            side, s = int(rng.choice([-1, 1])), rng.uniform(8, self._end)
            actors += [self._post('bollard', 0, side, 0.4, s + 1.6 * k) for k in range(4)]
        for lot in lots:
            flush = lot.height > 0 and lot.front < self._kerbs[lot.side] + 3.7
            if flush and rng.random() < 0.65 * self._character.shops:
                s = rng.uniform(lot.start + 1, lot.end - 1)
                x = lot.side * lot.front
                actors.append(Post('shop', int(rng.integers(20)), x, s, -lot.side, self._bend))
        return actors

    def street_trees(self, trees: list[tuple[Sprite, ...]]) -> list[Actor]:
        """Plant trees along the kerbs of a green street."""
        actors: list[Actor] = []
        for side in (-1, 1):
            if self._rng.random() > self._character.green * 0.7 or self._pavements[side] < 2.3:
                continue
            spacing = self._rng.uniform(11, 22)
            for s in np.arange(self._rng.uniform(10, 30), self._end, spacing):
                pick = trees[int(self._rng.integers(len(trees)))]
                x = side * (self._kerbs[side] + 0.8)
                height = self._rng.uniform(5.5, 9)
                actors.append(
                    Tree(pick, x, float(s + self._rng.normal(0, 1.5)), height, self._bend)
                )
        return actors

    def _vehicle(self, x: float, s: float, speed: float, reverse: bool) -> Vehicle:
        mesh = self._meshes[int(self._rng.integers(len(self._meshes)))]
        return Vehicle(mesh, x, s, speed, reverse, self._bend)

    def parked(self, parking: tuple[bool, ...], crossings: tuple[float, ...]) -> list[Actor]:
        """Park cars at the kerbs, not on crossings."""
        actors: list[Actor] = []
        for side, allowed in zip((-1, 1), parking, strict=True):
            s = -6.0
            while allowed and s < self._end:
                s += self._rng.uniform(5.2, 6.4) if self._rng.random() < 0.6 else 12.0
                if all(abs(s - place) > 8 for place in crossings):
                    x = side * (self._kerbs[side] - 1.05 + self._rng.normal(0, 0.06))
                    actors.append(
                        self._vehicle(x, s, 0.0, (side > 0) ^ (self._rng.random() < 0.2))
                    )
        return actors

    def traffic(self, speed: float) -> list[Actor]:
        """Let cars drive ahead of the camera and towards it."""
        rng = self._rng
        ahead = rng.uniform(15, 24)
        actors: list[Actor] = []
        while ahead < VIEW_M:
            actors.append(self._vehicle(-1.5, ahead, speed, False))
            ahead += rng.uniform(14, 60)
        s = rng.uniform(18, 40)
        while s < self._end + 9 * self._duration:
            actors.append(self._vehicle(1.6, s, -9.0, True))
            s += rng.exponential(40) + 9
        return actors

    def _person(
        self, x: float, s: float, velocity: tuple[float, float], riding: bool = False
    ) -> Person:
        phase, size = self._rng.random(), self._rng.uniform(0.9, 1.06)
        reach = max(self._kerbs[k] + self._pavements[k] for k in (-1, 1))
        return Person(dress(self._rng), x, s, velocity, phase, size, self._bend, reach, riding)

    def people(self) -> list[Actor]:
        """Let people walk on the pavements and ride along the street."""
        rng = self._rng
        actors: list[Actor] = []
        density = rng.uniform(0.03, 0.1)
        for side in (-1, 1):
            for _ in range(rng.poisson(density * self._end)):
                x = side * (self._kerbs[side] + rng.uniform(0.9, self._pavements[side] - 0.5))
                walk = float(rng.choice([-1, 1, 0], p=[0.45, 0.45, 0.1]) * rng.uniform(0.9, 1.6))
                s = rng.uniform(0, self._end)
                for k in range(int(rng.choice([1, 2], p=[0.7, 0.3]))):
                    actors.append(self._person(x - 0.55 * k * side, s + 0.2 * k, (0.0, walk)))
        s = rng.uniform(13, 22)
        while s < self._end:
            actors.append(self._person(-2.75, s, (0.0, 4.6), riding=True))
            s += rng.uniform(18, 60)
        s = rng.uniform(30, 70)
        while s < self._end + 5 * self._duration:
            actors.append(self._person(2.85, s, (0.0, -4.8), riding=True))
            s += rng.uniform(30, 110)
        return actors

    def crossing_people(
        self, speed: float, crossings: tuple[float, ...], traffic: Sequence[Actor]
    ) -> list[Actor]:
        """Let people cross where there is a crossing, off the road before a car comes."""
        actors: list[Actor] = []
        walk = 1.25
        for place in crossings:
            for _ in range(int(self._rng.integers(0, 3))):
                left = place / speed - self._rng.uniform(3.5, 7.0)  # the road, seconds
                entered = left - (self._kerbs[-1] + self._kerbs[1]) / walk
                times = np.arange(max(0.0, entered) - 0.8, left + 0.4, 0.2)
                if all(abs(car.place(t) - place) > 4 for car in traffic for t in times.tolist()):
                    x = self._kerbs[1] - walk * left
                    s = place + self._rng.uniform(-1, 1)
                    actors.append(self._person(x, s, (walk, 0.0)))
        return actors
