# SPDX-License-Identifier: Apache-2.0
"""Drawing of what stands in the street, with Pillow, far things first."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from adpc_ros.street.camera import NEAR_M, Camera, Floats, clip_near
from adpc_ros.street.kinds import Kind
from adpc_ros.street.light import Light
from adpc_ros.street.plants import Sprite
from adpc_ros.street.textures import to_bytes

# Strips of a stick from its lit edge (1) to the place in -1..1, and their brightness.
_BANDS = ((-1.0, 0.82), (-0.3, 1.0), (0.35, 1.13))
_STRIP = [0, 1, 2, 3, 6, 7, 4, 5]  # from pairs of corners at both ends to a way around them
_COARSE = 24.0  # pixels for a metre, below which a stick is drawn in one tone

Picker = Callable[[Any], Any]


def picker(face: Sequence[int]) -> Picker:
    """Make what picks the corners of a face out of a flat list of coordinates."""
    return itemgetter(*(2 * corner + k for corner in face for k in (0, 1)))


class Painter:
    """
    Paints into an RGBA image whose alpha holds the class ids, so one stroke draws both.

    :param image: RGBA, changed in place.
    :param thin: the smallest width of a stroke in pixels, for poles.
    """

    def __init__(self, image: Image.Image, camera: Camera, light: Light, thin: float) -> None:
        """Keep the image; nothing is drawn yet."""
        self.camera = camera
        self.light = light
        self._image = image
        self._thin = thin
        self._draw = ImageDraw.Draw(image)

    def _inks(self, colours: Floats, depth: float, kind: Kind) -> NDArray[np.uint32]:
        """Fade (..., 3) colours by the haze at a depth, and add the class id as alpha."""
        share = self.light.haze_at(depth)
        packed = np.full((*colours.shape[:-1], 4), kind, np.uint8)
        packed[..., :3] = to_bytes(colours * (1 - share) + np.array(self.light.horizon) * share)
        return packed.view('<u4')[..., 0]

    def faces(
        self, points: Floats, faces: Sequence[tuple[Sequence[int], Picker]], colours: Floats,
        kind: Kind,
    ) -> None:  # fmt: skip
        """
        Draw flat faces in the order given, whichever side they show.

        :param points: (N, 3) corners in the camera's frame.
        :param faces: indices of the corners, with their :func:`picker`.
        :param colours: (F, 3) RGB.
        """
        fills = self._inks(colours, float(points[:, 2].mean()), kind).tolist()
        if points[:, 2].min() < NEAR_M:
            for (face, _), fill in zip(faces, fills, strict=True):
                kept = clip_near(points[list(face)])
                if len(kept) >= 3:
                    self._draw.polygon(self.camera.project(kept).ravel().tolist(), fill)
            return
        flat = self.camera.project(points).ravel().tolist()
        for (_, pick), fill in zip(faces, fills, strict=True):
            self._draw.polygon(pick(flat), fill)

    def limbs(
        self, ends: Floats, radii: Floats, colours: Floats, kind: Kind, thin: bool = False
    ) -> None:
        """
        Draw rounded sticks with a lit and a shaded side, in the order given.

        Nothing is drawn if one of them reaches behind the camera.

        :param ends: (N, 2, 3) in the camera's frame.
        :param radii: (N, 2) at both ends, metres.
        :param colours: (N, 3) RGB.
        :param thin: whether they are kept at the smallest width of a pole when far away.
        """
        depths = ends[..., 2]
        if depths.min() < NEAR_M:
            return
        depth = float(depths[0, 0])
        radii = np.maximum(radii * self.camera.focal / depths, self._thin / 2 if thin else 0.7)
        flat = self.camera.project(ends)
        direction = flat[:, 1] - flat[:, 0]
        direction /= np.maximum(np.hypot(direction[:, 0], direction[:, 1]), 1e-6)[:, None]
        normal = direction[:, ::-1] * (-1, 1)
        lit = normal[:, 0] * self.light.sun[0] - normal[:, 1] * self.light.sun[1]
        normal *= np.where(lit >= 0, 1, -1)[:, None]
        edge = normal[:, None] * radii[..., None]
        coarse = self.camera.focal / depth < _COARSE
        bands = _BANDS[:1] if coarse else _BANDS
        tones = np.array([tone for _, tone in bands])[:, None, None]
        inks = self._inks(colours * tones, depth, kind).tolist()
        strips = [
            np.concatenate((flat + edge * low, flat + edge), 2).reshape(-1, 8)[:, _STRIP].tolist()
            for low, _ in bands
        ]
        dots = np.concatenate((flat - radii[..., None], flat + radii[..., None]), -1).tolist()
        rounded = ((radii.max(1) > 1.4) & (not thin)).tolist()
        draw = self._draw
        for index, pair in enumerate(dots):
            for strip, ink in zip(strips, inks, strict=True):
                draw.polygon(strip[index], ink[index])
                if strip is strips[0] and rounded[index]:
                    draw.ellipse(pair[0], ink[index])
                    draw.ellipse(pair[1], ink[index])

    def sprite(self, pyramid: Sequence[Sprite], foot: Floats, height: float, kind: Kind) -> None:
        """
        Draw a picture that faces the camera.

        :param pyramid: the picture at falling scales.
        :param foot: (3,) where the middle of its lower edge is, in the camera's frame.
        :param height: of the picture in metres.
        """
        fitted = fit_sprite(self.camera, pyramid, foot, height)
        if fitted is None:
            return
        box, picture = fitted
        region = self._image.crop(box)
        ids = region.getchannel('A')
        ids.paste(int(kind), mask=picture.shape)
        colours = region.convert('RGB')
        colours.paste(hazed(picture.colour, float(foot[2]), self.light), mask=picture.alpha)
        colours.putalpha(ids)
        self._image.paste(colours, box)


def hazed(colours: Image.Image, depth: float, light: Light) -> Image.Image:
    """Fade an RGB image by the haze at a depth in metres."""
    fog = Image.new('RGB', colours.size, tuple(int(c) for c in light.horizon))
    return Image.blend(colours, fog, light.haze_at(depth))


def fit_sprite(
    camera: Camera, pyramid: Sequence[Sprite], foot: Floats, height: float
) -> tuple[tuple[int, int, int, int], Sprite] | None:
    """
    Scale a picture that faces the camera to what is seen of it.

    :param pyramid: the picture at falling scales.
    :param foot: (3,) where the middle of its lower edge is, in the camera's frame.
    :param height: of the picture in metres.
    :return: left, top, right and bottom in pixels with the part of the picture that belongs
        there (``shape`` 0 or 255), or None if nothing is seen.
    """
    if foot[2] < NEAR_M * 4:
        return None
    column, row = camera.project(foot[None])[0].tolist()
    full = pyramid[0].colour
    tall = height * camera.focal / float(foot[2])
    left, top = column - tall * full.width / full.height / 2, row - tall
    box = (
        max(0, math.floor(left)),
        max(0, math.floor(top)),
        min(camera.width, math.ceil(2 * column - left)),
        min(camera.height, math.ceil(row)),
    )
    if box[2] <= box[0] or box[3] <= box[1] or tall < 4:
        return None
    level = min(len(pyramid) - 1, max(0, int(math.log2(full.height / tall) + 0.2)))
    source = pyramid[level]
    scale = source.colour.height / tall
    part = (
        max(0.0, (box[0] - left) * scale),
        max(0.0, (box[1] - top) * scale),
        min(float(source.colour.width), (box[2] - left) * scale),
        min(float(source.colour.height), (box[3] - top) * scale),
    )
    if part[2] - part[0] < 0.5 or part[3] - part[1] < 0.5:
        return None
    size = (box[2] - box[0], box[3] - box[1])
    colour, alpha, shape = (
        band.resize(size, Image.Resampling.NEAREST, box=part) for band in source
    )
    return box, Sprite(colour, alpha, shape.point(_SOLID))


_SOLID = [255 if value > 110 else 0 for value in range(256)]
