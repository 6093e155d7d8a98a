from __future__ import annotations

from shoal_common.kinds import ExitKind
from shoal_raylet.leases.memory_policy import (
    MIN_GROWTH_BYTES,
    NodeMemory,
    ProcessMemory,
    Victim,
    WorkerMemory,
    choose_victim,
    over_limit,
)

FULL = NodeMemory(96, 100)
BIG = 8 * MIN_GROWTH_BYTES


def memory(
    name: bytes, grown: int, *, job: bytes = b"job", since: float = 0, retriable: bool = True, baseline: int = 0
) -> WorkerMemory:
    return WorkerMemory(name, job, baseline + grown, baseline, since, retriable)


def chosen(*workers: WorkerMemory, node: NodeMemory = FULL) -> Victim | None:
    return choose_victim(node, 0.95, workers)


def killed(*workers: WorkerMemory) -> bytes:
    victim = chosen(*workers)
    assert victim is not None and victim.kind is ExitKind.NODE_OUT_OF_MEMORY
    return victim.worker_id


def test_below_the_threshold_nobody_dies() -> None:
    assert chosen(memory(b"a", 1 << 40), node=NodeMemory(95, 100)) is None


def test_the_newest_goes_so_that_the_oldest_gets_through() -> None:
    assert killed(memory(b"a", BIG, since=1), memory(b"b", BIG - 1, since=3), memory(b"c", BIG, since=2)) == b"b"


def test_it_is_of_the_job_that_uses_most_in_all() -> None:
    largest = memory(b"a", BIG + 1, job=b"one", since=9)
    assert killed(largest, memory(b"b", BIG, job=b"two", since=1), memory(b"c", BIG, job=b"two", since=2)) == b"c"


def test_a_small_newcomer_is_not_killed_for_a_large_one() -> None:
    assert killed(memory(b"a", BIG, since=1), memory(b"b", BIG // 2 - 1, since=2)) == b"a"


def test_what_it_had_before_it_began_does_not_count() -> None:
    assert killed(memory(b"a", BIG, baseline=0), memory(b"b", MIN_GROWTH_BYTES, baseline=1 << 40, since=1)) == b"a"


def test_what_cannot_run_again_goes_last() -> None:
    actor = memory(b"actor", 9 * BIG, retriable=False, since=9)
    assert killed(actor, memory(b"task", MIN_GROWTH_BYTES)) == b"task"
    assert killed(actor) == b"actor"


def test_the_innocent_are_not_killed_for_others() -> None:
    assert chosen(memory(b"a", MIN_GROWTH_BYTES - 1)) is None


def test_whether_others_are_to_blame_too() -> None:
    alone, shared = chosen(memory(b"a", BIG)), chosen(memory(b"a", BIG), memory(b"b", BIG, retriable=False))
    assert alone is not None and shared is not None
    assert (alone.shared_blame, shared.shared_blame) == (False, True)


def test_the_reason_names_the_node_the_job_and_the_largest() -> None:
    workers = [memory(b"a", 1 << 30), memory(b"b", 1 << 30, since=1)]
    victim = choose_victim(FULL, 0.95, workers, [ProcessMemory(7, "shoal::hog", 3 << 30)])
    assert victim is not None
    for part in (
        "96% used",
        "threshold 95%",
        b"job".hex(),
        "2.00 GiB in 2 workers",
        "1.00 GiB",
        "shoal::hog (pid 7) 3",
    ):
        assert part in victim.detail


def test_a_limit_is_on_what_a_worker_has_grown_and_binds_nobody_else() -> None:
    def limited(name: bytes, used: int, limit: int) -> WorkerMemory:
        return WorkerMemory(name, b"job", used, 1 << 30, 0, True, limit)

    workers = [limited(b"a", 3 << 30, 1 << 30), limited(b"b", 2 << 30, 1 << 30), limited(b"c", 9 << 30, 0)]
    (victim,) = over_limit(workers)
    assert victim.worker_id == b"a" and victim.kind is ExitKind.MEMORY_LIMIT
    assert "used 2.00 GiB" in victim.detail and "asked for 1.00 GiB" in victim.detail
