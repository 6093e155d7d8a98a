"""The rows of the comparison: which program, against what, and the ratio that Shoal must reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import machine
import programs
from programs import Library, Step


@dataclass(frozen=True)
class Row:
    title: str
    unit: str
    program: Callable[[Library], Step]
    #: How many times Ray's figure Shoal's must be at least.
    times_ray: float
    #: What else is measured in the same rounds, by name.
    yardsticks: dict[str, Callable[[], Step]] = field(default_factory=dict)
    #: The share of a yardstick, by its name, that must be reached as well.
    shares: dict[str, float] = field(default_factory=dict)
    #: Of the two libraries' ``init()``, where the row needs more than the defaults.
    init: dict[str, Any] = field(default_factory=dict)
    #: Measurements; None: as many as the others.
    rounds: int | None = None
    #: Before the first measurement: at least so many steps, for at least so many seconds.
    warm_up_steps: int = 3
    warm_up_s: float = 0.7

    @property
    def key(self) -> str:
        """By which its figures are found, and participants told of it."""
        return self.title


ROWS = (
    Row(
        "one task at a time", "tasks/s", programs.one_task_at_a_time, 10,
        {"Pool": machine.pool_one_at_a_time, "pipe": machine.pipe_ping_pong},
    ),
    Row("1,000 tasks at once", "tasks/s", programs.thousand_tasks_at_once, 10, {"Pool": machine.pool_thousand_at_once}),
    Row("nested: tasks that submit 100 tasks each", "tasks/s", programs.nested_tasks, 8),
    Row("one actor call at a time", "calls/s", programs.one_actor_call_at_a_time, 6, {"pipe": machine.pipe_ping_pong}),
    Row("1,000 actor calls at once", "calls/s", programs.thousand_actor_calls_at_once, 10),
    Row("2 actors calling 2 actors", "calls/s", programs.two_actors_call_two_actors, 8),
    Row("async actor, 1,000 calls at once", "calls/s", programs.thousand_async_actor_calls_at_once, 8),
    Row("small put", "puts/s", programs.small_put, 40),
    Row("small get", "gets/s", programs.small_get, 40),
    Row(
        "put of 256 MiB arrays", "GB/s", programs.put_big_arrays, 4,
        {"memcpy": machine.copy_into_faulted_pages}, shares={"memcpy": 0.6},
    ),
    Row("a task on a 1 MiB array in the store", "tasks/s", programs.task_on_stored_array, 8),
    Row("get of a 1 MiB array", "gets/s", programs.get_stored_array, 20),
    Row("1,000 tasks taken one by one with wait", "rounds/s", programs.wait_one_by_one, 12),
    Row("an object holding 1,000 refs, put and get", "objects/s", programs.object_holding_refs, 5),
    Row("actors created, called and killed", "actors/s", programs.actor_lives, 10),
)  # fmt: skip


@dataclass(frozen=True)
class StartUp:
    """A time that is measured once in each fresh process."""

    key: str
    title: str
    limit_s: float


START_UP = (
    StartUp("import", "import", 0.15),
    StartUp("init", "init()", 0.8),
    StartUp("first_task", "first task after init()", 0.2),
)
