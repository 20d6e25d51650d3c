# SPDX-License-Identifier: Apache-2.0
"""``replay``: a recorded drive through the node, simulated or live, as a regression test."""

from __future__ import annotations

import argparse
import logging
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adpc_ros.commands.options import add_json, check_outputs, positive, write_json

if TYPE_CHECKING:
    from adpc_ros.commands.options import Commands
    from adpc_ros.network.checkpoint import Checkpoint
    from adpc_ros.replay.expectation import Expectation
    from adpc_ros.replay.output import OutputBag
    from adpc_ros.replay.run import Replayed
    from adpc_ros.ros.parameters import Parameters

log = logging.getLogger(__name__)

UNMET = 1  # exit status; also if frames were lost

# option -> the node's parameter; those with numbers, then what is otherwise made of them
_NUMBERS: dict[str, tuple[str, type, str]] = {
    '--min-exit': (
        'min_exit',
        int,
        'a newer frame or a deadline stops no frame before this exit; 0 as the weights advise',
    ),
    '--max-exit': ('max_exit', int, 'no frame goes beyond this exit; 0 for the last one'),
    '--target-confidence': ('target_confidence', float, 'mean confidence that ends a frame'),
    '--elevated-deadline-s': ('elevated_deadline_s', float, 'deadline while ELEVATED'),
    '--urgent-max-exit': (
        'urgent_max_exit',
        int,
        'no frame begun while CRITICAL goes beyond; 0 as the weights advise',
    ),
    '--max-age-s': ('max_age_s', float, 'older frames are dropped; 0 for none'),
}


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        'replay',
        help='run a recorded drive through the scheduler or a live node, and check the result',
        description='Run a bag through the scheduler of the node under a simulated clock, in '
        'which each exit costs a given time, or with --live through a real node; write masks, '
        'confidence and status to a bag. Exit status: 0; 1 if the expectation is not met, or a '
        'frame was invalid or failed; 2 for faults of the input, also if no frame was segmented. '
        'docs/replay.md has examples.',
    )
    parser.add_argument('bag', type=Path, metavar='BAG', help='folder, .mcap or .db3 file')
    parser.add_argument('--out', type=Path, required=True, metavar='OUT.mcap', help='output bag')
    parser.add_argument('--topic', metavar='NAME', help='camera, if there are several')
    parser.add_argument('--weights', metavar='FILE', help='default: of --params, else packaged')
    parser.add_argument(
        '--exit-s',
        metavar='A,B,...|FILE',
        help='seconds that each exit takes after the one before; or the JSON of benchmark masks '
        '(as the weights say)',
    )
    parser.add_argument(
        '--budget',
        '--deadline-s',
        dest='deadline_s',
        type=float,
        metavar='S',
        help="seconds from a frame's stamp to its mask; 0 for none",
    )
    for option, (name, kind, meaning) in _NUMBERS.items():
        metavar = 'N' if kind is int else 'S' if name.endswith('_s') else 'P'
        parser.add_argument(option, dest=name, type=kind, metavar=metavar, help=meaning)
    parser.add_argument(
        '--params', metavar='FILE', help="the node's parameter file; options count on top of it"
    )
    parser.add_argument('--threads', type=positive, metavar='N', help='default: one per core')
    parser.add_argument('--no-masks', action='store_true', help='compute every position')
    parser.add_argument(
        '--urgency-at',
        action='append',
        default=[],
        metavar='T[:LEVEL[:HOLD]]',
        help='add an urgency message (CRITICAL), seconds after the first frame; may be repeated',
    )
    parser.add_argument(
        '--no-recorded-urgency', action='store_true', help="leave out the bag's urgency messages"
    )
    parser.add_argument(
        '--namespace', default='/adpc', metavar='NAME', help='of the output topics (/adpc)'
    )
    parser.add_argument(
        '--progress', action='store_true', help='write every exit, too (progress topics)'
    )
    parser.add_argument('--live', action='store_true', help='in real time through a real node')
    parser.add_argument('--against', type=Path, metavar='OLD.mcap', help='an earlier output')
    parser.add_argument('--labels', type=Path, metavar='DIR', help='label PNGs, for the mIoU')
    parser.add_argument(
        '--labels-by',
        choices=('order', 'stamp'),
        default='order',
        help='the n-th file is of the n-th frame, or files are named by stamp in nanoseconds',
    )
    parser.add_argument('--expect', type=Path, metavar='FILE', help='what must come of it (YAML)')
    parser.add_argument(
        '--allow-dropped',
        action='store_true',
        help='frames that are invalid or fail do not change the exit status',
    )
    parser.add_argument(
        '--write-expectation', type=Path, metavar='FILE', help='write what came of it as such'
    )
    parser.add_argument('--report', type=Path, metavar='DIR', help='write report.html and .json')
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Replay, compare, print; gives the exit status."""
    logging.basicConfig(format='adpc_ros: %(message)s')  # warnings, on stderr
    from adpc_ros.recording.reader import NEEDED

    for module in (*NEEDED, 'matplotlib'):
        if find_spec(module) is None:
            raise ValueError(f'replay needs the package {module}: pip install {module}')
    from adpc_ros.network import checkpoint
    from adpc_ros.replay import agreement, report
    from adpc_ros.replay import expectation as expectations
    from adpc_ros.replay.output import OUTPUTS, OutputBag
    from adpc_ros.replay.summary import lines, summary
    from adpc_ros.ros.packaged import WEIGHTS, packaged
    from adpc_ros.ros.publication import PROGRESS

    parameters = _parameters(options)
    weights = Path(parameters.weights or packaged(WEIGHTS))
    topics = (*OUTPUTS, *PROGRESS) if options.progress else OUTPUTS
    out = OutputBag(options.out, options.namespace, topics)
    # whatever can be wrong is looked at before the work begins
    check_outputs(
        {'--json': options.json, '--write-expectation': options.write_expectation},
        [weights, *(getattr(options, name) for name in _INPUTS)],
        {
            '--out': (options.out.parent, [options.out.name]),
            '--report': (options.report, [report.PAGE, report.NUMBERS]),
        },
    )
    expectation = _expectation(options)
    if options.against is not None:
        agreement.check(options.against, options.namespace)
    loaded = checkpoint.load(weights)
    labels = agreement.open_labels(options.labels, loaded.classes) if options.labels else None
    for line in loaded.said_of_exits():
        print(line)
    exit_count = loaded.network.config.exit_count
    for text in parameters.warnings(exit_count, loaded.advised_exit):
        log.warning(text)
    replayed = _replay(options, parameters, loaded, weights, out)
    records = replayed.records
    has_mask = any(record.has_mask for record in records)
    against = (
        agreement.compare(options.out, options.against, options.namespace)
        if options.against
        else None
    )
    miou = None
    if labels is not None and has_mask:
        miou = agreement.judge(
            options.out,
            records,
            labels,
            options.labels_by == 'stamp',
            options.namespace,
            parameters.output_scale,
        )
    unmet = expectation.unmet(records, against, miou) if expectation else None
    numbers = summary(replayed, against, miou, unmet)
    for name, value in lines(numbers):
        print(f'{name:32} {value}')
    for line in unmet or []:
        print(f'not met: {line}')
    if options.write_expectation is not None:
        expectations.write(options.write_expectation, records)
    write_json(options.json, numbers)
    if options.report is not None:
        path = report.write(options.report, str(options.bag), numbers, replayed, against)
        print(f'report: {path}')
    if not has_mask and (expectation is None or expectation.segmented != 0):
        ends = ', '.join(f'{name} {n}' for name, n in numbers['drops'].items())
        raise ValueError(f'{options.bag}: no frame was segmented, of {len(records)}: {ends}')
    lost = (expectation or expectations.Expectation()).lost(records)
    if lost and not options.allow_dropped:
        frames = '1 frame was' if len(lost) == 1 else f'{len(lost)} frames were'
        print(f'not met: {frames} invalid or failed (--allow-dropped takes that)')
        return UNMET
    return UNMET if unmet else 0


# options that say what is read
_INPUTS = ('bag', 'against', 'labels', 'expect', 'params', 'exit_s')


def _expectation(options: argparse.Namespace) -> Expectation | None:
    """Read what is expected, and see whether it can be judged."""
    from adpc_ros.replay import expectation

    if options.expect is None:
        return None
    expected = expectation.load(options.expect)
    if expected.needs_agreement and options.against is None:
        raise ValueError(f'{options.expect}: an expected agreement needs --against')
    if expected.min_miou is not None and options.labels is None:
        raise ValueError(f'{options.expect}: min_miou needs --labels')
    return expected


def _parameters(options: argparse.Namespace) -> Parameters:
    from adpc_ros.replay.settings import parameters

    changes: dict[str, Any] = {
        name: getattr(options, name)
        for name in ('weights', 'threads', 'deadline_s', *(n for n, _, _ in _NUMBERS.values()))
        if getattr(options, name) is not None
    }
    if options.no_masks:
        changes['adaptive'] = False
    return parameters(options.params, changes, options.namespace)


def _replay(
    options: argparse.Namespace,
    parameters: Parameters,
    loaded: Checkpoint,
    weights: Path,
    out: OutputBag,
) -> Replayed:
    from adpc_ros.replay import settings
    from adpc_ros.replay.run import simulate
    from adpc_ros.replay.source import Source

    planned = [settings.urgency(text) for text in options.urgency_at]
    if options.live and options.exit_s is not None:
        raise ValueError('--exit-s: a live node takes the time that it takes')
    bools = f'{options.namespace}/input/urgency' if parameters.urgency_type == 'bool' else ''
    source = Source(options.bag, options.topic, planned, not options.no_recorded_urgency, bools)
    if options.live:
        from adpc_ros.replay.live import replay_live

        return replay_live(source, weights, parameters, out, loaded.identity)
    if options.exit_s is not None:
        exit_s = settings.exit_seconds(options.exit_s)
    else:
        exit_s = settings.exit_seconds_of(loaded)
    return simulate(source, loaded, parameters, exit_s, out)
