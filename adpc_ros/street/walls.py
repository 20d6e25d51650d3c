# SPDX-License-Identifier: Apache-2.0
"""Drawing of textured walls into arrays, and which of them can be seen at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from adpc_ros.street.camera import NEAR_M, Camera, Floats
from adpc_ros.street.light import Light
from adpc_ros.street.textures import COLUMN_LEVELS, ROW_LEVELS, Bytes, Texture

_BINS = 120  # parts of the screen's width in which walls hide each other
_SMALL = 220  # square pixels, below which a roof or a chimney is left out


@dataclass(frozen=True)
class Raster:
    """
    What the walls are drawn into.

    ``pixels`` is (H, W) uint32 (bytes: red, green, blue, 255), ``labels`` (H, W) uint8 class ids.
    """

    pixels: NDArray[np.uint32]
    labels: Bytes
    light: Light


@dataclass(frozen=True)
class Wall:
    """
    An upright textured rectangle between two points of the plan.

    ``start`` and ``end`` are (x, z) in metres, left to right of the texture, ``bottom`` and
    ``top`` heights. The texture repeats sideways if ``repeat``, else it is stretched. Holes of
    the texture are see-through but keep the label unless ``holes``.
    """

    start: tuple[float, float]
    end: tuple[float, float]
    bottom: float
    top: float
    texture: Texture
    class_id: int
    repeat: bool = False
    holes: bool = False

    @cached_property
    def points(self) -> Floats:
        """Upper corners, then lower ones."""
        return np.array(
            [(x, y, z) for y in (self.top, self.bottom) for x, z in (self.start, self.end)]
        )

    @property
    def columns(self) -> float:
        """Columns of the texture at full size that lie on the wall."""
        if not self.repeat:
            return float(self.texture.widths[0])
        return float(math.dist(self.start, self.end) * self.texture.texels_per_metre[0])


class Standing(Protocol):
    """Something other than a wall that stands at the side of the street and never moves."""

    @property
    def points(self) -> Floats:
        """(4, 3) plan x, height, plan z of its corners as seen along the street."""

    def draw(self, raster: Raster, camera: Camera) -> None:
        """Draw it over what is there."""


class _Columns(NamedTuple):
    """
    Walls cut into screen columns, one after the other, as in Wolfenstein 3D.

    ``step`` and ``start`` give the texture's row (plus one) for a screen row, ``base`` where the
    texture's column begins in the atlas, ``width`` and ``height`` the size of the level that is
    looked up, ``fog`` the haze's share in 256ths; ``first``, ``up`` and ``down`` are the left
    column and the rows of each wall, ``bounds`` its place in the other arrays.
    """

    step: NDArray[np.float32]
    start: NDArray[np.float32]
    base: NDArray[np.int32]
    width: NDArray[np.int32]
    height: NDArray[np.uint32]
    fog: NDArray[np.uint32]
    first: list[int]
    up: list[int]
    down: list[int]
    bounds: list[int]


class Scene:
    """
    All that stands at the sides of a street.

    :param elements: walls and other things from far to near, so that each may hide only those
        before it.
    """

    def __init__(self, elements: Sequence[Wall | Standing]) -> None:
        """Gather the corners of the elements, and all textures in one atlas."""
        self._elements = list(reversed(elements))
        self._points = np.array([element.points for element in self._elements])
        walls = [element if isinstance(element, Wall) else None for element in self._elements]
        self._is_wall = np.array([wall is not None for wall in walls])
        self._hides = np.array(
            [wall is not None and wall.texture.opaque and wall.bottom == 0 for wall in walls]
        )
        textures = {id(wall.texture): wall.texture for wall in walls if wall is not None}
        places = {key: index for index, key in enumerate(textures)}
        stock = list(textures.values())
        starts = np.cumsum([0, *(texture.texels.size for texture in stock)])[:-1]
        self._atlas = np.concatenate([texture.texels for texture in stock])
        self._offsets = np.array([t.offsets + k for t, k in zip(stock, starts, strict=True)])
        self._widths = np.array([texture.widths for texture in stock])
        self._heights = np.array([texture.heights for texture in stock])
        self._scales = np.array([texture.texels_per_metre[1] for texture in stock])
        self._texture = np.array(
            [0 if wall is None else places[id(wall.texture)] for wall in walls]
        )
        self._across = np.array([0.0 if wall is None else wall.columns for wall in walls])

    def draw(self, raster: Raster, camera: Camera, far_m: float) -> None:
        """Draw what can be seen up to a distance, far elements first."""
        seen = camera.turn(self._points)
        depth = seen[..., 2]
        within = np.flatnonzero((depth.max(1) > NEAR_M) & (depth.min(1) < far_m))
        shown = within[self._visible(camera, seen[within], within)]
        walls = shown[self._is_wall[shown]]
        if len(walls) == 0:
            return
        columns = self._cut(camera, seen[walls], walls, raster.light)
        place = dict(zip(walls.tolist(), range(len(walls)), strict=True))
        for index in shown[::-1].tolist():
            element = self._elements[index]
            if isinstance(element, Wall):
                self._draw_wall(raster, element, columns, place[index])
            else:
                element.draw(raster, camera)

    def _visible(
        self, camera: Camera, seen: Floats, within: NDArray[np.intp]
    ) -> NDArray[np.bool_]:
        """Tell for elements from near to far which rise above all that is nearer, in some bin."""
        hides, is_wall = self._hides[within], self._is_wall[within]
        for here, there in ((0, 1), (1, 0)):  # cut the upper edge at the near plane
            a, b = seen[:, here].copy(), seen[:, there]
            behind = a[:, 2] < NEAR_M
            share = (NEAR_M - a[:, 2]) / np.where(behind, np.maximum(b[:, 2] - a[:, 2], 1e-6), 1)
            seen[:, here] = np.where(behind[:, None], a + (b - a) * share[:, None], a)
        seen[..., 2] = np.maximum(seen[..., 2], NEAR_M)
        flat = camera.project(seen)
        left, right = flat[..., 0].min(1)[:, None], flat[..., 0].max(1)[:, None]
        edges = np.linspace(0, camera.width, _BINS + 1)[None]
        start, end = flat[:, :1], flat[:, 1:2]
        run = end[..., 0] - start[..., 0]
        slope = (end[..., 1] - start[..., 1]) / np.where(np.abs(run) < 1e-6, 1e-6, run)
        line = start[..., 1] + (edges - start[..., 0]) * slope  # upper edge at the bins' edges
        covered = (edges[:, :-1] >= left) & (edges[:, 1:] <= right) & hides[:, None]
        cover = np.where(covered, np.maximum(line[:, :-1], line[:, 1:]), camera.height)
        before = np.vstack((np.full((1, _BINS), camera.height), cover))[:-1]
        before = np.minimum.accumulate(before, 0)
        touched = (edges[:, 1:] > left) & (edges[:, :-1] < right)
        highest = flat[..., 1].min(1)[:, None]
        edge = np.maximum(np.minimum(line[:, :-1], line[:, 1:]), highest)
        top = np.maximum(np.where(is_wall[:, None], edge, highest), 0)
        size = np.ptp(flat[..., 0], axis=1) * np.ptp(flat[..., 1], axis=1)
        large = (size > _SMALL) | hides
        return np.asarray((touched & (top < before - 1)).any(1) & large)

    def _cut(
        self, camera: Camera, seen: Floats, walls: NDArray[np.intp], light: Light
    ) -> _Columns:
        """Compute what the columns of all walls look up."""
        a, b = seen[:, 0, ::2], seen[:, 1, ::2]
        run, deep = (b - a).T
        ends = []
        for p, q in ((a, b), (b, a)):
            behind = p[:, 1] < NEAR_M
            share = (NEAR_M - p[:, 1]) / np.where(behind, q[:, 1] - p[:, 1], 1)
            x = np.where(behind, p[:, 0] + (q[:, 0] - p[:, 0]) * share, p[:, 0])
            ends.append(camera.width / 2 + camera.focal * x / np.maximum(p[:, 1], NEAR_M))
        first, last = (
            np.clip(np.round(edge), 0, camera.width).astype(np.intp)
            for edge in (np.minimum(*ends), np.maximum(*ends))
        )
        counts = last - first
        bounds = np.concatenate(([0], np.cumsum(counts)))
        of = np.repeat(np.arange(len(walls)), counts)  # the wall of each column
        column = np.arange(bounds[-1]) - bounds[of] + first[of]
        ray = (column + (0.5 - camera.width / 2)) / camera.focal
        below = run[of] - deep[of] * ray
        along = np.clip((a[of, 1] * ray - a[of, 0]) / below, 0, 0.99999)
        depth = np.maximum(a[of, 1] + along * deep[of], NEAR_M)
        across, texture = self._across[walls][of], self._texture[walls][of]
        squeeze = (a[:, 1] * run - a[:, 0] * deep)[of] * across / (below * below * camera.focal)
        i = _level(np.abs(squeeze), COLUMN_LEVELS)
        j = _level(depth * self._scales[texture] / camera.focal, ROW_LEVELS)
        width, height = self._widths[texture, i], self._heights[texture, j]
        base = (along * across / (1 << i)).astype(np.int32) % width
        base += self._offsets[texture, i, j] - width
        top, bottom = seen[:, 0, 1], seen[:, 2, 1]  # over the camera
        scale = height / (top - bottom)[of]
        rise = (camera.horizon - 0.5) / camera.focal * depth  # height of row 0 over the camera
        highest, lowest = (
            camera.horizon - camera.focal * height[of] / depth for height in (top, bottom)
        )
        up, down = np.zeros(len(walls), int), np.zeros(len(walls), int)
        some = counts > 0
        at = bounds[:-1][some]
        up[some] = np.maximum(np.minimum.reduceat(highest, at), 0).astype(int)
        down[some] = np.minimum(np.maximum.reduceat(lowest, at) + 1, camera.height).astype(int)
        return _Columns(
            (depth * scale / camera.focal).astype(np.float32),
            ((top[of] - rise) * scale + 1).astype(np.float32),
            base.astype(np.int32),
            width.astype(np.int32),
            height.astype(np.uint32),
            (256 * light.haze(depth)).astype(np.uint32),
            *(values.tolist() for values in (first, up, down, bounds)),
        )

    def _draw_wall(self, raster: Raster, wall: Wall, columns: _Columns, place: int) -> None:
        part = slice(columns.bounds[place], columns.bounds[place + 1])
        up, down = columns.up[place], columns.down[place]
        if up >= down or part.start == part.stop:
            return
        row = np.arange(up, down, dtype=np.float32)[:, None] * columns.step[part]
        row += columns.start[part]
        index = row.astype(np.int32)
        inside = (index - 1).view(np.uint32) < columns.height[part]
        index *= columns.width[part]
        index += columns.base[part]
        texels = self._atlas.take(index, mode='clip')
        _fade(texels, columns.fog[part], raster.light)
        first = columns.first[place]
        region = np.s_[up:down, first : first + part.stop - part.start]
        pixels = raster.pixels[region]
        if wall.texture.opaque:
            np.copyto(pixels, texels, where=inside)
            solid = inside
        else:
            alpha = (texels >> np.uint32(24)) * inside
            solid = (alpha > 127) if wall.holes else inside
            old = np.ascontiguousarray(pixels).view(np.uint8).reshape(*pixels.shape, 4)
            new = texels.view(np.uint8).reshape(old.shape)
            share = (alpha.astype(np.float32) / np.float32(255))[..., None]
            blend = old + (new.astype(np.float32) - old) * share
            pixels[...] = blend.astype(np.uint8).view(np.uint32)[..., 0] | np.uint32(0xFF000000)
        np.copyto(raster.labels[region], np.uint8(wall.class_id), where=solid)


def _level(texels_per_pixel: Floats, count: int) -> NDArray[np.intp]:
    """Choose the level that has about one texel for each pixel."""
    level = np.log2(np.maximum(texels_per_pixel, 0.75)) + 0.5
    nearest: NDArray[np.intp] = np.minimum(level, count - 1).astype(np.intp)
    return nearest


def _fade(texels: NDArray[np.uint32], share: NDArray[np.uint32], light: Light) -> None:
    """Mix the haze into (H, W) texels in place, red with blue and green apart; alpha stays."""
    if int(share.max()) < 4:
        return
    red, green, blue = (int(c) for c in light.horizon)
    keep = np.uint32(256) - share
    mixed = texels & np.uint32(0xFF00FF)
    mixed *= keep
    mixed += np.uint32(red | blue << 16) * share
    mixed >>= np.uint32(8)
    mixed &= np.uint32(0xFF00FF)
    middle = texels >> np.uint32(8)
    middle &= np.uint32(0xFF)
    middle *= keep
    middle += np.uint32(green) * share
    middle &= np.uint32(0xFF00)
    texels &= np.uint32(0xFF000000)
    texels |= mixed
    texels |= middle
