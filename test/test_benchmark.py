# SPDX-License-Identifier: Apache-2.0
"""Benchmarks measure what they say: shares are met, sides take turns, figures fit together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import random_network as small_network
from PIL import Image
from shared import camvid

from adpc_ros.__main__ import main
from adpc_ros.benchmark.mask_shapes import (
    boundaries,
    boundary_distance,
    mask_shapes,
    nearest_active,
    voronoi_labels,
)
from adpc_ros.benchmark.masks import SLOW_ROUNDS, SLOW_S, Pass, take_turns
from adpc_ros.benchmark.networks import random_image, random_network
from adpc_ros.benchmark.soak import broken_in, compare
from adpc_ros.benchmark.soak import evaluate as evaluate_soak
from adpc_ros.benchmark.stream import COUNTERS, evaluate, unaccounted
from adpc_ros.labels import CAMVID
from adpc_ros.network import checkpoint
from adpc_ros.network.adaptivity import Adaptivity
from adpc_ros.network.families import NetworkConfig, default_adaptivity
from adpc_ros.network.paper import MASKED
from adpc_ros.runtime.images import to_input

KEYS = {'network', 'size', 'dtype', 'threads', 'eager_s', 'onednn_s', 'dense_s', 'masked_s'}
KEYS |= {f'speedup_vs_{side}' for side in ('dense', 'onednn', 'eager')}
KEYS |= {'gimac_ratio', 'exits', 'masks', 'shares', 'memory_mib'}
EXIT_KEYS = {'exit', 'onednn_s', 'dense_s', 'masked_s', 'speedup_vs_dense', 'speedup_vs_onednn'}
EXIT_KEYS |= {'gimac_ratio', 'active_share'}


def run(file: Path, *arguments: str) -> dict[str, Any]:
    assert main(['benchmark', *arguments, '--threads', '1', '--json', str(file)]) == 0
    report: dict[str, Any] = json.loads(file.read_text())
    return report


def weights_in(folder: Path) -> str:
    network = small_network(0, adaptivity=Adaptivity(thresholds=(0.6,) * 3))
    checkpoint.save(folder / 'tiny.safetensors', network, CAMVID, {})
    return str(folder / 'tiny.safetensors')


# Shapes of masks


def test_the_distance_is_that_to_the_nearest_boundary() -> None:
    labels = voronoi_labels((24, 40), seed=3)
    cells = np.argwhere(boundaries(labels))
    everywhere = np.argwhere(np.ones(labels.shape, bool))
    square = ((everywhere[:, None] - cells[None]) ** 2).sum(axis=2).min(axis=1)
    assert boundary_distance(labels).ravel() == pytest.approx(np.sqrt(square))


def test_labels_without_a_boundary_are_refused() -> None:
    with pytest.raises(ValueError, match='at least two classes'):
        boundary_distance(np.zeros((8, 8), np.uint8))


def test_shares_are_met_and_masks_are_nested() -> None:
    distance = boundary_distance(voronoi_labels((64, 128)))
    maps = nearest_active(distance, MASKED)
    for active, masked in zip(maps, MASKED):
        assert active.mean() == pytest.approx(1 - masked, abs=1e-3)
        assert distance[active].max() <= distance[~active].min()
    assert not (maps[1] & ~maps[0]).any() and not (maps[2] & ~maps[1]).any()


def test_a_share_of_zero_or_one_is_met() -> None:
    maps = nearest_active(boundary_distance(voronoi_labels((16, 16))), (0.0, 0.5, 1.0))
    assert [active.mean() for active in maps] == [1.0, 0.5, 0.0]


@pytest.mark.parametrize('masked', [(0.4, 0.3, 0.5), (0.1, 0.2, 1.2)])
def test_masked_shares_must_rise_within_their_range(masked: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match='expected masked shares'):
        nearest_active(boundary_distance(voronoi_labels((16, 16))), masked)


def test_real_labels_give_the_papers_shares() -> None:
    shapes = mask_shapes((64, 128), MASKED, camvid('val') / 'label')
    assert shapes.source.startswith('labels ') and '.png' in shapes.source
    for active, masked in zip(shapes.maps, MASKED):
        assert active.share((64, 128)) == pytest.approx(1 - masked, abs=1e-3)


def test_the_map_of_median_boundary_length_is_taken(tmp_path: Path) -> None:
    for name, cells in (('a', 8), ('b', 2), ('c', 4)):
        squares = (np.indices((32, 32)) * cells // 32).sum(axis=0) % 2
        Image.fromarray(squares.astype(np.uint8)).save(tmp_path / f'{name}.png')
    assert 'c.png, the median of 3' in mask_shapes((32, 32), MASKED, tmp_path).source


def test_a_tessellation_stands_in_for_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('adpc_ros.benchmark.mask_shapes._SHARED', Path('nowhere'))
    shapes = mask_shapes((64, 128), MASKED)
    assert 'Voronoi' in shapes.source
    assert shapes.maps[0].share((64, 128)) == pytest.approx(1 - MASKED[0], abs=1e-3)


# Networks


@pytest.mark.parametrize(
    'name',
    ['hrnet_tiny', 'hrnet_w18_small_v2', 'coarse_tiny', 'coarse_s', 'mdeq_tiny', 'mdeq_small'],
)
def test_features_of_a_random_network_stay_in_range(name: str) -> None:
    network = random_network(NetworkConfig(name, adaptivity=default_adaptivity(name)))
    image = to_input(random_image((96, 128), 5), network.config, torch.device('cpu'))
    with torch.inference_mode():
        for out in network.exits(image, adaptive=False):
            for values in (*out.features, out.logits):
                assert 0.05 < values.std() < 50 and values.isfinite().all()
    lambdas = {float(v) for k, v in network.state_dict().items() if k.endswith('Lambda')}
    assert lambdas == (set() if network.config.adaptivity is None else {3.0})


# Masks


def test_sides_take_turns_after_a_warm_up_and_a_slow_eager_one_less() -> None:
    order: list[tuple[str, int]] = []

    def side(name: str, whole_s: float) -> Any:
        def run(image: Any) -> Pass:
            order.append((name, int(image)))
            return Pass([whole_s], [], [], [])

        return run

    runs = {'eager': side('eager', 2 * SLOW_S), 'dense': side('dense', 1), 'masked': side('m', 1)}
    passes = take_turns(runs, [np.uint8(i) for i in range(4)])  # type: ignore[misc]
    assert order[:6] == [('eager', 0), ('dense', 0), ('m', 0)] * 2
    assert {k: len(v) for k, v in passes.items()} == {
        'eager': SLOW_ROUNDS,
        'dense': 4,
        'masked': 4,
    }


def test_masks_of_given_shares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ['--network', 'hrnet_tiny', '--size', '96x128', '--repeats', '2', '--plan']
    report = run(tmp_path / 'm.json', 'masks', *options, '--masked', '.193,.384,.630')
    assert report.keys() >= KEYS
    assert (report['network'], report['size'], report['threads']) == ('hrnet_tiny', [96, 128], 1)
    assert all(done.keys() >= EXIT_KEYS for done in report['exits'])
    assert [done['exit'] for done in report['exits']] == [1, 2, 3, 4]
    shares = [done['active_share'] for done in report['exits']]
    assert shares == pytest.approx([1.0, *(1 - m for m in MASKED)], abs=1e-3)
    assert report['shares']['stage 3']['1/4'] == pytest.approx(1 - MASKED[1], abs=1e-3)
    ratios = [done['gimac_ratio'] for done in report['exits']]
    assert ratios[0] == 1.0 and report['gimac_ratio'] == ratios[-1] > 1.0
    for side in ('eager', 'onednn', 'dense'):
        seconds = [done[f'{side}_s'] for done in report['exits']]
        assert seconds == sorted(seconds) and seconds[-1] == report[f'{side}_s'] > 0
        speedup = report[f'{side}_s'] / report['masked_s']
        assert report[f'speedup_vs_{side}'] == pytest.approx(speedup)
    printed = capsys.readouterr().out
    assert 'load average' in printed and 'last_layer.0' in printed


def test_a_network_without_a_program_is_timed_on_pytorch(tmp_path: Path) -> None:
    options = ['--network', 'hrnet_tiny_sampled', '--size', '64x64', '--repeats', '1', '--plan']
    report = run(tmp_path / 'm.json', 'masks', *options, '--masked', '.2,.4,.6')
    assert report['rounds'] == {'eager': 1, 'dense': 1, 'masked': 1}
    assert report['exits'][-1]['active_share'] == pytest.approx(0.4, abs=0.01)


def test_baselines_can_be_left_out(tmp_path: Path) -> None:
    options = ['--network', 'hrnet_tiny', '--size', '64x64', '--repeats', '1', '--no-eager']
    options += ['--no-onednn', '--dtype', 'bfloat16']
    report = run(tmp_path / 'm.json', 'masks', *options)
    assert report.keys() >= KEYS and report['dtype'] == 'bfloat16'
    assert report['eager_s'] is report['onednn_s'] is report['speedup_vs_eager'] is None
    assert report['speedup_vs_dense'] > 0


def test_masks_of_real_frames_are_the_networks_own(tmp_path: Path) -> None:
    (tmp_path / 'image').mkdir()
    for i in range(3):
        Image.fromarray(random_image((50, 70), i)).save(tmp_path / 'image' / f'{i}.png')
    frames = ['--weights', weights_in(tmp_path), '--frames', str(tmp_path / 'image')]
    other = tmp_path / 'other.safetensors'
    checkpoint.save(other, small_network(1, architecture='coarse_tiny'), CAMVID, {})
    report = run(tmp_path / 'm.json', 'masks', *frames, '--limit', '2', '--against', str(other))
    assert len(report['against_s']) == 3 and report['rounds']['against'] == 2
    assert report.keys() >= KEYS and report['size'] == [50, 70]
    assert report['rounds']['masked'] == 2 and '0.6' in report['masks']
    assert report['exits'][-1]['active_share'] < 0.95 and report['gimac_ratio'] > 0.5
    report = run(tmp_path / 'm.json', 'masks', *frames, '--threshold', '1')
    assert report['gimac_ratio'] == report['exits'][-1]['active_share'] == 1.0


# Preemption and ROS


@pytest.mark.parametrize('network', ['hrnet_tiny', 'hrnet_tiny_sampled', 'mdeq_tiny'])
def test_preemption_is_measured_after_the_first_exit(tmp_path: Path, network: str) -> None:
    report = run(
        tmp_path / 'p.json',
        *('preempt', '--network', network, '--size', '96x128', '--count', '12'),
    )
    assert report.keys() >= {'network', 'size', 'dtype', 'threads'}
    assert report['count'] == sum(report['exits'].values()) == 12
    for times in (report, report['published']):
        assert 0 < times['median_ms'] <= times['p99_ms'] <= times['max_ms']


def test_what_ros_adds_is_measured_between_processes(tmp_path: Path) -> None:
    options = ['--network', 'coarse_tiny', '--size', '64x96', '--seconds', '2']
    report = run(tmp_path / 'r.json', 'ros', *options)
    assert report['size'] == [64, 96] and report['frames'] == report['transport_ms']['n'] > 3
    assert 0 < report['transport_ms']['median'] <= report['transport_ms']['p99']
    assert report['urgency_to_mask_ms'].keys() >= {'median', 'p99'}
    assert report['cpu_share'] > 0


def test_a_stream_of_frames_is_accounted_for_under_urgency_and_changes(tmp_path: Path) -> None:
    report = run(
        *(tmp_path / 'r.json', 'ros', '--size', '64x96', '--rate', '40', '--seconds', '6'),
        *('--urgency', '--changes', '-p', 'watchdog_s:=20.0'),
    )
    frames = report['frames']
    assert frames['sent'] == 240 and frames['received'] > 200
    assert frames['received'] == frames['segmented'] + frames['dropped']
    assert report['unaccounted'] == report['refused'] == [] and not report['warnings']
    assert sum(report['exits'].values()) == sum(report['stops'].values()) == frames['segmented']
    assert report['results_hz'] == pytest.approx(frames['segmented'] / 6, rel=0.02)
    for times in (report['stamp_to_mask_ms'], *report['service_ms'].values()):
        assert times['n'] > 2 and 0 < times['median'] <= times['p95'] <= times['p99']


MASK, LOST = {'exit_index': 4, 'stop_reason': 0}, {'exit_index': 0, 'stop_reason': 6}


def heard_of(*frames: dict[str, int]) -> list[dict[str, Any]]:
    """Statuses of frames 1, 2, ...; a failed frame counts as dropped."""
    statuses = []
    for stamp_ns, frame in enumerate(frames, 1):
        failed = sum(not f['exit_index'] for f in frames[:stamp_ns])
        counts = (stamp_ns, stamp_ns - failed, failed)
        statuses.append({'stamp_ns': stamp_ns, **frame, **dict(zip(COUNTERS, counts))})
    return statuses


@pytest.mark.parametrize(
    ('change', 'wrong'),
    [
        (lambda statuses, masks, confidences: None, []),
        (lambda statuses, masks, confidences: statuses.pop(1), ['2 frames segmented, 1 statuses']),
        (lambda statuses, masks, confidences: masks.pop(2), ['2 statuses with a mask, 1 masks']),
        (lambda statuses, masks, confidences: confidences.append(9), ['a mask, 3 confidences']),
        (lambda statuses, masks, confidences: statuses.reverse(), ['out of order', '1 frames']),
        (lambda statuses, masks, confidences: statuses.clear(), ['no status was received']),
        (
            lambda statuses, masks, confidences: statuses[-1].update(frames_dropped=0),
            ['3 frames received, 2 segmented, 0 dropped'],
        ),
        (
            lambda statuses, masks, confidences: statuses[0].update(stamp_ns=0),
            ['not sent', '2 masks'],
        ),
    ],
)
def test_what_does_not_add_up_is_found(change: Any, wrong: list[str]) -> None:
    statuses = heard_of(MASK, MASK, LOST)
    masks, confidences = {1: 10, 2: 20}, [1, 2]
    change(statuses, masks, confidences)
    found = ' / '.join(unaccounted([1, 2, 3], statuses, masks, confidences))
    assert all(text in found for text in wrong)
    assert bool(found) == bool(wrong)


def test_time_at_other_frames_is_no_transport() -> None:
    ms = 10**6
    stamps_ns = [100 * ms, 150 * ms, 600 * ms]
    ends = {100 * ms: (8, 200), 150 * ms: (3, 300), 600 * ms: (4, 50)}  # transport, computation
    statuses, received_ns, free_ns = [], {}, 0
    for count, (stamp_ns, (way_ms, compute_ms)) in enumerate(ends.items(), 1):
        received_ns[stamp_ns] = max(stamp_ns, free_ns) + (way_ms + compute_ms) * ms
        free_ns = received_ns[stamp_ns] - ms
        status = {'latency_s': (free_ns - stamp_ns) / 1e9, 'compute_s': compute_ms / 1e3}
        counts = dict(zip(COUNTERS, (count, count, 0)))
        statuses.append({'stamp_ns': stamp_ns, 'urgency_stamp_ns': 0, **MASK, **status, **counts})
    heard = {'statuses': statuses, 'received_ns': received_ns, 'confident_ns': stamps_ns}
    heard |= {'cpu_s': 1.0, 'observed_s': 2.0, 'memory_mib': [100.0] * 30 + [106.0] * 30}
    heard |= {
        'service_ms': {},
        'refused': [],
        'warnings': [],
        'diagnoses': ['no image for 2 s', 'no image for 3 s; 5% late'],
    }
    report = evaluate(stamps_ns, heard)
    assert report['transport_ms']['median'] == pytest.approx(4)
    assert report['diagnoses'] == {'no image for # s': 2, '#% late': 1}
    assert report['unaccounted'] == ['memory grows']
    assert report['memory']['growth'] == pytest.approx(0.06)
    assert report['frames']['lost'] == 0 and report['cores'] == 0.5


def test_a_node_in_trouble_keeps_its_promises(tmp_path: Path) -> None:
    options = ['--network', 'coarse_tiny', '--size', '64x96', '--seconds', '5']
    report = run(tmp_path / 'r.json', 'ros', '--soak', *options, '-p', 'watchdog_s:=20.0')
    frames, done = report['frames'], report['done']
    assert report['broken'] == []
    assert frames['sent'] >= frames['received'] >= frames['segmented'] + frames['dropped'] > 200
    assert min(done[name] for name in ('camera', 'configure', 'set', 'urgency')) > 1
    active = report['footprints']['active']
    assert active['n'] >= 6 and 0 < active['memory_mib']['first'] <= active['memory_mib']['max']


def stretch(**changes: Any) -> dict[str, Any]:
    """Two images and, between them, what is none; as if others had come before."""
    statuses = heard_of(MASK, MASK | {'stop_reason': 1})
    statuses[1] |= {'stamp_ns': 3, 'frames_received': 3, 'frames_dropped': 1}
    for status in statuses:
        status.update({name: status[name] + 10 for name in COUNTERS})
    return {
        'closing': 'answered',
        'before': dict.fromkeys(COUNTERS, 10),
        'sent': [[1, 'a', [8, 10]], [2, 'b', None], [3, 'c', [9, 7]]],
        'statuses': statuses,
        'received_ns': {'1': 2, '3': 5},
        'mask': [[1, 'a', 8, 10], [3, 'c', 3, 2]],
        'confidence': [[1, 'a', 8, 10], [3, 'c', 3, 2]],
        'samples': [],
        'done': {'garbage': 1},
        'wrong': [],
        **changes,
    }


FOURTH = [*stretch()['sent'], [4, 'd', [8, 8]]]


@pytest.mark.parametrize(
    ('changes', 'wrong'),
    [
        ({}, None),
        ({'mask': [[1, 'a', 8, 10]] * 2 + [[3, 'c', 3, 2]]}, '2 statuses with a mask, 3 masks'),
        ({'confidence': [[1, 'a', 8, 10]]}, '2 statuses with a mask, 1 confidences'),
        ({'mask': [[1, 'b', 8, 10], [3, 'c', 3, 2]]}, 'the header or size of no such frame'),
        ({'mask': [[1, 'a', 8, 9], [3, 'c', 3, 2]]}, 'the header or size of no such frame'),
        ({'sent': FOURTH}, '4 frames sent, 3 received'),
        ({'sent': FOURTH, 'closing': 'cut'}, None),
        ({'before': dict.fromkeys(COUNTERS, 9)}, '3 frames sent, 4 received'),
        ({'before': dict.fromkeys(COUNTERS, 9), 'closing': 'gone'}, None),
        ({'statuses': stretch()['statuses'][:1], 'closing': 'gone'}, '1 statuses with a mask'),
        ({'statuses': []}, 'no status was received'),
        ({'wrong': ['parameters were accepted']}, 'parameters were accepted'),
    ],
)
def test_a_stretch_of_frames_that_does_not_add_up_is_found(
    changes: dict[str, Any], wrong: str | None
) -> None:
    found = ' / '.join(broken_in(stretch(**changes)))
    assert wrong in found if wrong else not found


@pytest.mark.parametrize(
    ('grown', 'wrong'),
    [
        ((0.0, 0, 0), None),
        ((0.1, 0, 0), None),
        ((0.3, 0, 0), 'memory_mib while active: 100.3 at first, 105.4 at last'),
        ((0.0, 0.1, 0), 'threads while active: 20 at first, 21 at last'),
        ((0.0, 0, 0.1), 'files while active'),
    ],
)
def test_what_a_node_gains_is_found(grown: tuple[float, ...], wrong: str | None) -> None:
    """As much more in each of twenty samples; other states do not count."""
    begun = (100.0, 20, 30)
    samples: list[Any] = [
        ['active', [100.0 + grown[0] * i, *(int(b + g * i) for b, g in zip(begun[1:], grown[1:]))]]
        for i in range(20)
    ]
    samples += [['inactive', [999.0, 99, 99]]]
    found, gained = compare(samples)
    assert found.keys() == {'active'} and found['active']['n'] == 20
    assert [wrong in text for text in gained] == [True] if wrong else not gained


def test_a_soak_that_ends_early_or_leaves_a_traceback_breaks_a_promise() -> None:
    samples = [['active', [100.0, 20, 30]]] * 6
    assert evaluate_soak([stretch(samples=samples)], '')['broken'] == []
    report = evaluate_soak([stretch(samples=samples)], 'Traceback', ['the node ended too early'])
    assert report['broken'] == ['the node ended too early', 'the log has a Traceback']
    assert report['frames'] == {
        'sent': 3,
        'received': 3,
        'segmented': 2,
        'dropped': 1,
        'no image': 1,
    }
    assert evaluate_soak([stretch()], '')['broken'] == [
        'too few samples of memory, threads and files'
    ]


# What the user may get wrong


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['masks'], 'expected --network and --size'),
        (['masks', '--network', 'hrnet_tiny'], 'expected --network and --size'),
        (['masks', '--weights', 'W', '--frames', 'F', '--size', '64x64'], 'or --weights and'),
        (['masks', '--network', 'resnet', '--size', '64x64'], "unknown architecture 'resnet'"),
        (['masks', '--weights', 'nowhere', '--frames', 'F'], 'weights not found: nowhere'),
        (
            ['masks', '--network', 'hrnet_tiny', '--size', '64x64', '--labels', 'nowhere'],
            'expected label maps at nowhere',
        ),
        (
            ['masks', '--network', 'hrnet_tiny', '--size', '64x64', '--masked', '.5,.4,.6'],
            'that rise',
        ),
        (['masks', '--network', 'coarse_tiny', '--size', '64x64'], 'expected 2 masked shares'),
        (['preempt', '--size', '64x64'], 'either --network or --weights'),
        (['preempt', '--network', 'hrnet_tiny'], 'expected --size'),
        (['ros', '--size', '64x64', '--weights', 'nowhere'], 'weights not found: nowhere'),
        (['ros'], 'expected either --size or'),
        (['ros', '--size', '64x64', '--network', 'resnet'], "unknown architecture 'resnet'"),
        (['ros', '--size', '64x64', '--urgency'], '--urgency: expected --rate, too'),
        (['ros', '--rate', '5', '--frames', 'nowhere'], 'nowhere'),
        (['ros', '--soak', '--rate', '5', '--changes'], '--soak: expected it without --changes'),
    ],
)
def test_errors_of_the_user_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(['benchmark', *arguments]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith('adpc_ros: ') and message in said[-1]


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['masks', '--dtype', 'float16'], 'invalid choice'),
        (['masks', '--threshold', '1.5'], 'expected a number in [0, 1]'),
        (['ros', '--size', '64'], 'expected HxW in pixels'),
        ([], 'WHAT'),
    ],
)
def test_options_of_another_form_are_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match='2'):
        main(['benchmark', *arguments])
    assert message in capsys.readouterr().err
