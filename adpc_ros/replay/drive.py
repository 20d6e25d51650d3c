# SPDX-License-Identifier: Apache-2.0
"""One drive of a replay: from its settings to the output bag and to what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from adpc_ros.learning.metrics import mean_iou
from adpc_ros.network import checkpoint
from adpc_ros.network.checkpoint import Checkpoint
from adpc_ros.replay import agreement, expectation, run, settings
from adpc_ros.replay.agreement import Agreement, Labels
from adpc_ros.replay.expectation import Expectation
from adpc_ros.replay.output import NAMESPACE, OUTPUTS, OutputBag
from adpc_ros.replay.run import Replayed
from adpc_ros.replay.source import Source
from adpc_ros.replay.summary import summary
from adpc_ros.replay.verdicts import Status, Verdict, verdict
from adpc_ros.ros.parameters import Parameters
from adpc_ros.ros.publication import PROGRESS


@dataclass(frozen=True)
class DriveSettings:
    """
    What decides the result of a drive; can be pickled.

    :param bag: a rosbag2 recording.
    :param weights: file.
    :param parameters: the node's.
    :param topic: of the camera; None if there is only one.
    :param exit_s: as :func:`adpc_ros.replay.settings.exit_seconds` reads it; None as the weights
        say.
    :param urgency_at: as :func:`adpc_ros.replay.settings.urgency` reads it.
    :param recorded_urgency: False leaves out the bag's urgency messages.
    :param progress: write every exit, too.
    :param live: in real time through a real node.
    :param against: an earlier output bag.
    :param labels: folder of label PNGs.
    :param labels_by_stamp: they are named by stamp in nanoseconds; else the n-th is of the n-th
        frame.
    :param expect: an expectation file.
    :param allow_dropped: frames that are invalid or fail do not count.
    """

    bag: Path
    weights: Path
    parameters: Parameters
    topic: str | None = None
    namespace: str = NAMESPACE
    exit_s: str | None = None
    urgency_at: tuple[str, ...] = ()
    recorded_urgency: bool = True
    progress: bool = False
    live: bool = False
    against: Path | None = None
    labels: Path | None = None
    labels_by_stamp: bool = False
    expect: Path | None = None
    allow_dropped: bool = False

    def output(self, path: Path) -> OutputBag:
        """Give the output bag, not yet open; raises ValueError as that does."""
        topics = (*OUTPUTS, *PROGRESS) if self.progress else OUTPUTS
        return OutputBag(path, self.namespace, topics)


class Prepared(NamedTuple):
    """A drive whose files beside the bag have been read."""

    settings: DriveSettings
    expectation: Expectation | None
    checkpoint: Checkpoint
    labels: Labels | None

    def warnings(self) -> list[str]:
        """Say what the node would warn of."""
        loaded = self.checkpoint
        count = loaded.network.config.exit_count
        return self.settings.parameters.warnings(count, loaded.advised_exit)


class Outcome(NamedTuple):
    """
    What came of a drive.

    ``confusion`` are (K, K) counts of (labelled class, predicted class), None without labels;
    ``unmet`` says what of the expectation was not met, None if nothing was expected; ``lost`` is
    the number of frames that were invalid or failed and should not have; ``is_empty`` says that no
    frame was segmented and one should have been. ``numbers`` are the summary.
    """

    replayed: Replayed
    agreement: Agreement | None
    confusion: NDArray[np.int64] | None
    unmet: list[str] | None
    lost: int
    is_empty: bool
    numbers: dict[str, Any]

    def verdict(self, settings: DriveSettings) -> Verdict:
        """Judge it."""
        name = str(settings.bag)
        if self.is_empty:
            ends = ', '.join(f'{name} {n}' for name, n in self.numbers['drops'].items())
            received = self.numbers['frames']['received']
            line = f'{settings.bag}: no frame was segmented, of {received}: {ends}'
            return verdict(name, Status.FAULT, [line])
        lines = [*(self.unmet or []), *self.said_of_lost(settings)]
        return verdict(name, Status.UNMET if lines else Status.PASSED, lines)

    def said_of_lost(self, settings: DriveSettings) -> list[str]:
        """Give the line about lost frames, if they count."""
        if not self.lost or settings.allow_dropped:
            return []
        frames = '1 frame was' if self.lost == 1 else f'{self.lost} frames were'
        return [f'{frames} invalid or failed (--allow-dropped takes that)']


def expected(settings: DriveSettings) -> Expectation | None:
    """
    Read what is expected, and see whether it can be judged.

    :raises OSError: if the file cannot be opened.
    :raises ValueError: if it is wrong, or needs what is not given.
    """
    if settings.expect is None:
        return None
    found = expectation.load(settings.expect)
    if found.needs_agreement and settings.against is None:
        raise ValueError(f'{settings.expect}: an expected agreement needs --against')
    if found.min_miou is not None and settings.labels is None:
        raise ValueError(f'{settings.expect}: min_miou needs --labels')
    return found


def prepare(settings: DriveSettings) -> Prepared:
    """
    Read everything but the bag.

    :raises OSError: if a file cannot be opened.
    :raises ValueError: if one is wrong, or they do not fit together.
    """
    wanted = expected(settings)
    if settings.against is not None:
        agreement.check(settings.against, settings.namespace)
    loaded = checkpoint.load(settings.weights)
    labels = agreement.open_labels(settings.labels, loaded.classes) if settings.labels else None
    return Prepared(settings, wanted, loaded, labels)


def replay(prepared: Prepared, out: OutputBag, quiet: bool = False) -> Outcome:
    """
    Replay a drive, compare and judge; the output bag is there when this returns.

    :param quiet: show no progress.
    :raises OSError: if a file cannot be read or written.
    :raises ValueError: if the bag or an option is wrong.
    """
    given, wanted = prepared.settings, prepared.expectation
    replayed = _replayed(prepared, out, quiet)
    records = replayed.records
    has_mask = any(record.has_mask for record in records)
    against = None
    if given.against is not None:
        against = agreement.compare(out.path, given.against, given.namespace)
    confusion = None
    if prepared.labels is not None and has_mask:
        confusion = agreement.judge(
            out.path,
            records,
            prepared.labels,
            given.labels_by_stamp,
            given.namespace,
            given.parameters.output_scale,
        )
    miou = None if confusion is None else float(mean_iou(confusion))
    unmet = wanted.unmet(records, against, miou) if wanted else None
    return Outcome(
        replayed,
        against,
        confusion,
        unmet,
        len((wanted or Expectation()).lost(records)),
        not has_mask and (wanted is None or wanted.segmented != 0),
        summary(replayed, against, miou, unmet),
    )


def _replayed(prepared: Prepared, out: OutputBag, quiet: bool) -> Replayed:
    given, loaded = prepared.settings, prepared.checkpoint
    planned = [settings.urgency(text) for text in given.urgency_at]
    if given.live and given.exit_s is not None:
        raise ValueError('--exit-s: a live node takes the time that it takes')
    is_bool = given.parameters.urgency_type == 'bool'
    bools = f'{given.namespace}/input/urgency' if is_bool else ''
    source = Source(given.bag, given.topic, planned, given.recorded_urgency, bools)
    if given.live:
        from adpc_ros.replay.live import replay_live

        return replay_live(source, given.weights, given.parameters, out, loaded.identity)
    if given.exit_s is not None:
        exit_s = settings.exit_seconds(given.exit_s)
    else:
        exit_s = settings.exit_seconds_of(loaded)
    return run.simulate(source, loaded, given.parameters, exit_s, out, quiet)
