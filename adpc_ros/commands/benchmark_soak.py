# SPDX-License-Identifier: Apache-2.0
"""``benchmark ros --soak``: the node in trouble for an hour."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from adpc_ros.commands.options import write_json

SECONDS = 3600
SIZE = (360, 480)

Values = dict[str, Any]


def run_soak(options: argparse.Namespace, weights: Path | None) -> list[str]:
    """Soak a node, print, and write the numbers; gives the promises that it broke."""
    from adpc_ros.benchmark.soak import soak

    size, seconds = options.size or SIZE, options.seconds or SECONDS
    parameters = [f'threads:={options.threads or 0}', *(options.parameters or [])]
    found = soak(size, seconds, options.seed, weights, parameters, options.network)
    _print(found)
    asked = {'size': list(size), 'seconds': seconds, 'seed': options.seed}
    write_json(options.json, {**asked, 'parameters': options.parameters or [], **found})
    broken: list[str] = found['broken']
    return broken


def _print(found: Values) -> None:
    for title, key in (('frames', 'frames'), ('done', 'done')):
        print(f'{title}: ' + ', '.join(f'{n} {name}' for name, n in found[key].items()))
    print('exits: ' + ', '.join(f'{index}: {n}' for index, n in found['exits'].items()))
    print('stops: ' + ', '.join(f'{name} {n}' for name, n in found['stops'].items()))
    times = found['stamp_to_mask_ms']
    if times['n']:
        cells = ', '.join(f'{times[key]:.1f}' for key in ('median', 'p95', 'p99', 'max'))
        print(f'frame stamped to mask, ms: {cells} (median, 95 %, 99 %, most)')
    print(f'{"the node":32} {"n":>5}  {"first":>8}  {"last":>8}  {"most":>8}')
    for state, values in found['footprints'].items():
        for name, unit in (('memory_mib', 'memory, MiB'), ('threads',) * 2, ('files',) * 2):
            cells = '  '.join(f'{values[name][key]:8.5g}' for key in ('first', 'last', 'max'))
            print(f'{f"{unit}, {state}":32} {values["n"]:5}  {cells}')
    print(f'warnings logged: {sum(found["warnings"].values()) or "none"}')
    for text, count in found['warnings'].items():
        print(f'  {count} x {text}')
