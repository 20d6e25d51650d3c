# SPDX-License-Identifier: Apache-2.0
"""What a replay is expected to give: a YAML file, and whether it was met."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from adpc_ros.replay.agreement import Agreement
from adpc_ros.replay.records import Counted, FrameRecord, Key
from adpc_ros.replay.source import stamp_of, stamp_text
from adpc_ros.runtime.scheduler import DropReason, StopReason
from adpc_ros.yaml_file import read_yaml

UNANSWERED = 'unanswered'  # of a live replay: the node said nothing of the frame
ANY = 'any'
#: What the keys of a file were called before, and still may be.
FORMER_NAMES = {
    'least_exit': 'min_exit',
    'least_agreement': 'min_agreement',
    'least_mean_agreement': 'min_mean_agreement',
    'least_miou': 'min_miou',
    'most_latency_s': 'max_latency_s',
    'most_deadlines_missed': 'max_deadlines_missed',
}
_DROPS = (*(reason.value for reason in DropReason), UNANSWERED, ANY)


class ExpectedFrame(NamedTuple):
    """
    What is expected of the frame with a stamp (the n-th of it); empty or 0 is anything.

    ``reasons`` are names of stop reasons, one of which is met; ``dropped`` is a reason to be
    dropped, 'any' for whichever.
    """

    key: Key
    exit_index: int = 0
    reasons: tuple[str, ...] = ()
    dropped: str = ''


@dataclass(frozen=True)
class Expectation:
    """
    What is expected of a replay; None is not judged.

    :param frames: some frames or all.
    :param received: frames, exactly; ``segmented`` and ``dropped`` likewise.
    :param min_exit: that any mask comes from.
    :param min_agreement: share of equal pixels in any common frame, 0 to 1.
    :param min_mean_agreement: likewise, mean over the common frames.
    :param min_miou: 0 to 1.
    :param max_latency_s: of any mask, stamp to publication, in seconds.
    :param max_deadlines_missed: number of masks.
    """

    frames: tuple[ExpectedFrame, ...] = ()
    received: int | None = None
    segmented: int | None = None
    dropped: int | None = None
    min_exit: int | None = None
    min_agreement: float | None = None
    min_mean_agreement: float | None = None
    min_miou: float | None = None
    max_latency_s: float | None = None
    max_deadlines_missed: int | None = None

    @property
    def needs_agreement(self) -> bool:
        """Whether an earlier output is needed to judge it."""
        return self.min_agreement is not None or self.min_mean_agreement is not None

    def unmet(
        self,
        records: Sequence[FrameRecord],
        agreement: Agreement | None = None,
        miou: float | None = None,
    ) -> list[str]:
        """
        Say what was not met, one line for each; empty if all was.

        :param records: of all frames, in order of receipt.
        :param agreement: with an earlier output, if there is one to be judged.
        :param miou: 0 to 1, likewise.
        """
        masks = [record for record in records if record.has_mask]
        latency_s = max((record.latency_s for record in masks), default=0.0)
        exactly = (
            ('received', self.received, len(records)),
            ('segmented', self.segmented, len(masks)),
            ('dropped', self.dropped, len(records) - len(masks)),
        )
        at_least = (
            ('exit', self.min_exit, min((r.exit_index for r in masks), default=0)),
            ('agreement', self.min_agreement, agreement.min if agreement else None),
            ('mean_agreement', self.min_mean_agreement, agreement.mean if agreement else None),
            ('miou', self.min_miou, miou),
        )
        at_most = (
            ('latency_s', self.max_latency_s, latency_s),
            ('deadlines_missed', self.max_deadlines_missed, _missed(records)),
        )
        lines = [
            f'{name}: expected {wanted}, got {found}'
            for name, wanted, found in exactly
            if wanted not in (None, found)
        ]
        lines += [
            f'{name}: expected at least {wanted:g}, got {_number(found)}'
            for name, wanted, found in at_least
            if wanted is not None and not (found is not None and found >= wanted)  # NaN is unmet
        ]
        lines += [
            f'{name}: expected at most {limit:g}, got {found:g}'
            for name, limit, found in at_most
            if limit is not None and found > limit
        ]
        key = Counted()
        by_key = {key(record.stamp_ns): record for record in records}
        for frame in self.frames:
            lines += _unmet(frame, by_key.get(frame.key))
        return lines

    def lost(self, records: Sequence[FrameRecord]) -> list[FrameRecord]:
        """
        Give the frames that came to nothing, invalid or failed, and were not expected to.

        They are if their entry says so, or if the number of dropped frames is given.

        :param records: of all frames, in order of receipt.
        """
        if self.dropped is not None or None not in (self.received, self.segmented):
            return []
        key = Counted()
        expected = {f.key for f in self.frames if f.dropped or StopReason.FAILED.name in f.reasons}
        found = [(key(record.stamp_ns), record) for record in records]
        return [r for place, r in found if r.is_lost and place not in expected]


def _missed(records: Sequence[FrameRecord]) -> int:
    return sum(record.deadline_missed for record in records)


def _number(value: float | None) -> str:
    return 'none' if value is None or math.isnan(value) else f'{value:g}'


def _unmet(frame: ExpectedFrame, record: FrameRecord | None) -> list[str]:
    name = f'frame {stamp_text(frame.key[0])}'
    if record is None:
        return [f'{name}: expected it, but it was not received']
    if frame.dropped:
        if record.dropped and frame.dropped in (ANY, record.dropped):
            return []
        return [f'{name}: expected it dropped ({frame.dropped}), got {describe(record)}']
    if record.dropped and (frame.exit_index or frame.reasons):
        return [f'{name}: expected a result, got {describe(record)}']
    lines = []
    if frame.exit_index and frame.exit_index != record.exit_index:
        lines.append(f'{name}: expected exit {frame.exit_index}, got {record.exit_index}')
    if frame.reasons and record.reason not in frame.reasons:
        lines.append(f'{name}: expected {" or ".join(frame.reasons)}, got {record.reason}')
    return lines


def describe(record: FrameRecord) -> str:
    """Say how a frame ended, in a few words."""
    if record.dropped:
        return f'dropped ({record.dropped})'
    return f'exit {record.exit_index}, {record.reason}' if record.has_mask else record.reason


def load(path: str | Path) -> Expectation:
    """
    Read an expectation file; docs/replay.md describes it.

    :raises OSError: if it cannot be opened.
    :raises ValueError: if it is no YAML, or has an unknown key or a value out of range.
    """
    document = read_yaml(path)
    try:
        return parse({} if document is None else document)
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error


def parse(document: Any) -> Expectation:
    """
    Read the content of an expectation file.

    :raises ValueError: for an unknown key or a value out of range.
    """
    known = {field.name for field in dataclasses.fields(Expectation)}
    given = _mapping(document, known, 'the file', FORMER_NAMES)
    values: dict[str, Any] = {}
    for name, value in given.items():
        if FORMER_NAMES.get(name) in given:
            raise ValueError(f'expected {FORMER_NAMES[name]} or {name}, its former name, not both')
        values[FORMER_NAMES.get(name, name)] = value
    frames = values.pop('frames', None) or []
    if not isinstance(frames, list):
        raise ValueError(f'frames: expected a list, got {frames!r}')
    for name, value in values.items():
        share = name in ('min_agreement', 'min_mean_agreement', 'min_miou')
        kinds = (int, float) if share or name == 'max_latency_s' else (int,)
        if isinstance(value, bool) or not isinstance(value, kinds) or value < 0:
            raise ValueError(f'{name}: expected a number >= 0, got {value!r}')
        if share and value > 1:
            raise ValueError(f'{name}: expected 0 to 1, got {value!r}')
    key = Counted()
    return Expectation(tuple(_frame(frame, key) for frame in frames), **values)


def _mapping(
    value: Any, known: set[str], where: str, former: Collection[str] = ()
) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f'{where}: expected keys and values, got {value!r}')
    if unknown := sorted(map(str, value.keys() - known - set(former))):
        raise ValueError(
            f'{where}: unknown {", ".join(unknown)}; expected some of {", ".join(sorted(known))}'
        )
    return value


def _frame(value: Any, key: Counted) -> ExpectedFrame:
    values = _mapping(value, {'stamp', 'exit', 'reason', 'dropped'}, 'a frame')
    text = values.get('stamp')
    if not isinstance(text, str):
        raise ValueError(f"stamp: expected '12.050000000', nine decimals in quotes, got {text!r}")
    stamp_ns = stamp_of(text)
    where = f'frame {text}'
    exit_index, reasons = values.get('exit', 0), values.get('reason', [])
    if not isinstance(exit_index, int) or not 0 <= exit_index <= 255:
        raise ValueError(f'{where}: exit: expected a number from 1, got {exit_index!r}')
    names = [reason.name for reason in StopReason]
    reasons = reasons if isinstance(reasons, list) else [reasons]
    if not all(reason in names for reason in reasons):
        raise ValueError(f'{where}: reason: expected some of {", ".join(names)}, got {reasons}')
    dropped = values.get('dropped', '')
    if dropped and dropped not in _DROPS:
        raise ValueError(f'{where}: dropped: expected one of {", ".join(_DROPS)}, got {dropped!r}')
    if dropped and (exit_index or reasons):
        raise ValueError(f'{where}: expected dropped, or exit and reason, not both')
    return ExpectedFrame(key(stamp_ns), exit_index, tuple(reasons), dropped)


def write(path: str | Path, records: Sequence[FrameRecord]) -> None:
    """Write what a replay gave as an expectation: every frame, and the counts."""
    frames: list[dict[str, Any]] = []
    for record in records:
        frame: dict[str, Any] = {'stamp': stamp_text(record.stamp_ns)}
        if record.dropped:
            frame['dropped'] = record.dropped
        else:
            frame |= {'exit': record.exit_index} if record.has_mask else {}
            frame['reason'] = record.reason
        frames.append(frame)
    masks = sum(record.has_mask for record in records)
    counts = {'received': len(records), 'segmented': masks, 'dropped': len(records) - masks}
    lines = [yaml.safe_dump(counts, sort_keys=False), 'frames:\n']
    # one line for each frame
    lines += [
        '- ' + yaml.safe_dump(frame, sort_keys=False, default_flow_style=True, width=1000)
        for frame in frames
    ]
    Path(path).write_text(''.join(lines))
