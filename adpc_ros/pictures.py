# SPDX-License-Identifier: Apache-2.0
"""Pictures of masks: overlays, panels of the exits, animations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from adpc_ros.labels import ClassSet
from adpc_ros.network.anytime import AnytimeNetwork
from adpc_ros.runtime.images import inverse_temperatures, render, to_input

Picture = NDArray[np.uint8]

_CAPTION_PX = 16
_EVERY_ID = np.arange(256, dtype=np.uint8)[None]
_RAMP = np.array([[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]])


def overlay(
    image: Picture, class_ids: Picture, classes: ClassSet, opacity: float = 0.55
) -> Picture:
    """
    Lay a mask over its image.

    :param image: (H, W, 3) uint8 RGB.
    :param class_ids: (H, W) uint8.
    :return: (H, W, 3) uint8 RGB.
    """
    colours = Image.fromarray(class_ids)
    colours.putpalette(classes.colourise(_EVERY_ID).tobytes())
    return np.asarray(Image.blend(Image.fromarray(image), colours.convert('RGB'), opacity))


def heat(values: Picture) -> Picture:
    """Colour (H, W) uint8 values from dark blue (0) to yellow (255)."""
    positions = np.linspace(0, 255, len(_RAMP))
    table = np.stack([np.interp(np.arange(256), positions, _RAMP[:, c]) for c in range(3)], axis=1)
    return table.astype(np.uint8)[values]


def captioned(picture: Picture, text: str) -> Picture:
    """Write a line of text under a picture."""
    canvas = Image.new('RGB', (picture.shape[1], picture.shape[0] + _CAPTION_PX), 'black')
    canvas.paste(Image.fromarray(picture))
    ImageDraw.Draw(canvas).text((4, picture.shape[0] + 2), text, fill='white')
    return np.asarray(canvas)


def legend(classes: ClassSet, width: int) -> Picture:
    """Give a strip that names the classes' colours."""
    columns = max(1, width // 90)
    rows = -(-classes.count // columns)
    canvas = Image.new('RGB', (width, rows * _CAPTION_PX), 'black')
    draw = ImageDraw.Draw(canvas)
    for i, (name, colour) in enumerate(zip(classes.names, classes.colours)):
        x, y = i % columns * (width // columns), i // columns * _CAPTION_PX
        draw.rectangle((x + 2, y + 3, x + 12, y + 13), fill=colour)
        draw.text((x + 16, y + 2), name, fill='white')
    return np.asarray(canvas)


def exit_panel(
    network: AnytimeNetwork, image: Picture, classes: ClassSet, label: Picture | None = None
) -> Picture:
    """
    Show every exit of an image: prediction, confidence, and what it still had to compute.

    The form is the paper's figure 4; white positions were computed by the exit, black ones were
    already confident.

    :param image: (H, W, 3) uint8 RGB.
    :param label: (H, W) uint8 class ids, shown beside the image if given.
    """
    size = (image.shape[0], image.shape[1])
    first = [captioned(image, 'image')]
    if label is not None:
        first.append(captioned(classes.colourise(label), 'label'))
    blank = np.zeros_like(first[0])
    rows = [[*first, *[blank] * (3 - len(first))]]
    inverse: torch.Tensor | None = None
    with torch.inference_mode():
        for out in network.exits(to_input(image, network.config, torch.device('cpu'))):
            inverse = inverse_temperatures(
                out.logits, network.config, out.exit_index, out.active, inverse
            )
            scale = network.config.scale_of(out.exit_index)
            rendered, mean = render(out.logits, size, scale, inverse)
            cells = (out.logits.shape[2], out.logits.shape[3])
            computed = np.ones(cells, bool)
            if out.active is not None:
                computed = out.active.at(cells)[0, 0].numpy()
            full = computed.repeat(scale, 0).repeat(scale, 1)[: size[0], : size[1]]
            rows.append(
                [
                    captioned(
                        overlay(image, rendered.class_ids, classes), f'exit {out.exit_index}'
                    ),
                    captioned(heat(rendered.confidence), f'confidence, mean {mean:.3f}'),
                    captioned(
                        np.where(full[..., None], image // 2 + 127, 0).astype(np.uint8),
                        f'computed here: {100 * computed.mean():.0f} %',
                    ),
                ]
            )
    grid = np.vstack([np.hstack(row) for row in rows])
    return np.vstack([grid, legend(classes, grid.shape[1])])


def save_animation(path: Path, pictures: Sequence[Picture], period_s: float) -> None:
    """
    Write pictures of one size as an animated WebP.

    :param period_s: seconds from one picture to the next.
    """
    first, *rest = (Image.fromarray(p) for p in pictures)
    first.save(
        path,
        save_all=True,
        append_images=rest,
        duration=round(1000 * period_s),
        loop=0,
        quality=70,
        method=2,
    )
