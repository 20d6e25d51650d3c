"""
The demo: a drive through the node over DDS, in three acts, with pictures and a report.

Three processes talk on this machine only: a camera replays the drive, the node segments and is
preempted, a planner records. What they say is put together here.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from adpc_ros.drive import open_drive
from adpc_ros.frame import Drive, DriveFrame
from adpc_ros.labels import IGNORE_ID
from adpc_ros.learning.evaluate import evaluate
from adpc_ros.network.checkpoint import Checkpoint, load
from adpc_ros.pictures import captioned, exit_panel, heat, overlay, save_animation
from adpc_ros.processes import Processes
from adpc_ros.ros.domain import isolated
from adpc_ros.ros.packaged import WEIGHTS, packaged
from adpc_ros.runtime.scheduler import StopReason

MOST_FRAMES = 110
PANELS = 3
ANIMATED_S = 10.0


def percentiles(values_ms: list[float]) -> dict[str, Any]:
    """Give the number of values, their median and 99th percentile; None without values."""
    if not values_ms:
        return {'n': 0, 'median': None, 'p99': None}
    return {
        'n': len(values_ms),
        'median': round(float(np.median(values_ms)), 2),
        'p99': round(float(np.percentile(values_ms, 99)), 2),
    }


class Recording:
    """What camera and planner wrote down, joined by stamp."""

    def __init__(self, camera: Path, planner: Path) -> None:
        """Read both files."""
        sent = json.loads(camera.read_text())
        self.frames: list[dict[str, Any]] = sent['frames']
        self.urgencies: list[dict[str, Any]] = sent['urgencies']
        with np.load(planner) as archive:
            self.statuses: list[dict[str, Any]] = json.loads(str(archive['statuses']))
            self.received_ns: dict[int, int] = {}
            self.masks: dict[int, NDArray[np.uint8]] = {}
            self.confidences: dict[int, NDArray[np.uint8]] = {}
            for key in archive.files:
                stamp, _, kind = key.partition('/')
                if kind == 'mask':
                    self.masks[int(stamp)] = archive[key]
                    self.confidences[int(stamp)] = archive[f'{stamp}/confidence']
                    self.received_ns[int(stamp)] = int(archive[f'{stamp}/received_ns'])

    def report(self) -> dict[str, Any]:
        """Count frames, stops and times."""
        last = self.statuses[-1]
        indices = range(1, last['exit_count'] + 1)
        act = {frame['stamp_ns']: frame['act'] for frame in self.frames}
        frames = {
            'sent': len(self.frames),
            'lost': len(self.frames) - last['frames_received'],
            'received': last['frames_received'],
            'segmented': last['frames_segmented'],
            'dropped': last['frames_dropped'],
        }
        reasons = [StopReason(s['stop_reason']) for s in self.statuses]
        exits = [s['exit_index'] for s in self.statuses]
        published = [s for s in self.statuses if s['stamp_ns'] in self.received_ns]
        latency_ms = {
            s['stamp_ns']: (self.received_ns[s['stamp_ns']] - s['stamp_ns']) / 1e6
            for s in published
        }
        ready = {u['stamp_ns'] for u in self.urgencies if u['exit_ready']}
        urgent_ms = [
            (self.received_ns[s['stamp_ns']] - s['urgency_stamp_ns']) / 1e6
            for s in published
            if s['urgency_stamp_ns'] in ready
        ]
        return {
            'frames': frames,
            'stops': {reason.name: reasons.count(reason) for reason in StopReason},
            'exits': {str(index): exits.count(index) for index in indices},
            'latency_ms': percentiles(list(latency_ms.values())),
            'latency_ms_by_act': {
                name: percentiles([ms for stamp, ms in latency_ms.items() if act[stamp] == name])
                for name in dict.fromkeys(act.values())
            },
            'compute_ms_by_exit': {
                str(index): percentiles(
                    [1e3 * s['compute_s'] for s in published if s['exit_index'] == index]
                )
                for index in indices
            },
            'urgency_to_mask_ms': percentiles(urgent_ms),
            'next_frame_to_publication_ms': percentiles(
                [
                    1e3 * s['preempt_s']
                    for s in published
                    if s['stop_reason'] == StopReason.NEXT_FRAME
                ]
            ),
        }


def run_graph(
    frames: list[DriveFrame], rate_hz: float, weights: Path, act_s: float, urgencies: int
) -> Recording:
    """
    Run camera, node and planner until the camera has played all acts.

    :param act_s: length of each of the first two acts, in seconds.
    :param urgencies: number of CRITICAL messages in the third.

    :raises ChildProcessError: if one of them ends with an error.
    """
    environment = isolated(os.environ)
    with tempfile.TemporaryDirectory() as folder:
        drive, sent, seen = (Path(folder) / n for n in ('drive.npz', 'sent.json', 'seen.npz'))
        images = {f'image_{i}': frame.image for i, frame in enumerate(frames)}
        np.savez(drive, rate_hz=rate_hz, **images)  # type: ignore[arg-type]
        python = [sys.executable, '-m']
        height, width = frames[0].image.shape[:2]
        size = ['-p', f'warmup_height:={height}', '-p', f'warmup_width:={width}']
        node = [*python, 'adpc_ros.ros.node', '--ros-args', '-p', f'weights:={weights}', *size]
        graph = [*python, 'adpc_ros.demo_graph']
        with Processes(environment) as processes:
            processes.start('node', node)
            processes.start('planner', [*graph, 'planner', str(seen)])
            camera = [*graph, 'camera', str(drive), str(sent), str(act_s), str(urgencies)]
            processes.start('camera', camera)
            processes.wait_for('camera')
            time.sleep(0.5)  # the planner takes what is under way
            processes.stop()
        return Recording(sent, seen)


def draw(
    out: Path, recording: Recording, frames: list[DriveFrame], checkpoint: Checkpoint
) -> list[Path]:
    """Write the animation of what the planner saw, and a panel of the exits of some frames."""
    classes = checkpoint.classes
    status = {s['stamp_ns']: s for s in recording.statuses}
    chosen = [f for f in recording.frames if f['act'] == 'faster' and f['stamp_ns'] in status]
    pictures = []
    for frame in tqdm(chosen, 'animation'):
        stamp_ns = frame['stamp_ns']
        if stamp_ns not in recording.masks or stamp_ns - chosen[0]['stamp_ns'] > 1e9 * ANIMATED_S:
            continue
        image = frames[frame['image']].image
        said = status[stamp_ns]
        reason = StopReason(said['stop_reason']).name
        text = f'exit {said["exit_index"]}, {reason}, {1e3 * said["latency_s"]:.0f} ms'
        left = overlay(image, recording.masks[stamp_ns], classes)
        pictures.append(captioned(np.hstack([left, heat(recording.confidences[stamp_ns])]), text))
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
    count = min(len(drive), MOST_FRAMES)
    for frame in tqdm(drive, drive.name, count):
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
        recording = run_graph(frames, drive.rate_hz, weights, arguments.act_s, arguments.urgencies)
    except (OSError, RuntimeError, ValueError) as error:
        print(f'adpc_ros: {error}', file=sys.stderr)
        return 1
    report = {'drive': drive.name, 'network': checkpoint.identity, **recording.report()}
    report['miou'] = judge(frames, checkpoint)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for old in [*arguments.out.glob('exits_*.png'), arguments.out / 'drive.webp']:
        old.unlink(missing_ok=True)
    pictures = draw(arguments.out, recording, frames, checkpoint)
    (arguments.out / 'report.json').write_text(json.dumps(report, indent=1) + '\n')
    (arguments.out / 'report.md').write_text(
        table(report) + '\n' + '\n'.join(f'![{p.stem}]({p.name})' for p in pictures) + '\n'
    )
    print('\n' + table(report))
    print(f'Pictures and report: {arguments.out}/')
    return 0


if __name__ == '__main__':
    sys.exit(main())
