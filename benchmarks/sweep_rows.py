"""The rows of the sweep: sizes and shapes of calls, and the ratio to Ray that each must have."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import machine
import programs
import sweep_programs as sweep
from rows import Row

KB = 1_000
MB = 1_000_000
#: What a row measures is long enough for one step to warm it up.
_warmed = partial(Row, warm_up_steps=1, warm_up_s=0.2)


def _sized(
    title: str, unit: str, program: Callable[[int], sweep.Program], sizes: dict[str, tuple[int, float]]
) -> tuple[Row, ...]:
    """A row a size: how the size is written → bytes, and the ratio required. Beside each: as many copies of as many
    bytes, each into memory that has been used before."""
    return tuple(
        _warmed(
            title.format(name), unit, program(size), times,
            {"memcpy": partial(machine.copies, size, sweep.calls_of(size))},
        )
        for name, (size, times) in sizes.items()
    )  # fmt: skip


def _small(*times: float) -> dict[str, tuple[int, float]]:
    sizes = {"1 kB": KB, "10 kB": 10 * KB, "50 kB": 50 * KB, "90 kB": 90 * KB}
    return dict(zip(sizes, zip(sizes.values(), times, strict=True), strict=True))


def _large(*times: float) -> dict[str, tuple[int, float]]:
    sizes = {"200 kB": 200 * KB, "1 MB": MB, "10 MB": 10 * MB}
    return dict(zip(sizes, zip(sizes.values(), times, strict=True), strict=True))


SWEEP = (
    *_sized("tasks with an argument of {}", "tasks/s", sweep.task_arguments, _small(20, 10, 5, 5)),
    *_sized("tasks returning {}", "tasks/s", sweep.task_returns, _small(20, 10, 5, 5)),
    *_sized("actor calls with an argument of {}", "calls/s", sweep.actor_arguments, _small(15, 8, 4, 4)),
    *_sized("actor calls returning {}", "calls/s", sweep.actor_returns, _small(15, 8, 4, 4)),
    *_sized("tasks with an argument of {}", "tasks/s", sweep.task_arguments, _large(5, 5, 2)),
    *_sized("tasks returning {}", "tasks/s", sweep.task_returns, _large(4, 3, 2)),
    *_sized("actor calls with an argument of {}", "calls/s", sweep.actor_arguments, _large(4, 3, 2)),
    *_sized("actor calls returning {}", "calls/s", sweep.actor_returns, _large(4, 3, 2)),
    _warmed(
        "100 tasks make 8 MiB arrays for 100 others", "arrays/s", sweep.arrays_between_tasks, 3,
        {"memcpy": partial(machine.copies, 8 * programs.MIB, 100)},
    ),
    _warmed("a task with 10,000 refs as arguments", "refs/s", sweep.ten_thousand_ref_arguments, 43),
    _warmed("a task that gets 1,000 refs of a list", "refs/s", sweep.nested_refs, 7),
    _warmed("1,000 tasks, wait one by one", "rounds/s", programs.wait_one_by_one, 9),
    _warmed("1,000 tasks, get one by one", "tasks/s", sweep.get_one_by_one, 69),
    _warmed("5,000 tasks awaited", "tasks/s", sweep.await_many, 23),
    _warmed("a chain of 1,000 tasks", "tasks/s", sweep.chain, 37),
    _warmed("two actors' ping-pong by calls", "rounds/s", sweep.ping_pong_by_calls, 5),
    _warmed("two actors' ping-pong, compiled", "rounds/s", sweep.ping_pong_compiled, 2),
    _warmed("ActorPool.map by 2 actors", "values/s", sweep.actor_pool_map, 5),
    _warmed("Pool.map by 2 processes", "values/s", sweep.pool_map(None), 5),
    _warmed("Pool.map by 2 processes, one by one", "values/s", sweep.pool_map(1), 5),
    _warmed("a tree of 1,024 tasks and their sums", "tasks/s", sweep.tree, 8),
    _warmed("8 threads with one task each at a time", "tasks/s", sweep.eight_threads, 9),
    _warmed(
        "a task called alone", "tasks/s", programs.one_task_at_a_time, 10,
        {"pipe": machine.pipe_ping_pong}, shares={"pipe": 0.6},
    ),
    _warmed(
        "an actor called alone", "calls/s", programs.one_actor_call_at_a_time, 6,
        {"pipe": machine.pipe_ping_pong}, shares={"pipe": 0.6},
    ),
    _warmed("items of a generator, small ones", "items/s", sweep.small_items, 10),
    _warmed(
        "items of a generator, 1 MiB arrays", "items/s", sweep.arrays_as_items, 2,
        {"memcpy": partial(machine.copies, programs.MIB, sweep.calls_of(programs.MIB))},
    ),
    _warmed("100 actors started, called, killed", "actors/s", sweep.hundred_actors, 33, rounds=2, warm_up_steps=0),
    Row(
        "3 GiB put into a store of 2 GiB, and read in order", "GB/s", sweep.more_than_fits, 1.5,
        {"dd": machine.through_the_disk}, shares={"dd": 0.6},
        init={"object_store_memory": sweep.SPILLING_STORE}, rounds=2, warm_up_steps=0, warm_up_s=0,
    ),
)  # fmt: skip
