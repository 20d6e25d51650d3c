# SPDX-License-Identifier: Apache-2.0
"""Textures of the street: noise that is anchored in the world, and ripmaps to look it up."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adpc_ros.street.camera import Floats
from adpc_ros.street.light import Light

Bytes = NDArray[np.uint8]

COLUMN_LEVELS, ROW_LEVELS = 6, 5  # how often a texture is halved, plus one


def fractal_noise(rng: np.random.Generator, shape: tuple[int, int], slope: float) -> Floats:
    """
    Make noise that repeats without a seam.

    :param shape: (H, W) of the tile.
    :param slope: the amplitude falls with the frequency to this power; 0 is white noise.
    :return: (H, W) float32 with mean 0 and standard deviation 1.
    """
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal(shape)) * frequency**-slope
    noise = np.fft.irfft2(spectrum, shape)
    return np.asarray(noise / noise.std(), np.float32)


def to_bytes(values: Floats) -> Bytes:
    """Round to uint8, what is out of range goes to its end."""
    return np.asarray(np.clip(values + 0.5, 0, 255), np.uint8)


class Texture:
    """
    An image on a flat patch, reduced beforehand by powers of two in each direction on its own.

    Levels are chosen for each screen column (Fant, ripmaps): walls along a street are squeezed
    sideways only.

    :param rgba: (H, W, 4) uint8; alpha 0 is a hole.
    :param metres: width and height of the patch.
    """

    def __init__(self, rgba: Bytes, metres: tuple[float, float]) -> None:
        """Compute the levels."""
        self.metres = metres
        self.opaque = bool((rgba[..., 3] == 255).all())
        height, width = rgba.shape[:2]
        self.texels_per_metre = (width / metres[0], height / metres[1])
        # not RGBA, which Pillow would weight by alpha: holes keep the colour around them
        source = Image.frombuffer('RGBX', (width, height), rgba.tobytes(), 'raw', 'RGBX', 0, 1)
        parts: list[NDArray[np.uint32]] = []
        self.offsets = np.zeros((COLUMN_LEVELS, ROW_LEVELS), np.int32)
        self.widths = np.zeros(COLUMN_LEVELS, np.int32)
        self.heights = np.zeros(ROW_LEVELS, np.int32)
        total = 0
        for i in range(COLUMN_LEVELS):
            narrow = source.reduce((1 << i, 1))
            for j in range(ROW_LEVELS):
                small = narrow.reduce((1, 1 << j))
                level = np.frombuffer(small.tobytes(), np.uint32)
                self.offsets[i, j] = total
                self.widths[i], self.heights[j] = small.size
                parts.append(level)
                total += level.size
        self.texels = np.concatenate(parts)


def sky_panorama(
    rng: np.random.Generator, light: Light, focal: float, rows: int
) -> NDArray[np.uint32]:
    """
    Paint the sky around the street's direction.

    :param focal: focal length in pixels; a radian is as many columns, a row as on the screen.
    :param rows: rows above the horizon.
    :return: (rows, C) uint32 (bytes: red, green, blue, 255), C columns
        from -1.1 to 1.1 radians, the horizon at the bottom.
    """
    azimuth = np.linspace(-1.1, 1.1, max(2, int(2.2 * focal)))[None]
    up = (np.arange(rows, 0, -1) - 0.5)[:, None] / focal  # tangent of the elevation
    tile = fractal_noise(rng, (512, 512), 1.7)
    reach = 80 / (up + 0.12)  # clouds lie in a plane overhead
    at = (np.int32(reach * np.cos(azimuth)) % 512, np.int32(reach * np.sin(azimuth)) % 512)
    fine = (at[0] * 3 % 512, at[1] * 3 % 512)
    density = tile[at] + 0.35 * tile[fine] + 2.6 * (light.cloud - 0.5)
    cover = np.clip(0.5 + 0.55 * density, 0, 1) ** 1.4
    height = np.clip(up / 0.75, 0, 1) ** 0.6
    clear = np.array(light.horizon) * (1 - height[..., None]) + height[..., None] * light.zenith
    white = min(255.0, light.horizon[1] + 18)
    shade = white - 26 * np.clip(density - 0.3, 0, 1.6) * (0.4 + light.cloud)
    cloudy = shade[..., None] * np.array([0.985, 0.99, 1.0])
    sky = clear + (cloudy - clear) * (cover * np.clip(up / 0.12, 0.25, 1))[..., None]
    ray = np.stack(np.broadcast_arrays(np.sin(azimuth), up, np.cos(azimuth)), -1)
    ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
    glow = np.clip(ray @ np.array(light.sun), 0, 1)
    glare = np.asarray(90 * glow**40 + 40 * glow**6) * min(1.0, light.direct[1])
    rgba = np.full((*glare.shape, 4), 255, np.uint8)
    rgba[..., :3] = to_bytes(sky + glare[..., None])
    return rgba.view(np.uint32)[..., 0]
