from __future__ import annotations

import json

import pytest

from shoal_common.logs.lines import LineSelection, Wanted
from shoal_common.logs.origins import Origin, mark

JOB, TASK, OTHER, ACTOR = "01000000", "01000000" + "aa" * 16, "01000000" + "bb" * 16, "cc" * 12 + "01000000"
FILE = "\n".join(
    [
        "before",
        mark(Origin(TASK, 0, "", "f")),
        "first",
        mark(Origin(OTHER, 0, "", "g")),
        "other",
        mark(Origin(TASK, 1, "", "f")),
        "second",
        mark(Origin(OTHER, 0, ACTOR, "A.m")),
        "of the actor",
        "no end",
    ]
).encode()


def selected(wanted: Wanted, fields: dict[str, str] | None = None, piece: int = 7) -> bytes:
    selection = LineSelection(wanted, fields)
    lines = [line for at in range(0, len(FILE), piece) for line in selection.feed(FILE[at : at + piece])]
    return b"".join(lines + selection.end())


@pytest.mark.parametrize(
    "wanted, lines",
    [
        (Wanted(), ["before", "first", "other", "second", "of the actor", "no end"]),
        (Wanted(task_id=TASK), ["first", "second"]),
        (Wanted(task_id=TASK, attempt=1), ["second"]),
        (Wanted(actor_id=ACTOR), ["of the actor", "no end"]),
        (Wanted(task_id=OTHER, actor_id=ACTOR), ["of the actor", "no end"]),
        (Wanted(task_id="dd" * 20), []),
    ],
)
@pytest.mark.parametrize("piece", [1, 7, 10_000])
def test_lines_are_those_of_whom_was_asked_for(wanted: Wanted, lines: list[str], piece: int) -> None:
    assert selected(wanted, piece=piece).decode().splitlines() == lines


def test_a_line_as_json_says_whose_it_is() -> None:
    lines = [json.loads(line) for line in selected(Wanted(), {"node_id": "ee"}).splitlines()]
    assert lines[0] == {"line": "before", "attempt": 0, "node_id": "ee"}
    assert lines[1] == {
        "line": "first",
        "job_id": JOB,
        "task_id": TASK,
        "attempt": 0,
        "name": "f",
        "node_id": "ee",
    }
    assert lines[-1]["actor_id"] == ACTOR and lines[-1]["job_id"] == JOB


def test_a_mark_that_a_program_has_made_up_breaks_nothing() -> None:
    selection = LineSelection(Wanted(), {})
    (line,) = selection.feed(b"\x01shoal-name:xx:0:yy:z\ntext\n")
    assert json.loads(line) == {"line": "text", "task_id": "xx", "attempt": 0, "actor_id": "yy", "name": "z"}
