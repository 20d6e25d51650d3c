# SPDX-License-Identifier: Apache-2.0
"""The layers of the package: what a module may import."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from shared import ROOT

PACKAGE = ROOT / 'adpc_ros'
ROS = r'rclpy|\w+_msgs|builtin_interfaces|ament_\w+|cv_bridge|rosbags|launch|launch_ros'
ON_TOP = r'adpc_ros\.(__main__|demo)'
# layer: what none of its modules may import, at the top or inside a function
FORBIDDEN = {
    'network': rf'{ROS}|adpc_ros\.(?!(files|labels|yaml_file)(\.|$)|network)\w+',
    'runtime': rf'{ROS}|adpc_ros\.(msg|ros|learning|graph)',
    'learning': rf'{ROS}|adpc_ros\.(msg|ros|graph)',
    'graph': r'adpc_ros\.(?!graph|msg|progress|ros|runtime)\w+',
    'recording': (
        r'rclpy|\w+_msgs|'
        r'adpc_ros\.(?!recording|yaml_file|ros\.(packaged|message_types))[\w.]+'
    ),
    'points': rf'{ROS}|adpc_ros\.(?!points)\w+',
    '.': ON_TOP,
}
NETWORK_NEEDS = {'torch', 'numpy', 'safetensors', 'adpc_ros'}


class WithoutTypes(ast.NodeTransformer):
    """Leaves out ``if TYPE_CHECKING:``."""

    def visit_If(self, node: ast.If) -> ast.AST | None:  # noqa: N802
        return None if ast.unparse(node.test) == 'TYPE_CHECKING' else self.generic_visit(node)


def imports(path: Path, package: Path = PACKAGE, types: bool = True) -> Iterator[str]:
    """
    Give the full name of everything that a file imports, wherever in the file.

    :param types: also what is imported while types are checked alone.
    """
    place = ('adpc_ros', *path.relative_to(package).parent.parts)
    tree = ast.parse(path.read_text(), str(path))
    if not types:
        tree = WithoutTypes().visit(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = place[: len(place) + 1 - node.level] if node.level else ()
            base = '.'.join((*above, *filter(None, [node.module])))
            yield base
            yield from (f'{base}.{alias.name}' for alias in node.names)


def modules(layer: str) -> list[Path]:
    found = sorted((PACKAGE / layer).rglob('*.py'))
    assert found, f'no modules in {layer}'
    return found


@pytest.mark.parametrize('layer', FORBIDDEN)
def test_a_layer_imports_nothing_from_above(layer: str) -> None:
    pattern = re.compile(rf'({FORBIDDEN[layer]})(\.|$)')
    wrong = [
        f'{path.relative_to(ROOT)}: {name}'
        for path in modules(layer)
        for name in imports(path)
        if pattern.match(name)
    ]
    assert not wrong


def test_no_module_comes_to_import_itself() -> None:
    """Imports inside functions count, too; those for type checkers alone do not."""
    names = {
        '.'.join(('adpc_ros', *p.relative_to(PACKAGE).with_suffix('').parts)): p
        for p in PACKAGE.rglob('*.py')
    }
    needs = {
        name: {n for n in imports(path, types=False) if n in names} for name, path in names.items()
    }
    while free := {name for name, needed in needs.items() if not needed & needs.keys()}:
        needs = {name: needed for name, needed in needs.items() if name not in free}
    assert not needs


def test_the_network_needs_little() -> None:
    import sys

    allowed = NETWORK_NEEDS | sys.stdlib_module_names
    wrong = [
        f'{path.relative_to(ROOT)}: {name}'
        for path in modules('network')
        for name in imports(path)
        if name.split('.')[0] not in allowed
    ]
    assert not wrong


@pytest.mark.parametrize(
    'source, name',
    [
        ('import rclpy.node', 'rclpy.node'),
        ('from ..ros import node', 'adpc_ros.ros.node'),
        ('from .. import learning', 'adpc_ros.learning'),
        ('def f():\n    from adpc_ros import msg', 'adpc_ros.msg'),
    ],
)
def test_every_form_of_import_is_seen(tmp_path: Path, source: str, name: str) -> None:
    path = tmp_path / 'runtime' / 'engine.py'
    path.parent.mkdir()
    path.write_text(source)
    assert name in imports(path, tmp_path)
    assert re.match(rf'({FORBIDDEN["runtime"]})(\.|$)', name)
