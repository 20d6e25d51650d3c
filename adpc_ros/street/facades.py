# SPDX-License-Identifier: Apache-2.0
"""Fronts of houses, painted once for a street: brick, render and stone, windows, shops, doors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from adpc_ros.street.camera import Floats
from adpc_ros.street.textures import Texture, to_bytes

SCALE = 40  # texels in a metre
GROUND_M = 3.3  # height of the ground floor
FLOOR_M = 2.9

Colour = tuple[int, int, int]

BRICKS = ((176, 152, 112), (188, 164, 122), (150, 92, 70), (134, 80, 62), (160, 118, 86))
RENDERS = ((226, 220, 206), (232, 228, 222), (214, 200, 170), (200, 206, 208), (222, 206, 190))
STONES = ((186, 178, 160), (170, 166, 158), (198, 188, 166))
PAINTS = (
    (28, 52, 96),
    (120, 24, 30),
    (24, 74, 52),
    (32, 32, 36),
    (196, 160, 40),
    (236, 236, 230),
    (150, 40, 110),
    (40, 120, 150),
)


@dataclass(frozen=True)
class Facade:
    """A painted front: ``front`` as wide and tall as the house, ``plain`` its bare wall."""

    front: Texture
    plain: Texture
    width: float
    height: float
    flat_roof: bool


def paint_facade(rng: np.random.Generator, stain: Floats, light: Floats, shops: float) -> Facade:
    """
    Paint one front.

    :param stain: (512, 512) noise for its stains.
    :param light: (3,) factors of the light that falls on it.
    :param shops: how likely the ground floor is a shop, 0 to 1.
    :return: the front with the light in its colours.
    """
    floors = int(rng.choice([1, 2, 3], p=[0.4, 0.42, 0.18]))
    bays = int(rng.integers(2, 5))
    bay = rng.uniform(1.9, 2.9)
    width, height = bays * bay, GROUND_M + floors * FLOOR_M + 0.5
    size = (round(height * SCALE), round(width * SCALE))
    kind = rng.choice(['brick', 'render', 'stone', 'modern'], p=[0.48, 0.25, 0.15, 0.12])
    wall = _material(rng, kind, size)
    front = Image.fromarray(to_bytes(wall))
    draw = ImageDraw.Draw(front)
    trim: Colour = (222, 218, 208) if kind != 'modern' else (96, 100, 104)
    for floor in range(floors):
        bottom = size[0] - (GROUND_M + floor * FLOOR_M + 0.75) * SCALE
        _windows(rng, draw, size[1], bottom, bays, kind, trim)
    if rng.random() < shops:
        _shop(rng, draw, size)
    else:
        _house(rng, draw, size, bays, kind, trim)
    _eaves(rng, draw, size, trim, kind)
    return Facade(
        front=_lit(stain, np.asarray(front, np.float32), light, (width, height)),
        plain=_lit(stain, wall[: 6 * SCALE], light * 0.94, (width, min(height, 6.0))),
        width=width,
        height=height,
        flat_roof=bool(kind == 'modern'),
    )


def _lit(stain: Floats, colours: Floats, light: Floats, metres: tuple[float, float]) -> Texture:
    """Add stains, dirt near the ground and the light."""
    height, width = colours.shape[:2]
    shift = int(np.abs(colours[0]).sum()) % 512  # any, so that fronts differ
    tile = np.roll(stain, shift, 1)
    tone = 1 + 0.055 * np.tile(tile, (-(-height // 512), -(-width // 512)))[:height, :width]
    rise = np.arange(height, 0, -1) / SCALE
    tone = tone * (1 - 0.22 * np.exp(-rise / 0.5))[:, None]
    rgba = np.full((height, width, 4), 255, np.uint8)
    rgba[..., :3] = to_bytes(colours * tone[..., None] * light)
    return Texture(rgba, metres)


def _material(rng: np.random.Generator, kind: str, size: tuple[int, int]) -> Floats:
    """Paint the bare wall: (H, W, 3) float32, 0 to 255, without light."""
    height, width = size
    if kind == 'render':
        base = np.array(RENDERS[rng.integers(len(RENDERS))])
        tone = 1 + 0.012 * rng.standard_normal(size)
    elif kind == 'modern':
        base = np.array(((150, 152, 150), (176, 168, 156), (120, 112, 106))[rng.integers(3)])
        tone = 1 + 0.015 * rng.standard_normal(size)
        tone[:: int(1.45 * SCALE)] *= 0.8
        tone[:, :: int(1.2 * SCALE)] *= 0.85
    else:
        colours, course, length, spread = (
            (BRICKS, 3, 9, 0.10) if kind == 'brick' else (STONES, 12, 26, 0.06)
        )
        base = np.array(colours[rng.integers(len(colours))])
        blocks = rng.normal(1, spread, (height // course + 1, width // length + 2))
        rows = np.repeat(blocks, length, 1)
        rows[1::2] = np.roll(rows[1::2], length // 2, 1)
        tone = np.repeat(rows, course, 0)[:height, :width]
        tone[course - 1 :: course] = 1.1 if kind == 'brick' else 0.86
    return np.asarray(tone[..., None] * base, np.float32)


def _windows(
    rng: np.random.Generator,
    draw: ImageDraw.ImageDraw,
    width: int,
    bottom: float,
    bays: int,
    kind: str,
    trim: Colour,
) -> None:
    """Paint a row of windows, one for each bay, on the sill at row ``bottom``."""
    bay = width / bays
    if kind == 'modern':
        half, tall = bay * 0.44, 1.5 * SCALE
    else:
        half, tall = rng.uniform(0.42, 0.62) * SCALE, rng.uniform(1.35, 1.7) * SCALE
    for index in range(bays):
        middle = (index + 0.5) * bay
        box = (middle - half, bottom - tall, middle + half, bottom)
        if kind != 'modern':
            draw.rectangle((box[0] - 3, box[1] - 9, box[2] + 3, box[1] - 1), trim)
            draw.rectangle((box[0] - 5, bottom, box[2] + 5, bottom + 3), trim)
            draw.rectangle((box[0] - 5, bottom + 4, box[2] + 5, bottom + 6), (70, 62, 54))
        _glass(rng, draw, box, bars=kind != 'modern', trim=trim)


def _glass(
    rng: np.random.Generator,
    draw: ImageDraw.ImageDraw,
    box: tuple[float, float, float, float],
    bars: bool,
    trim: Colour,
) -> None:
    """Paint a window: a shaded reveal, a frame, glass that mirrors some sky, curtains."""
    left, top, right, bottom = box
    draw.rectangle(box, (52, 48, 46))
    draw.rectangle((left + 2, top + 3, right - 2, bottom - 1), trim)
    inner = (left + 4, top + 5, right - 4, bottom - 3)
    dark = rng.uniform(26, 62)
    sky = rng.uniform(10, 75)
    for row in range(int(inner[1]), int(inner[3])):
        share = max(0.0, 1 - (row - inner[1]) / (0.7 * (inner[3] - inner[1])))
        tone = dark + sky * share
        draw.line((inner[0], row, inner[2], row), (int(tone), int(tone * 1.04), int(tone * 1.1)))
    if rng.random() < 0.55:
        cloth = int(rng.uniform(120, 190))
        wide = rng.uniform(0.12, 0.3) * (inner[2] - inner[0])
        draw.rectangle((inner[0], inner[1], inner[0] + wide, inner[3]), (cloth, cloth, cloth - 12))
        draw.rectangle((inner[2] - wide, inner[1], inner[2], inner[3]), (cloth, cloth, cloth - 14))
    if bars:
        middle, sash = (left + right) / 2, (top + bottom) / 2
        draw.rectangle((middle - 1, inner[1], middle + 0.5, inner[3]), trim)
        draw.rectangle((inner[0], sash - 1, inner[2], sash + 1), trim)


def _shop(rng: np.random.Generator, draw: ImageDraw.ImageDraw, size: tuple[int, int]) -> None:
    """Paint a shop: goods behind glass, a door, the fascia with its lettering, an awning."""
    height, width = size
    paint = PAINTS[rng.integers(len(PAINTS))]
    floor, top = height - 1, height - GROUND_M * SCALE
    draw.rectangle((0, top, width, floor), tuple(int(c * 0.8) for c in paint))
    glass_top = top + 0.75 * SCALE
    panes = max(2, round(width / SCALE / rng.uniform(1.3, 2.2)))
    door = int(rng.integers(panes))
    for index in range(panes):
        left, right = (index + 0.06) * width / panes, (index + 0.94) * width / panes
        low = floor - (0.1 if index == door else rng.uniform(0.35, 0.55)) * SCALE
        draw.rectangle((left, glass_top, right, low), (34, 36, 40))
        for _ in range(int(rng.integers(4, 14))):
            x, y = rng.uniform(left, right - 8), rng.uniform(glass_top + 6, low - 6)
            tone = rng.uniform(38, 120)
            warm = rng.normal(1, 0.07, 3)
            colour = tuple(int(np.clip(tone * w, 0, 255)) for w in warm)
            draw.rectangle(
                (x, y, min(right, x + rng.uniform(4, 26)), min(low, y + rng.uniform(4, 22))),
                colour,
            )
        for step in range(10):  # the street mirrored from above
            row = glass_top + step * 2
            draw.line((left, row, right, row), (110 - 6 * step, 114 - 6 * step, 120 - 6 * step))
        if index == door:
            draw.rectangle((right - 9, glass_top + 40, right - 7, low - 30), (170, 166, 150))
    draw.rectangle((0, top, width, top + 0.62 * SCALE), paint)
    ink = (240, 236, 224) if sum(paint) < 420 else (40, 36, 40)
    x, end = width * rng.uniform(0.12, 0.3), width * rng.uniform(0.7, 0.9)
    while x < end:
        wide = rng.uniform(4, 9)
        draw.rectangle((x, top + 8, x + 2, top + 18), ink)
        draw.rectangle((x, top + rng.choice([8, 12, 16]), x + wide, top + 18), ink)
        x += wide + (3 if rng.random() < 0.8 else 12)
    draw.rectangle((0, top - 3, width, top - 1), (90, 86, 80))
    if rng.random() < 0.25:
        for stripe in range(0, width, 14):
            colour = (228, 224, 214) if stripe // 14 % 2 else paint
            draw.rectangle((stripe, glass_top - 4, stripe + 13, glass_top + 18), colour)


def _house(
    rng: np.random.Generator,
    draw: ImageDraw.ImageDraw,
    size: tuple[int, int],
    bays: int,
    kind: str,
    trim: Colour,
) -> None:
    """Paint the ground floor of a dwelling: a door with steps, windows in the other bays."""
    height, width = size
    bay = width / bays
    door = int(rng.integers(bays))
    for index in range(bays):
        middle = (index + 0.5) * bay
        if index == door:
            paint = PAINTS[rng.integers(len(PAINTS))]
            floor = float(height)
            box = (middle - 0.5 * SCALE, height - 2.75 * SCALE, middle + 0.5 * SCALE, floor)
            draw.rectangle((box[0] - 6, box[1] - 8, box[2] + 6, height), trim)
            draw.rectangle(box, (50, 52, 56))
            draw.rectangle((box[0] + 2, box[1] + 24, box[2] - 2, height - 6), paint)
            for side in (-1, 1):
                for low, high in ((0.35, 0.95), (1.15, 1.9)):
                    panel = sorted((middle + side * 3, middle + side * 15))
                    draw.rectangle(
                        (panel[0], height - high * SCALE, panel[1], height - low * SCALE),
                        tuple(int(c * 0.75) for c in paint),
                    )
            draw.rectangle((box[0] - 4, height - 6, box[2] + 4, height), (150, 146, 138))
        else:
            half = 0.9 * SCALE if bay > 2.3 * SCALE else 0.6 * SCALE
            sill = height - 0.85 * SCALE
            box = (middle - half, sill - 1.65 * SCALE, middle + half, sill)
            if kind != 'modern':
                draw.rectangle((box[0] - 4, box[1] - 10, box[2] + 4, box[1]), trim)
                draw.rectangle((box[0] - 6, sill, box[2] + 6, sill + 5), trim)
            _glass(rng, draw, box, bars=True, trim=trim)


def _eaves(
    rng: np.random.Generator,
    draw: ImageDraw.ImageDraw,
    size: tuple[int, int],
    trim: Colour,
    kind: str,
) -> None:
    """Paint gutter, cornice, the shade below them and a drain pipe."""
    height, width = size
    for row in range(12):
        tone = 96 + 6 * row
        draw.line((0, 5 + row, width, 5 + row), (tone, tone - 4, tone - 10))
    draw.rectangle(
        (0, 0, width, 5), trim if kind != 'brick' or rng.random() < 0.5 else (60, 58, 56)
    )
    if kind != 'modern' and rng.random() < 0.8:
        x = 4 if rng.random() < 0.5 else width - 7
        draw.rectangle((x, 5, x + 3, height), (48, 46, 46))
        draw.line((x + 4, 5, x + 4, height), (90, 84, 78))
