"""Writes docs/api-parity.md out of tests/parity."""

from __future__ import annotations

from parity.row import Row, Section, State
from parity.table import TABLE

_HEAD = """# Ray's API, row by row

<!-- Written by docs/generate.py out of tests/parity (`make docs`); changes belong there. -->

What Ray Core has, whether Shoal has it, and the tests (below `tests/`) that would fail without it. *differs*: it works,
with a difference that stands in [coming-from-ray.md](coming-from-ray.md).
"""


def page() -> str:
    parts = [_HEAD]
    parts += [f"## {section.title}\n\n{_table(section)}" for section in TABLE]
    return "\n".join(parts)


def _table(section: Section) -> str:
    lines = ["| | what it does | state | tests |", "|---|---|---|---|"]
    lines += [f"| {_cell(row.name)} | {_cell(row.does)} | {_state(row)} | {_tests(row)} |" for row in section.rows]
    return "\n".join(lines) + "\n"


def _state(row: Row) -> str:
    match row.state:
        case State.WORKS:
            return "works"
        case State.DIFFERS:
            return f"[differs](coming-from-ray.md): {_cell(row.remark)}"
        case State.MISSING:
            return f"missing: {_cell(row.remark)}"


def _tests(row: Row) -> str:
    return "<br>".join(f"`{test}`" for test in row.tests) or "no test"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
