"""Each public name of Ray is here, or docs/coming-from-ray.md says that it is not, and what to use instead."""

from __future__ import annotations

import importlib
import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from parity.names import NAMES_OF_RAY

PAGE = Path(__file__).parents[3] / "docs" / "coming-from-ray.md"


def listed() -> dict[str, set[str]]:
    """Module -> what the page says it lacks; "…" at an end stands for anything."""
    text = PAGE.read_text()
    [table] = re.findall(r"^## Names that are missing\n\n\|.*\n\|---.*\n((?:\|.*\n)+)", text, re.MULTILINE)
    found: dict[str, set[str]] = {}
    for row in table.splitlines():
        module, missing, *_ = (cell.strip() for cell in row.strip("|").split(" | "))
        found.setdefault(module.strip("`"), set()).update(re.findall(r"`([^`]+)`", missing))
    return found


LISTED = listed()


def is_there(module: str, name: str) -> bool:
    ours = "shoal" + module.removeprefix("ray")
    try:
        if hasattr(importlib.import_module(ours), name):
            return True
    except ModuleNotFoundError as error:
        if error.name is None or not ours.startswith(error.name):
            raise
        return False
    try:
        importlib.import_module(f"{ours}.{name}")
    except ModuleNotFoundError:
        return False
    return True


def is_listed(module: str, name: str) -> bool:
    parent, _, own = module.rpartition(".")
    return any(fnmatchcase(name, each.replace("…", "*")) for each in LISTED.get(module, ())) or (
        bool(parent) and is_listed(parent, own)
    )


@pytest.mark.parametrize("module", NAMES_OF_RAY)
def test_a_name_is_there_or_on_the_page(module: str) -> None:
    names = NAMES_OF_RAY[module].split()
    assert [name for name in names if not is_there(module, name) and not is_listed(module, name)] == []


@pytest.mark.parametrize("module", LISTED)
def test_what_the_page_calls_missing_is_not_there(module: str) -> None:
    assert [name for name in sorted(LISTED[module]) if "…" not in name and is_there(module, name)] == []
