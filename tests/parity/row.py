"""A row of the table: one thing of Ray's public API, what it does, and how Shoal stands to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class State(StrEnum):
    WORKS = "works"
    #: Works, with a difference that docs/coming-from-ray.md lists.
    DIFFERS = "differs"
    MISSING = "missing"


@dataclass(frozen=True)
class Row:
    name: str
    does: str
    state: State
    #: What would fail without it: "path below tests/::function", or "path::Class::method".
    tests: tuple[str, ...] = ()
    #: What differs, or why it is missing.
    remark: str = ""


@dataclass(frozen=True)
class Section:
    title: str
    rows: list[Row] = field(default_factory=list)

    def works(self, name: str, does: str, *tests: str) -> None:
        self.rows.append(Row(name, does, State.WORKS, tests))

    def differs(self, name: str, does: str, *tests: str, how: str) -> None:
        self.rows.append(Row(name, does, State.DIFFERS, tests, how))

    def missing(self, name: str, does: str, *tests: str, why: str) -> None:
        """``tests``: of the error that says so."""
        self.rows.append(Row(name, does, State.MISSING, tests, why))
