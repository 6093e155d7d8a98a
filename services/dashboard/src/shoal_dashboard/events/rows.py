"""What is told of tasks: rows, one an attempt, the filters and pages by which they are asked for, and their counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

#: States of an attempt, in the order in which it goes through them. The names are Ray's.
PENDING_ARGS_AVAIL: Final = "PENDING_ARGS_AVAIL"
PENDING_NODE_ASSIGNMENT: Final = "PENDING_NODE_ASSIGNMENT"
SUBMITTED_TO_WORKER: Final = "SUBMITTED_TO_WORKER"
RUNNING: Final = "RUNNING"
FINISHED: Final = "FINISHED"
#: Also of what was cancelled, with ``error_type`` TASK_CANCELLED.
FAILED: Final = "FAILED"
STATES: Final = (PENDING_ARGS_AVAIL, PENDING_NODE_ASSIGNMENT, SUBMITTED_TO_WORKER, RUNNING, FINISHED, FAILED)
ENDED: Final = (FINISHED, FAILED)

TaskType = Literal["NORMAL_TASK", "ACTOR_TASK", "ACTOR_CREATION_TASK"]

MAX_LIMIT: Final = 10_000


@dataclass(frozen=True, slots=True)
class TaskRow:
    """One attempt. Ids are hexadecimal, empty where there is none; times are milliseconds since 1970, 0 = not yet."""

    task_id: str
    #: From 0.
    attempt_number: int
    #: What the option ``name`` says, or else the function, or class and method.
    name: str
    state: str
    job_id: str
    actor_id: str
    type: TaskType
    func_or_class_name: str
    #: Empty: a driver has submitted it.
    parent_task_id: str
    node_id: str
    worker_id: str
    worker_pid: int
    #: As Ray names it (TASK_EXECUTION_EXCEPTION, WORKER_DIED, ...); empty = it has not failed.
    error_type: str
    #: The class of the exception, as ``ValueError``.
    error_class: str
    #: First lines of it.
    error_message: str
    #: In units.
    required_resources: dict[str, float]
    creation_time_ms: int
    #: When its state became this one.
    state_time_ms: int
    start_time_ms: int
    end_time_ms: int
    #: When it came to each state that is known, by its name.
    state_times_ms: dict[str, int]


#: By which rows may be filtered and sorted.
COLUMNS: Final = tuple(
    name for name in TaskRow.__dataclass_fields__ if name not in ("required_resources", "state_times_ms")
)

Operator = Literal["=", "!=", "<", "<=", ">", ">=", "contains"]
OPERATORS: Final[tuple[Operator, ...]] = ("=", "!=", "<", "<=", ">", ">=", "contains")


class QueryError(ValueError):
    """A filter, an order or a cursor that makes no sense; the message says which, and what there is."""


@dataclass(frozen=True, slots=True)
class Filter:
    """``value`` as text; numbers and times are parsed. Texts are compared exactly, states in any case.

    Raises: QueryError.
    """

    column: str
    operator: Operator
    value: str

    def __post_init__(self) -> None:
        if self.column not in COLUMNS:
            raise QueryError(f"Tasks have no column {self.column!r}; they have {', '.join(COLUMNS)}.")
        if self.operator not in OPERATORS:
            raise QueryError(f"There is no operator {self.operator!r}; there are {', '.join(OPERATORS)}.")


@dataclass(frozen=True, slots=True)
class Sort:
    """Raises: QueryError."""

    column: str = "creation_time_ms"
    descending: bool = True

    def __post_init__(self) -> None:
        if self.column not in COLUMNS:
            raise QueryError(f"Tasks cannot be sorted by {self.column!r}; they can by {', '.join(COLUMNS)}.")


NEWEST_FIRST: Final = Sort()


@dataclass(frozen=True, slots=True)
class Page:
    rows: list[TaskRow]
    #: Give it to the next query; empty = this is the last page.
    next_cursor: str
    #: Rows that meet the filters, on all pages.
    total: int
    #: Rows in the store.
    recorded: int
    #: Of the archive, what these numbers do not count, for humans; empty = nothing.
    uncounted: str = ""
    #: Of the archive, what should have been looked at and was not, and why, for humans; empty = nothing.
    unseen: str = ""


@dataclass(frozen=True, slots=True)
class FunctionCounts:
    """Of one function, method or class in one job: exact, also for tasks that have no row."""

    job_id: str
    func_or_class_name: str
    type: TaskType
    #: By state; those of PENDING_* and RUNNING as of the last look of the owner, at most a few seconds ago.
    states: dict[str, int]
    #: Of FAILED.
    cancelled: int
    #: Attempts that were followed by another one.
    retried: int
    #: Of those that have ended.
    total_run_ms: float
    min_run_ms: float
    max_run_ms: float

    @property
    def submitted(self) -> int:
        return sum(self.states.values())


@dataclass(frozen=True, slots=True)
class Calls:
    """The recorded tasks of ``function`` that such of ``caller`` have submitted ("" = a driver, or a task without a
    row)."""

    caller: str
    function: str
    #: By state.
    states: dict[str, int]
    #: Of those that have ended, together, and the longest one.
    run_ms: float = 0.0
    longest_ms: float = 0.0

    @property
    def count(self) -> int:
        return sum(self.states.values())


@dataclass(frozen=True, slots=True)
class LineageNode:
    """All tasks of one function that were submitted by tasks of one other (or by the driver), and what they submit."""

    func_or_class_name: str
    type: TaskType
    states: dict[str, int]
    children: list[LineageNode] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Summary:
    functions: list[FunctionCounts]
    #: Roots: what drivers have submitted. Only of tasks that have rows; empty unless it was asked for.
    lineage: list[LineageNode]
    #: Tasks that were counted and have no row: shorter than a second, and more than were to be kept singly.
    without_row: int
    #: Rows that were lost on the way, as far as they were counted; their outcomes are in ``functions``.
    lost: int


@dataclass(frozen=True, slots=True)
class ErrorGroup:
    """Failures of one function with one class of error and one first line."""

    func_or_class_name: str
    error_type: str
    error_class: str
    first_line: str
    count: int
    first_ms: int
    last_ms: int
    #: The newest of them.
    task_id: str
