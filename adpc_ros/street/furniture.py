# SPDX-License-Identifier: Apache-2.0
"""Street furniture: lamp posts, signs, traffic lights, beacons, bollards, and trees."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

from adpc_ros.street.camera import NEAR_M, Bend, Camera, Floats
from adpc_ros.street.ground import Shadows
from adpc_ros.street.kinds import Kind
from adpc_ros.street.light import Light
from adpc_ros.street.painter import Painter, Picker, fit_sprite, hazed, picker
from adpc_ros.street.plants import Sprite
from adpc_ros.street.walls import Raster

_CONTOUR = np.linspace(0, 2 * math.pi, 12)[:-1]
_CIRCLE = np.stack((np.cos(_CONTOUR), np.sin(_CONTOUR)), 1)
_TRIANGLE = np.array(((0.0, 0.40), (0.42, -0.32), (-0.42, -0.32)))
_BOX = np.array(((-0.5, 0.5), (0.5, 0.5), (0.5, -0.5), (-0.5, -0.5)))
_RED, _WHITE, _BLUE = (186, 26, 32), (232, 232, 228), (30, 74, 154)
_DARK, _GALVANISED, _BLACK = (62, 64, 66), (146, 148, 148), (28, 28, 30)

_Colour = tuple[int, int, int]
_Place = tuple[float, float, float]

#: Traffic signs: outlines over each other, from the centre, with their colours.
_SIGNS: tuple[tuple[tuple[Floats, _Colour], ...], ...] = (
    ((_CIRCLE * 0.34, _RED), (_CIRCLE * 0.25, _WHITE), (_BOX * (0.1, 0.36), _BLACK)),
    ((_TRIANGLE, _RED), (_TRIANGLE * 0.66, _WHITE), (_BOX * (0.09, 0.3), _BLACK),
     (_BOX * (0.6, 0.3) - (0, 0.6), _WHITE)),
    ((_CIRCLE * 0.34, _RED), (_BOX * (0.46, 0.11), _WHITE)),
    ((_CIRCLE * 0.34, _BLUE), (_BOX * (0.1, 0.4), _WHITE)),
    ((_BOX * (0.6, 0.76), _BLUE), (_BOX * (0.42, 0.3) + (0, 0.1), _WHITE)),
    ((_BOX * (0.6, 0.76), _WHITE), (_BOX * (0.52, 0.68), (214, 176, 40)),
     (_BOX * (0.25, 0.07), _BLACK)),
)  # fmt: skip
_SHOP_BOARDS: tuple[tuple[_Colour, _Colour], ...] = (
    ((24, 60, 120), _WHITE), ((180, 30, 34), _WHITE), ((232, 228, 216), _BLACK),
    ((28, 92, 62), _WHITE), ((40, 40, 44), (214, 190, 120)),
)  # fmt: skip


class _Shape:
    """Rods and boards, put together relative to a foot."""

    def __init__(self) -> None:
        self._ends: list[tuple[_Place, _Place]] = []
        self._radii: list[tuple[float, float]] = []
        self._rod_colours: list[_Colour] = []
        self._corners: list[Floats] = []
        self._faces: list[tuple[tuple[int, ...], Picker]] = []
        self._board_colours: list[_Colour] = []

    def rod(self, start: _Place, end: _Place, radius: float, colour: _Colour) -> None:
        self._ends.append((start, end))
        self._radii.append((radius, radius))
        self._rod_colours.append(colour)

    def board(self, outline: Floats, x: float, y: float, colour: _Colour) -> None:
        """Add an outline (N, 2) around a place, in front of those before it."""
        first = sum(len(corners) for corners in self._corners)
        face = tuple(range(first, first + len(outline)))
        depth = np.full(len(outline), -0.05 - 0.01 * len(self._corners))
        self._corners.append(np.column_stack((outline + (x, y), depth)))
        self._faces.append((face, picker(face)))
        self._board_colours.append(colour)

    def paint(self, painter: Painter, foot: Floats) -> None:
        tint = painter.light.upright
        if self._ends:
            ends = painter.camera.turn(np.array(self._ends) + foot)
            colours = np.array(self._rod_colours) * tint
            painter.limbs(ends, np.array(self._radii), colours, Kind.POLE, thin=True)
        if self._corners:
            corners = painter.camera.turn(np.concatenate(self._corners) + foot)
            painter.faces(corners, self._faces, np.array(self._board_colours) * tint, Kind.SIGN)


@dataclass(frozen=True)
class Post:
    """
    Something on a post.

    ``what`` is 'lamp', 'sign', 'lights', 'beacon', 'bollard' or 'shop' (a board that hangs out
    over the pavement, without a post), ``style`` a number that varies it, ``inward`` -1 or 1, the
    direction of the road.
    """

    what: str
    style: int
    x: float
    s: float
    inward: int
    bend: Bend

    def place(self, _time: float) -> float:
        """Place along the street."""
        return self.s

    @cached_property
    def _foot(self) -> Floats:
        return np.array((self.x + float(self.bend.x(self.s)), 0.0, self.s))

    def shade(self, shadows: Shadows, light: Light, _time: float) -> None:
        """Add the shadow of the post."""
        if self.what == 'shop' or not light.shadows:
            return
        tip = np.array(light.cast(6.0 if self.what == 'lamp' else 2.4))
        side = tip[::-1] * (0.06, -0.06) / math.hypot(*tip)
        corners = np.stack((-side, side, tip + side, tip - side))
        shadows.add((self._foot[::2] + corners)[None], (40,))

    def paint(self, painter: Painter, _time: float) -> None:
        """Draw the post and what it bears."""
        if painter.camera.turn(self._foot)[2] > 2 * NEAR_M:
            self._shape.paint(painter, self._foot)

    @cached_property
    def _shape(self) -> _Shape:
        shape = _Shape()
        if self.what == 'lamp':
            height = 7.5 + self.style % 3
            colour = _GALVANISED if self.style % 2 else _DARK
            bow, tip = (self.inward * 0.7, height + 0.25, 0), (self.inward * 1.3, height + 0.3, 0)
            shape.rod((0, 0, 0), (0, 1.3, 0), 0.11, colour)
            shape.rod((0, 0, 0), (0, height, 0), 0.068, colour)
            shape.rod((0, height, 0), bow, 0.045, colour)
            shape.rod(bow, tip, 0.095, colour)
        elif self.what == 'sign':
            shape.rod((0, 0, 0), (0, 2.5, 0), 0.038, _GALVANISED)
            for outline, paint in _SIGNS[self.style % len(_SIGNS)]:
                shape.board(outline, 0, 2.45, paint)
        elif self.what == 'lights':
            shape.rod((0, 0, 0), (0, 3.4, 0), 0.055, _DARK)
            shape.board(_BOX * (0.46, 1.2), 0, 3.0, (20, 20, 22))
            for y, paint in ((0.36, (92, 24, 22)), (0.0, (92, 68, 22)), (-0.36, (70, 240, 170))):
                shape.board(_CIRCLE * 0.11, 0, 3.0 + y, paint)
        elif self.what == 'beacon':
            for k in range(6):
                start, end = (0, 0.42 * k, 0), (0, 0.42 * k + 0.42, 0)
                shape.rod(start, end, 0.06, (_BLACK, _WHITE)[k % 2])
            shape.board(_CIRCLE * 0.19, 0, 2.68, (250, 170, 36))
            shape.board(_CIRCLE * 0.11, -0.04, 2.73, (255, 206, 96))
        elif self.what == 'bollard':
            shape.rod((0, 0, 0), (0, 0.95, 0), 0.075, (40, 40, 40))
            shape.rod((0, 0.72, 0), (0, 0.82, 0), 0.078, (214, 214, 210))
        else:
            base, ink = _SHOP_BOARDS[self.style % len(_SHOP_BOARDS)]
            x, y = self.inward * 0.55, 3.0 + 0.1 * (self.style % 4)
            shape.board(_BOX * (0.84, 0.72), x, y, base)
            for row in (0.12, -0.12):
                shape.board(_BOX * (0.6, 0.1), x, y + row, ink)
        return shape


@dataclass(frozen=True)
class Tree:
    """A tree at ``x``, ``s``, of a height in metres."""

    pyramid: tuple[Sprite, ...]
    x: float
    s: float
    height: float
    bend: Bend
    kind: Kind = Kind.TREE

    def place(self, _time: float) -> float:
        """Place along the street."""
        return self.s

    @cached_property
    def foot(self) -> Floats:
        """Foot of the trunk: plan x, height, plan z."""
        return np.array((self.x + float(self.bend.x(self.s)), 0.0, self.s))

    @property
    def points(self) -> Floats:
        """Corners as seen along the street, see :class:`adpc_ros.street.walls.Standing`."""
        half = self.height * 0.45
        shifts = ((-half, self.height, 0), (half, self.height, 0), (half, 0, 0), (-half, 0, 0))
        return np.asarray(self.foot + np.array(shifts))

    def shade(self, shadows: Shadows, light: Light, _time: float) -> None:
        """Add the shadow of crown and trunk."""
        foot = self.foot[::2]
        shadows.add((foot + 0.45 * _CIRCLE)[None], (90,))
        if not light.shadows:
            return
        parts = []
        for height in (0.1, 0.2, 0.3, 0.42, 0.56, 0.7, 0.85):
            wobble = (
                0.26 * (1.1 - abs(height - 0.62)) * (1 + 0.2 * np.sin(3 * _CONTOUR + height * 9))
            )
            reach = 0.2 if height < 0.4 else self.height * wobble[:, None]
            parts.append(foot + light.cast(height * self.height) + reach * _CIRCLE)
        shadows.add(np.array(parts), (40,) * len(parts))

    def paint(self, painter: Painter, _time: float) -> None:
        """Draw the tree as one of the street's things."""
        painter.sprite(self.pyramid, painter.camera.turn(self.foot), self.height, self.kind)

    def draw(self, raster: Raster, camera: Camera) -> None:
        """Draw the tree among the houses."""
        foot = camera.turn(self.foot)
        fitted = fit_sprite(camera, self.pyramid, foot, self.height)
        if fitted is None:
            return
        (left, top, right, bottom), picture = fitted
        region = np.s_[top:bottom, left:right]
        under = np.ascontiguousarray(raster.pixels[region]).view(np.uint8)
        image = Image.fromarray(under.reshape(bottom - top, right - left, 4))
        colours = hazed(picture.colour, float(foot[2]), raster.light)
        image.paste(colours.convert('RGBA'), mask=picture.alpha)
        raster.pixels[region] = np.asarray(image).view(np.uint32)[..., 0]
        np.copyto(raster.labels[region], np.uint8(self.kind), where=np.asarray(picture.shape) > 0)
