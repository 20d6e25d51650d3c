# SPDX-License-Identifier: Apache-2.0
"""``replay --manifest``: many bags, whatever is killed meanwhile, and one report over all."""

from __future__ import annotations

import ast
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from bags import Channel, Said, Shot, grey, write_bag, write_mcap
from networks import random_network
from PIL import Image
from shared import ROOT

from adpc_ros.__main__ import main
from adpc_ros.fleet import jobs as jobs_module
from adpc_ros.fleet import manifest, on_ray, run
from adpc_ros.fleet.jobs import OUT, RESULT, RETRIES, Job, finished, make_job, run_job
from adpc_ros.fleet.processes import in_processes
from adpc_ros.fleet.summary import Group
from adpc_ros.labels import CAMVID
from adpc_ros.network import checkpoint
from adpc_ros.network.adaptivity import Adaptivity
from adpc_ros.replay.drive import DriveSettings
from adpc_ros.replay.verdicts import Status, Verdict, check_junit, verdict, write_junit
from adpc_ros.ros.parameters import Parameters

BAGS = 40
EXIT_S = '0.03,0.03,0.03,0.03'
SECONDS = 300.0  # for a driver to go on, or to end


@pytest.fixture(scope='module')
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('weights') / 'tiny.safetensors'
    network = random_network(0, adaptivity=Adaptivity(thresholds=(0.6,) * 3))
    checkpoint.save(path, network, CAMVID, {})
    return path


@pytest.fixture(scope='module')
def drives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a manifest of bags that pass, are not as expected, or are broken."""
    root = tmp_path_factory.mktemp('drives')
    for i in range(BAGS - 4):
        write_bag(root / f'day/{i:02}', [Shot(0), Shot(50 + i), Shot(400)])
    for i in range(2):
        write_bag(root / f'night/{i:02}', [Shot(0), Shot(400)])
    write_bag(root / 'odd', [Shot(0), Shot(400, encoding='nv24')])  # a frame is invalid
    broken = write_mcap(root / 'cut.mcap', [Channel()], [Said(i, grey(i)) for i in (1, 2)])
    data = bytearray(broken.read_bytes())
    data[len(data) // 4] ^= 255
    broken.write_bytes(data)
    (root / 'expected.yaml').write_text('received: 2\nmin_exit: 5\n')
    (root / 'labels').mkdir()
    for i in range(2):
        label = np.random.default_rng(i).integers(0, CAMVID.count, (64, 96), np.uint8)
        Image.fromarray(label).save(root / f'labels/{i}.png')
    entries = [
        {'bag': 'day/*', 'tags': ['day', 'dry']},
        {'bag': 'night/00', 'tags': ['night'], 'expect': 'expected.yaml', 'labels': 'labels'},
        {'bag': 'night/01', 'tags': ['night'], 'labels': 'labels'},
        {'bag': 'odd'},
        {'bag': 'cut.mcap', 'topic': '/camera'},
    ]
    path = root / 'drives.yaml'
    path.write_text(yaml.safe_dump({'drives': entries}))
    return path


def command(drives: Path, weights: Path, out: Path, *options: object) -> list[str]:
    given = ['replay', '--manifest', drives, '--weights', weights, '--exit-s', EXIT_S]
    return [*map(str, given), '--out', str(out), *map(str, options)]


@pytest.fixture(scope='module')
def serial(
    tmp_path_factory: pytest.TempPathFactory, drives: Path, weights: Path
) -> dict[str, bytes]:
    """Give the files of a replay in one process that nothing happened to."""
    out = tmp_path_factory.mktemp('serial')
    results = ['--junit', out / 'junit.xml', '--json', out / 'numbers.json']
    assert main(command(drives, weights, out, '--jobs', 1, *results)) == Status.FAULT
    return files(out)


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


def descendants(pid: int) -> Iterator[tuple[int, bytes]]:
    """Give the processes below one, with their command lines."""
    parents: dict[int, list[int]] = {}
    for path in Path('/proc').glob('[0-9]*/stat'):
        try:
            parent = int(path.read_text().rpartition(')')[2].split()[1])
        except OSError:  # it has ended
            continue
        parents.setdefault(parent, []).append(int(path.parent.name))
    todo = list(parents.get(pid, ()))
    while todo:
        child = todo.pop()
        todo += parents.get(child, ())
        try:
            yield child, Path(f'/proc/{child}/cmdline').read_bytes()
        except OSError:
            continue


def workers() -> list[int]:
    """Give the processes of this test that replay; those of Ray are called as their task is."""
    replays = re.compile(rb'spawn_main|ray::\S+-[0-9a-f]{16}')
    return [pid for pid, line in descendants(os.getpid()) if replays.search(line)]


def until(true: Callable[[], bool], driver: subprocess.Popen[bytes]) -> None:
    end_s = time.monotonic() + SECONDS
    while not true():
        assert driver.poll() is None, 'the driver has ended'
        assert time.monotonic() < end_s
        time.sleep(0.02)


@contextmanager
def driving(arguments: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    line = [sys.executable, '-m', 'adpc_ros', *arguments]
    with log.open('ab') as file, subprocess.Popen(line, stdout=file, stderr=file) as driver:
        try:
            yield driver
        finally:
            driver.kill()


@pytest.fixture(scope='module')
def cluster() -> Iterator[str]:
    """Give the address of a Ray cluster of two nodes on this machine, with a worker each."""
    os.environ['RAY_USAGE_STATS_ENABLED'] = '0'
    from ray.cluster_utils import Cluster

    node = {'num_cpus': 1, 'object_store_memory': 80 * 2**20, 'include_dashboard': False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
    yield cluster.address
    cluster.shutdown()


@pytest.mark.timeout(600)  # for a busy machine
@pytest.mark.parametrize('where', ['processes', 'ray'])
def test_workers_and_drivers_that_are_killed_lose_and_change_no_result(
    tmp_path: Path,
    request: pytest.FixtureRequest,
    drives: Path,
    weights: Path,
    serial: dict[str, bytes],
    where: str,
) -> None:
    at = ['--jobs', 2]
    if where == 'ray':
        at = ['--ray', request.getfixturevalue('cluster')]
    out, log = tmp_path / 'out', tmp_path / 'log'
    results = ['--junit', out / 'junit.xml', '--json', out / 'numbers.json']
    arguments = command(drives, weights, out, *at, *results)
    out.mkdir()
    chance = random.Random(where)

    def done() -> set[Path]:
        return set(out.glob('drives/[!.]*'))

    def kill_workers(count: int, driver: subprocess.Popen[bytes]) -> None:
        for _ in range(count):  # not so many that one drive could meet all
            before = len(done())
            until(lambda n=before: len(done()) > n, driver)
            time.sleep(chance.uniform(0, 0.3))
            for pid in chance.sample(found := workers(), min(1, len(found))):
                os.kill(pid, signal.SIGKILL)

    with driving(arguments, log) as driver:
        kill_workers(RETRIES - 1 if where == 'ray' else 1, driver)
        until(lambda: len(done()) > BAGS // 4, driver)
        time.sleep(chance.uniform(0, 0.3))
        driver.kill()
    kept = {path: path.stat().st_ino for path in done()}
    assert BAGS // 4 < len(kept) < BAGS
    with driving(arguments, log) as driver:
        kill_workers(1, driver)
        status = driver.wait(SECONDS)
    assert status == Status.FAULT, log.read_text()
    assert files(out) == serial
    assert {path: path.stat().st_ino for path in kept} == kept  # none was replayed again
    assert not list(out.glob('drives/.*'))


def test_the_report_keeps_what_passed_what_missed_and_what_has_no_verdict_apart(
    serial: dict[str, bytes],
) -> None:
    (suite,) = ElementTree.fromstring(serial['junit.xml'])
    counts = [suite.get(name) for name in ('tests', 'failures', 'errors')]
    assert counts == [str(BAGS), '2', '1']
    ends = {case.get('name'): [end.tag for end in case] for case in suite}
    assert ends['day/00'] == ends['night/01'] == []
    assert ends['night/00'] == ends['odd'] == ['failure']
    assert ends['cut.mcap topic=/camera'] == ['error']
    report = json.loads(serial['report.json'])
    assert report['all']['drives'] == {
        'all': BAGS,
        'passed': BAGS - 3,
        'not as expected': 2,
        'faults of the input': 1,
        'crashed': 0,
    }
    frames = 3 * (BAGS - 4) + 6
    assert report['all']['frames'] == {
        'received': frames, 'segmented': frames - 1, 'dropped': 1
    }  # fmt: skip
    assert report['all']['drops'] == {'invalid': 1}
    assert set(report['tags']) == {'day', 'dry', 'night'}
    assert report['tags']['day']['exits'] == {'1': 10, '2': 26, '4': 72}
    assert report['tags']['night']['exits'] == {'4': 4}
    assert report['tags']['day']['miou'] is None
    assert report['tags']['night']['miou']['drives'] == 2
    assert 0 < report['all']['miou']['value'] < 0.5
    assert report['all']['miou'] == report['tags']['night']['miou']
    page = serial['report.html'].decode()
    assert page.count('src="data:image/jpeg;base64,') == 12
    order = [page.index(f'<h3>{name}') for name in ('cut.mcap', 'night/00')]
    assert order == sorted(order) and 'exit: expected at least 5, got 4' in page
    numbers = json.loads(serial['numbers.json'])
    assert numbers == {name: report[name] for name in ('title', 'all', 'tags')}


def test_drives_are_compared_with_an_earlier_replay(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ('a', 'b'):
        write_bag(tmp_path / name, [Shot(0), Shot(400)])
    path = tmp_path / 'm.yaml'
    path.write_text('drives: [{bag: a}]')
    old, new = tmp_path / 'old', tmp_path / 'new'
    assert main(command(path, weights, old, '--jobs', 1)) == 0
    path.write_text('drives: [{bag: a}, {bag: b}]')
    limit = tmp_path / 'e.yaml'
    limit.write_text('min_agreement: 1')
    less = ['--jobs', 1, '--against', old, '--max-exit', 1]
    assert main(command(path, weights, new, *less, '--expect', limit)) == 2
    said = capsys.readouterr().err
    assert f'{path}: b: {limit}: an expected agreement needs --against' in said
    assert main(command(path, weights, new, *less)) == 0
    agreement = json.loads((new / 'report.json').read_text())['all']['agreement']
    assert (agreement['drives'], agreement['frames'], agreement['changes']) == (1, 2, 2)
    assert agreement['min'] < 1 and agreement['low'] is None
    assert main(command(path, weights, old, '--against', old)) == 2
    assert 'expected another folder' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('[]', 'expected keys and values'),
        ('drives: []', 'drives: expected at least one'),
        ('drives: {bag: a}', 'drives: expected a list'),
        ('drives: [a]', 'drives[0]: expected keys and values'),
        ('drives: [{bag: a}]\nmore: 1', "unknown keys ['more']"),
        ('drives: [{bag: a}, {tags: [x]}]', "drives[1]: missing keys ['bag']"),
        ('drives: [{bag: a, bags: b}]', "drives[0]: unknown keys ['bags']"),
        ('drives: [{bag: 5}]', 'drives[0].bag: expected a text, got 5'),
        ("drives: [{bag: ''}]", 'drives[0]: bag: expected a text that is not empty'),
        ('drives: [{bag: a, tags: night}]', 'drives[0].tags: expected a list'),
        ('drives: [{bag: a, tags: [x, x]}]', 'drives[0]: tags: expected names, each once, got'),
        ('drives: [{bag: a, topic: no}]', 'drives[0].topic: expected a text, got false'),
        ('drives: [{bag: a, params: no.yaml}]', 'drives[0]: params: expected a file at'),
        ('drives: [{bag: a, expect: a}]', 'drives[0]: expect: expected a file at'),
        ('drives: [{bag: a, labels: m.yaml}]', 'drives[0]: labels: expected a folder at'),
        (
            'drives: [{bag: a}, {bag: none.mcap}]',
            'drives[1]: bag: expected a folder, .mcap or .db3',
        ),
        ('drives: [{bag: "no*"}]', 'the glob matches nothing'),
        ('drives: [{bag: "*"}]', 'found a folder without recordings'),
        ('drives: [{bag: m.yaml}]', 'found another file'),
        ('drives: [{bag: a}, {bag: "[ab]"}]', 'drives[1]: '),
        ('drives: [{bag: a}, {bag: a/a.mcap}]', 'drives[1]: '),
        ('drives: [{bag: "**/a*"}]', 'matches a bag and the folder that it is in'),
        ('drives: [{bag: "[ab]", labels: labels}]', 'drives[0].labels: expected a single bag'),
    ],
)
def test_what_is_wrong_with_a_manifest_is_said_with_path_and_entry(
    tmp_path: Path, text: str, words: str
) -> None:
    for name in ('a', 'b'):
        write_bag(tmp_path / name, [Shot(0)])
    (tmp_path / 'labels').mkdir()
    path = tmp_path / 'm.yaml'
    path.write_text(text)
    with pytest.raises(ValueError) as caught:
        manifest.read(path)
    assert str(caught.value).startswith(f'{path}: ') and words in str(caught.value)


def test_the_same_bag_may_come_with_another_camera_or_parameters(tmp_path: Path) -> None:
    write_bag(tmp_path / 'a', [Shot(0)])
    (tmp_path / 'p.yaml').touch()
    path = tmp_path / 'm.yaml'
    path.write_text('drives: [{bag: a}, {bag: a, topic: /rear}, {bag: a, params: p.yaml}]')
    assert [each.name for each in manifest.read(path)] == ['a', 'a topic=/rear', 'a params=p.yaml']


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (['--live'], '--live: expected no such option with --manifest'),
        (['--report', 'r'], '--report: expected no such option'),
        (['--exit-s', '0.1'], 'expected the seconds of 4 exits, got 0.1'),
        (['--urgency-at', 'x'], 'expected T[:LEVEL[:HOLD]]'),
        (['--against', 'no'], 'expected the --out of a manifest that was replayed, got no'),
        (['--params', 'no.yaml'], 'no.yaml'),
        (['--expect', 'no.yaml'], 'no.yaml'),
        (['--namespace', 'adpc'], 'expected an absolute name'),
    ],
)
def test_wrong_options_are_said_before_the_work(
    tmp_path: Path, weights: Path, capsys: Any, options: list[str], words: str
) -> None:
    write_bag(tmp_path / 'a', [Shot(0)])
    path = tmp_path / 'm.yaml'
    path.write_text('drives: [{bag: a}]')
    assert main(command(path, weights, tmp_path / 'out', *options)) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_a_cluster_that_does_not_answer_is_said_at_once(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bag(tmp_path / 'a', [Shot(0)])
    path = tmp_path / 'm.yaml'
    path.write_text('drives: [{bag: a}]')
    assert main(command(path, weights, tmp_path / 'out', '--ray', '127.0.0.1:1')) == 2
    assert '--ray: expected a Ray cluster at 127.0.0.1:1, none answers' in capsys.readouterr().err


@pytest.fixture
def job(tmp_path: Path, weights: Path) -> Job:
    bag = write_bag(tmp_path / 'bag', [Shot(0), Shot(400)])
    settings = DriveSettings(bag, weights, Parameters(threads=1), exit_s=EXIT_S)
    network = checkpoint.load(weights).identity
    (tmp_path / 'drives').mkdir()
    return make_job('bag', settings, network, ('tiny', 'digest'), tmp_path / 'drives')


def test_a_result_is_found_again_only_while_all_that_decides_it_is_the_same(
    tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    expect, labels, old = tmp_path / 'e.yaml', tmp_path / 'labels', tmp_path / 'old.mcap'
    for path in (expect, old):
        path.write_text('received: 2')
    labels.mkdir()
    Image.fromarray(np.zeros((64, 96), np.uint8)).save(labels / '0.png')

    def place(digest: str = 'digest', **changes: Any) -> Path:
        given = replace(job.settings, **changes)
        return make_job('bag', given, job.network, ('tiny', digest), job.folder.parent).folder

    seen = {job.folder}

    def is_new(folder: Path) -> bool:
        seen.add(folder)
        return len(seen) == count + 1

    assert place() == job.folder
    # how it is written does not matter, nor what a simulation does not look at
    assert place(exit_s='0.030,3e-2,0.03,0.03') == job.folder
    assert place(parameters=Parameters(threads=1, autostart=False)) == job.folder
    steps: list[Callable[[], Path]] = [
        lambda: place('other'),
        lambda: place(parameters=Parameters(threads=2)),
        lambda: place(topic='/camera'),
        lambda: place(exit_s='0.04,0.03,0.03,0.03'),
        lambda: place(allow_dropped=True),
        lambda: place(expect=expect),
        lambda: expect.write_text('received: 3') and place(expect=expect),
        lambda: place(labels=labels),
        lambda: os.utime(labels / '0.png', ns=(5, 5)) or place(labels=labels),
        lambda: (tmp_path / 'classes.yaml').write_text('?') and place(labels=labels),
        lambda: place(against=old),
        lambda: os.utime(old, ns=(5, 5)) or place(against=old),
        lambda: os.utime(next(job.settings.bag.glob('*.mcap')), ns=(5, 5)) or place(),
        lambda: monkeypatch.setattr(jobs_module, 'code_version', lambda: 'new') or place(),
    ]
    for number, step in enumerate(steps):
        count = len(seen)
        assert is_new(step()), number


def test_a_result_that_is_broken_is_replayed_again(job: Job, caplog: Any) -> None:
    assert finished(job) is None
    assert run_job(job) == ('bag', Status.PASSED, ())
    whole = files(job.folder)
    assert set(whole) == {OUT, RESULT}
    for name in whole:
        path = job.folder / name
        path.write_bytes(path.read_bytes()[:-3])
        assert finished(job) is None and not job.folder.exists()
        assert 'replayed again, as the result is broken' in caplog.text
        caplog.clear()
        assert run_job(job).status == Status.PASSED
        assert files(job.folder) == whole


def test_errors_of_the_program_and_the_system_are_verdicts_but_not_kept(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adpc_ros.replay import run as replay_run

    for error, status in (
        (RuntimeError('no\x00memory'), Status.CRASHED),
        (OSError('disk full'), Status.FAULT),
    ):

        def fail(*_: Any, error: Exception = error) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(replay_run, 'simulate', fail)
            found = run_job(job)
        assert found.status == status and str(error) in found.lines[0]
        assert list(job.folder.parent.iterdir()) == []
    changed = replace(job, network='tiny@other')
    assert 'expected tiny@other, found tiny@' in run_job(changed).lines[0]
    other = replace(job, version='other')
    assert 'install the same on all nodes' in run_job(other).lines[0]
    os.utime(next(job.settings.bag.glob('*.mcap')), ns=(5, 5))
    assert 'a file changed during the replay' in run_job(job).lines[0]
    assert list(job.folder.parent.iterdir()) == []


def test_a_kept_verdict_says_how_many_lines_it_leaves_out(job: Job, tmp_path: Path) -> None:
    expect = tmp_path / 'expected.yaml'
    frame = "- {stamp: '1700000000.000000000', exit: 1}\n"
    expect.write_text('frames:\n' + ''.join(frame.replace('17', str(n)) for n in range(17, 47)))
    given = replace(job.settings, expect=expect)
    found = run_job(make_job('bag', given, job.network, job.weights, job.folder.parent))
    assert found.status == Status.UNMET
    assert len(found.lines) == 21 and found.lines[-1] == 'and 10 more'


def test_the_verdicts_stand_though_the_report_cannot_be_written(
    job: Job, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError('disk full')

    path = tmp_path / 'drives.yaml'
    path.write_text('drives: [{bag: bag}]')
    monkeypatch.setattr('adpc_ros.fleet.report.write', full)
    options = ('--jobs', 1, '--junit', tmp_path / 'junit.xml')
    assert main(command(path, weights, tmp_path / 'out', *options)) == Status.FAULT
    cases = ElementTree.parse(tmp_path / 'junit.xml').getroot().findall('.//testcase')
    ends = {case.get('name'): [end.tag for end in case] for case in cases}
    assert ends == {'bag': [], str(path): ['error']}


def test_a_tag_may_be_called_all(job: Job, weights: Path, tmp_path: Path) -> None:
    write_bag(tmp_path / 'other', [Shot(0)])
    path, out = tmp_path / 'drives.yaml', tmp_path / 'out'
    path.write_text('drives: [{bag: bag}, {bag: other, tags: [all]}]')
    assert main(command(path, weights, out, '--jobs', 1)) == Status.PASSED
    heads = re.findall(r'<td>all</td><td>(\d[^<]*)', (out / 'report.html').read_text())
    assert heads == ['2: passed 2', '1: passed 1']


def test_a_task_that_no_node_of_a_cluster_can_take_is_said(
    job: Job, caplog: pytest.LogCaptureFixture
) -> None:
    class Ray:
        def nodes(self) -> list[dict[str, Any]]:
            return [{'Alive': n != 8, 'Resources': {'CPU': float(n)}} for n in (1, 2, 8)]

    def with_(**parameters: Any) -> list[Job]:
        return [replace(job, settings=replace(job.settings, parameters=Parameters(**parameters)))]

    on_ray._check_room(Ray(), with_(threads=2), grows=False)
    for given, wanted in (({'threads': 4}, '4 CPU'), ({'device': 'cuda', 'threads': 1}, '1 GPU')):
        with pytest.raises(ValueError, match=f'--ray: expected a node with .*{wanted}'):
            on_ray._check_room(Ray(), with_(**given), grows=False)
        on_ray._check_room(Ray(), with_(**given), grows=True)
        assert wanted in caplog.text


class Deadly(Job):
    """Ends the process that receives it."""

    def __reduce__(self) -> Any:
        return os._exit, (7,)


def test_a_drive_that_ends_its_process_is_a_crash_and_no_other_is(job: Job) -> None:
    deadly = Deadly(**vars(job) | {'name': 'deadly'})
    found = {each.name: each for each in in_processes([deadly, job], 2)}
    assert found['bag'].status == Status.PASSED
    assert found['deadly'].status == Status.CRASHED
    assert found['deadly'].lines == (
        f'its process was lost {RETRIES + 1} times, with exit code 7',
    )
    assert workers() == []


def test_a_folder_of_results_has_one_driver_and_loses_what_was_left(tmp_path: Path) -> None:
    left = tmp_path / 'out' / 'drives' / '.a-0.x.partial'
    left.mkdir(parents=True)
    with run.working_in(tmp_path / 'out'):
        assert not left.exists()
        with pytest.raises(ValueError, match='another replay works in'):
            with run.working_in(tmp_path / 'out'):
                pass
    with run.working_in(tmp_path / 'out'):
        pass


def test_without_a_terminal_the_progress_is_a_line_that_says_what_went_wrong(
    job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = [replace(job, name=str(i)) for i in range(3)]

    def work(todo: Any) -> Iterator[Verdict]:
        yield from (verdict(each.name, Status(int(each.name)), ['x']) for each in todo)

    assert list(run.run_jobs(jobs, work)) == ['0', '1', '2']
    assert capsys.readouterr().err == 'replay: 3 of 3, 0 s, 1 unmet, 1 fault\n'


def result(share: float, frames: int, hit: int, miss: int) -> dict[str, Any]:
    counts = {'received': frames, 'segmented': frames, 'dropped': 0}
    agreement = {'frames': frames, 'mean': share, 'min': share, 'min_at': '1.0', 'changes': [1]}
    numbers = {
        'frames': counts, 'drops': {}, 'exits': {'2': frames}, 'stops': {'URGENT': frames},
        'deadlines_missed': 1, 'mean_confidence': share, 'agreement': agreement,
    }  # fmt: skip
    confusion = np.array([[hit, miss], [miss, hit]], np.int64)
    return {'numbers': numbers, 'classes': ['a', 'b'], 'confusion': confusion}


def test_groups_weigh_drives_by_their_frames_and_pixels() -> None:
    group = Group()
    group.add('x', Status.PASSED, result(0.9, 10, 1, 1))
    group.add('y', Status.UNMET, result(1.0, 30, 7, 1))
    group.add('z', Status.CRASHED, None)
    numbers = group.numbers()
    assert numbers['drives']['all'] == 3 and numbers['exits'] == {'2': 40}
    agreement, miou = numbers['agreement'], numbers['miou']
    assert agreement['mean'] == pytest.approx(0.975)
    # with two drives a quarter of the draws is either drive alone
    assert (agreement['low'], agreement['high']) == pytest.approx((0.9, 1.0))
    assert (agreement['min'], agreement['min_at']) == (0.9, 'x, 1.0')
    assert miou['value'] == pytest.approx(8 / 12)
    assert (miou['low'], miou['high']) == pytest.approx((1 / 3, 7 / 9))
    group.add('w', Status.PASSED, result(1.0, 1, 1, 1) | {'classes': ['a', 'c']})
    assert group.numbers()['miou'] is None


def test_what_xml_has_no_character_for_is_escaped(tmp_path: Path) -> None:
    path, name = tmp_path / 'j.xml', 'a\udcff\x00<&"'
    write_junit(path, 'all\x1b', [verdict(name, Status.CRASHED, ['bad \x07\n', ']]> \ufffe é'])])
    (suite,) = ElementTree.parse(path).getroot()
    assert suite.get('name') == r'all\x1b'
    (case,) = suite
    assert case.get('name') == r'a\udcff\x00<&"'
    assert case[0].text == 'bad \\x07\n\n]]> \\ufffe é' and case[0].get('message') == r'bad \x07'
    check_junit(path)
    (tmp_path / 'input.yaml').write_text('a: 1')
    with pytest.raises(ValueError, match='expected a new file or an earlier JUnit XML'):
        check_junit(tmp_path / 'input.yaml')


@pytest.mark.parametrize(
    ('options', 'status', 'kind', 'words'),
    [
        ([], 0, None, ''),
        (['--expect', 'e.yaml'], 1, 'failure', 'received: expected 9, got 2'),
        (['--topic', '/no'], 2, 'error', 'topic /no is not in the bag'),
        (['--max-exit', '256'], 2, 'error', 'max_exit: expected 0 to 255'),
    ],
)
def test_a_single_bag_has_a_junit_file_too(
    tmp_path: Path, job: Job, monkeypatch: Any, options: list[str], status: int,
    kind: str | None, words: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path('e.yaml').write_text('received: 9')
    given = ['replay', 'bag', '--out', 'o.mcap', '--weights', str(job.settings.weights)]
    given += ['--exit-s', EXIT_S, '--threads', '1', '--junit', 'j.xml', *options]
    assert main(given) == status
    (suite,) = ElementTree.parse('j.xml').getroot()
    (case,) = suite
    assert [end.tag for end in case] == ([] if kind is None else [kind])
    assert all(words in (end.text or '') for end in case)


def test_ray_is_imported_in_one_place_and_only_when_it_is_used() -> None:
    found = {
        path.name: [node.col_offset for node in ast.walk(ast.parse(path.read_text()))
                    if isinstance(node, ast.Import | ast.ImportFrom)
                    and any(name.split('.')[0] == 'ray' for name in names(node))]
        for path in (ROOT / 'adpc_ros').rglob('*.py')
    }  # fmt: skip
    places = {name: columns for name, columns in found.items() if columns}
    assert places.keys() == {'on_ray.py'} and min(places['on_ray.py']) > 0


def names(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        return [node.module or '']
    return [alias.name for alias in node.names]
