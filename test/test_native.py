"""The native runtime under a driver of its own in C++: as it is installed, and with sanitizers."""

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
SECONDS, SANITIZED_SECONDS = 5, 8
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


def run(command: list[str | Path], seconds: int, seed: int) -> None:
    """Run the driver, which says what differs; a sanitizer's report fails it, too."""
    done = subprocess.run(
        [*command, str(seconds), str(seed)],
        env={**os.environ, **OPTIONS},
        capture_output=True,
        text=True,
        timeout=seconds + 200,  # an episode under way is carried to its end
    )
    assert done.returncode == 0, f'{done.stderr[-8000:]}{done.stdout}'
    print(done.stdout)


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


def test_installed_library(compiler: str, tmp_path: Path) -> None:
    library = Path(native.library()._name)
    driver = tmp_path / 'driver'
    flags = ['-std=c++17', '-O1', '-pthread', f'-I{ROOT / "src"}', f'-Wl,-rpath,{library.parent}']
    build([compiler, *flags, SOURCES / 'driver.cpp', library, '-o', driver])
    run([driver], SECONDS, seed=0)


@pytest.mark.parametrize('sanitizer', ['thread', 'address,undefined'])
def test_sanitizers(sanitizer: str, compiler: str, tmp_path: Path) -> None:
    prefix = launcher(compiler, sanitizer, tmp_path)
    if shutil.which('cmake') is None:
        pytest.skip('no cmake')
    folder = BUILD / sanitizer.replace(',', '_')
    options = [f'-DADPC_SANITIZE={sanitizer}', f'-DCMAKE_CXX_COMPILER={compiler}']
    build(['cmake', '-S', SOURCES, '-B', folder, *options])
    build(['cmake', '--build', folder, f'-j{core_count()}'])
    seed = 1000 if sanitizer == 'thread' else 2000
    run([*prefix, folder / 'driver'], SANITIZED_SECONDS, seed)
