# SPDX-License-Identifier: Apache-2.0
"""The synthetic drive: where the camera is, and how a frame is put together."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adpc_ros.frame import DriveFrame
from adpc_ros.labels import CAMVID, ClassSet
from adpc_ros.street.camera import Camera
from adpc_ros.street.ground import Shadows
from adpc_ros.street.kinds import Kind
from adpc_ros.street.painter import Painter
from adpc_ros.street.textures import Bytes, sky_panorama
from adpc_ros.street.walls import Raster
from adpc_ros.street.world import VIEW_M, make_world

_CAMERA_M = 1.42  # height over the road
_VIEW_RAD = math.radians(64)  # across
_ACTORS_M = 110.0  # how far cars and people are drawn
_FINE = 2  # what stands in the street is drawn so many times finer, then averaged

_Pixels = TypeVar('_Pixels', bound='NDArray[Any]')


class StreetDrive:
    """
    A drive through a street that is made up: deterministic, with a label for each pixel.

    The pictures are perspective views of a small world that depends on ``seed`` alone: houses,
    weather and light, road, traffic. Nothing is kept between frames, so any frame can be asked
    for at any time, and always is the same.

    :param frame_count: number of frames.
    :param size: (H, W) in pixels, at least 32 each.
    :param rate_hz: frames per second.
    :param seed: which street.
    :raises ValueError: if a parameter is out of range.
    """

    def __init__(
        self,
        frame_count: int = 150,
        size: tuple[int, int] = (360, 480),
        rate_hz: float = 15.0,
        seed: int = 0,
    ) -> None:
        """Lay out the street and paint its textures."""
        if frame_count < 1 or min(size) < 32 or not rate_hz > 0 or seed < 0:
            raise ValueError(
                'expected frame_count >= 1, a size of 32 pixels or more, rate_hz > 0 and seed >= '
                f'0, got {frame_count}, {size}, {rate_hz} and {seed}'
            )
        self.name = f'street {seed}'
        self.rate_hz = float(rate_hz)
        self.classes: ClassSet = CAMVID
        self._count = frame_count
        self._size = size
        rng = np.random.default_rng([seed, 18])
        self._world = make_world(rng, frame_count / rate_hz)
        self._focal = size[1] / 2 / math.tan(_VIEW_RAD / 2)
        self._sway = rng.uniform(0, 6.28, 4)
        rows = int(size[0] * 0.47 + 0.03 * self._focal) + 8
        self._sky = sky_panorama(rng, self._world.light, self._focal, rows)
        grain = rng.normal(0, self._world.light.grain, (size[0] + 61, size[1] + 67, 3))
        self._grain = np.round(grain).astype(np.int16)

    def __len__(self) -> int:
        """Count the frames."""
        return self._count

    def __iter__(self) -> Iterator[DriveFrame]:
        """Draw one frame after the other."""
        return (self.frame(index) for index in range(self._count))

    def frame(self, index: int) -> DriveFrame:
        """
        Draw a frame, independently of all others.

        :param index: 0 to ``len(self)`` - 1.
        :return: the frame, with its label.
        :raises IndexError: if there is no such frame.
        """
        if not 0 <= index < self._count:
            raise IndexError(f'expected a frame from 0 to {self._count - 1}, got {index}')
        time = index / self.rate_hz
        camera = self._camera(time)
        fine = camera.scaled(_FINE)
        pixels, labels = self._backdrop(camera, time)
        raster = Raster(_enlarge(pixels), _enlarge(labels), self._world.light)
        self._world.scene.draw(raster, fine, VIEW_M + 20)
        image = Image.fromarray(raster.pixels.view(np.uint8).reshape(*raster.pixels.shape, 4))
        image.putalpha(Image.fromarray(raster.labels))
        painter = Painter(image, fine, self._world.light, thin=2.2 * _FINE)
        placed = [(actor.place(time), actor) for actor in self._world.actors]
        placed = [p for p in placed if camera.z - 4 < p[0] < camera.z + _ACTORS_M]
        for _, actor in sorted(placed, key=lambda p: -p[0]):
            actor.paint(painter, time)
        label = np.asarray(image)[_FINE // 2 :: _FINE, _FINE // 2 :: _FINE, 3].copy()
        return DriveFrame(round(index * 1e9 / self.rate_hz), self._expose(image, index), label)

    def _camera(self, time: float) -> Camera:
        """Place the camera: along the lane, swaying and nodding a little."""
        world = self._world
        height, width = self._size
        a, b, c, d = self._sway
        s = world.speed * time
        x = world.lane_x + float(world.bend.x(s)) + 0.1 * math.sin(0.5 * time + a)
        yaw = world.bend.heading(s + 4) + 0.02 * math.sin(0.45 * time + b)
        pitch = 0.003 * math.sin(7.0 * time + c) + 0.004 * math.sin(1.3 * time + d)
        horizon = height * 0.47 + pitch * self._focal
        return Camera(width, height, self._focal, horizon, x, _CAMERA_M, s, yaw)

    def _backdrop(self, camera: Camera, time: float) -> tuple[NDArray[np.uint32], Bytes]:
        """Paint sky and ground: (H, W) uint32 pixels, (H, W) class ids."""
        world = self._world
        shadows = Shadows(camera)
        if world.light.shadows:
            for lot in world.lots:
                if lot.height and lot.end > camera.z and lot.start < camera.z + 90:
                    x = lot.side * lot.front
                    ends = [(x + float(world.bend.x(s)), s) for s in (lot.start, lot.end)]
                    foot = np.array(ends)
                    tip = foot[::-1] + world.light.cast(lot.height + 0.8)
                    shadows.add(np.concatenate((foot, tip))[None], (0,))
        for actor in world.actors:
            if camera.z - 8 < actor.place(time) < camera.z + 50:
                actor.shade(shadows, world.light, time)
        colours, ids = world.ground.paint(camera, shadows.finish())
        height, width = self._size
        top = height - len(colours)
        pixels = np.full((height, width, 4), 255, np.uint8)
        pixels[top:, :, :3] = colours
        packed = pixels.view(np.uint32)[..., 0]
        side = np.arctan((np.arange(width) + 0.5 - width / 2) / camera.focal) + camera.yaw
        column = np.clip(((side + 1.1) * camera.focal).astype(int), 0, self._sky.shape[1] - 1)
        row = np.maximum(np.arange(top) + len(self._sky) - top, 0)
        packed[:top] = self._sky[row].take(column, 1)
        labels = np.full(self._size, Kind.SKY, np.uint8)
        labels[top:] = ids
        return packed, labels

    def _expose(self, image: Image.Image, index: int) -> Bytes:
        """Average to the frame's size and add the sensor's curve and noise."""
        picture = image.convert('RGB').reduce(_FINE).point(_CURVE * 3)
        height, width = self._size
        down, right = index * 29 % 61, index * 43 % 67
        noise = self._grain[down : down + height, right : right + width]
        return np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8)


def _enlarge(array: _Pixels) -> _Pixels:
    return cast(_Pixels, array.repeat(_FINE, 1).repeat(_FINE, 0))


#: Sensor curve: a little more contrast in the middle.
_CURVE = [
    round(255 * (v + 0.10 * math.sin(2 * math.pi * (v - 0.5)) / (2 * math.pi) * 2))
    for v in (k / 255 for k in range(256))
]
