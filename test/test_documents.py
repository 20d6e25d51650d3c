"""What the README says is so."""

from __future__ import annotations

import dataclasses
import re

import yaml
from shared import ROOT

from adpc_ros.ros.parameters import Parameters
from adpc_ros.runtime.scheduler import StopReason

README = (ROOT / 'README.md').read_text()


def rows(heading: str) -> list[list[str]]:
    """Give the cells of the first table under a heading."""
    section = README.split(f'## {heading}\n')[1].split('\n## ')[0]
    lines = [line for line in section.splitlines() if line.startswith('|')]
    return [[cell.strip() for cell in line.strip('|').split('|')] for line in lines[2:]]


def test_the_parameter_table_has_every_parameter_with_its_default() -> None:
    stated = {}
    for names, defaults, _ in rows('Parameters'):
        keys, values = re.findall('`([^`]+)`', names), re.findall('`([^`]+)`', defaults)
        stated.update({key: yaml.safe_load(value) for key, value in zip(keys, values)})
    assert stated == dataclasses.asdict(Parameters())


def test_the_parameter_file_states_the_defaults() -> None:
    document = yaml.safe_load((ROOT / 'config' / 'adpc.param.yaml').read_text())
    assert document['/**']['ros__parameters'] == dataclasses.asdict(Parameters())


def test_every_stop_reason_is_explained() -> None:
    assert all(f'| `{reason.name}` |' in README for reason in StopReason)


def test_the_planner_is_valid_python() -> None:
    (snippet,) = re.findall('```python\n(.*?)```', README, re.DOTALL)
    compile(snippet, 'README.md', 'exec')


def test_files_that_the_readme_names_exist() -> None:
    links = re.findall(r'\]\(([^)#:]+)\)', README)
    assert len(links) > 3
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_messages_and_scheduler_agree_on_the_numbers() -> None:
    message = (ROOT / 'msg' / 'SegmentationStatus.msg').read_text()
    constants = dict(re.findall(r'^uint8 ([A-Z_]+)=(\d+)', message, re.MULTILINE))
    assert constants == {r.name: str(r.value) for r in StopReason}
