# SPDX-License-Identifier: Apache-2.0
"""The native runtime under a driver of its own: as it is installed, with sanitizers, on ARM."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from shared import ROOT

from adpc_ros.runtime import native
from adpc_ros.runtime.cores import core_count

SOURCES = ROOT / 'test' / 'native'
BUILD = ROOT / 'build' / 'native'  # kept, so that only what was edited is built again
SECONDS, SANITIZED_SECONDS, EMULATED_SECONDS = 5, 8, 8
COMPARED = 20  # episodes
EMULATOR = ['qemu-aarch64-static', '-L', '/usr/aarch64-linux-gnu']
CROSS = {'aarch64-linux-gnu-g++': 'g++-aarch64-linux-gnu', EMULATOR[0]: 'qemu-user-static'}
OPTIONS = {
    'TSAN_OPTIONS': 'halt_on_error=1:second_deadlock_stack=1',
    'ASAN_OPTIONS': 'detect_leaks=1:detect_stack_use_after_return=1',
    'UBSAN_OPTIONS': 'halt_on_error=1:print_stacktrace=1',
    'LSAN_OPTIONS': '',
}
PROBE = """
#include <thread>
int main() {
  std::thread thread([] {});
  thread.join();
}
"""

pytestmark = pytest.mark.timeout(400)  # compilers on a slow machine


@pytest.fixture(scope='module')
def compiler() -> str:
    name = os.environ.get('CXX', 'c++')
    if shutil.which(name) is None:
        pytest.skip(f'no C++ compiler {name}')
    return name


def build(command: list[str | Path]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f'{command[0]}:\n{done.stdout[-3000:]}{done.stderr[-5000:]}'


def cmake(folder: Path, *options: str) -> Path:
    """Build runtime and driver in a folder; gives the driver."""
    if shutil.which('cmake') is None:
        pytest.skip('no cmake')
    build(['cmake', '-S', SOURCES, '-B', folder, *options])
    build(['cmake', '--build', folder, f'-j{core_count()}'])
    return folder / 'driver'


def run(command: list[str | Path], *arguments: object) -> str:
    """
    Run the driver, which says what differs; a sanitizer's report fails it, too.

    :return: what it says that it did.
    """
    done = subprocess.run(
        [*command, *map(str, arguments)],
        env={**os.environ, **OPTIONS},
        capture_output=True,
        text=True,
        timeout=200,  # an episode under way is carried to its end
    )
    assert done.returncode == 0, f'{done.stderr[-8000:]}{done.stdout}'
    print(done.stdout)
    return done.stdout


def launcher(compiler: str, sanitizer: str, folder: Path) -> list[str | Path]:
    """Say what a program with this sanitizer is to be run with; skip where none can be."""
    source, program = folder / 'probe.cpp', folder / 'probe'
    source.write_text(PROBE)
    flags = [f'-fsanitize={sanitizer}', '-pthread']
    done = subprocess.run(
        [compiler, *flags, source, '-o', program], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(
            f'{compiler} cannot build with the {sanitizer} sanitizer: {done.stderr[-300:]}'
        )
    # an older thread sanitizer needs addresses that are not random
    prefixes: list[list[str | Path]] = [[], ['setarch', '-R']]
    for prefix in prefixes:
        if prefix and shutil.which('setarch') is None:
            continue
        done = subprocess.run(
            [*prefix, program], env={**os.environ, **OPTIONS}, capture_output=True, text=True
        )
        if done.returncode == 0:
            return prefix
    pytest.skip(f'the {sanitizer} sanitizer cannot run here: {done.stderr[-300:]}')


@pytest.fixture(scope='module')
def driver(compiler: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a driver of the installed library."""
    library = Path(native.library()._name)
    driver = tmp_path_factory.mktemp('native') / 'driver'
    flags = ['-std=c++17', '-O1', '-pthread', f'-I{ROOT / "src"}', f'-Wl,-rpath,{library.parent}']
    build([compiler, *flags, SOURCES / 'driver.cpp', library, '-o', driver])
    return driver


def test_installed_library(driver: Path) -> None:
    run([driver], SECONDS, 0)


@pytest.mark.parametrize('sanitizer', ['thread', 'address,undefined'])
def test_sanitizers(sanitizer: str, compiler: str, tmp_path: Path) -> None:
    prefix = launcher(compiler, sanitizer, tmp_path)
    options = [f'-DADPC_SANITIZE={sanitizer}', f'-DCMAKE_CXX_COMPILER={compiler}']
    program = cmake(BUILD / sanitizer.replace(',', '_'), *options)
    run([*prefix, program], SANITIZED_SECONDS, 1000 if sanitizer == 'thread' else 2000)


def test_arm_computes_what_the_installed_library_does(driver: Path, tmp_path: Path) -> None:
    if missing := [package for name, package in CROSS.items() if shutil.which(name) is None]:
        pytest.skip(f'not installed: {", ".join(missing)}')
    program = cmake(BUILD / 'aarch64', f'-DCMAKE_TOOLCHAIN_FILE={SOURCES / "aarch64.cmake"}')
    results = tmp_path / 'results'
    run([driver], 'write', results, COMPARED, 3000)
    said = run([*EMULATOR, program], 'compare', results, COMPARED, 3000)
    assert said.startswith(f'{COMPARED} episodes on neon: {COMPARED * 6} frames')
    run([*EMULATOR, program], EMULATED_SECONDS, 4000)
