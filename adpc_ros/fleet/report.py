# SPDX-License-Identifier: Apache-2.0
"""The report over all drives: one HTML file with the pictures in it, and the numbers as JSON."""

from __future__ import annotations

import base64
import html
import io
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from adpc_ros import json_file
from adpc_ros.files import replacing
from adpc_ros.fleet.jobs import DRIVES, OUT, Job, read_result
from adpc_ros.fleet.summary import Group, cells
from adpc_ros.labels import ClassSet
from adpc_ros.pictures import Picture, captioned, overlay
from adpc_ros.replay.output import read_output, values_of
from adpc_ros.replay.report import NUMBERS, PAGE, page, table
from adpc_ros.replay.source import FrameArrival, Source, nanoseconds
from adpc_ros.replay.summary import counts
from adpc_ros.replay.verdicts import Status, Verdict
from adpc_ros.ros.decoding import decoded
from adpc_ros.ros.publication import scaled

log = logging.getLogger(__name__)

_PICTURES = 12  # of the worst drives
_SIZE = (1440, 480)  # a picture at most, in pixels
_COLUMNS = (
    *('drive', 'tags', 'verdict', 'frames', 'masks of exit', 'stopped as'),
    *('equal pixels', 'least', 'mIoU', 'confidence', 'result'),
)


class Ended(NamedTuple):
    """A job that ended, with the tags and the classes of its drive."""

    job: Job
    verdict: Verdict
    tags: Sequence[str]
    classes: ClassSet


def write(folder: Path, title: str, drives: Iterable[Ended]) -> dict[str, Any]:
    """
    Write ``report.html`` and ``report.json``; results are read one after the other.

    :param title: what was replayed.
    :param drives: in the order of the manifest.
    :return: the numbers, without those of each drive.
    """
    everything = Group()
    groups: dict[str, Group] = {}
    rows: list[dict[str, Any]] = []
    ended = list(drives)
    for each in ended:
        job, (name, status, _) = each.job, each.verdict
        result = read_result(job) if job.folder.exists() else None
        if result and result.get('confusion') is not None:
            result['confusion'] = np.array(result['confusion'], np.int64)
        for group in (everything, *(groups.setdefault(tag, Group()) for tag in each.tags)):
            group.add(name, status, result)
        rows.append(_row(each, result))
    numbers = {
        'title': title,
        'all': everything.numbers(),
        'tags': {tag: groups[tag].numbers() for tag in sorted(groups)},
    }
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / NUMBERS) as partial:
        partial.write_text(json_file.dumps({**numbers, 'drives': rows}, indent=1) + '\n')
    order = sorted(range(len(rows)), key=lambda i: _badness(rows[i]))
    with replacing(folder / PAGE) as partial:
        text = _page(numbers, [rows[i] for i in order], [ended[i] for i in order])
        partial.write_text(text, 'utf-8', errors='backslashreplace')  # names of files
    return numbers


def earlier_outputs(path: Path) -> dict[str, Path]:
    """
    Give the output bags of an earlier replay of a manifest, by the names of drives.

    :param path: its ``--out``.
    :raises OSError: if it cannot be read.
    :raises ValueError: if it is none.
    """
    report = path / NUMBERS
    if not report.is_file():
        raise ValueError(f'expected the --out of a manifest that was replayed, got {path}')
    try:
        drives = json.loads(report.read_text())['drives']
        return {each['name']: path / DRIVES / each['folder'] / OUT for each in drives}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f'{report}: expected the report of a manifest: {error!r}') from error


def _row(each: Ended, result: Mapping[str, Any] | None) -> dict[str, Any]:
    """Give what is kept of a drive."""
    numbers = (result or {}).get('numbers') or {}
    agreement = numbers.get('agreement') or {}
    return {
        'name': each.verdict.name,
        'tags': list(each.tags),
        'status': each.verdict.status,
        'lines': each.verdict.lines,
        'folder': each.job.folder.name,
        'frames': numbers.get('frames'),
        'exits': numbers.get('exits'),
        'stops': numbers.get('stops'),
        'drops': numbers.get('drops'),
        'agreement': agreement.get('mean'),
        'min_agreement': agreement.get('min'),
        'miou': numbers.get('miou'),
        'mean_confidence': numbers.get('mean_confidence'),
        'worst_frame': (result or {}).get('worst_frame'),
        'warnings': (result or {}).get('warnings', []),
    }


def _badness(row: Mapping[str, Any]) -> tuple[float, ...]:
    """Give what the worst drives have the least of."""
    shares = (row[name] for name in ('agreement', 'miou', 'mean_confidence'))
    return (-row['status'], *(1.0 if share is None else share for share in shares))


def _page(
    numbers: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], ended: Sequence[Ended]
) -> str:
    """Write it; rows and drives come worst first."""
    groups = [('all', numbers['all']), *numbers['tags'].items()]  # a tag may be called so, too
    by_tag = [(name, cells(group)) for name, group in groups]
    heads = list(by_tag[0][1])
    parts = [table(('', *heads), ((name, *row.values()) for name, row in by_tag))]
    wrong = [row for row in rows if row['status'] != Status.PASSED]
    if wrong:
        parts.append('<h2 class="unmet">Not as expected</h2>')
        parts += [
            f'<h3>{html.escape(row["name"])}: {_STATUS[row["status"]]}</h3><ul class="unmet">'
            + ''.join(f'<li>{html.escape(line)}</li>' for line in row['lines'])
            + '</ul>'
            for row in wrong
        ]
    parts.append('<h2>The worst drives</h2>')
    masked = [(row, one) for row, one in zip(rows, ended) if row['worst_frame']]
    for row, one in masked[:_PICTURES]:
        name, frame = html.escape(row['name']), row['worst_frame']
        said = f'{name}: frame {frame["number"]}, {frame["why"]}'
        if (picture := _picture(one, frame)) is None:
            parts.append(f'<p>{said}</p>')
        else:
            parts.append(f'<p>{said}<br><img alt="{name}" src="{_embedded(picture)}"></p>')
    parts.append('<h2>Drives</h2><details><summary>all drives, the worst first</summary>')
    parts.append(table(_COLUMNS, map(_texts, rows)))
    said_of = [(row['name'], text) for row in rows for text in row['warnings']]
    parts.append('</details>')
    if said_of:
        parts.append('<h2>Warnings</h2><details><summary>all warnings</summary>')
        parts += [table(('drive', 'warning'), said_of), '</details>']
    return page(numbers['title'], parts)


_STATUS = {status: status.name.lower() for status in Status}


def _texts(row: Mapping[str, Any]) -> list[str]:
    def share(name: str) -> str:
        return '' if row[name] is None else f'{100 * row[name]:.3f} %'

    return [
        row['name'],
        ', '.join(row['tags']),
        _STATUS[row['status']],
        *('' if row[name] is None else counts(row[name]) for name in ('frames', 'exits', 'stops')),
        *map(share, ('agreement', 'min_agreement', 'miou', 'mean_confidence')),
        row['folder'],
    ]


def _picture(one: Ended, frame: Mapping[str, Any]) -> Picture | None:
    """Show a frame, its mask, and the earlier one if there is one; None if it cannot be read."""
    given = one.job.settings
    masks = {'now': one.job.folder / OUT} | ({'before': given.against} if given.against else {})
    try:
        arrivals = (a for a in Source(given.bag, given.topic) if isinstance(a, FrameArrival))
        arrival = next(a for a in arrivals if a.number == frame['number'])
        image = scaled(decoded(arrival.image()), given.parameters.output_scale)
        shown = [captioned(image, 'image')]
        for name, path in masks.items():
            for _, message in read_output(path, 'output/mask', given.namespace):
                ids = values_of(message)
                if nanoseconds(message.header.stamp) != frame['stamp_ns']:
                    continue
                if ids.shape == image.shape[:2]:
                    shown.append(captioned(overlay(image, ids, one.classes), name))
                break
    except (OSError, StopIteration, ValueError) as error:
        log.warning('%s: no picture of frame %d: %s', given.bag, frame['number'], error)
        return None
    return np.hstack(shown)


def _embedded(picture: Picture) -> str:
    """Give a picture as the address of an HTML image."""
    image, file = Image.fromarray(picture), io.BytesIO()
    image.thumbnail(_SIZE)
    image.save(file, 'jpeg', quality=80)
    return f'data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}'
