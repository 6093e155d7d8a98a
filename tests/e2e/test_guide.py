"""The examples of the guide, as a reader types them: each page from its top, all pages in one process.

A comment behind an expression says what comes out: ``# → [0, 1]`` is its ``repr``, ``# raises ValueError`` one of the
classes of what is raised.
"""

from __future__ import annotations

import ast
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

import shoal

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [DOCS / "index.md", *sorted((DOCS / "guide").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[None]:
    """Of all pages that do not begin one themselves."""
    yield
    shoal.shutdown()


def statements(text: str) -> Iterator[tuple[ast.stmt, str]]:
    """Those of the examples, at their lines of the page, with the comment behind each."""
    for block in BLOCK.finditer(text):
        lines = block[1].splitlines()
        above = text.count("\n", 0, block.start(1))
        for statement in ast.parse(block[1]).body:
            assert statement.end_lineno is not None and statement.end_col_offset is not None
            last = lines[statement.end_lineno - 1].encode()[statement.end_col_offset :].decode()
            yield ast.increment_lineno(statement, above), last.strip().removeprefix("#").strip()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = page.read_text()
    if "shoal.init(" in text:
        shoal.shutdown()
    elif not shoal.is_initialized():
        shoal.init(num_cpus=4, logging_level="ERROR")
    # Functions and classes of a program travel by value, as here.
    program = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", program)
    ran = 0
    for statement, comment in statements(text):
        ran += 1
        if comment.startswith("→ "):
            assert isinstance(statement, ast.Expr), ast.unparse(statement)
            code = compile(ast.Expression(statement.value), page, "eval")
            value = eval(code, vars(program))
            assert repr(value) == comment.removeprefix("→ "), f"{page}:{statement.lineno}"
        elif comment.startswith("raises "):
            code = compile(ast.Module([statement], []), page, "exec")
            with pytest.raises(Exception) as caught:
                exec(code, vars(program))
            assert comment.split()[1] in [cls.__name__ for cls in caught.type.__mro__], f"{page}:{statement.lineno}"
        else:
            exec(compile(ast.Module([statement], []), page, "exec"), vars(program))
    assert ran or page.stem == "deployment"
