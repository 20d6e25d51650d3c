# SPDX-License-Identifier: Apache-2.0
"""
Build the environment: .venv with everything pinned in pyproject.toml, and the messages.

Run by ``make setup`` with the interpreter that .venv is to have; uses the standard library only.
Where no ROS is sourced, the variable ROS chooses the distribution of which wheels are taken.
A step is skipped while its stamp (written last, so never by an interrupted step) says that
nothing it depends on has changed.
"""

import fcntl
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WHEELS = {'jazzy': 'ros-wheels', 'kilted': 'ros-wheels-kilted'}  # dependency groups
UNTRIED = ('humble', 'lyrical')  # should work: docs/distributions.md
ROS = os.environ.get('ROS') or 'jazzy'
_SUFFIX = '' if ROS == 'jazzy' else f'-{ROS}'  # each has an environment of its own
VENV = ROOT / f'.venv{_SUFFIX}'
PYTHON = VENV / 'bin' / 'python'
LOG = ROOT / 'log' / 'set_up.log'
INSTALLED = VENV / 'adpc_ros.stamp'
BUILD, INSTALL = ROOT / f'build{_SUFFIX}', ROOT / f'install{_SUFFIX}'
BUILT = INSTALL / 'adpc_ros.stamp'


class Missing(Exception):
    """Something this machine lacks; the message names it and says how to get it."""


def installed_ros() -> bool:
    """Tell whether a ROS 2 installation is sourced; one that is not known is an error."""
    distro = os.environ.get('ROS_DISTRO')
    if not distro:
        if ROS not in WHEELS:
            raise Missing(
                f'there are no ROS wheels of {ROS}, only of {" and ".join(WHEELS)}: source an '
                f'installation instead (source /opt/ros/{ROS}/setup.bash)'
            )
        return False
    if distro not in (*WHEELS, *UNTRIED):
        raise Missing(
            f'ROS 2 {distro} is sourced, {", ".join((*WHEELS, *UNTRIED))} are known: source '
            '/opt/ros/jazzy/setup.bash in a new shell, or use a shell without ROS'
        )
    if os.environ.get('ROS') not in (None, '', distro):
        raise Missing(f'ROS is {ROS}, but {distro} is sourced: use a shell without ROS')
    if not os.environ.get('AMENT_PREFIX_PATH') or importlib.util.find_spec('rclpy') is None:
        raise Missing(
            f'ROS_DISTRO is {distro}, but rclpy cannot be imported: source '
            f'/opt/ros/{distro}/setup.bash and use its interpreter (now {sys.executable}), or '
            'unset ROS_DISTRO'
        )
    if distro in UNTRIED:
        print(f'adpc_ros: warning: nothing was run with ROS 2 {distro}: docs/distributions.md')
    return True


def check_machine(ros: bool) -> None:
    """Raise Missing for the first thing that the set-up needs and does not find."""
    if importlib.util.find_spec('venv') is None or importlib.util.find_spec('ensurepip') is None:
        raise Missing('Python module venv is missing: sudo apt install python3-venv')
    if not Path(sysconfig.get_paths()['include'], 'Python.h').exists():
        raise Missing("Python's header files are missing: sudo apt install python3-dev")
    if not shutil.which('cmake'):
        raise Missing('cmake is missing: sudo apt install cmake')
    compiler = os.environ.get('CXX', 'c++').split()[0]
    if not shutil.which(compiler):
        raise Missing(f'C++ compiler {compiler} is missing: sudo apt install g++')
    if not shutil.which('make'):
        raise Missing('make is missing: sudo apt install make')
    if ros:
        if not shutil.which('colcon'):
            raise Missing('colcon is missing: sudo apt install python3-colcon-common-extensions')
        return
    system, machine = platform.system(), platform.machine()
    if (system, machine) != ('Linux', 'x86_64') or platform.libc_ver()[0] != 'glibc':
        raise Missing(
            f'there are no ROS wheels for {system} on {machine}, only for glibc Linux on x86_64: '
            'install ROS 2 Jazzy and source /opt/ros/jazzy/setup.bash'
        )
    if sys.version_info >= (3, 14) or platform.python_implementation() != 'CPython':
        raise Missing(
            f'there are no ROS wheels for {platform.python_implementation()} '
            f'{platform.python_version()}: make setup PYTHON=python3.12 (CPython 3.10 to 3.13)'
        )


def run(step: str, command: list, environment: dict) -> None:
    """Run one step, its output into the log, one line of it on the terminal."""
    print(f'adpc_ros: {step} ...', flush=True)
    start = time.monotonic()
    with LOG.open('a') as log:
        log.write(f'\n== {step}: {" ".join(map(str, command))}\n')
        log.flush()
        status = subprocess.run(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        ).returncode
        log.write(f'== status {status} after {time.monotonic() - start:.1f} s\n')
    if status:
        raise Missing(f'{step} failed with status {status}: see {LOG}')


def install(ros: bool, environment: dict) -> None:
    """Make .venv and install the dependency groups of pyproject.toml into it."""
    wanted = hashlib.sha256((ROOT / 'pyproject.toml').read_bytes()).hexdigest()
    distro = os.environ['ROS_DISTRO'] if ros else ROS
    base = f'{sys.base_prefix} {platform.python_version()} {"installed" if ros else "wheels"} ROS'
    base += '' if distro == 'jazzy' else f' {distro}'
    stamp = f'{wanted}\n{base}\n'
    last = INSTALLED.read_text() if INSTALLED.exists() else ''
    if last == stamp:
        return
    INSTALLED.unlink(missing_ok=True)
    if last.split('\n')[1:2] != [base]:  # another Python or ROS, or interrupted: start afresh
        for built in (BUILD, INSTALL):
            shutil.rmtree(built, ignore_errors=True)
        system = ['--system-site-packages'] if ros else []
        new = [sys.executable, '-m', 'venv', '--clear', *system, VENV]
        run(f'making {VENV.name} with Python {platform.python_version()}', new, environment)
        (VENV / 'COLCON_IGNORE').touch()
    pip = [PYTHON, '-m', 'pip', '--disable-pip-version-check', 'install', '--progress-bar=off']
    run('upgrading pip', [*pip, 'pip>=25.1'], environment)  # the first that knows groups
    groups = ['runtime', 'dev', 'fleet', 'poses', 'ros-installed' if ros else WHEELS[ROS]]
    run(
        'installing PyTorch and ROS packages (minutes)',
        [*pip, *(f'--group={group}' for group in groups)],
        environment,
    )
    if not ros:
        relocate = [PYTHON, ROOT / 'tools' / 'relocate_ros_wheels.py', VENV]
        run(f'adapting the ROS wheels to {VENV.name}', relocate, environment)
    INSTALLED.write_text(stamp)


def build(environment: dict) -> None:
    """Build the package (its messages above all) into install/."""
    sources = [ROOT / 'CMakeLists.txt', ROOT / 'package.xml', INSTALLED]
    for folder in ('msg', 'scripts', 'src'):
        sources += sorted(path for path in (ROOT / folder).rglob('*') if path.is_file())
    digest = hashlib.sha256()
    for path in sources:
        digest.update(f'{path.relative_to(ROOT)}\n'.encode() + path.read_bytes())
    for folder in ('adpc_ros', 'config', 'launch', 'weights'):  # linked one by one: names count
        names = (path for path in (ROOT / folder).rglob('*') if '__pycache__' not in path.parts)
        digest.update('\n'.join(sorted(str(path.relative_to(ROOT)) for path in names)).encode())
    if BUILT.exists() and BUILT.read_text() == digest.hexdigest():
        return
    BUILT.unlink(missing_ok=True)
    run(
        'building messages and native runtime',
        [
            *('colcon', 'build', '--base-paths', ROOT, '--packages-select', 'adpc_ros'),
            *('--build-base', BUILD, '--install-base', INSTALL),
            # symbolic links: a Python or launch file is edited, not built again
            *('--symlink-install', '--event-handlers', 'console_direct+'),
            *('--cmake-args', f'-DPython3_EXECUTABLE={PYTHON}', '-DBUILD_TESTING=OFF'),
        ],
        environment,
    )
    BUILT.write_text(digest.hexdigest())


def build_environment(ros: bool) -> dict:
    """Return the environment of the build: .venv's programs first, and no stray ROS paths."""
    environment = dict(os.environ)
    environment['PATH'] = f'{VENV / "bin"}:{environment["PATH"]}'
    environment.pop('_ROS_WHEELS_BOOTSTRAP_COMPLETE', None)
    if not ros:
        environment['AMENT_PREFIX_PATH'] = environment['CMAKE_PREFIX_PATH'] = str(VENV)
        environment.pop('PYTHONPATH', None)
    return environment


def main() -> None:
    """Check the machine, then bring .venv and install/ up to date."""
    try:
        ros = installed_ros()
        check_machine(ros)
        LOG.parent.mkdir(exist_ok=True)
        with LOG.open('w') as log:
            fcntl.flock(log, fcntl.LOCK_EX)  # two at once would spoil each other's environment
            environment = build_environment(ros)
            install(ros, environment)
            build(environment)
    except Missing as missing:
        sys.exit(f'adpc_ros: {missing}')
    except KeyboardInterrupt:
        sys.exit('adpc_ros: interrupted; run it again')


if __name__ == '__main__':
    if sys.version_info < (3, 10):  # noqa: UP036 (this file alone must say so)
        sys.exit(
            f'adpc_ros: Python {platform.python_version()} is too old, 3.10 is needed: '
            'make setup PYTHON=python3.12'
        )
    main()
