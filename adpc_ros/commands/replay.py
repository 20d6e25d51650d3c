# SPDX-License-Identifier: Apache-2.0
"""``replay``: a recorded drive through the node, simulated or live, as a regression test."""

from __future__ import annotations

import argparse
import logging
import traceback
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from adpc_ros.commands.options import add_json, check_outputs, positive, write_json
from adpc_ros.commands.replay_options import (
    NUMBERS,
    inputs_of,
    parameters_of,
    settings_of,
    weights_of,
)

if TYPE_CHECKING:
    from adpc_ros.commands.options import Commands
    from adpc_ros.replay.verdicts import Verdict

log = logging.getLogger(__name__)


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        'replay',
        help='run a recorded drive through the scheduler or a live node, and check the result',
        description='Run a bag through the scheduler of the node under a simulated clock, in '
        'which each exit costs a given time, or with --live through a real node; write masks, '
        'confidence and status to a bag. Exit status: 0; 1 if the expectation is not met, or a '
        'frame was invalid or failed; 2 for faults of the input, also if no frame was segmented; '
        '3 if the program failed. docs/replay.md has examples.',
    )
    parser.add_argument(
        'bag', type=Path, nargs='?', metavar='BAG', help='folder, .mcap or .db3 file'
    )
    parser.add_argument(
        '--out',
        type=Path,
        required=True,
        metavar='OUT.mcap|DIR',
        help='output bag; with --manifest the folder of all results',
    )
    many = parser.add_argument_group('many bags')
    many.add_argument('--manifest', type=Path, metavar='FILE', help='bags to replay (YAML)')
    many.add_argument(
        '--jobs', type=positive, metavar='N', help='drives at once (as many as there are cores)'
    )
    many.add_argument(
        '--ray',
        metavar='ADDRESS|local',
        help='replay on a Ray cluster, or on one that is started here; else in processes',
    )
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
    for option, (name, kind, meaning) in NUMBERS.items():
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
    parser.add_argument(
        '--against', type=Path, metavar='OLD.mcap|DIR', help='an earlier output (--out)'
    )
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
    parser.add_argument(
        '--junit', type=Path, metavar='FILE', help='write what passed and what did not (XML)'
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Replay, compare, print; gives the exit status."""
    logging.basicConfig(format='adpc_ros: %(message)s')  # warnings, on stderr
    from adpc_ros.recording.reader import NEEDED

    for module in (*NEEDED, 'matplotlib'):
        if find_spec(module) is None:
            raise ValueError(f'replay needs the package {module}: pip install {module}')
    from adpc_ros.replay.verdicts import Status, check_junit, verdict, write_junit

    if options.junit is not None:
        check_outputs({'--junit': options.junit}, inputs_of(options))
        check_junit(options.junit)
        options.junit.unlink(missing_ok=True)  # an interrupt must not leave an earlier result
    name = str(options.manifest or options.bag)

    def end(verdicts: Sequence[Verdict]) -> int:
        if options.junit is not None:
            write_junit(options.junit, f'replay {name}', verdicts)
        return max(verdict.status for verdict in verdicts)

    try:
        return end(_verdicts(options))
    except (ValueError, OSError) as error:
        end([verdict(name, Status.FAULT, str(error).splitlines())])
        raise
    except Exception as error:
        traceback.print_exc()
        return end([verdict(name, Status.CRASHED, traceback.format_exception_only(error))])


def _verdicts(options: argparse.Namespace) -> Sequence[Verdict]:
    if options.manifest is not None:
        from adpc_ros.commands.replay_fleet import replay_fleet

        return replay_fleet(options)
    if options.bag is None:
        raise ValueError('expected a BAG, or --manifest FILE')
    for option in ('jobs', 'ray'):
        if getattr(options, option) is not None:
            raise ValueError(f'--{option} needs --manifest')
    return [_replay_one(options)]


def _replay_one(options: argparse.Namespace) -> Verdict:
    from adpc_ros.replay import drive, expectation, report
    from adpc_ros.replay.summary import lines
    from adpc_ros.replay.verdicts import Status

    parameters = parameters_of(options, options.params)
    settings = settings_of(
        options,
        bag=options.bag,
        weights=weights_of(parameters),
        parameters=parameters,
        topic=options.topic,
        live=options.live,
        against=options.against,
        labels=options.labels,
        expect=options.expect,
    )
    out = settings.output(options.out)
    # whatever can be wrong is looked at before the work begins
    check_outputs(
        {
            '--json': options.json,
            '--junit': options.junit,
            '--write-expectation': options.write_expectation,
        },
        [settings.weights, *inputs_of(options)],
        {
            '--out': (options.out.parent, [options.out.name]),
            '--report': (options.report, [report.PAGE, report.NUMBERS]),
        },
    )
    prepared = drive.prepare(settings)
    for line in prepared.checkpoint.said_of_exits():
        print(line)
    for text in prepared.warnings():
        log.warning(text)
    outcome = drive.replay(prepared, out)
    for name, value in lines(outcome.numbers):
        print(f'{name:32} {value}')
    for line in outcome.unmet or []:
        print(f'not met: {line}')
    if options.write_expectation is not None:
        expectation.write(options.write_expectation, outcome.replayed.records)
    write_json(options.json, outcome.numbers)
    if options.report is not None:
        path = report.write(
            *(options.report, str(options.bag), outcome.numbers),
            *(outcome.replayed, outcome.agreement),
        )
        print(f'report: {path}')
    verdict = outcome.verdict(settings)
    if verdict.status == Status.FAULT:
        raise ValueError(verdict.lines[0])
    for line in outcome.said_of_lost(settings):
        print(f'not met: {line}')
    return verdict
