# SPDX-License-Identifier: Apache-2.0
"""What a replay comes to, as an exit status and as JUnit XML."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from adpc_ros.files import replacing

_START = b'<?xml'
# what XML 1.0 has no character for, not even escaped
_NO_XML = re.compile('[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]')
_MAX_LINES = 20  # of a verdict


class Status(enum.IntEnum):
    """How a replay ended: the exit status of the command."""

    PASSED = 0
    UNMET = 1  # an expectation was not met, or frames were lost
    FAULT = 2  # of the input
    CRASHED = 3  # of the program, or its process was lost


class Verdict(NamedTuple):
    """
    What a drive came to.

    ``lines`` say what was not met or what was wrong; none if it passed.
    """

    name: str
    status: Status
    lines: tuple[str, ...] = ()


def verdict(name: str, status: Status, lines: Sequence[str] = ()) -> Verdict:
    """Make a verdict whose lines are not more than a person reads."""
    more = len(lines) - _MAX_LINES
    kept = (*lines[:_MAX_LINES], f'and {more} more') if more > 0 else tuple(lines)
    return Verdict(name, status, kept)


def check_junit(path: Path) -> None:
    """
    Make sure that a JUnit file replaces nothing but another.

    :raises ValueError: if something else is there.
    :raises OSError: if it cannot be read.
    """
    if not path.is_file():
        return
    with path.open('rb') as file:
        start = file.read(len(_START))
    if start not in (b'', _START):
        raise ValueError(f'--junit: expected a new file or an earlier JUnit XML, got {path}')


def write_junit(path: Path, suite: str, verdicts: Iterable[Verdict]) -> None:
    """
    Write verdicts as JUnit XML: an unmet expectation is a failure, FAULT and CRASHED are errors.

    :param suite: name of the test suite, and of the class of each case.
    """
    root = ElementTree.Element('testsuites')
    cases = ElementTree.SubElement(root, 'testsuite', name=_text(suite))
    counts = {'tests': 0, 'failures': 0, 'errors': 0, 'skipped': 0}
    for each in verdicts:
        counts['tests'] += 1
        case = ElementTree.SubElement(
            cases, 'testcase', classname=_text(suite), name=_text(each.name)
        )
        if each.status == Status.PASSED:
            continue
        kind = 'failure' if each.status == Status.UNMET else 'error'
        counts[f'{kind}s'] += 1
        said = _text('\n'.join(each.lines))
        ElementTree.SubElement(
            case, kind, type=each.status.name, message=said.partition('\n')[0]
        ).text = said
    for name, count in counts.items():
        cases.set(name, str(count))
    ElementTree.indent(root)
    data = ElementTree.tostring(root, encoding='utf-8', xml_declaration=True) + b'\n'
    if path.exists() and not path.is_file():  # a device, as /dev/stdout
        path.write_bytes(data)
        return
    with replacing(path) as partial:
        partial.write_bytes(data)


def _text(text: str) -> str:
    """Write what XML cannot hold as escapes, as Python's."""
    return _NO_XML.sub(lambda found: ascii(found[0])[1:-1], text)
