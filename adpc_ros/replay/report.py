# SPDX-License-Identifier: Apache-2.0
"""The report of a replay: one HTML file with its plots in it, and the numbers as JSON."""

from __future__ import annotations

import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from adpc_ros import json_file
from adpc_ros.replay.agreement import Agreement
from adpc_ros.replay.expectation import describe
from adpc_ros.replay.records import FrameRecord
from adpc_ros.replay.run import Replayed, Urgent
from adpc_ros.replay.source import stamp_text
from adpc_ros.replay.summary import lines

PAGE, NUMBERS = 'report.html', 'report.json'  # its files
MANY = 2000  # points beyond which they are drawn as pixels, so that the file stays small
_COLOURS = {
    'FINISHED': 'tab:green',
    'NEXT_FRAME': 'tab:blue',
    'URGENT': 'tab:red',
    'DEADLINE': 'tab:orange',
    'CONFIDENT': 'tab:olive',
    'EXIT_LIMIT': 'tab:purple',
    'FAILED': 'black',
    'dropped': 'tab:gray',
}
_LEVELS = {'ROUTINE': 'tab:green', 'ELEVATED': 'tab:orange', 'CRITICAL': 'tab:red'}
_STYLE = """
body { font-family: sans-serif; margin: 2em auto; max-width: 64em; color: #222; }
table { border-collapse: collapse; margin: 1em 0; }
td, th { padding: .2em .8em; border-bottom: 1px solid #ddd; text-align: left; }
svg { max-width: 100%; height: auto; }
.unmet { color: #b00; }
"""


def write(
    folder: Path,
    title: str,
    numbers: dict[str, Any],
    replayed: Replayed,
    against: Agreement | None = None,
) -> Path:
    """
    Write ``report.html`` and ``report.json``.

    :param folder: made if it is missing.
    :param title: what was replayed.
    :param numbers: the summary.
    :param against: agreement with an earlier output, if there is one.
    :return: path of the HTML file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    frames = [record._asdict() for record in replayed.records]
    (folder / NUMBERS).write_text(
        json_file.dumps({**numbers, 'title': title, 'per_frame': frames}, indent=1) + '\n'
    )
    path = folder / PAGE
    path.write_text(_page(title, numbers, replayed, against))
    return path


def _page(
    title: str, numbers: dict[str, Any], replayed: Replayed, against: Agreement | None
) -> str:
    parts: list[str] = []
    if numbers['unmet']:
        items = ''.join(f'<li>{html.escape(line)}</li>' for line in numbers['unmet'])
        parts.append(f'<h2 class="unmet">Not as expected</h2><ul class="unmet">{items}</ul>')
    parts += [table(('', ''), lines(numbers)), as_svg(plots(replayed, against))]
    if against is not None and against.changes:
        parts.append('<h2>Frames that ended otherwise</h2>')
        rows = (
            (stamp_text(c.stamp_ns), *(f'exit {e}, {reason}' for e, reason in (c.before, c.now)))
            for c in against.changes
        )
        parts.append(table(('stamp', 'before', 'now'), rows))
    parts.append('<h2>Frames</h2><details><summary>all frames</summary>')
    parts.append(table(_COLUMNS, (_row(record) for record in replayed.records)))
    parts.append('</details>')
    return page(title, parts)


def page(title: str, parts: Iterable[str]) -> str:
    """Give an HTML file; its parts are elements."""
    start = [
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
        f'<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>',
        f'<h1>{html.escape(title)}</h1>',
    ]
    return '\n'.join((*start, *parts)) + '</body></html>\n'


_COLUMNS = ('frame', 'stamp', 'end', 'latency, ms', 'confidence', 'GiMAC', 'late')


def _row(record: FrameRecord) -> tuple[str, ...]:
    start = (str(record.number), stamp_text(record.stamp_ns), describe(record))
    if not record.has_mask:
        return (*start, '', '', '', '')
    return (
        *start,
        f'{1e3 * record.latency_s:.1f}',
        f'{record.mean_confidence:.4f}',
        f'{record.gimac:.2f}',
        'late' if record.deadline_missed else '',
    )


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Give a table of texts as an HTML element."""
    head = ''.join(f'<th>{html.escape(text)}</th>' for text in heads)
    body = '\n'.join(
        '<tr>' + ''.join(f'<td>{html.escape(text)}</td>' for text in row) + '</tr>' for row in rows
    )
    return f'<table><tr>{head}</tr>\n{body}</table>'


def as_svg(figure: Figure) -> str:
    """Give a figure as an SVG element; equal figures give equal text."""
    drawn = io.StringIO()
    with matplotlib.rc_context({'svg.hashsalt': 'adpc_ros', 'svg.fonttype': 'none'}):
        figure.savefig(drawn, format='svg', metadata={'Date': None}, dpi=150)
    text = drawn.getvalue()
    return text[text.index('<svg') :]


def plots(replayed: Replayed, against: Agreement | None = None) -> Figure:
    """Draw exits, latencies and confidence over time."""
    records = replayed.records
    start_ns = records[0].received_ns
    figure = Figure(figsize=(11, 9.5), layout='constrained')
    top, middle, bottom = figure.subplots(3, 1, sharex=True)
    _draw_exits(top, records, replayed.urgencies, start_ns)
    masks = [record for record in records if record.has_mask]
    times_s = [(record.received_ns - start_ns) / 1e9 for record in masks]
    rough = len(records) > MANY
    for name, values in (
        ('stamp to publication', [1e3 * record.latency_s for record in masks]),
        ('work on the published exits', [1e3 * record.compute_s for record in masks]),
    ):
        middle.plot(times_s, values, '.-', lw=0.5, ms=4, label=name, rasterized=rough)
    late = [(t, 1e3 * r.latency_s) for t, r in zip(times_s, masks) if r.deadline_missed]
    if late:
        middle.plot(*zip(*late), 'rx', label='deadline missed')
    middle.set_ylabel('milliseconds')
    middle.set_ylim(bottom=0)
    for name, values in (
        ('mean confidence', [record.mean_confidence for record in masks]),
        ('confident share', [record.confident_share for record in masks]),
    ):
        bottom.plot(times_s, values, '.-', lw=0.5, ms=4, label=name, rasterized=rough)
    if against is not None:
        received_ns = {record.stamp_ns: record.received_ns for record in records}
        bottom.plot(
            [(received_ns.get(stamp, start_ns) - start_ns) / 1e9 for stamp, _ in against.shares],
            [share for _, share in against.shares],
            'k+',
            label='equal pixels',
            rasterized=rough,
        )
    bottom.set_ylim(0, 1.02)
    bottom.set_xlabel('seconds from the first frame, at receipt')
    for axes in (top, middle, bottom):
        axes.grid(alpha=0.3)
        axes.legend(  # above the axes, where it hides no point
            loc='lower left', bbox_to_anchor=(0, 1), fontsize='small', ncols=9, frameon=False
        )
    return figure


def _draw_exits(
    axes: Axes, records: Sequence[FrameRecord], urgencies: Sequence[Urgent], start_ns: int
) -> None:
    ends = [record.reason or 'dropped' for record in records]
    for name, colour in _COLOURS.items():
        chosen = [record for record, end in zip(records, ends) if end == name]
        if chosen:
            axes.plot(
                [(record.received_ns - start_ns) / 1e9 for record in chosen],
                [record.exit_index for record in chosen],
                'x' if name in ('dropped', 'FAILED') else 'o',
                color=colour,
                ms=4,
                label=name,
                rasterized=len(records) > MANY,
            )
    for name, colour in _LEVELS.items():
        times_s = [(u.time_ns - start_ns) / 1e9 for u in urgencies if u.level == name]
        if times_s:
            axes.vlines(times_s, 0, 1, transform=axes.get_xaxis_transform(), color=colour, lw=0.8)
            axes.plot([], [], color=colour, lw=0.8, label=name)
    axes.set_yticks(range(1 + max(record.exit_index for record in records)))
    axes.set_ylabel('exit (0: no mask)')
