"""What docs/integration.md says is so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from shared import ROOT

from adpc_ros.ros.conversions import array_to_image
from adpc_ros.ros.packaged import WEIGHTS
from adpc_ros.ros.parameters import NAMES
from adpc_ros.ros.publication import TOPICS

DOCUMENT = (ROOT / 'docs' / 'integration.md').read_text()
SNIPPETS = re.findall('```python\n(.*?)```', DOCUMENT, re.DOTALL)
SETTINGS = re.findall('```yaml\n(.*?)```', DOCUMENT, re.DOTALL)


def test_snippets_are_valid() -> None:
    assert len(SNIPPETS) == 3 and len(SETTINGS) == 3
    for snippet in SNIPPETS:
        compile(snippet, 'integration.md', 'exec')
    for settings in SETTINGS:
        assert yaml.safe_load(settings)


def test_the_table_of_exits_is_that_of_the_weights() -> None:
    rows = {line for line in DOCUMENT.splitlines() if ' IoU, % |' in line}
    cards = (ROOT / 'weights' / 'README.md').read_text().split('# Model card: ')
    (card,) = (card for card in cards if card.startswith(Path(WEIGHTS).name))
    assert rows == {line for line in card.splitlines() if ' IoU, % |' in line}, (
        'copy them from weights/README.md'
    )


def test_topics_and_parameters_that_it_names_exist() -> None:
    inputs = (ROOT / 'adpc_ros' / 'ros' / 'inputs.py').read_text()
    known = TOPICS.keys() | set(re.findall("'~/(input/\\w+)'", inputs))
    topics = set(re.findall(r'(?:/adpc|~)/((?:input|output|progress|debug)/\w+)', DOCUMENT))
    assert len(topics) >= 6
    assert topics <= known
    parameters = set(re.findall(r'`(diagnostics_\w+|\w+_s|\w+_exit|cores|threads)[:`]', DOCUMENT))
    assert len(parameters) >= 8
    assert parameters <= NAMES


def test_links_lead_to_files() -> None:
    links = re.findall(r'\]\(([^)#:]+)\)', DOCUMENT)
    assert links
    assert [link for link in links if not (ROOT / 'docs' / link).exists()] == []


def test_the_relay_for_autoware_writes_runs_that_decode_to_the_mask() -> None:
    pytest.importorskip('sensor_msgs.msg')
    (snippet,) = (snippet for snippet in SNIPPETS if 'autoware_mask' in snippet)
    scope: dict[str, Any] = {}
    exec(snippet, scope)
    ids = np.zeros(256, np.uint8)
    ids[[3, 9]] = [9, 6]
    pixels = np.random.default_rng(0).choice(np.array([3, 9, 255], np.uint8), (7, 11))
    pixels[2:5] = 3
    mask = array_to_image(pixels, scope['Image']().header)
    data = scope['autoware_mask'](mask, ids).data.tobytes()
    decoded = bytearray()
    for i in range(0, len(data), 5):  # as perception_utils::runLengthDecoder
        decoded += data[i : i + 1] * int.from_bytes(data[i + 1 : i + 5], 'little')
    assert bytes(decoded) == ids[pixels].tobytes()
