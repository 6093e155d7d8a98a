"""Writes docs/modules.md: each module, by the first sentence of its docstring."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]

_HEAD = """# Every module, in a line

<!-- Written by docs/generate.py out of the docstrings (`make docs`); changes belong there. -->

What each file holds, folder by folder; how they work together is told in [architecture.md](architecture.md). Generated
stubs (`shoal_proto`) are left out.
"""


def page() -> str:
    parts = [_HEAD]
    for source in (ROOT / "sdk" / "src", *sorted((ROOT / "services").glob("*/src")), ROOT / "common" / "src"):
        for package in sorted(source.glob("shoal*")):
            if package.name != "shoal_proto" and package.is_dir() and not package.name.endswith(".egg-info"):
                parts.append(f"## {package.name}\n\nIn `{package.relative_to(ROOT)}`.\n")
                parts += _folders(package)
    return "\n".join(parts)


def _folders(package: Path) -> list[str]:
    folders: dict[Path, list[str]] = {}
    for module in sorted(package.rglob("*.py")):
        sentence = _first_sentence(module)
        if sentence:
            name = module.name if module.name != "__init__.py" else "\\_\\_init\\_\\_.py"
            folders.setdefault(module.parent, []).append(f"| {name} | {sentence} |")
    parts = []
    for folder, lines in sorted(folders.items()):
        if folder != package:
            parts.append(f"### {folder.relative_to(package.parent)}/\n")
        parts.append("\n".join(["| | |", "|---|---|", *lines]) + "\n")
    return parts


def _first_sentence(module: Path) -> str:
    text = ast.get_docstring(ast.parse(module.read_text())) or ""
    paragraph = " ".join(text.partition("\n\n")[0].split())
    sentence = re.split(r"(?<=[.;])\s(?=[A-Z`*])", paragraph)[0].rstrip(".:;")
    return sentence.replace("``", "`").replace("|", "\\|")
