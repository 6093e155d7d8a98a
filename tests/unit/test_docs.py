"""The pages for people: their links lead somewhere, and what they quote is said."""

from __future__ import annotations

import importlib
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
CODE = "".join(path.read_text() for folder in ("common", "services", "sdk") for path in (ROOT / folder).rglob("*.py"))


def anchors(page: Path) -> set[str]:
    """As a browser of repositories makes them of the headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        there = path.parent / name if name else path
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


def test_every_page_has_its_place_in_the_site() -> None:
    placed = re.findall(r"^ +- (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    pages = {page.removeprefix("docs/") for page in PAGES if page.startswith("docs/")}
    assert sorted(pages.symmetric_difference(placed)) == [], "nav of mkdocs.yml"


REFERENCE = [page for page in PAGES if page.startswith("docs/reference/")]


@pytest.mark.parametrize("page", REFERENCE)
def test_the_reference_names_what_there_is(page: str) -> None:
    for name in re.findall(r"^::: (\S+)$", (ROOT / page).read_text(), re.MULTILINE):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            module, _, member = name.rpartition(".")
            assert hasattr(importlib.import_module(module), member), name


def test_messages_that_operators_look_up_are_what_the_code_says() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    [table] = re.findall(r"^\| it says \| do \|\n\|---\|---\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    messages = re.findall(r"`([^`]+)`", "\n".join(row.split(" | ")[0] for row in table.splitlines()))
    assert len(messages) > 10
    said = re.sub(r'"\s+f?"', "", CODE)
    for message in messages:
        for words in message.split("…"):
            assert words.strip() in said, message
