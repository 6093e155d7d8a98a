"""What calls itself pure is held to it: no module can be forgotten in the import contract."""

from __future__ import annotations

import ast
import re
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [path for path in ROOT.glob("**/src") if ".venv" not in path.parts]


def modules() -> dict[str, Path]:
    return {
        ".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__"): path
        for source in SOURCES
        for path in source.glob("shoal*/**/*.py")
    }


def says_that_it_is_pure(path: Path) -> bool:
    return re.search(r"\bPure\b", ast.get_docstring(ast.parse(path.read_text())) or "") is not None


def under_contract() -> list[str]:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (contract,) = [each for each in contracts if each["name"].startswith("What decides is pure")]
    names: list[str] = contract["source_modules"]
    return names


PURE = sorted(name for name, path in modules().items() if says_that_it_is_pure(path))


def test_some_modules_are_pure() -> None:
    assert "shoal_gcs.actors.machine" in PURE


@pytest.mark.parametrize("module", PURE)
def test_a_module_that_says_it_is_pure_is_under_the_contract(module: str) -> None:
    parents = [module.rsplit(".", cut)[0] for cut in range(module.count("."))]
    assert any(fnmatchcase(each, name) for each in [module, *parents] for name in under_contract())
