# SPDX-License-Identifier: Apache-2.0
"""``evaluate``: accuracy, cost and calibration of every exit on labelled images."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adpc_ros.commands import evaluate_pose, evaluate_sweep
from adpc_ros.commands.options import (
    add_json,
    check_outputs,
    folder_of,
    percent,
    positive,
    positive_number,
    use_threads,
    write_json,
)

if TYPE_CHECKING:
    from adpc_ros.commands.options import Commands
    from adpc_ros.learning.evaluate import Evaluation
    from adpc_ros.learning.labelled_images import LabelledImages
    from adpc_ros.learning.metrics import Difference
    from adpc_ros.network.checkpoint import Checkpoint

_OPTIONS = ('against', 'figures', 'fps', 'horizon', 'sweep')  # of segmentation alone
_PANELS = 4
# figures: file of a plot of accuracy, what is on its axis, and where that is in the result
_PLOTS = (('miou_gimac', 'GiMAC', 'gimac'), ('miou_seconds', 'seconds', 'seconds'))
_RELIABILITY = 'reliability.svg'


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        'evaluate',
        help='accuracy, cost and calibration of every exit on labelled images',
        description='Judge every exit at full size: intersection over union, what is masked and '
        'how right it is, multiply-accumulates as the masks of each image make them, seconds, '
        'and the calibration error of the confidence as it is published (15 bins). Of a network '
        'for poses: PCKh@0.5 of each joint, what is masked, and multiply-accumulates.',
    )
    parser.add_argument('--weights', required=True, metavar='FILE', help='safetensors file')
    parser.add_argument(
        '--data',
        required=True,
        metavar='KIND:FOLDER',
        help='camvid, cityscapes or pascal_context (FOLDER/SPLIT), or folder; ?drives=, '
        '?without=, ?list=, ?scale= choose (docs/data.md); mpii (FOLDER/SPLIT) of networks for '
        'poses',
    )
    parser.add_argument(
        '--against',
        metavar='FILE',
        nargs='+',
        default=[],
        help='other weights, judged on the same images: differences with 95 %% intervals; '
        'FILE+FILE for plain networks that run one after the other (a cascade)',
    )
    parser.add_argument(
        '--figures', metavar='DIR', help='write plots, and panels of every exit of some images'
    )
    parser.add_argument(
        '--fps',
        type=positive_number,
        metavar='N',
        help='the images are a clip of N frames a second: streaming accuracy, from measured '
        'times; the next frame cuts a frame at any exit (min_exit 1)',
    )
    parser.add_argument(
        '--horizon',
        type=positive_number,
        metavar='S',
        help='latest of the deadlines that accuracy is averaged over, in seconds (when the last '
        'exit is there)',
    )
    parser.add_argument('--threads', type=positive, metavar='N', help='default: one per core')
    parser.add_argument('--no-masks', action='store_true', help='compute every position')
    evaluate_sweep.add_options(parser)
    evaluate_pose.add_options(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Evaluate what the data are for, print, and write the numbers."""
    from adpc_ros.learning.tasks import task_of
    from adpc_ros.network.task import Task

    others = {Task.SEGMENTATION: evaluate_pose.OPTIONS, Task.POSE: _OPTIONS}
    task = task_of(options.data)
    for option in others[task]:
        if getattr(options, option):
            raise ValueError(f'--{option.replace("_", "-")}: {options.data} is for {task.value}')
    {Task.SEGMENTATION: _run, Task.POSE: evaluate_pose.run}[task](options)


def _run(options: argparse.Namespace) -> None:
    """Evaluate networks for segmentation."""
    from adpc_ros.learning.datasets import open_samples
    from adpc_ros.learning.evaluate import evaluate

    paths = [path for text in (options.weights, *options.against) for path in _paths(text)]
    figures = Path(options.figures) if options.figures else None
    drawn = [*(f'{stem}.svg' for stem, _, _ in _PLOTS), _RELIABILITY]
    check_outputs(
        {'--json': options.json},
        [*paths, folder_of(options.data)],
        {'--figures': (figures, [evaluate_sweep.FIGURE] if options.sweep else drawn)},
    )
    if figures is not None:
        _need_matplotlib()
    chosen = evaluate_sweep.choices(options)
    samples = open_samples(options.data)
    subjects = [_open(text) for text in (options.weights, *options.against)]
    for loaded in (one for subject in subjects for one in subject):
        if loaded.classes != samples.classes:
            raise ValueError(
                f'{loaded.identity}: expected the classes of {samples.classes.name}, '
                f'got those of {loaded.classes.name}'
            )
    if any(chosen) and len(subjects[0]) > 1:
        raise ValueError(f'{options.weights}: a cascade has no masks to be changed')
    use_threads(options.threads)
    if options.sweep:
        print(f'{_name(subjects[0])} on {len(samples)} images of {options.data}')
        evaluate_sweep.run_sweep(subjects[0][0], samples, chosen, figures, options.json)
        return
    ours = subjects[0][-1]
    ours = ours._replace(network=evaluate_sweep.with_choice(ours.network, chosen))
    subjects[0][-1] = ours
    period_s = 1 / options.fps if options.fps else None
    results = [
        evaluate(
            [loaded.network for loaded in subject],
            samples,
            not options.no_masks,
            period_s=period_s,
        )
        for subject in subjects
    ]
    result = results[0]
    print(f'{_name(subjects[0])} on {len(samples)} images of {options.data}')
    horizon_s = options.horizon or result.seconds[-1]
    numbers = _numbers(result, _name(subjects[0]), ours, horizon_s)
    masks = ours.network.config.adaptivity
    numbers['masks'] = None if masks is None or options.no_masks else masks.described
    if any(chosen):
        print(f"masks, not the weights' own: {numbers['masks']}")
    _print(numbers)
    numbers['against'], numbers['differences'] = {}, {}
    for subject, other in zip(subjects[1:], results[1:]):
        name, differences = _name(subject), _differences(result, other)
        numbers['against'][name] = theirs = _numbers(other, name, ours, horizon_s)
        print(f'\n{name}')
        _print(theirs)
        _print_differences(name, differences)
        numbers['differences'][name] = [d._asdict() for d in differences]
    if figures is not None:
        names = [_name(subject) for subject in subjects]
        _draw(figures, ours, names, results, samples)
        print(f'figures: {figures}')
    write_json(options.json, numbers)


def _open(text: str) -> list[Checkpoint]:
    """Load weights, or those of a cascade (``FILE+FILE``)."""
    from adpc_ros.network import checkpoint

    subject = [checkpoint.load(path) for path in _paths(text)]
    if masked := [one for one in subject if one.network.config.adaptivity is not None]:
        if len(subject) > 1:
            raise ValueError(
                f'{text}: expected plain networks, without masks, for a cascade; '
                f'{masked[0].identity} has masks'
            )
    return subject


def _paths(text: str) -> list[str]:
    return [text] if Path(text).exists() else text.split('+')


def _name(subject: list[Checkpoint]) -> str:
    return ' + '.join(loaded.identity for loaded in subject)


def _numbers(
    result: Evaluation, name: str, loaded: Checkpoint, horizon_s: float
) -> dict[str, Any]:
    from adpc_ros.learning.streaming import mean_over_deadlines

    confusions = result.confusions
    return {
        'network': name,
        'miou': result.miou,
        'iou': {
            name: [float(confusion.iou()[i]) for confusion in confusions]
            for i, name in enumerate(loaded.classes.names)
        },
        'masked_share': result.masked_share,
        'masked_accuracy': result.masked_accuracy,
        'gimac': result.gimac,
        'ece': result.ece,
        'seconds': result.seconds,
        'mean_over_deadlines': {
            'horizon_s': horizon_s,
            'miou': mean_over_deadlines(result.miou, result.seconds, horizon_s),
        },
        'streaming_miou': result.streaming_miou,
    }


def _print(numbers: dict[str, Any]) -> None:
    exits = len(numbers['miou'])
    print(f'{"exit":22}', '  '.join(f'{i + 1:6}' for i in range(exits)), '   mean')
    for name, values in numbers['iou'].items():
        print(f'{name + " IoU, %":22}', percent(values))
    print(f'{"mean IoU, %":22}', percent([*numbers['miou'], sum(numbers['miou']) / exits]))
    if numbers['masked_share']:
        print(f'{"masked after, %":22}', percent(numbers['masked_share']))
    if numbers['masked_accuracy']:
        print(f'{"right where masked, %":22}', percent(numbers['masked_accuracy']))
    print(f'{"calibration error, %":22}', percent(numbers['ece']))
    for title, key, factor in (('GiMAC', 'gimac', 1), ('milliseconds', 'seconds', 1000)):
        values = [factor * value for value in numbers[key]]
        values.append(sum(values) / exits)
        print(f'{title + " up to here":22}', '  '.join(f'{value:6.2f}' for value in values))
    anytime = numbers['mean_over_deadlines']
    print(
        f'mean IoU at a deadline anywhere in {1000 * anytime["horizon_s"]:.0f} ms: '
        f'{100 * anytime["miou"]:.2f} %'
    )
    if numbers['streaming_miou'] is not None:
        print(f'streaming mean IoU: {100 * numbers["streaming_miou"]:.2f} %')


def _differences(ours: Evaluation, theirs: Evaluation) -> list[Difference]:
    """Compare exit by exit, or the last exits if one network has that alone."""
    from adpc_ros.learning.metrics import bootstrap_difference

    pairs = list(zip(ours.per_image, theirs.per_image))
    if len(ours.per_image) != len(theirs.per_image):
        pairs = [(ours.per_image[-1], theirs.per_image[-1])]
    return [bootstrap_difference(a, b) for a, b in pairs]


def _print_differences(name: str, differences: list[Difference]) -> None:
    print(f'mean IoU less that of {name}, percentage points (95 % interval over images)')
    for i, d in enumerate(differences):
        exit_name = f'exit {i + 1}' if len(differences) > 1 else 'last exit'
        print(f'  {exit_name:9} {100 * d.value:+6.2f}  [{100 * d.low:+.2f}, {100 * d.high:+.2f}]')


def _need_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ValueError('--figures needs matplotlib: pip install matplotlib') from error


def _draw(
    folder: Path,
    first: Checkpoint,
    names: list[str],
    results: list[Evaluation],
    samples: LabelledImages,
) -> None:
    from PIL import Image

    from adpc_ros.learning.figures import Curve, save_accuracy, save_reliability
    from adpc_ros.pictures import exit_panel

    folder.mkdir(parents=True, exist_ok=True)
    for stem, cost, key in _PLOTS:
        curves = {
            name: Curve(getattr(result, key), result.miou) for name, result in zip(names, results)
        }
        save_accuracy(folder / f'{stem}.svg', curves, cost)
    save_reliability(folder / _RELIABILITY, results[0].reliability)
    for i in sorted({len(samples) * k // _PANELS for k in range(_PANELS)}):
        panel = exit_panel(first.network, samples[i].image, first.classes, samples[i].label)
        Image.fromarray(panel).save(folder / f'{samples.pairs[i][0].stem}.png')
