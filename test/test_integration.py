# SPDX-License-Identifier: Apache-2.0
"""What docs/integration.md says is so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from shared import ROOT

from adpc_ros.labels import CAMVID
from adpc_ros.ros.conversions import array_to_image
from adpc_ros.ros.message_types import LABEL_INFO_TYPE, RAW_TYPE
from adpc_ros.ros.mrm_urgency import MrmUrgencyParameters
from adpc_ros.ros.packaged import WEIGHTS
from adpc_ros.ros.parameters import NAMES, Parameters
from adpc_ros.ros.publication import TOPICS, encoding_of

DOCUMENT = (ROOT / 'docs' / 'integration.md').read_text()
SNIPPETS = re.findall('```python\n(.*?)```', DOCUMENT, re.DOTALL)
COSTMAP = ROOT / 'config' / 'examples' / 'nav2_costmap.yaml'
SETTINGS = re.findall('```yaml\n(.*?)```', DOCUMENT, re.DOTALL)

# Parameters that semantic_segmentation_layer declares, with their types. Source: onInitialize in
# src/semantic_segmentation_layer.cpp of github.com/kiwicampus/semantic_segmentation_layer, branch
# jazzy at 274c713. ``plugin`` is read by nav2_costmap_2d.
OF_LAYER = {
    'plugin': str,
    'enabled': bool,
    'combination_method': int,
    'observation_sources': str,
    'publish_debug_topics': bool,
    'use_approximate_time_sync': bool,
}
OF_SOURCE = {
    'segmentation_topic': str,
    'confidence_topic': str,
    'labels_topic': str,
    'pointcloud_topic': str,
    'observation_persistence': float,
    'expected_update_rate': float,
    'class_types': list,
    'max_obstacle_distance': float,
    'min_obstacle_distance': float,
    'tile_map_decay_time': float,
    'visualize_tile_map': bool,
    'use_cost_selection': bool,
}
OF_CLASS_TYPE = {
    'classes': list,
    'base_cost': int,
    'max_cost': int,
    'mark_confidence': int,
    'samples_to_max_cost': int,
    'dominant_priority': bool,
}


def test_snippets_are_valid() -> None:
    assert len(SNIPPETS) == 3 and len(SETTINGS) == 2
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
    known = set(TOPICS)
    for file in ('inputs.py', 'mrm_urgency.py'):
        source = (ROOT / 'adpc_ros' / 'ros' / file).read_text()
        known |= set(re.findall("'~/((?:input|output)/\\w+)'", source))
    topics = set(re.findall(r'(?:/adpc|~)/((?:input|output|progress|debug)/\w+)', DOCUMENT))
    assert len(topics) >= 6
    assert topics <= known
    parameters = set(re.findall(r'`(diagnostics_\w+|\w+_s|\w+_exit|cores|threads)[:`]', DOCUMENT))
    assert len(parameters) >= 8
    assert parameters <= NAMES | {'hold_s'}
    assert MrmUrgencyParameters().hold_s == 1.0  # as the document says


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


@pytest.fixture
def layer() -> dict[str, Any]:
    """Give the parameters of the example's layer."""
    costmap = yaml.safe_load(COSTMAP.read_text())['local_costmap']['local_costmap']
    (name,) = (n for n in costmap['ros__parameters']['plugins'] if 'segmentation' in n)
    parameters: dict[str, Any] = costmap['ros__parameters'][name]
    return parameters


def test_the_costmap_example_sets_what_the_layer_declares_in_its_types(
    layer: dict[str, Any],
) -> None:
    source = layer.pop(layer['observation_sources'])
    class_types = [source.pop(name) for name in source['class_types']]
    assert len(class_types) == 3
    for given, declared in ((layer, OF_LAYER), (source, OF_SOURCE)) + tuple(
        (class_type, OF_CLASS_TYPE) for class_type in class_types
    ):
        assert {name: type(value) for name, value in given.items()}.items() <= declared.items()
    costs = ('base_cost', 'max_cost', 'mark_confidence')
    assert all(0 <= each.get(cost, 0) <= 254 for each in class_types for cost in costs)


def test_the_costmap_example_takes_topics_encodings_and_classes_that_the_node_has(
    layer: dict[str, Any],
) -> None:
    source = layer[layer['observation_sources']]
    for name, kind in (
        ('segmentation_topic', RAW_TYPE),
        ('confidence_topic', RAW_TYPE),
        ('labels_topic', LABEL_INFO_TYPE),
    ):
        topic = TOPICS[source[name].removeprefix('/adpc/')]
        assert topic.kind == kind, name
        assert topic.kept == (name == 'labels_topic'), 'the layer asks for transient local'
        assert not topic.loose
    assert encoding_of(np.zeros((2, 2), np.uint8)) == 'mono8'
    assert (Parameters().confidence_encoding, Parameters().output_scale) == ('mono8', 1)
    named = [name for each in source['class_types'] for name in source[each]['classes']]
    assert sorted(named) == sorted(CAMVID.names), 'each class once, and none is forgotten'
    assert set(source['vulnerable']['classes']) == set(CAMVID.vulnerable)
