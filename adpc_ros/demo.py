# SPDX-License-Identifier: Apache-2.0
"""
The demo: a drive through the node over DDS, in three acts, with pictures and a report.

Three processes talk on this machine only: a camera replays the drive, the node segments and is
preempted, a planner records. What they say is put together here.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from adpc_ros import json_file
from adpc_ros.drive import open_drive
from adpc_ros.frame import Drive, DriveFrame
from adpc_ros.graph.processes import Processes, python
from adpc_ros.graph.recording import Played
from adpc_ros.graph.schedule import Act, Pace
from adpc_ros.labels import IGNORE_ID
from adpc_ros.learning.evaluate import evaluate
from adpc_ros.network.checkpoint import Checkpoint, load
from adpc_ros.percentiles import spread
from adpc_ros.pictures import captioned, exit_panel, heat, overlay, save_animation
from adpc_ros.progress import ProgressBar
from adpc_ros.ros.packaged import WEIGHTS, packaged
from adpc_ros.runtime.scheduler import StopReason

MAX_FRAMES = 110
PANELS = 3
ANIMATED_S = 10.0
INTERRUPTED = 130  # exit status


def acts(rate_hz: float, act_s: float, urgencies: int) -> list[Act]:
    """
    Give the three acts: frames at the drive's rate, faster, and with urgency.

    :param rate_hz: of the drive.
    :param act_s: length of each of the first two acts, in seconds.
    :param urgencies: number of CRITICAL messages in the third.
    """
    return [
        # the last exit can follow, with a third of the time to spare
        Act('camera rate', Pace.STEADY, act_s, rate_hz=rate_hz, load=(0.0, 0.65)),
        Act('faster', Pace.STEADY, act_s, rate_hz=rate_hz, load=(2.0, math.inf)),
        Act('urgency', Pace.URGENT, count=urgencies),
    ]


def report_of(played: Played) -> dict[str, Any]:
    """Count frames, stops and times."""
    last = played.statuses[-1]
    indices = range(1, last['exit_count'] + 1)
    act = {frame['stamp_ns']: frame['act'] for frame in played.frames}
    published = list(played.published())
    reasons = [StopReason(s['stop_reason']) for s in played.statuses]
    exits = [s['exit_index'] for s in played.statuses]

    def times(values_ms: Iterable[float]) -> dict[str, Any]:
        return spread(list(values_ms), digits=2)

    return {
        'frames': {
            'sent': len(played.frames),
            'lost': len(played.frames) - last['frames_received'],
            'received': last['frames_received'],
            'segmented': last['frames_segmented'],
            'dropped': last['frames_dropped'],
        },
        'stops': {reason.name: reasons.count(reason) for reason in StopReason},
        'exits': {str(index): exits.count(index) for index in indices},
        'latency_ms': times(ms for _, ms in published),
        'latency_ms_by_act': {
            name: times(ms for s, ms in published if act[s['stamp_ns']] == name)
            for name in dict.fromkeys(act.values())
        },
        'compute_ms_by_exit': {
            str(index): times(
                1e3 * s['compute_s'] for s, _ in published if s['exit_index'] == index
            )
            for index in indices
        },
        'urgency_to_mask_ms': times(played.urgency_to_mask_ms()),
        'next_frame_to_publication_ms': times(
            1e3 * s['preempt_s'] for s, _ in published if s['stop_reason'] == StopReason.NEXT_FRAME
        ),
    }


def run_graph(
    frames: list[DriveFrame], rate_hz: float, weights: Path, act_s: float, urgencies: int
) -> Played:
    """
    Run camera, node and planner until the camera has played all acts.

    :raises ChildProcessError: if one of them ends with an error.
    """
    height, width = frames[0].image.shape[:2]
    with Processes() as processes:
        seen = processes.folder / 'seen.npz'
        processes.start_node(
            f'weights:={weights}', f'warmup_height:={height}', f'warmup_width:={width}'
        )
        processes.start('planner', python('adpc_ros.graph.recorder', seen))
        sent = processes.play(acts(rate_hz, act_s, urgencies), [f.image for f in frames])
        time.sleep(0.5)  # the planner takes what is under way
        processes.stop()
        return Played.read(sent, seen)


def draw(
    out: Path, played: Played, frames: list[DriveFrame], checkpoint: Checkpoint
) -> list[Path]:
    """Write the animation of what the planner saw, and a panel of the exits of some frames."""
    classes = checkpoint.classes
    status = {s['stamp_ns']: s for s in played.statuses}
    chosen = [f for f in played.frames if f['act'] == 'faster' and f['stamp_ns'] in status]
    pictures = []
    for frame in ProgressBar(chosen, 'animation'):
        stamp_ns = frame['stamp_ns']
        if (
            stamp_ns not in played.masks.keys() & played.confidences.keys()
            or stamp_ns - chosen[0]['stamp_ns'] > 1e9 * ANIMATED_S
        ):
            continue
        image = frames[frame['image']].image
        said = status[stamp_ns]
        reason = StopReason(said['stop_reason']).name
        text = f'exit {said["exit_index"]}, {reason}, {1e3 * said["latency_s"]:.0f} ms'
        left = overlay(image, played.masks[stamp_ns], classes)
        pictures.append(captioned(np.hstack([left, heat(played.confidences[stamp_ns])]), text))
    written = []
    if len(pictures) > 1:
        period_s = (chosen[-1]['stamp_ns'] - chosen[0]['stamp_ns']) / 1e9 / (len(chosen) - 1)
        written.append(out / 'drive.webp')
        save_animation(written[-1], pictures, period_s)
    for i in np.linspace(0, len(frames) - 1, PANELS).astype(int):
        written.append(out / f'exits_{i:03d}.png')
        panel = exit_panel(checkpoint.network, frames[i].image, classes, frames[i].label)
        Image.fromarray(panel).save(written[-1])
    return written


def judge(frames: list[DriveFrame], checkpoint: Checkpoint) -> list[float] | None:
    """Give the mIoU of every exit over all labelled frames; None where nothing is labelled."""
    pairs = [(f.image, f.label) for f in frames if f.label is not None]
    if not any((label != IGNORE_ID).any() for _, label in pairs):
        return None
    return [round(m, 4) for m in evaluate(checkpoint.network, pairs).miou]


def table(report: dict[str, Any]) -> str:
    """Give the report as Markdown."""

    def times(name: str, values: dict[str, Any]) -> str:
        if not values['n']:
            return f'| {name} | 0 | | |'
        return f'| {name} | {values["n"]} | {values["median"]:.1f} | {values["p99"]:.1f} |'

    frames = report['frames']
    lines = [
        f'# {report["drive"]}, {report["network"]}',
        '',
        '| frames | ' + ' | '.join(frames) + ' |',
        '|---' * (len(frames) + 1) + '|',
        '| | ' + ' | '.join(str(n) for n in frames.values()) + ' |',
        '',
        'stopped: ' + ', '.join(f'{name} {n}' for name, n in report['stops'].items() if n),
        '',
        '| milliseconds | n | median | 99 % |',
        '|---|---|---|---|',
        times('urgency published to mask received (an exit was ready)',
              report['urgency_to_mask_ms']),
        times('next frame to publication', report['next_frame_to_publication_ms']),
        *(
            times(f'stamp to mask received, {act}', values)
            for act, values in report['latency_ms_by_act'].items()
        ),
        *(
            times(f'start of work to exit {index}', values)
            for index, values in report['compute_ms_by_exit'].items()
        ),
    ]  # fmt: skip
    if report['miou']:
        lines += [
            '',
            'mIoU of each exit, all frames: '
            + ', '.join(f'{100 * m:.1f} %' for m in report['miou']),
        ]
    return '\n'.join(lines) + '\n'


def collect(drive: Drive) -> list[DriveFrame]:
    """Read the first frames of a drive."""
    frames = []
    count = min(len(drive), MAX_FRAMES)
    for frame in ProgressBar(drive, drive.name, count):
        frames.append(frame)
        if len(frames) == count:
            break
    return frames


def main() -> int:
    """Run the demo; returns the exit status."""
    parser = argparse.ArgumentParser(prog='python -m adpc_ros.demo', description=__doc__)
    parser.add_argument('--frames', default=os.environ.get('FRAMES'), help='folder of images')
    parser.add_argument('--bag', default=os.environ.get('BAG'), help='bag with an image topic')
    parser.add_argument('--weights', type=Path, help='weights file (default: packaged)')
    parser.add_argument('--out', type=Path, default=Path('demo'), help='folder for the report')
    parser.add_argument('--act-s', type=float, default=8.0, help='length of acts 1 and 2')
    parser.add_argument('--urgencies', type=int, default=100, help='in act 3')
    arguments = parser.parse_args()
    weights = (arguments.weights or packaged(WEIGHTS)).resolve()
    try:
        checkpoint = load(weights)
        drive = open_drive(arguments.frames or None, arguments.bag or None)
        frames = collect(drive)
        if drive.classes not in (None, checkpoint.classes):
            print(f'labels are not judged: {drive.name} has other classes', file=sys.stderr)
            frames = [frame._replace(label=None) for frame in frames]
        played = run_graph(frames, drive.rate_hz, weights, arguments.act_s, arguments.urgencies)
    except (OSError, RuntimeError, ValueError) as error:
        print(f'adpc_ros: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('adpc_ros: interrupted', file=sys.stderr)
        return INTERRUPTED
    report = {'drive': drive.name, 'network': checkpoint.identity, **report_of(played)}
    report['miou'] = judge(frames, checkpoint)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for old in [*arguments.out.glob('exits_*.png'), arguments.out / 'drive.webp']:
        old.unlink(missing_ok=True)
    pictures = draw(arguments.out, played, frames, checkpoint)
    (arguments.out / 'report.json').write_text(json_file.dumps(report, indent=1) + '\n')
    (arguments.out / 'report.md').write_text(
        table(report) + '\n' + '\n'.join(f'![{p.stem}]({p.name})' for p in pictures) + '\n'
    )
    print('\n' + table(report))
    print(f'Pictures and report: {arguments.out}/')
    return 0


if __name__ == '__main__':
    sys.exit(main())
