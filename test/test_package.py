# SPDX-License-Identifier: Apache-2.0
"""What package.xml and the files beside it say of the package is so."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from catkin_pkg.changelog import get_changelog_from_path
from catkin_pkg.package import Package, parse_package
from shared import ROOT
from test_layers import imports

# import: key of rosdep, where they differ
KEYS = {
    'PIL': 'python3-pil',
    'catkin_pkg': 'python3-catkin-pkg',
    'cv2': 'python3-opencv',
    'hypothesis': 'python3-hypothesis',
    'matplotlib': 'python3-matplotlib',
    'numpy': 'python3-numpy',
    'pytest': 'python3-pytest',
    'tf2_ros': 'tf2_ros_py',
    'torch': 'python3-torch',
    'tqdm': 'python3-tqdm',
    'yaml': 'python3-yaml',
}
# No key of rosdep that a released package may depend on: pyproject.toml alone names them.
FROM_PIP = {'lz4', 'mcap', 'rosbags', 'safetensors', 'tensorboard', 'zstandard'}
# Used, but not imported: by whom
EXECUTED = {
    'ros2bag': 'launch/replay.launch.py',
    'ros2launch': 'README.md',
    'rosbag2_storage_default_plugins': 'launch/replay.launch.py',
}
OF_MESSAGES = {'rosidl_default_runtime'}
OF_TESTS = {'ament_cmake_pytest', 'python3-pytest-timeout'}
# What users of another stack have; the node that needs it says so.
OPTIONAL = {'autoware_adapi_v1_msgs'}
EXTRAS = {'ray', 'scipy'}  # in pyproject.toml; never needed on a vehicle
SYSTEM = {'Threads'}


def package(distribution: str = 'jazzy') -> Package:
    warnings: list[str] = []
    parsed = parse_package(str(ROOT / 'package.xml'), warnings=warnings)
    assert warnings == []
    parsed.evaluate_conditions({'ROS_DISTRO': distribution})
    return parsed


def names(dependencies: Iterable[object]) -> set[str]:
    return {str(dependency) for dependency in dependencies}


def imported(*folders: str) -> set[str]:
    """Give the keys of all that the Python files of some folders import, but for our own."""
    found = set()
    for folder in folders:
        for path in (ROOT / folder).rglob('*'):
            is_python = path.suffix == '.py' or folder == 'scripts'
            if path.is_file() and is_python and '__pycache__' not in path.parts:
                found |= {name.split('.')[0] for name in imports(path, ROOT / folder, types=False)}
                found |= set(re.findall(r"importorskip\(\s*'(\w+)", path.read_text()))
    own = {'adpc_ros', *(path.stem for path in (ROOT / 'test').glob('*.py'))}
    return {KEYS.get(name, name) for name in found - own - set(sys.stdlib_module_names)}


def test_whatever_is_imported_is_declared_and_nothing_else() -> None:
    run, test = imported('adpc_ros', 'scripts', 'launch'), imported('test')
    parsed = package()
    assert names(parsed.exec_depends) == run - FROM_PIP - EXTRAS | EXECUTED.keys() | OF_MESSAGES
    assert names(parsed.test_depends) == test - FROM_PIP - EXTRAS - OPTIONAL - run | OF_TESTS
    assert FROM_PIP <= run | test


def test_what_is_executed_is_named_where_it_is_used() -> None:
    for key, file in EXECUTED.items():
        word = {'ros2bag': "'bag'", 'ros2launch': 'ros2 launch'}.get(key, "'--storage'")
        assert word in (ROOT / file).read_text(), key


def test_what_comes_from_pip_is_pinned_and_the_readme_says_how() -> None:
    pinned = re.findall(r"^  '([\w-]+)==", (ROOT / 'pyproject.toml').read_text(), re.MULTILINE)
    assert FROM_PIP | {'torch'} <= set(pinned)
    (line,) = re.findall(r'    pip install (.*)', (ROOT / 'README.md').read_text())
    assert FROM_PIP & imported('adpc_ros') <= set(re.findall(r'\w+', line))


@pytest.mark.parametrize(
    'distribution, has_torch', [('humble', True), ('jazzy', False), ('kilted', False)]
)
def test_torch_is_declared_where_the_distribution_has_it(
    distribution: str, has_torch: bool
) -> None:
    torch = {str(d): d for d in package(distribution).exec_depends}['python3-torch']
    assert torch.evaluated_condition is has_torch


def test_what_cmake_looks_for_is_declared() -> None:
    sought: set[str] = set()
    for file in ('CMakeLists.txt', 'src/CMakeLists.txt'):
        sought |= set(re.findall(r'find_package\((\w+)', (ROOT / file).read_text()))
    parsed = package()
    declared = names([*parsed.buildtool_depends, *parsed.build_depends, *parsed.test_depends])
    assert sought - SYSTEM <= declared
    assert names([*parsed.buildtool_depends, *parsed.build_depends]) <= sought


def test_the_licences_are_files_that_exist() -> None:
    licences = {str(licence): licence.file for licence in package().licenses}
    assert licences == {
        'Apache-2.0': 'LICENSE',
        'LicenseRef-Weights-Non-Commercial': 'weights/README.md',
    }
    assert 'Apache License' in (ROOT / 'LICENSE').read_text()
    assert '**non-commercial use only**' in (ROOT / 'weights' / 'README.md').read_text()


def sources() -> list[Path]:
    """Give every file of source text; those that were built or installed here are none."""
    folders = ('adpc_ros', 'docker', 'launch', 'scripts', 'src', 'test', 'tools')
    files = [path for folder in folders for path in (ROOT / folder).rglob('*')]
    files += [ROOT / name for name in ('.ci/run', 'CMakeLists.txt', 'Makefile', 'env.sh')]
    named = ('CMakeLists.txt', 'Dockerfile', 'Makefile', 'run')
    kinds = ('.cmake', '.cpp', '.h', '.py', '.sh')
    return [
        path
        for path in files
        if path.suffix in kinds or path.name in named or path.parent == ROOT / 'scripts'
    ]


def test_every_source_file_says_its_licence() -> None:
    line = 'SPDX-License-Identifier: Apache-2.0'
    wrong = []
    for path in sources():
        mark = '//' if path.suffix in ('.cpp', '.h') else '#'
        head = path.read_text().splitlines()[:2]
        place = 1 if head and head[0].startswith('#!') else 0
        if head[place : place + 1] != [f'{mark} {line}']:
            wrong.append(str(path.relative_to(ROOT)))
    assert len(sources()) > 200
    assert wrong == [], f'expected "{line}" in the first line, or behind #!, of these files'


def test_the_changelog_is_one_that_release_tools_read() -> None:
    parsed = package()
    changelog = get_changelog_from_path(str(ROOT / 'CHANGELOG.rst'), parsed.name)
    first, *released = [version for version, *_ in changelog.foreach_version()]
    assert first in ('forthcoming', parsed.version)
    assert parsed.version in (first, *released)


def test_the_quality_declaration_claims_what_is_there() -> None:
    text = (ROOT / 'QUALITY_DECLARATION.md').read_text()
    assert re.findall(r'\*\*quality\s+level (\d)\*\*', text) == ['4']
    links = re.findall(r'\]\(([^)#:]+)\)', text)
    assert len(links) > 5
    assert [link for link in links if not (ROOT / link).exists()] == []
    assert [int(n) for n in re.findall(r'^## .*\((\d)\)$', text, re.MULTILINE)] == [*range(1, 8)]
    assert all(name in text for name in FROM_PIP & imported('adpc_ros'))


DOCKERFILE = ROOT / 'docker' / 'Dockerfile'


def test_the_dockerfile_has_no_findings() -> None:
    linter = shutil.which('hadolint')
    if linter is None:
        pytest.skip('hadolint is not installed; its wheels are for x86-64')
    result = subprocess.run([linter, '--no-color', DOCKERFILE], capture_output=True, text=True)
    assert (result.returncode, result.stdout + result.stderr) == (0, '')


def test_the_dockerfile_names_what_is_there() -> None:
    text = DOCKERFILE.read_text()
    groups = re.findall(r'pyproject\.toml:([\w-]+)', text)
    assert groups == ['runtime', 'ros-installed']  # as tools/set_up.py, but for the tests'
    pyproject = (ROOT / 'pyproject.toml').read_text()
    assert all(f'\n{group} = [' in pyproject for group in groups)
    (launched,) = re.findall(r'ros2 launch adpc_ros (\S+)', text)
    assert (ROOT / 'launch' / launched).is_file()
    assert 'FROM ros:jazzy' in text and '/opt/ros/jazzy/' in text
