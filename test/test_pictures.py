# SPDX-License-Identifier: Apache-2.0
"""Pictures of masks."""

from __future__ import annotations

import numpy as np
import pytest

from adpc_ros.labels import CAMVID
from adpc_ros.pictures import overlay


@pytest.mark.parametrize('step', [1, 2], ids=['whole', 'view'])
def test_an_overlay_blends_the_image_with_the_colours_of_its_classes(step: int) -> None:
    draw = np.random.default_rng(0)
    image = draw.integers(0, 256, (40, 50, 3), np.uint8)[::step, ::step, ::-1]
    class_ids = draw.integers(0, 256, (40, 50), np.uint8)[::step, ::step]
    expected = 0.25 * image + 0.75 * CAMVID.colourise(class_ids)
    found = overlay(image, class_ids, CAMVID, opacity=0.75)
    assert found.dtype == np.uint8 and found.shape == image.shape
    assert np.abs(found - expected).max() < 1
