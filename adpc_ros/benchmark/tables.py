# SPDX-License-Identifier: Apache-2.0
"""What the benchmark of masks found, for people and for JSON."""

from __future__ import annotations

from typing import Any

from adpc_ros.benchmark.masks import Pass, gimac_ratios, mean_active_shares, step_medians, summary

SIDES = ('eager', 'onednn', 'dense', 'masked')  # and perhaps another network, 'against'
BASELINES = ('dense', 'onednn', 'eager')


def report(passes: dict[str, list[Pass]]) -> dict[str, Any]:
    """
    Give times in seconds, speed-ups of the masked side and ratios of multiply-accumulates.

    :param passes: of each side; one that was left out has None in its place.
    :return: of the last exit, then of all, then the number of passes and their range.
    """
    times = {name: summary(done) for name, done in passes.items()}
    other = times.get('against')

    def at(i: int) -> dict[str, Any]:
        seconds = {name: found.exits_s[i] for name, found in times.items() if found is not other}
        speedups = {name: value / seconds['masked'] for name, value in seconds.items()}
        return {f'{name}_s': seconds.get(name) for name in SIDES} | {
            f'speedup_vs_{name}': speedups.get(name) for name in BASELINES
        }

    ratios = gimac_ratios(passes['dense'], passes['masked'])
    active = mean_active_shares(passes['masked'])
    exits = [
        {'exit': i + 1, **at(i), 'gimac_ratio': ratio, 'active_share': share}
        for i, (ratio, share) in enumerate(zip(ratios, active))
    ]
    return {
        **at(-1),
        'gimac_ratio': ratios[-1],
        'exits': exits,
        'against_s': other and other.exits_s,
        'rounds': {name: len(done) for name, done in passes.items()},
        'range_s': {name: [found.min_s, found.max_s] for name, found in times.items()},
    }


def print_times(report: dict[str, Any]) -> None:
    """Print the times of all sides, and what the masks gain."""
    exits = report['exits']
    columns = '  '.join(f'exit {e["exit"]:>3}' for e in exits)
    print(f'\n{"milliseconds, median":22} {columns}  last: least - most')
    for name, (min_s, max_s) in report['range_s'].items():
        medians = report['against_s'] if name == 'against' else [e[f'{name}_s'] for e in exits]
        cells = '  '.join(f'{1e3 * median:8.1f}' for median in medians)
        print(f'{name:22} {cells}  {1e3 * min_s:.1f} - {1e3 * max_s:.1f}')
    for name in BASELINES:
        if name in report['range_s']:
            cells = '  '.join(f'{e[f"speedup_vs_{name}"]:7.2f}x' for e in exits)
            print(f'{"masked over " + name:22} {cells}')
    if report['against_s'] and len(report['against_s']) == len(exits):
        ratios = (e['masked_s'] / theirs for e, theirs in zip(exits, report['against_s']))
        print(f'{"masked of against":22} ' + '  '.join(f'{ratio:7.2f} ' for ratio in ratios))
    print(f'{"GiMAC ratio":22} ' + '  '.join(f'{e["gimac_ratio"]:7.2f}x' for e in exits))
    print(f'{"active, %":22} ' + '  '.join(f'{100 * e["active_share"]:8.2f}' for e in exits))


def print_steps(passes: dict[str, list[Pass]]) -> None:
    """Print the steps of the masked side, the dense times beside them."""
    dense, masked = (step_medians(passes[name]) for name in ('dense', 'masked'))
    print(
        f'\n{"step":44} {"exit":>4}  {"shape":18} {"ms":>8}  {"dense ms":>8}  {"active, %":>9}  '
        'kernel'
    )
    for name, (step, median_s) in masked.items():
        shape = 'x'.join(map(str, step.shape))
        dense_ms = f'{1e3 * dense[name][1]:8.2f}' if name in dense else ' ' * 8
        print(
            f'{name:44} {step.exit_index:4}  {shape:18} {1e3 * median_s:8.2f}  {dense_ms}  '
            f'{100 * step.active_share:9.2f}  {step.kernel}'.rstrip()
        )
