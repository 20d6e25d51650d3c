# SPDX-License-Identifier: Apache-2.0
"""Both sides of a street as lots: houses, gardens, fences, and what closes the view behind."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adpc_ros.street.camera import Bend
from adpc_ros.street.facades import BRICKS, Facade, paint_facade
from adpc_ros.street.furniture import Tree
from adpc_ros.street.kinds import Kind
from adpc_ros.street.light import Light
from adpc_ros.street.plants import Sprite, boards, gable, hedge, paint_tree, railing, roof
from adpc_ros.street.textures import Texture, fractal_noise
from adpc_ros.street.walls import Wall

Element = Wall | Tree
_DEEP_M = 8.0  # depth of a house
_RISE_M = 2.6  # of a roof over its eaves


@dataclass(frozen=True)
class Lot:
    """
    A stretch of one side of the street, its elements far ones first.

    ``start`` and ``end`` are places along the street, ``side`` is -1 (left) or 1, ``front`` the
    distance of the houses from the centre line, ``height`` that of the house, 0 without one.
    """

    start: float
    end: float
    side: int
    front: float
    height: float
    elements: tuple[Element, ...]


@dataclass(frozen=True)
class Character:
    """What makes streets differ: shares from 0 to 1, distances in metres."""

    shops: float
    gaps: float
    gardens: float
    leafy: bool
    green: float


class Builder:
    """
    Builds lots from a stock of fronts, fences and trees that is painted once.

    :param character: of the street.
    :param bend: its centre line.
    """

    def __init__(
        self, rng: np.random.Generator, character: Character, bend: Bend, light: Light
    ) -> None:
        """Paint the stock."""
        self._rng = rng
        self._character = character
        self._bend = bend
        stain = fractal_noise(rng, (512, 512), 1.3)
        faces = {side: light.on((-side, 0.0, 0.0)) for side in (-1, 1)}
        toward = light.on((0.0, 0.0, -1.0))
        self._fronts = {
            side: [paint_facade(rng, stain, faces[side], character.shops) for _ in range(6)]
            for side in (-1, 1)
        }
        self._closing = [paint_facade(rng, stain, toward, 0.3) for _ in range(3)]
        self._roofs = {
            side: [roof(rng, light.on((-side * 0.55, 0.83, 0.0))) for _ in range(3)]
            for side in (-1, 1)
        }
        self._closing_roof = roof(rng, light.on((0.0, 0.83, -0.55)))
        brick = np.array(BRICKS[rng.integers(len(BRICKS))])
        self._fences = {
            side: [
                (railing(rng, faces[side], brick), Kind.FENCE, 1.6),
                (boards(rng, faces[side]), Kind.FENCE, 1.7),
                (hedge(rng, faces[side], (12.0, 1.9)), Kind.TREE, 1.9),
            ]
            for side in (-1, 1)
        }
        self._backdrop = hedge(rng, light.on((0.0, 0.3, -0.9)), (40.0, 10.0))
        self.trees: list[tuple[Sprite, ...]] = [
            paint_tree(rng, light, character.leafy) for _ in range(4)
        ]
        self._gables: dict[int, Texture] = {}

    def build(self, side: int, front: float, start: float, end: float) -> list[Lot]:
        """
        Build one side of the street.

        :param front: distance of the pavement's far edge from the centre line.
        :return: the lots from near to far.
        """
        lots: list[Lot] = []
        last = -1
        while start < end:
            draw = self._rng.random()
            if draw < self._character.gaps:
                lot = self._garden(side, front, start)
            else:
                choice = int(self._rng.integers(len(self._fronts[side])))
                choice = choice if choice != last else (choice + 1) % len(self._fronts[side])
                last = choice
                back = draw > 1 - self._character.gardens * (1 - self._character.gaps)
                near = lots[-1] if lots else None
                facade = self._fronts[side][choice]
                lot = self._house(side, front, start, facade, back, near)
            lots.append(lot)
            start = lot.end
        return lots

    def close(self, place: float) -> Lot:
        """Build what is seen at the end of the street."""
        elements: list[Element] = [self._trees_behind(-60.0, 60.0, place + 30)]
        x = -34.0
        while x < 34:
            facade = self._closing[int(self._rng.integers(len(self._closing)))]
            start, end = (x, place), (x + facade.width, place)
            ridge = (x, place + 4), (x + facade.width, place + 4)
            top = facade.height + _RISE_M
            elements.append(
                Wall(*ridge, facade.height, top, self._closing_roof, Kind.BUILDING, True)
            )
            elements.append(Wall(start, end, 0.0, facade.height, facade.front, Kind.BUILDING))
            x += facade.width + self._rng.choice([0.0, 0.0, 5.0])
        return Lot(place, place + 60, 0, 0.0, 0.0, tuple(elements))

    def backdrop(self, side: int, start: float, end: float) -> list[Lot]:
        """Build the rows of trees behind the houses."""
        lots = []
        while start < end:
            x = side * self._rng.uniform(26, 40)
            wall = self._wall(side, abs(x), start, start + 40, 10.0, self._backdrop, Kind.TREE)
            lots.append(Lot(start, start + 40, side, abs(x), 0.0, (wall,)))
            start += 40
        return lots

    def _trees_behind(self, left: float, right: float, place: float) -> Wall:
        return Wall(
            (left, place), (right, place), 0.0, 11.0, self._backdrop, Kind.TREE, True, True
        )

    def _point(self, side: int, x: float, s: float) -> tuple[float, float]:
        return side * x + float(self._bend.x(s)), s

    def _wall(
        self, side: int, x: float, start: float, end: float, top: float, texture: Texture,
        kind: Kind, bottom: float = 0.0,
    ) -> Wall:  # fmt: skip
        """Build a wall along the street that repeats its texture."""
        ends = (self._point(side, x, start), self._point(side, x, end))
        first, last = ends if side < 0 else ends[::-1]
        return Wall(first, last, bottom, top, texture, kind, True, kind == Kind.TREE)

    def _house(
        self, side: int, front: float, start: float, facade: Facade, back: bool, near: Lot | None
    ) -> Lot:
        garden = float(self._rng.uniform(3.0, 5.5)) if back else 0.0
        x, end = front + garden, start + facade.width
        elements: list[Element] = []
        if not facade.flat_roof:
            elements += self._roof(side, x, start, end, facade)
        if near is None or near.height < facade.height - 0.3 or near.front > x + 0.3:
            elements += self._gable(side, x, start, facade)
        first, last = self._point(side, x, start), self._point(side, x, end)
        if side > 0:
            first, last = last, first
        elements.append(Wall(first, last, 0.0, facade.height, facade.front, Kind.BUILDING))
        if back:
            elements += self._planting(side, front, start, end, garden * 0.6)
            elements.append(self._fence(side, front, start, end))
        return Lot(start, end, side, x, facade.height, tuple(elements))

    def _gable(self, side: int, x: float, start: float, facade: Facade) -> list[Element]:
        ends = (self._point(side, x + _DEEP_M, start), self._point(side, x, start))
        first, last = ends if side < 0 else ends[::-1]
        elements: list[Element] = [
            Wall(first, last, 0.0, facade.height, facade.plain, Kind.BUILDING, True)
        ]
        if not facade.flat_roof:
            part = self._gables.get(id(facade)) or gable(facade.plain)
            self._gables[id(facade)] = part
            top = facade.height + _RISE_M
            elements.append(
                Wall(first, last, facade.height, top, part, Kind.BUILDING, False, True)
            )
        return elements

    def _roof(
        self, side: int, x: float, start: float, end: float, facade: Facade
    ) -> list[Element]:
        """
        Build a roof and a chimney.

        The roof is an upright wall under the ridge: from the street, behind the front, it fills
        what a slope would.
        """
        half, top = _DEEP_M / 2, facade.height + _RISE_M
        near, far = self._point(side, x + half, start), self._point(side, x + half, end)
        first, last = (near, far) if side < 0 else (far, near)
        texture = self._roofs[side][int(self._rng.integers(3))]
        elements: list[Element] = []
        if self._rng.random() < 0.7:
            s = start + float(self._rng.uniform(0.5, facade.width - 1.5))
            for a, b in (
                ((half + 0.4, s), (half - 0.4, s)),
                ((half - 0.4, s), (half - 0.4, s + 1)),
            ):
                ends = (self._point(side, x + a[0], a[1]), self._point(side, x + b[0], b[1]))
                left, right = ends if side < 0 else ends[::-1]
                elements.append(
                    Wall(left, right, top - 0.6, top + 1.1, facade.plain, Kind.BUILDING, True)
                )
        elements.append(Wall(first, last, facade.height, top, texture, Kind.BUILDING, True))
        return elements

    def _garden(self, side: int, front: float, start: float) -> Lot:
        end = start + float(self._rng.uniform(6, 15))
        elements = self._planting(side, front, start, end, 5.0)
        elements.append(self._fence(side, front, start, end))
        return Lot(start, end, side, front + 20, 0.0, tuple(elements))

    def _planting(
        self, side: int, front: float, start: float, end: float, depth: float
    ) -> list[Element]:
        count = int(self._rng.poisson(self._character.green * (end - start) / 5))
        places = sorted(self._rng.uniform(start, end, count), reverse=True)
        return [
            Tree(
                self.trees[int(self._rng.integers(len(self.trees)))],
                side * (front + float(self._rng.uniform(1.0, 1.5 + depth))),
                float(s),
                float(self._rng.uniform(4.5, 9.0)),
                self._bend,
            )
            for s in places
        ]

    def _fence(self, side: int, front: float, start: float, end: float) -> Wall:
        texture, kind, height = self._fences[side][int(self._rng.choice(3, p=[0.5, 0.28, 0.22]))]
        return self._wall(side, front + 0.1, start, end, height, texture, kind)
