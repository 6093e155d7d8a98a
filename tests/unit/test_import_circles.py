"""No module of ours needs one that needs it, not even deferred, in a function, or for the sake of types alone.

import-linter sees circles of packages that its layers name; inside one package it sees none.
"""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [path for path in ROOT.glob("**/src") if ".venv" not in path.parts]
#: Written with the public API, as a user's program is, and brought along by the package that offers it.
ON_TOP = ("shoal.util.", "shoal.experimental.")


def imports_of(sources: list[Path]) -> dict[str, set[str]]:
    """By module: those that it imports, wherever in it that stands. Generated stubs are left out."""
    modules = {
        ".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__"): path
        for source in sources
        for path in source.glob("shoal*/**/*.py")
        if "shoal_proto" not in path.parts
    }
    imports: dict[str, set[str]] = {}
    for module, path in modules.items():
        named: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{module} imports relatively"
                for alias in node.names:
                    part = f"{node.module}.{alias.name}"
                    named.add(part if part in modules else node.module or "")
        imports[module] = {name for name in named if name in modules and name != module}
    return imports


def circle(imports: dict[str, set[str]]) -> list[str]:
    """One of those that are there, from a module to itself; empty = there is none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def test_nothing_is_imported_in_a_circle() -> None:
    imports = imports_of(SOURCES)
    for module, imported in imports.items():
        if module.startswith(ON_TOP):
            imported.discard("shoal")
    assert {"shoal._api.graph", "shoal_common.ids", "shoal_raylet.node"} < imports.keys()
    assert not circle(imports)


@pytest.mark.parametrize(
    "how",
    [
        "import shoal_a.b",
        "from shoal_a import b",
        "def f():\n    from shoal_a.b import x",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from shoal_a.b import X",
    ],
)
def test_a_circle_is_seen(tmp_path: Path, how: str) -> None:
    package = tmp_path / "shoal_a"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text(how)
    (package / "b.py").write_text("import shoal_a.c")
    (package / "c.py").write_text("")
    assert not circle(imports_of([tmp_path]))
    (package / "c.py").write_text("from shoal_a.a import f")
    assert set(circle(imports_of([tmp_path]))) == {"shoal_a.a", "shoal_a.b", "shoal_a.c"}
