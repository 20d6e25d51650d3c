# SPDX-License-Identifier: Apache-2.0
"""What the README says is so."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import yaml
from shared import ROOT

from adpc_ros.class_file import read_classes
from adpc_ros.ros.parameters import Parameters, table
from adpc_ros.ros.publication import RUNNING
from adpc_ros.runtime.scheduler import StopReason

README = (ROOT / 'README.md').read_text()


def test_the_parameter_table_is_the_one_that_the_parameters_give() -> None:
    begin, end = '<!-- python -m adpc_ros.ros.parameters -->\n', '<!-- end -->'
    assert README.count(begin) == README.count(end) == 1
    assert README.split(begin)[1].split(end)[0] == table(), 'print it anew and paste it'


def test_the_parameter_file_states_the_defaults() -> None:
    document = yaml.safe_load((ROOT / 'config' / 'adpc.param.yaml').read_text())
    stated = document['/**']['ros__parameters']
    assert {**stated, 'cores': tuple(stated['cores'])} == dataclasses.asdict(Parameters())


def test_every_stop_reason_is_explained() -> None:
    assert all(f'| `{reason.name}` |' in README for reason in StopReason)


def test_the_class_files_of_the_document_are_right(tmp_path: Path) -> None:
    snippets = re.findall('```yaml\n(.*?)```', (ROOT / 'docs' / 'data.md').read_text(), re.DOTALL)
    assert len(snippets) == 3
    for snippet in snippets:
        (tmp_path / 'classes.yaml').write_text(snippet)
        read_classes(tmp_path / 'classes.yaml')


def test_files_that_the_readme_names_exist() -> None:
    links = re.findall(r'\]\(([^)#:]+)\)', README)
    assert len(links) > 3
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_promise_has_a_test_and_every_topic_a_promise() -> None:
    contract = (ROOT / 'docs' / 'contract.md').read_text()
    named = re.findall(r'`(test_\w+\.py)::(test_\w+)`', contract)
    assert len(named) > 40
    missing = [
        f'{file}::{name}'
        for file, name in named
        if f'\ndef {name}(' not in (ROOT / 'test' / file).read_text()
    ]
    assert missing == []
    (topics,) = re.findall(r'\| topic \| type .*?\n\n', README, re.DOTALL)
    names = re.findall(r'`([~/][a-z_/]+)`', topics)
    assert len(names) > 10
    assert [name for name in names if f'`{name}`' not in contract] == []


INSTALLED = r"importorskip\(\s*'(launch|cv_bridge|vision_msgs|sensor_msgs_py|tf2_ros)"


def test_a_promise_says_whether_its_test_needs_an_installed_ros() -> None:
    contract = (ROOT / 'docs' / 'contract.md').read_text()
    for mark, file, name in re.findall(r'(◇ )?`(test_\w+\.py)::(test_\w+)`', contract):
        head, *functions = re.split(r'\n(?=def |@)', (ROOT / 'test' / file).read_text())
        own = next(text for text in functions if f'def {name}(' in text)
        needed = re.search(INSTALLED, head) or re.search(INSTALLED, own)
        assert bool(mark) == bool(needed), name


def test_messages_and_scheduler_agree_on_the_numbers() -> None:
    message = (ROOT / 'msg' / 'SegmentationStatus.msg').read_text()
    constants = dict(re.findall(r'^uint8 ([A-Z_]+)=(\d+)', message, re.MULTILINE))
    reasons = {r.name: str(r.value) for r in StopReason}
    assert constants == {**reasons, 'RUNNING': str(RUNNING)}
