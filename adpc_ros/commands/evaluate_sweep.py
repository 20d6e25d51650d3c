# SPDX-License-Identifier: Apache-2.0
"""``evaluate`` with other masks than the weights' own: options, table, numbers and figure."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adpc_ros.commands.options import positive, write_json

if TYPE_CHECKING:
    from adpc_ros.learning.labelled_images import LabelledImages
    from adpc_ros.learning.sweep import Choices, Swept
    from adpc_ros.network.anytime import AnytimeNetwork
    from adpc_ros.network.checkpoint import Checkpoint

CRITERIA = ('max_probability', 'entropy', 'top_k', 'random', 'peak_response', 'predicted')
FIGURE = 'sweep.svg'
_WIDTH = 6  # of a number


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what replaces the masks of ``--weights``."""
    masks = parser.add_argument_group(
        "masks other than the weights' own",
        'Weights that were trained without masks get them, with initial values for the '
        'interpolation.',
    )
    masks.add_argument(
        '--criterion', choices=CRITERIA, help='by what a position is masked, with --threshold'
    )
    masks.add_argument(
        '--threshold',
        type=thresholds,
        metavar='T[/T...]',
        help='for all exits, or one for each but the last; of top_k and random the share of '
        'positions that is masked',
    )
    masks.add_argument(
        '--window', type=positive, metavar='W', help='edge of the interpolation window in cells'
    )
    masks.add_argument(
        '--sweep',
        type=swept,
        action='append',
        default=[],
        metavar='KEY=A,B,...',
        help='judge each of several: KEY is criterion, threshold or window, and each goes with '
        'each if it is given again; a criterion without thresholds goes over some. Prints a '
        'table; --figures draws accuracy over cost',
    )


def thresholds(text: str) -> tuple[float, ...]:
    """Read one number of at least 0, or several with / between them."""
    try:
        values = tuple(float(part) for part in text.split('/'))
    except ValueError:
        values = ()
    if not values or not all(0 <= value < math.inf for value in values):
        raise argparse.ArgumentTypeError(f'expected T or T/T/... of at least 0, got {text!r}')
    return values


def swept(text: str) -> tuple[str, tuple[Any, ...]]:
    """Read KEY=A,B,...; gives the key and its values."""
    key, _, listed = text.partition('=')
    kinds = {'criterion': _criterion, 'threshold': thresholds, 'window': positive}
    if key not in kinds or not listed:
        raise argparse.ArgumentTypeError(
            f'expected criterion=, threshold= or window=, with values, got {text!r}'
        )
    values = tuple(kinds[key](part) for part in listed.split(','))
    if len(set(values)) != len(values):
        raise argparse.ArgumentTypeError(f'expected different values, got {text!r}')
    return key, values


def _criterion(text: str) -> str:
    if text not in CRITERIA:
        raise argparse.ArgumentTypeError(f'expected {", ".join(CRITERIA)}, got {text!r}')
    return text


def choices(options: argparse.Namespace) -> Choices:
    """
    Give what is to be tried, of the options.

    :raises ValueError: for options that exclude each other.
    """
    from adpc_ros.learning.sweep import Choices
    from adpc_ros.network.adaptivity import Criterion

    given: dict[str, tuple[Any, ...]] = {}
    for key in ('criterion', 'threshold', 'window'):
        lists = [values for name, values in options.sweep if name == key]
        if (single := getattr(options, key)) is not None:
            lists.append((single,))
        if len(lists) > 1:
            raise ValueError(f'expected {key} once, with --{key} or with --sweep {key}=')
        given[key] = lists[0] if lists else ()
    if given['criterion'] and not given['threshold'] and not options.sweep:
        raise ValueError('--criterion needs --threshold, which means another thing for each')
    if options.no_masks and any(given.values()):
        raise ValueError('--no-masks does not go with --criterion, --threshold, --window, --sweep')
    for option in ('against', 'fps', 'horizon') if options.sweep else ():
        if getattr(options, option):
            raise ValueError(f'--{option} does not go with --sweep')
    criteria = tuple(map(Criterion, given['criterion']))
    return Choices(criteria, given['threshold'], given['window'])


def with_choice(network: AnytimeNetwork, chosen: Choices) -> AnytimeNetwork:
    """Give a network the masks of the options that are not swept; it stays if there are none."""
    from adpc_ros.learning.sweep import settings
    from adpc_ros.network.families import with_adaptivity

    return with_adaptivity(network, settings(network, chosen)[0]) if any(chosen) else network


def run_sweep(
    loaded: Checkpoint,
    samples: LabelledImages,
    chosen: Choices,
    figures: Path | None,
    json: str | None,
) -> None:
    """Judge each setting, print a line for each, and write numbers and figure."""
    from adpc_ros.learning.sweep import settings, sweep

    tried = settings(loaded.network, chosen)
    exits = loaded.network.config.exit_count
    print(f'mean IoU and masked positions in %, cost in GiMAC, {len(tried)} settings')
    labels = [f'IoU {i + 1}' for i in range(exits)] + ['mean']
    labels += [f'mask {i + 1}' for i in range(exits - 1)]
    labels += [f'MAC {i + 1}' for i in range(exits)] + ['mean']
    print(f'{"":38}', ' '.join(f'{label:>{_WIDTH}}' for label in labels))
    results = []
    for result in sweep(loaded.network, samples, tried):
        results.append(result)
        print(_line(result, exits), flush=True)
    if figures is not None:
        _draw(figures / FIGURE, results)
        print(f'figures: {figures}')
    rows = [_numbers(result) for result in results]
    write_json(json, {'network': loaded.identity, 'images': len(samples), 'sweep': rows})


def _numbers(result: Swept) -> dict[str, Any]:
    """Give a row; without masks it has no criterion."""
    adaptivity, found = result
    masks: dict[str, Any] = dict.fromkeys(('criterion', 'thresholds', 'window'))
    if adaptivity is not None:
        masks = {
            'criterion': adaptivity.criterion.value,
            'thresholds': list(adaptivity.thresholds),
            'window': adaptivity.window,
        }
    return {
        **masks,
        'miou': found.miou,
        'mean_miou': sum(found.miou) / len(found.miou),
        'masked_share': found.masked_share,
        'masked_accuracy': found.masked_accuracy,
        'gimac': found.gimac,
        'mean_gimac': sum(found.gimac) / len(found.gimac),
        'ece': found.ece,
    }


def _line(result: Swept, exits: int) -> str:
    row = _numbers(result)
    name = 'no masks' if result.adaptivity is None else result.adaptivity.described
    masked: Sequence[float] = row['masked_share'] or (math.nan,) * (exits - 1)
    shares = (100 * value for value in (*row['miou'], row['mean_miou'], *masked))
    values = [*shares, *row['gimac'], row['mean_gimac']]
    cells = (f'{"-":>{_WIDTH}}' if math.isnan(v) else f'{v:{_WIDTH}.2f}' for v in values)
    return f'{name:38} {" ".join(cells)}'


def _draw(path: Path, results: Sequence[Swept]) -> None:
    """Draw a curve for each criterion and window, which begins at no masks."""
    from adpc_ros.learning.figures import Curve, save_panels

    groups: dict[str, list[dict[str, Any]]] = {}
    windows = {r.adaptivity.window for r in results if r.adaptivity is not None}
    rows = [_numbers(result) for result in results]
    for row in rows[1:]:
        name = row['criterion'] + (f', window {row["window"]}' if len(windows) > 1 else '')
        groups.setdefault(name, [rows[0]]).append(row)
    panels: dict[str, dict[str, Curve]] = {'last exit': {}, 'mean of the exits': {}}
    for name, group in groups.items():
        last = sorted((row['gimac'][-1], row['miou'][-1]) for row in group)
        mean = sorted((row['mean_gimac'], row['mean_miou']) for row in group)
        for title, points in zip(panels, (last, mean)):
            panels[title][name] = Curve(*zip(*points))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_panels(path, panels, 'GiMAC')
