# SPDX-License-Identifier: Apache-2.0
"""The ground: asphalt with its markings, kerbs and pavement, looked up for each pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from adpc_ros.street.camera import NEAR_M, Bend, Camera, Floats, clip_near
from adpc_ros.street.kinds import Kind
from adpc_ros.street.light import Light
from adpc_ros.street.textures import Bytes, fractal_noise, to_bytes

_FAR_M = 400.0
_REACH_M = 20.48  # across the street, to either side of the centre line
_FINE_M = 0.01  # a cell of the profiles across the street
_COUNT = 4096  # cells of a profile
_LEVELS = 7
_CELLS = 16  # cells of the coarse tile in a metre
_TILE = (2048, 256)
_WHITE, _YELLOW = (218, 218, 212), (200, 168, 62)


@dataclass(frozen=True)
class Markings:
    """
    What is painted on the road.

    ``dash`` and ``gap`` are the lengths of the centre line's dashes, ``yellow`` says whether
    double yellow lines run along the kerbs, ``crossings`` are the places of zebra crossings.
    """

    dash: float
    gap: float
    yellow: bool
    crossings: tuple[float, ...]


class Ground:
    """
    The surface of a street.

    What lies at a place depends on x through one of four profiles (plain road, dash, zebra,
    give-way line), each averaged beforehand by powers of two, and on s through the choice of the
    profile; worn asphalt and slabs are noise over both.

    :param left: the road reaches from ``-left`` metres to ``right`` metres; pavement beyond.
    :param length: of the street, metres.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        bend: Bend,
        light: Light,
        left: float,
        right: float,
        length: float,
        markings: Markings,
    ) -> None:
        """Make the textures."""
        self._bend = bend
        self._light = light
        s = np.arange(-20, length + _FAR_M, 1 / _CELLS)
        self._profile = (s % (markings.dash + markings.gap) < markings.dash).astype(np.int32)
        for place in markings.crossings:
            self._profile[np.abs(s - place) < 3.2] = 0
            self._profile[np.abs(np.abs(s - place) - 2.6) < 0.1] = 3
            self._profile[np.abs(s - place) < 1.5] = 2
        tone = rng.uniform(84, 112)
        asphalt = np.array((tone, tone * 1.005, tone * 1.02))
        tone = rng.uniform(132, 158)
        paving = np.array((tone, tone * 0.975, tone * 0.93))
        self._colours = np.concatenate(_profiles(asphalt, paving, left, right, markings))
        self._tile = np.hstack((_worn_asphalt(rng), _slabs(rng)))
        self._grain = fractal_noise(rng, (256, 256), 0.35)

    def paint(self, camera: Camera, shadow: Image.Image) -> tuple[Bytes, Bytes]:
        """
        Paint the part of the screen below the horizon.

        :param shadow: L, of the size of that part, 0 where nothing of the sun arrives.
        :return: (h, W, 3) RGB and (h, W) class ids of the lowest h rows.
        """
        height, width = shadow.height, shadow.width
        rows = np.arange(camera.height - height, camera.height, dtype=np.float32)[:, None]
        rows += np.float32(0.5 - camera.horizon)
        depth = np.minimum(camera.y * camera.focal / np.maximum(rows, 0.05), _FAR_M)
        side = (np.arange(width, dtype=np.float32)[None] + (0.5 - width / 2)) / camera.focal
        cos, sin = np.float32(np.cos(camera.yaw)), np.float32(np.sin(camera.yaw))
        s = (depth * (cos - sin * side) + np.float32(camera.z + 20)) * np.float32(_CELLS)
        x = depth * (sin + cos * side) + np.float32(camera.x)
        step = s.astype(np.int32)
        x -= self._centre(step)
        wide = depth / camera.focal  # metres in a pixel across, and along
        long = depth * wide / camera.y
        packed = self._look_up(x, step, wide)
        tone = self._tone(x, s, step, packed >> 24 != Kind.ROAD, long)
        parts = packed.view(np.uint8).reshape(height, width, 4)
        colours = Image.fromarray(to_bytes(parts[..., :3] * tone[..., None]))
        self._apply_light(colours, shadow)
        haze = Image.fromarray((255 * self._light.haze(depth)).astype(np.uint8))
        fog = tuple(int(c) for c in self._light.horizon)
        colours.paste(fog, mask=haze.resize((width, height)))
        return np.asarray(colours), parts[..., 3]

    def _centre(self, step: NDArray[np.int32]) -> Floats:
        """Plan x of the centre line at each place, from a table."""
        first = int(step.min())
        table = self._bend.x((np.arange(first, int(step.max()) + 1)) / _CELLS - 20)
        return table.astype(np.float32).take(step - first)

    def _look_up(self, x: Floats, step: NDArray[np.int32], wide: Floats) -> NDArray[np.uint32]:
        """Give each pixel's colour, with its class id in the highest byte."""
        level = np.clip(np.log2(wide / _FINE_M) + 0.3, 0, _LEVELS - 1).astype(np.int32)
        count = _COUNT >> level  # cells of a profile
        cell = (x + np.float32(_REACH_M)) * (1 / (_FINE_M * (1 << level))).astype(np.float32)
        index = np.minimum(np.maximum(cell, 0), count - 1).astype(np.int32)
        index += self._profile.take(step, mode='clip') * count
        index += 8 * (_COUNT - count)  # the finer levels come first
        packed: NDArray[np.uint32] = self._colours.take(index)
        return packed

    def _tone(
        self, x: Floats, s: Floats, step: NDArray[np.int32], paved: NDArray[np.bool_], long: Floats
    ) -> Floats:
        """Give the factors for wear and grain."""
        column = (x * np.float32(_CELLS) + np.float32(128)).astype(np.int32)
        near = int(np.argmax(long[:, 0] < 0.5))  # rows below show the grain
        fine = np.float32(80 / _CELLS)
        grain = self._grain.ravel().take(
            ((s[near:] * fine).astype(np.int32) & 255) * 256
            + ((x[near:] * np.float32(80)).astype(np.int32) & 255)
        )
        grain *= np.minimum(1, 0.06 / long[near:])
        row = step & (_TILE[0] - 1)
        index = row * (2 * _TILE[1]) + (column & (_TILE[1] - 1)) + paved * np.int32(_TILE[1])
        tone: Floats = self._tile.ravel().take(index)
        tone *= np.minimum(1, 0.9 / long)
        tone[near:] += np.float32(0.075) * grain
        tone += 1
        return tone

    def _apply_light(self, colours: Image.Image, shadow: Image.Image) -> None:
        light = self._light.on((0.0, 1.0, 0.0))
        shade = np.array(self._light.ambient) * (0.72 if self._light.shadows else 0.4)
        ramp = np.arange(256)[None]
        bright, dark = (to_bytes(ramp * k[:, None]).ravel().tolist() for k in (light, shade))
        lit = colours.point(bright)
        colours.paste(colours.point(dark))
        colours.paste(lit, mask=shadow)


def _profiles(
    asphalt: Floats, paving: Floats, left: float, right: float, markings: Markings
) -> list[NDArray[np.uint32]]:
    """Paint the four profiles across the street; level k holds them one after the other."""
    x = (np.arange(_COUNT) + 0.5) * _FINE_M - _REACH_M
    road = (x > -left) & (x < right)
    inward = np.minimum(x + left, right - x)  # from the kerb into the road
    plain = np.where(road[:, None], asphalt, paving)
    for low, high, tone, share in (
        (0.0, 0.25, 50, 0.45),
        (-0.07, 0.0, 84, 0.8),
        (-0.22, -0.07, 172, 0.8),
    ):
        _brush(plain, (inward > low) & (inward < high), (tone, tone * 0.98, tone * 0.95), share)
    if markings.yellow:
        _brush(plain, (np.abs(inward - 0.3) < 0.045) | (np.abs(inward - 0.5) < 0.045), _YELLOW)
    kinds = [plain, *(plain.copy() for _ in range(3))]
    _brush(kinds[1], np.abs(x) < 0.06, _WHITE)
    _brush(kinds[2], (x % 1.2 < 0.6) & (inward > 0.15), _WHITE)
    _brush(kinds[3], (x % 0.9 < 0.55) & (inward > 0.15), _WHITE)
    ids = np.where(road, Kind.ROAD, Kind.PAVEMENT)
    levels: list[NDArray[np.uint32]] = []
    for level in range(_LEVELS):
        size = 1 << level
        packed = np.empty((4, _COUNT // size, 4), np.uint8)
        for index, colours in enumerate(kinds):
            packed[index, :, :3] = to_bytes(colours.reshape(-1, size, 3).mean(1))
        packed[..., 3] = ids[size // 2 :: size]
        levels.append(packed.view(np.uint32).ravel())
    return levels


def _brush(
    colours: Floats, where: NDArray[np.bool_], paint: Sequence[float], share: float = 0.86
) -> None:
    colours[where] += share * (np.array(paint) - colours[where])


def _worn_asphalt(rng: np.random.Generator) -> Floats:
    """Paint the coarse tile of the road: blotches, repairs, tar, covers; changes of tone."""
    image = Image.new('F', _TILE[::-1], 0.0)
    draw = ImageDraw.Draw(image)

    def place() -> tuple[float, float]:
        return rng.uniform(0, _TILE[1]), rng.uniform(0, _TILE[0])

    for _ in range(30):
        x, y = place()
        tone = float(rng.normal(0, 0.08))
        draw.rectangle((x, y, x + rng.uniform(8, 40), y + rng.uniform(10, 120)), tone, tone - 0.1)
    for _ in range(26):
        points = [place()]
        for _ in range(12):
            points.append((points[-1][0] + rng.normal(0, 4), points[-1][1] + rng.uniform(4, 16)))
        draw.line(points, -0.16, 1)
    for _ in range(18):
        x, y = place()
        draw.ellipse((x - 5, y - 5, x + 5, y + 5), -0.2, outline=-0.34)
    wear = 0.03 * fractal_noise(rng, _TILE, 0.7) + 0.045 * fractal_noise(rng, _TILE, 1.5)
    off = np.abs(np.arange(_TILE[1]) - _TILE[1] / 2) / _CELLS  # from the centre line
    tracks = np.cos((off - 1.6) * 3.9) * (off < 3)
    return np.asarray(np.array(image) + wear + 0.035 * tracks, np.float32)


def _slabs(rng: np.random.Generator) -> Floats:
    """Paint the coarse tile of the pavement: slabs of 0.6 m with joints."""
    size = 10
    tones = rng.normal(0, 0.045, (_TILE[0] // size + 1, _TILE[1] // size + 1))
    tile = np.repeat(np.repeat(tones, size, 0), size, 1)[: _TILE[0], : _TILE[1]]
    tile += 0.04 * fractal_noise(rng, _TILE, 1.3)
    tile[::size] -= 0.2
    tile[:, ::size] -= 0.2
    return np.asarray(tile, np.float32)


class Shadows:
    """
    The shadows on the ground as the camera sees them; polygons are added, then blurred.

    :param camera: at the scale of the ground's pixels.
    """

    def __init__(self, camera: Camera) -> None:
        """Begin without a shadow."""
        self._camera = camera
        self.top = min(camera.height - 1, max(0, int(camera.horizon) + 1))
        self._image = Image.new('L', (camera.width, camera.height - self.top), 255)
        self._draw = ImageDraw.Draw(self._image)

    def add(self, plan: Floats, tones: Sequence[int]) -> None:
        """
        Darken polygons.

        :param plan: (P, N, 2) plan x and z of their corners.
        :param tones: what is left of the sun in each, 0 to 255.
        """
        points = np.zeros((*plan.shape[:2], 3))
        points[..., ::2] = plan
        seen = self._camera.turn(points)
        near = seen[..., 2].min() < NEAR_M
        flat = None if near else self._project(seen)
        for index, tone in enumerate(tones):
            if flat is not None:
                corners = flat[index]
            else:
                kept = clip_near(seen[index])
                if len(kept) < 3:
                    continue
                corners = self._project(kept[None])[0]
            self._draw.polygon(corners.ravel().tolist(), tone)

    def _project(self, points: Floats) -> Floats:
        flat = self._camera.project(points) - (0, self.top)
        return np.asarray(np.clip(flat, -9999, 9999))

    def finish(self) -> Image.Image:
        """Give the share of the sun, with soft edges: L, the rows below the horizon."""
        return self._image.filter(ImageFilter.GaussianBlur(1.3))
