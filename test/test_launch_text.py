# SPDX-License-Identifier: Apache-2.0
"""What can be said of launch files and layouts where launch, Foxglove, RViz are not installed."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import pytest
import yaml
from shared import ROOT

from adpc_ros.labels import CAMVID
from adpc_ros.ros.label_points_parameters import LabelPointsParameters
from adpc_ros.ros.message_types import RAW_TYPE
from adpc_ros.ros.publication import TOPICS

FILES = sorted((ROOT / 'launch').glob('*.launch.py'))
DOCUMENTS = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]
LAYOUT = json.loads((ROOT / 'config' / 'adpc.foxglove.json').read_text())
CONTRACT = {
    '/adpc/input/image',
    '/adpc/debug/overlay',
    '/adpc/output/confidence',
    '/adpc/output/status',
    '/diagnostics',
}


class StandIn(ModuleType):
    """A module that has everything."""

    __path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return MagicMock()


@pytest.fixture
def launch_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    names = set()
    for file in FILES:
        found = re.findall(r'^from (launch[\w.]*) import', file.read_text(), re.MULTILINE)
        names |= {'.'.join(n.split('.')[: i + 1]) for n in found for i in range(n.count('.') + 1)}
    for name in names:
        monkeypatch.setitem(sys.modules, name, StandIn(name))


def arguments_of(file: Path) -> dict[str, tuple[Any, ...]]:
    scope: dict[str, Any] = {'__file__': str(file), '__name__': file.stem}
    exec(compile(file.read_text(), str(file), 'exec'), scope)
    return dict(scope['ARGUMENTS'])


@pytest.mark.usefixtures('launch_stands_in')
@pytest.mark.parametrize('file', FILES, ids=lambda file: file.name)
def test_every_argument_has_a_description_and_valid_choices(file: Path) -> None:
    for name, (default, text, *choices) in arguments_of(file).items():
        assert text.endswith('.') and len(text) > 10, name
        assert not choices or default in choices[0], name


@pytest.mark.usefixtures('launch_stands_in')
def test_documents_name_only_launch_files_and_arguments_that_exist() -> None:
    seen = 0
    for document in DOCUMENTS:
        text = document.read_text().replace('\\\n', ' ')
        for file, rest in re.findall(r'ros2 launch adpc_ros (\S+\.launch\.py)([^`\n]*)', text):
            known = set(arguments_of(ROOT / 'launch' / file))
            given = re.findall(r'(\w+):=', rest)
            assert set(given) <= known, (document.name, file)
            seen += 1
    assert seen >= 3


def strings(value: Any) -> Iterator[str]:
    """Give every string of a JSON value."""
    if isinstance(value, dict):
        value = value.values()
    elif isinstance(value, str):
        yield value
        return
    elif not isinstance(value, list):
        return
    for inner in value:
        yield from strings(inner)


def test_the_layout_shows_the_contracts_topics() -> None:
    panels = LAYOUT['configById']
    topics = {match for s in strings(panels) for match in re.findall(r'^/[\w/]+', s)}
    assert topics == CONTRACT
    by_kind: dict[str, list[str]] = {}
    for name in panels:
        by_kind.setdefault(name.split('!')[0], []).append(name)
    shown = {panels[name]['imageMode']['imageTopic'] for name in by_kind['Image']}
    assert shown == {topic for topic in CONTRACT if topic.endswith(('image', 'lay', 'confidence'))}


def test_the_layout_places_every_panel_once() -> None:
    def leaves(node: Any) -> Iterator[str]:
        if isinstance(node, str):
            yield node
            return
        assert node['direction'] in ('row', 'column')
        assert 0 < node['splitPercentage'] < 100
        yield from leaves(node['first'])
        yield from leaves(node['second'])

    placed = list(leaves(LAYOUT['layout']))
    assert sorted(placed) == sorted(LAYOUT['configById'])
    assert len(placed) == len(set(placed))


def test_the_layout_plots_fields_that_the_status_has() -> None:
    message = (ROOT / 'msg' / 'SegmentationStatus.msg').read_text()
    fields = set(re.findall(r'^[\w/]+ (\w+)\s*(?:#.*)?$', message, re.MULTILINE))
    plotted = {
        match
        for text in strings(LAYOUT['configById'])
        for match in re.findall(r'^/adpc/output/status\.(\w+)$', text)
    }
    assert {'latency', 'exit_index', 'stop_reason', 'mean_confidence'} <= plotted <= fields


RVIZ = yaml.safe_load((ROOT / 'config' / 'adpc.rviz').read_text())['Visualization Manager']
SHOWN = {shown['Name']: shown for shown in RVIZ['Displays'] if 'Topic' in shown}


def test_rviz_shows_topics_that_the_nodes_publish() -> None:
    topics = {name: shown['Topic']['Value'] for name, shown in SHOWN.items()}
    assert topics == {
        'Overlay': '/adpc/debug/overlay',
        'Confidence': '/adpc/output/confidence',
        'Labelled points': '/label_points/output/points',
    }
    assert TOPICS['output/confidence'].kind == RAW_TYPE
    sources = [
        (ROOT / 'adpc_ros' / 'ros' / f'{n}.py').read_text()
        for n in ('outputs', 'label_points_node')
    ]
    assert "'debug/overlay'" in sources[0] and "'~/output/points'" in sources[1]
    assert "super().__init__('label_points')" in sources[1]


def test_rviz_hears_publishers_of_either_reliability_and_colours_points_by_class() -> None:
    policies = ('Reliability Policy', 'Durability Policy')
    for shown in SHOWN.values():
        assert [shown['Topic'][policy] for policy in policies] == ['Best Effort', 'Volatile']
        assert shown['Enabled'] is True
    points = SHOWN['Labelled points']
    assert points['Class'] == 'rviz_default_plugins/PointCloud2'
    assert points['Channel Name'] == LabelPointsParameters().label_field
    assert points['Max Intensity'] == CAMVID.count  # of the packaged weights
