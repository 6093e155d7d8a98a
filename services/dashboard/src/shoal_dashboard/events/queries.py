"""Questions about attempts as SQL: filters, orders, cursors. Values are always parameters. Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

from shoal_common.events.task_events import TaskKind, TaskState
from shoal_dashboard.events.rows import MAX_LIMIT, Filter, QueryError, Sort

Condition = tuple[str, list[Any]]
_Kind = Literal["id", "number", "text", "state", "type"]

_STATE_TIMES = ", ".join(f"at_{state.name.lower()}" for state in TaskState)
_STARTED, _ENDED = "at_running", "greatest(at_finished, at_failed)"
#: Column of a row -> what it is, and what it is in the table.
_EXPRESSIONS: dict[str, tuple[_Kind, str]] = {
    "task_id": ("id", "task_id"),
    "attempt_number": ("number", "attempt"),
    "name": ("text", "name"),
    "state": ("state", "state"),
    "job_id": ("id", "job_id"),
    "actor_id": ("id", "actor_id"),
    "type": ("type", "kind"),
    "func_or_class_name": ("text", "function"),
    "parent_task_id": ("id", "parent"),
    "node_id": ("id", "node_id"),
    "worker_id": ("id", "worker_id"),
    "worker_pid": ("number", "pid"),
    "error_type": ("text", "error_type"),
    "error_class": ("text", "error_class"),
    "error_message": ("text", "error"),
    "creation_time_ms": ("number", "submitted_ms"),
    "state_time_ms": ("number", f"greatest(submitted_ms, {_STATE_TIMES})"),
    "start_time_ms": ("number", _STARTED),
    "end_time_ms": ("number", _ENDED),
}
_encode = msgspec.json.Encoder().encode


class _Cursor(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    column: str
    descending: bool
    #: Of the last row of the page: what it is sorted by (ids in hexadecimal), its task and attempt.
    value: str | int
    task_id: str
    attempt: int


_decode = msgspec.json.Decoder(_Cursor).decode


def where(filters: Sequence[Filter]) -> Condition:
    """For a WHERE clause: all of them. Raises: QueryError."""
    conditions, parameters = ["TRUE"], []
    for each in filters:
        condition, values = _condition(each)
        conditions.append(condition)
        parameters += values
    return " AND ".join(conditions), parameters


def order(sort: Sort) -> str:
    """For an ORDER BY clause, without two rows of the same place."""
    direction = "DESC" if sort.descending else "ASC"
    expression = _EXPRESSIONS[sort.column][1]
    return f"{expression} {direction}, task_id {direction}, attempt {direction}"


def sorted_by(sort: Sort) -> str:
    return _EXPRESSIONS[sort.column][1]


def after(cursor: str, sort: Sort) -> Condition:
    """What comes behind it in this order. Raises: QueryError."""
    if not cursor:
        return "TRUE", []
    try:
        last = _decode(base64.urlsafe_b64decode(cursor.encode()))
        task_id = bytes.fromhex(last.task_id)
        kind, expression = _EXPRESSIONS[sort.column]
        value = bytes.fromhex(str(last.value)) if kind == "id" else last.value
    except (ValueError, binascii.Error, msgspec.MsgspecError, UnicodeError) as error:
        raise QueryError(f"{cursor[:100]!r} is not a cursor: take next_cursor of the page before.") from error
    if (last.column, last.descending) != (sort.column, sort.descending):
        raise QueryError("The cursor is of a query with another order: begin again without one.")
    comparison = "<" if sort.descending else ">"
    return (
        f"({expression} {comparison} ? OR ({expression} = ? AND (task_id {comparison} ? OR "
        f"(task_id = ? AND attempt {comparison} ?))))",
        [value, value, task_id, task_id, last.attempt],
    )


def cursor(sort: Sort, value: Any, task_id: bytes, attempt: int) -> str:
    """Behind this row."""
    shown = value.hex() if isinstance(value, bytes | bytearray | memoryview) else value
    last = _Cursor(sort.column, sort.descending, shown, task_id.hex(), attempt)
    return base64.urlsafe_b64encode(_encode(last)).decode()


def check_limit(limit: int) -> None:
    """Raises: QueryError."""
    if not 0 < limit <= MAX_LIMIT:
        raise QueryError(f"The limit must be from 1 to {MAX_LIMIT}, not {limit}.")


def id_of(text: str) -> bytes:
    """Raises: QueryError."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise QueryError(f"{text[:100]!r} is not an id: it must be hexadecimal.") from None


def _condition(given: Filter) -> Condition:
    kind, expression = _EXPRESSIONS[given.column]
    operator = "<>" if given.operator == "!=" else given.operator
    if kind == "state":
        return _named(given, expression, TaskState)
    if kind == "type":
        return _named(given, expression, TaskKind)
    if operator == "contains":
        if kind == "id":
            return f"contains(lower(hex({expression})), ?)", [given.value.lower()]
        return f"contains(lower(CAST({expression} AS VARCHAR)), ?)", [given.value.lower()]
    parse: dict[_Kind, Callable[[str], Any]] = {"id": id_of, "number": _number, "text": str}
    return f"{expression} {operator} ?", [parse[kind](given.value)]


def _named(given: Filter, expression: str, names: type[TaskState] | type[TaskKind]) -> Condition:
    """Of an enumeration: by its order, or by what the names contain."""
    wanted = given.value.upper()
    if given.operator == "contains":
        values = [int(each) for each in names if wanted in each.name]
        return f"list_contains(?, CAST({expression} AS INTEGER))", [values]
    if wanted not in names.__members__:
        raise QueryError(f"There is no {given.column} {given.value!r}; there are {', '.join(names.__members__)}.")
    operator = "<>" if given.operator == "!=" else given.operator
    return f"{expression} {operator} ?", [int(names[wanted])]


def _number(text: str) -> int | float:
    """Raises: QueryError."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        value = float(text)
    except ValueError:
        raise QueryError(f"{text[:100]!r} is not a number.") from None
    if value != value or abs(value) == float("inf"):
        raise QueryError(f"{text[:100]!r} is not a number that is compared.")
    return value
