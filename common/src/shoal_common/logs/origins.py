"""Whose lines follow in what a worker prints: told by a line of its own before the first line after a change.

The worker writes it, and the raylet leaves it in the log file: so a line's task is found in the file alone, also when
the node is gone and its files are all that is left. Tasks that print nothing cost nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

#: No text of a user's begins so.
MARK = "\x01shoal-name:"
_FIELDS = 4


@dataclass(frozen=True, slots=True)
class Origin:
    """Ids in hexadecimal; empty = none, as for what a thread prints that no task has."""

    task_id: str = ""
    attempt: int = 0
    actor_id: str = ""
    #: Of the function or the actor, as shown before its lines.
    name: str = ""


def mark(origin: Origin) -> str:
    """The line, without its newline."""
    return f"{MARK}{origin.task_id}:{origin.attempt}:{origin.actor_id}:{origin.name}"


def origin_of(text: str) -> Origin:
    """Of what follows ``MARK``. Whoever prints such a line himself is only told to be somebody else."""
    fields = text.split(":", _FIELDS - 1)
    if len(fields) < _FIELDS or not fields[1].isdecimal():
        return Origin(name=text)
    task_id, attempt, actor_id, name = fields
    return Origin(task_id, int(attempt), actor_id, name)
