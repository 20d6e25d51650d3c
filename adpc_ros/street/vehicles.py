# SPDX-License-Identifier: Apache-2.0
"""Cars and vans: bodies lofted over cross-sections, with glass, wheels and lamps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from adpc_ros.street.camera import Bend, Floats
from adpc_ros.street.ground import Shadows
from adpc_ros.street.kinds import Kind
from adpc_ros.street.light import Light
from adpc_ros.street.painter import Painter, Picker, picker

PAINTS = (
    (150, 152, 156), (176, 178, 182), (38, 40, 44), (26, 27, 30), (130, 26, 28), (32, 48, 92),
    (206, 206, 204), (44, 70, 56), (90, 96, 106), (64, 84, 128), (158, 40, 32), (112, 104, 92),
)  # fmt: skip
_DETAIL = 24.0  # pixels for a metre, below which details of the wheels are left out
_GLASS = np.array((38.0, 44.0, 52.0))

# Cross-sections from the rear to the front: place along the car, height of the roof line, height
# of the waist, half width, half width of the roof line; the last says what the strip towards the
# next section is: b body, g glass at the sides, w a window across (and glass at the sides).
_Section = tuple[float, float, float, float, float, str]
_HATCHBACK: tuple[_Section, ...] = (
    (-2.02, 0.66, 0.62, 0.76, 0.74, 'b'), (-1.97, 0.96, 0.92, 0.83, 0.74, 'w'),
    (-1.62, 1.38, 0.94, 0.86, 0.60, 'b'), (-1.46, 1.42, 0.94, 0.87, 0.60, 'g'),
    (-0.52, 1.46, 0.92, 0.88, 0.61, 'b'), (-0.44, 1.46, 0.92, 0.88, 0.61, 'g'),
    (0.34, 1.43, 0.92, 0.88, 0.60, 'w'), (1.12, 0.99, 0.92, 0.87, 0.70, 'b'),
    (1.72, 0.86, 0.82, 0.84, 0.72, 'b'), (2.00, 0.70, 0.66, 0.76, 0.70, 'b'),
    (2.08, 0.52, 0.50, 0.70, 0.68, 'b'),
)  # fmt: skip
_SALOON: tuple[_Section, ...] = (
    (-2.28, 0.70, 0.66, 0.76, 0.72, 'b'), (-2.22, 0.96, 0.90, 0.82, 0.74, 'b'),
    (-1.62, 1.02, 0.93, 0.87, 0.72, 'w'), (-0.98, 1.38, 0.94, 0.88, 0.58, 'b'),
    (-0.88, 1.41, 0.93, 0.88, 0.58, 'g'), (-0.26, 1.43, 0.92, 0.88, 0.59, 'b'),
    (-0.18, 1.43, 0.92, 0.88, 0.59, 'g'), (0.52, 1.39, 0.92, 0.88, 0.58, 'w'),
    (1.26, 0.98, 0.91, 0.87, 0.70, 'b'), (1.98, 0.86, 0.81, 0.84, 0.72, 'b'),
    (2.26, 0.70, 0.66, 0.76, 0.70, 'b'), (2.33, 0.52, 0.50, 0.70, 0.68, 'b'),
)  # fmt: skip
_VAN: tuple[_Section, ...] = (
    (-2.45, 1.90, 1.10, 0.92, 0.84, 'b'), (-2.40, 1.98, 1.10, 0.94, 0.84, 'b'),
    (-0.20, 2.02, 1.10, 0.95, 0.84, 'b'), (0.55, 2.00, 1.10, 0.95, 0.82, 'g'),
    (1.25, 1.90, 1.08, 0.95, 0.80, 'w'), (1.95, 1.20, 1.06, 0.92, 0.78, 'b'),
    (2.35, 1.02, 0.98, 0.88, 0.76, 'b'), (2.45, 0.60, 0.58, 0.84, 0.78, 'b'),
)  # fmt: skip
SHAPES = (_HATCHBACK, _HATCHBACK, _SALOON, _VAN)


@dataclass(frozen=True)
class Mesh:
    """
    Faces over (N, 3) points (right, up, ahead).

    ``faces`` are corners with their picker, ``colours`` (F, 3) RGB without light, ``gloss`` how
    much of the sky they mirror, ``last`` is large for what is drawn over the rest; the first
    ``body`` faces are enough far away.
    """

    points: Floats
    faces: tuple[tuple[tuple[int, ...], Picker], ...]
    colours: Floats
    normals: Floats
    middles: Floats
    gloss: Floats
    last: Floats
    body: int
    length: float
    width: float
    height: float


@dataclass(frozen=True)
class Vehicle:
    """
    A vehicle that stands or drives along the street.

    ``x`` is the place across the street, ``s`` the one along it at time zero, ``speed`` in m/s
    along the street, negative towards the camera; it faces the way it drives, or ``reverse``.
    """

    mesh: Mesh
    x: float
    s: float
    speed: float
    reverse: bool
    bend: Bend
    kind: Kind = Kind.CAR

    def place(self, time: float) -> float:
        """Place along the street at a time in seconds."""
        return self.s + self.speed * time

    def _pose(self, time: float) -> tuple[Floats, Floats]:
        s = self.place(time)
        angle = self.bend.heading(s) + (math.pi if self.reverse else 0.0)
        cos, sin = math.cos(angle), math.sin(angle)
        turn = np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])
        return turn, np.array((self.x + float(self.bend.x(s)), 0.0, s))

    def shade(self, shadows: Shadows, light: Light, time: float) -> None:
        """Add the shadow on the ground: below the body, and away from the sun."""
        turn, middle = self._pose(time)
        half = np.array((self.mesh.width / 2, 0, self.mesh.length / 2))
        corners = np.array([(-1, 0, -1), (-1, 0, 1), (1, 0, 1), (1, 0, -1)]) * half
        flat = (corners @ turn + middle)[:, ::2]
        centre = middle[::2]
        if light.shadows:
            heights = np.array((1.0, 0.6, 0.2)) * self.mesh.height
            shifts = np.array([light.cast(height) for height in heights.tolist()])
            sizes = np.array((0.82, 0.9, 1.0))[:, None, None]
            shadows.add((flat - centre) * sizes + centre + shifts[:, None], (0, 0, 0))
        rings = np.array((1.12, 1.0, 0.88))[:, None, None]
        shadows.add((flat - centre) * rings + centre, (150, 60, 10))

    def paint(self, painter: Painter, time: float) -> None:
        """Draw the vehicle, its far faces first."""
        turn, middle = self._pose(time)
        mesh = self.mesh
        points = painter.camera.turn(mesh.points @ turn + middle)
        shown = mesh.body if painter.camera.focal < _DETAIL * points[0, 2] else len(mesh.faces)
        view = mesh.middles[:shown] - turn @ (painter.camera.eye - middle)  # in its own frame
        facing = (view * mesh.normals[:shown]).sum(1)
        seen = np.flatnonzero(facing < 0)
        depth = np.sqrt((view[seen] * view[seen]).sum(1))
        near = np.argsort(mesh.last[seen] - depth)
        order, depth = seen[near], depth[near]
        facing, normals = facing[order] / depth, mesh.normals[order]
        mirror = view[order, 1] / depth - 2 * facing * normals[:, 1]
        sky = np.clip(mirror * 2.2 + 0.15, 0, 1)[:, None] * np.array(painter.light.horizon)
        share = (mesh.gloss[order] * (0.22 + 0.78 * (1 + facing) ** 3))[:, None]
        lit = painter.light.on(normals @ turn)
        colours = mesh.colours[order] * lit * (1 - share) + sky * share
        painter.faces(points, [mesh.faces[i] for i in order.tolist()], colours, self.kind)


def build_mesh(sections: tuple[_Section, ...], paint: tuple[int, int, int]) -> Mesh:
    """Loft a body over its cross-sections and add wheels, lamps and plates."""
    builder = _Builder(np.array(paint, float))
    rings = []
    for z, roof, waist, wide, narrow, _ in sections:
        half = [
            (wide * 0.96, 0.24),
            (wide, 0.52),
            (wide * 0.985, waist),
            (narrow, roof - 0.03),
            (narrow * 0.55, roof),
        ]
        ring = [(x, y, z) for x, y in half] + [(-x, y, z) for x, y in reversed(half)]
        rings.append([builder.point(p) for p in ring])
    for index, section in enumerate(sections[:-1]):
        what = section[5]
        for k in range(9):
            strip = min(k, 8 - k)  # from the sill to the roof
            glass = (strip == 2 and what != 'b') or (strip >= 3 and what == 'w')
            builder.face(
                (
                    rings[index][k],
                    rings[index + 1][k],
                    rings[index + 1][k + 1],
                    rings[index][k + 1],
                ),
                _GLASS if glass else builder.paint * (0.86 if strip == 0 else 1.0),
                0.75 if glass else 0.28,
            )
    builder.face(tuple(rings[0]), builder.paint * 0.9, 0.2)
    builder.face(tuple(reversed(rings[-1])), builder.paint * 0.9, 0.2)
    rear, front = sections[0], sections[-1]
    tall = sections[1][2] if len(sections) > 9 else 1.0
    builder.end(rear[0] - 0.02, -1, rear[3] * 0.95, tall)
    builder.end(front[0] + 0.02, 1, front[3] * 0.95, front[1] + 0.12)
    span = (sections[-1][0] - sections[0][0]) * 0.31
    for z in (-span, span):
        for side in (-1, 1):
            builder.disc(side * (sections[3][3] + 0.015), z, 0.35, 20.0)
    builder.split()
    for z in (-span, span):
        for side in (-1, 1):
            for radius, colour in ((0.31, 34.0), (0.2, 128.0), (0.07, 70.0)):
                builder.disc(side * (sections[3][3] + 0.02), z, radius, colour)
    return builder.finish(sections)


class _Builder:
    def __init__(self, paint: Floats) -> None:
        self.paint = paint
        self._points: list[tuple[float, float, float]] = []
        self._faces: list[tuple[int, ...]] = []
        self._colours: list[Floats] = []
        self._gloss: list[float] = []
        self._body = 0

    def point(self, place: tuple[float, float, float]) -> int:
        self._points.append(place)
        return len(self._points) - 1

    def face(self, corners: tuple[int, ...], colour: Floats, gloss: float) -> None:
        self._faces.append(corners)
        self._colours.append(colour)
        self._gloss.append(gloss)

    def disc(self, x: float, z: float, radius: float, tone: float) -> None:
        turns = [2 * math.pi * k / 14 * (1 if x > 0 else -1) for k in range(14)]
        corners = tuple(
            self.point((x, max(0.0, 0.32 + radius * math.sin(a)), z + radius * math.cos(a)))
            for a in reversed(turns)
        )
        self.face(corners, np.full(3, tone), -0.02 - len(self._faces) * 1e-4)

    def end(self, z: float, ahead: int, wide: float, top: float) -> None:
        """Add bumper, plate and lamps to the rear (``ahead`` -1) or the front (1)."""
        dark = np.array((30.0, 30, 32))
        lamp = np.array((168.0, 18, 14)) if ahead < 0 else np.array((226.0, 228, 224))
        plate = np.array((206.0, 176, 60)) if ahead < 0 else np.array((214.0, 214, 206))
        patches = [
            (-wide, 0.26, wide, 0.46, dark, z - ahead * 0.02),
            (-0.26, 0.44, 0.26, 0.56, plate, z + ahead * 0.01),
            (-wide, top - 0.26, -wide + 0.2, top - 0.06, lamp, z + ahead * 0.01),
            (wide - 0.2, top - 0.26, wide, top - 0.06, lamp, z + ahead * 0.01),
        ]
        if ahead > 0:
            patches.append((-0.42, 0.58, 0.42, 0.68, dark, z + 0.01))
        for left, low, right, high, colour, place in patches:
            corners = [(left, low), (left, high), (right, high), (right, low)]
            if ahead > 0:
                corners.reverse()
            self.face(tuple(self.point((x, y, place)) for x, y in corners), colour, -0.01)

    def split(self) -> None:
        """Note that the faces from here on are details."""
        self._body = len(self._faces)

    def finish(self, sections: tuple[_Section, ...]) -> Mesh:
        points = np.array(self._points)
        normals, middles = [], []
        for face in self._faces:
            ring = points[list(face)]
            following = points[[*face[1:], face[0]]]
            normal = ((ring - following)[:, [1, 2, 0]] * (ring + following)[:, [2, 0, 1]]).sum(0)
            normals.append(normal / max(1e-9, float(np.linalg.norm(normal))))
            middles.append(ring.mean(0))
        middle = np.array(middles)
        outward = np.array(normals)
        # a convex body: every face looks away from its axis
        away = ((middle - (0, 0.7, 0)) * outward).sum(1, keepdims=True)
        gloss = np.array(self._gloss)
        outward = np.where(away < 0, -outward, outward)
        return Mesh(
            points=points,
            faces=tuple((face, picker(face)) for face in self._faces),
            colours=np.array(self._colours),
            normals=outward,
            middles=middle,
            gloss=np.maximum(gloss, 0),
            last=-1e4 * np.minimum(gloss, 0),
            body=self._body,
            length=sections[-1][0] - sections[0][0],
            width=1.76,
            height=max(section[1] for section in sections),
        )
