# SPDX-License-Identifier: Apache-2.0
"""Trees, hedges, roofs and fences, painted once for a street."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from adpc_ros.street.camera import Floats
from adpc_ros.street.light import Light
from adpc_ros.street.textures import Texture, fractal_noise, to_bytes

_LEAVES = 64  # around the end of each branch
_TREE = (400, 488)  # width and height of a painted tree in pixels


class Sprite(NamedTuple):
    """A picture at one scale: ``colour`` RGB, ``alpha`` L, ``shape`` L (255: labelled)."""

    colour: Image.Image
    alpha: Image.Image
    shape: Image.Image


def paint_tree(rng: np.random.Generator, light: Light, leafy: bool) -> tuple[Sprite, ...]:
    """
    Paint a tree, 400 x 488 pixels, its foot in the middle of the lower edge.

    :param leafy: with leaves; else bare twigs, labelled as the crown they make.
    :return: the tree at full, half, quarter and eighth scale.
    """
    tint = light.on((light.sun[0] * 0.7, 0.6, -0.3))
    bark = np.array((88, 76, 62)) * rng.uniform(0.7, 1.1) * (0.55 if leafy else 0.75)
    base = np.array(((74, 92, 42), (92, 104, 48), (66, 84, 50), (108, 104, 46))[rng.integers(4)])
    fill = tuple(to_bytes(base * tint * 0.75 if leafy else bark * tint).tolist())
    colour = Image.new('RGB', _TREE, fill)
    alpha = Image.new('L', _TREE, 0)
    pens = (ImageDraw.Draw(colour), ImageDraw.Draw(alpha))
    lines = _branches(rng, 4 if leafy else 8)
    room = np.array((_TREE[0] / 2, _TREE[1])) - (56.0 if leafy else 6.0)
    reach = np.maximum(np.abs(lines[:, 2:4]).max(0), 1e-6)
    lines[:, :4] *= np.tile(room / reach, 2)
    lines[:, :4] += np.tile((_TREE[0] / 2, _TREE[1]), 2)
    tones = to_bytes(bark * tint * rng.uniform(0.75, 1.2, (len(lines), 1))).tolist()
    for line, tone in zip(lines.tolist(), tones, strict=True):
        width = max(1, round(line[4]))
        pens[0].line(line[:4], tuple(tone), width)
        pens[1].line(line[:4], 255, width)
    if leafy:
        _leaves(rng, pens, base, light, lines[:, 2:4])
        shape = alpha.filter(ImageFilter.BoxBlur(1)).point([255 * (v > 40) for v in range(256)])
    else:
        shape = alpha.filter(ImageFilter.BoxBlur(6)).point([255 * (v > 36) for v in range(256)])
    full = Sprite(colour, alpha, shape)
    return (full, *(Sprite(*(band.reduce(k) for band in full)) for k in (2, 4, 8)))


def _branches(rng: np.random.Generator, depth: int) -> Floats:
    """Grow a tree: (N, 5) of the ends x, y (upwards negative), x, y of each piece, its width."""
    grown = []
    growing = [(0.0, 0.0, -math.pi / 2, rng.uniform(0.26, 0.36), 15.0, depth)]
    while growing:
        x, y, angle, length, width, left = growing.pop()
        to = (x + length * math.cos(angle), y + length * math.sin(angle))
        grown.append((x, y, *to, width))
        sides = (-1.0, 1.0) if left < depth and rng.random() < 0.6 else (-1.0, 0.1, 1.0)
        for side in sides if left else ():
            turn = side * rng.uniform(0.22, 0.6) - 0.05 * math.cos(angle)
            share = rng.uniform(0.66, 0.86)
            growing.append((*to, angle + turn, length * share, width * 0.66, left - 1))
    return np.array(grown)


def _leaves(
    rng: np.random.Generator,
    pens: tuple[ImageDraw.ImageDraw, ImageDraw.ImageDraw],
    base: Floats,
    light: Light,
    tips: Floats,
) -> None:
    """Paint clumps of leaves around the tips of the branches, dark ones below and behind first."""
    crown = tips[tips[:, 1] < 0.74 * _TREE[1]]
    centre = crown.mean(0)
    reach = np.abs(crown - centre).max(0) + 24
    dots = np.repeat(crown, _LEAVES, 0) + rng.normal(0, 18, (_LEAVES * len(crown), 2))
    order = rng.permutation(len(dots))
    toward = np.array((light.sun[0], -light.sun[1] - 0.4))
    toward /= np.linalg.norm(toward)
    lit = ((dots - centre) / reach) @ toward
    clump = np.repeat(rng.normal(0, 0.16, len(crown)), _LEAVES)
    tone = 0.52 + 0.42 * np.clip(lit + clump, -0.8, 0.9) + rng.normal(0, 0.12, len(dots))
    rank = np.argsort(tone[order] + rng.normal(0, 0.25, len(dots)))
    tint = np.array(light.ambient) + np.array(light.direct) * 0.8
    order = order[rank]
    sizes = rng.uniform(1.2, 4.0, (len(dots), 1))
    hues = to_bytes(base * tint * np.maximum(0.16, tone[order])[:, None]).tolist()
    boxes = np.hstack((dots[order] - sizes * (1, 0.8), dots[order] + sizes * (1, 0.8))).tolist()
    for box, hue in zip(boxes, hues, strict=True):
        pens[0].ellipse(box, tuple(hue))
        pens[1].ellipse(box, 255)


def hedge(rng: np.random.Generator, light: Floats, metres: tuple[float, float]) -> Texture:
    """Paint leaves with a ragged upper edge; ``metres`` is the size of the patch."""
    scale = 20 if metres[1] < 4 else 8
    size = (int(metres[1] * scale), int(metres[0] * scale))
    noise = fractal_noise(rng, (size[0], size[1]), 0.9)
    coarse = fractal_noise(rng, (size[0], size[1]), 1.8)
    rise = np.linspace(1, 0, size[0])[:, None]
    tone = np.clip(0.42 + 0.2 * noise + 0.45 * rise, 0.12, 1.2)
    base = np.array(((70, 88, 42), (84, 92, 50), (62, 74, 44))[rng.integers(3)])
    rgba = np.full((*size, 4), 255, np.uint8)
    rgba[..., :3] = to_bytes(tone[..., None] * base * light)
    edge = 0.88 + 0.07 * np.roll(coarse, 7, 1)[:1] if metres[1] < 4 else 0.68 + 0.16 * coarse[:1]
    rgba[..., 3] = np.where(rise + 0.02 * noise < edge, 255, 0)
    return Texture(rgba, metres)


def roof(rng: np.random.Generator, light: Floats) -> Texture:
    """Paint rows of slates or tiles, 8 m x 4 m."""
    base = np.array(((84, 84, 92), (96, 92, 92), (128, 78, 60), (112, 84, 70))[rng.integers(4)])
    tiles = rng.normal(1, 0.1, (20, 32))
    tone = np.repeat(np.repeat(tiles, 6, 0), 8, 1)
    tone[5::6] *= 0.72
    tone *= 1 + 0.08 * fractal_noise(rng, (120, 256), 1.2)
    rgba = np.full((120, 256, 4), 255, np.uint8)
    rgba[..., :3] = to_bytes(tone[..., None] * base * light)
    return Texture(rgba, (8.0, 4.0))


def gable(plain: Texture) -> Texture:
    """Cut a triangle out of the upper part of a bare wall, for the end of a pitched roof."""
    width, height = int(plain.widths[0]), int(plain.heights[0])
    rgba = plain.texels[: width * height].view(np.uint8).reshape(height, width, 4)
    part = np.array(Image.fromarray(rgba).resize((192, 96)))
    across = np.abs(np.linspace(-1, 1, 192))[None]
    down = np.linspace(0, 1, 96)[:, None]
    part[..., 3] = np.where(across <= down, 255, 0)
    return Texture(part, (8.0, 3.0))


def railing(rng: np.random.Generator, light: Floats, brick: Floats) -> Texture:
    """Paint a low brick wall with iron railings on it, 6 m x 1.6 m."""
    size = (80, 300)
    rgba = np.zeros((*size, 4), np.uint8)
    rgba[..., :3] = 34
    tone = np.repeat(np.repeat(rng.normal(1, 0.1, (10, 30)), 3, 0), 10, 1)
    rgba[50:, :, :3] = to_bytes(tone[..., None] * brick * light)
    rgba[50:53, :, :3] = to_bytes(np.array((178, 172, 160)) * light)
    rgba[50:, :, 3] = 255
    rgba[4:50, 2::7, 3] = 255
    rgba[4:50, 3::7, 3] = 255
    rgba[9:11, :, 3] = rgba[44:46, :, 3] = 255
    rgba[:, :6] = rgba[50, 0]
    return Texture(rgba, (6.0, 1.6))


def boards(rng: np.random.Generator, light: Floats) -> Texture:
    """Paint a wooden fence, 6 m x 1.7 m."""
    size = (85, 300)
    tone = np.repeat(rng.normal(1, 0.13, (1, 50)), 6, 1) + 0.05 * rng.standard_normal(size)
    tone[:, ::6] *= 0.55
    tone[12:16] *= 0.8
    tone[66:70] *= 0.8
    rgba = np.full((*size, 4), 255, np.uint8)
    base = np.array(((124, 94, 66), (112, 100, 88), (98, 72, 52))[rng.integers(3)])
    rgba[..., :3] = to_bytes(np.maximum(tone, 0.2)[..., None] * base * light)
    return Texture(rgba, (6.0, 1.7))
