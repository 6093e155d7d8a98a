"""The table of Ray's API is honest: each test that it names exists, and what differs or is missing says how."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest
from parity.row import Row, State
from parity.table import TABLE

TESTS = Path(__file__).parents[1]
ROWS = [row for section in TABLE for row in section.rows]


@functools.cache
def names_in(path: str) -> set[str]:
    """As pytest names them behind the file."""

    def below(body: list[ast.stmt], prefix: str) -> Iterator[str]:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                yield prefix + node.name
            elif isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
                yield from below(node.body, f"{prefix}{node.name}::")

    return set(below(ast.parse((TESTS / path).read_text()).body, ""))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_tests_of_a_row_exist(row: Row) -> None:
    for test in row.tests:
        path, _, name = test.partition("::")
        assert name in names_in(path), test


def test_what_works_has_a_test_and_what_does_not_a_reason() -> None:
    for row in ROWS:
        assert bool(row.remark) == (row.state is not State.WORKS), row.name
        assert row.tests or row.state is State.MISSING, row.name


def test_no_row_stands_there_twice() -> None:
    for section in TABLE:
        names = [row.name for row in section.rows]
        assert len(set(names)) == len(names), section.title
