"""Prints what a distribution of this repository needs from others: ``requirements.py services/gcs common[deploy]``.

For the images: the libraries become a layer of their own, which an edit of our sources leaves as it is.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def projects() -> dict[str, Path]:
    """Name of each of our distributions → its folder."""
    folders = [path.parent for path in ROOT.glob("*/pyproject.toml")] + [
        path.parent for path in ROOT.glob("services/*/pyproject.toml")
    ]
    return {_project(folder)["name"]: folder for folder in folders}


def requirements(folder: Path, extras: set[str], ours: dict[str, Path]) -> set[str]:
    """Requirement lines of others' distributions, those of our own that it depends on included."""
    project = _project(folder)
    lines = list(project["dependencies"])
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    found: set[str] = set()
    for line in lines:
        name, inner = _split(line)
        found |= requirements(ours[name], inner, ours) if name in ours else {line}
    return found


def _project(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "pyproject.toml").read_text())["project"]


def _split(text: str) -> tuple[str, set[str]]:
    """``name[a,b]>=1`` → name, {a, b}."""
    match = re.match(r"([^\[<>=!~ ;]+)(?:\[([^\]]*)\])?", text)
    assert match, text
    return match[1], {extra.strip() for extra in (match[2] or "").split(",")} - {""}


if __name__ == "__main__":
    wanted: set[str] = set()
    for argument in sys.argv[1:]:
        path, extras = _split(argument)
        wanted |= requirements(ROOT / path, extras, projects())
    print("\n".join(sorted(wanted)))
