from __future__ import annotations

from shoal_raylet.leases.memory_policy import MIN_GROWTH_BYTES, NodeMemory, WorkerMemory, choose_victim


def memory(name: bytes, grown: int, retriable: bool = True, baseline: int = 0) -> WorkerMemory:
    return WorkerMemory(name, "f", baseline + grown, baseline, retriable)


def test_below_the_threshold_nobody_dies() -> None:
    assert choose_victim(NodeMemory(95, 100), 0.95, [memory(b"a", 1 << 40)]) is None


def test_the_one_that_grew_most_goes_not_the_largest() -> None:
    workers = [memory(b"a", 2 * MIN_GROWTH_BYTES, baseline=1 << 40), memory(b"b", 3 * MIN_GROWTH_BYTES)]
    victim = choose_victim(NodeMemory(96, 100), 0.95, workers)
    assert victim is not None and victim.worker_id == b"b"
    assert "96% used" in victim.detail and "threshold 95%" in victim.detail


def test_tasks_go_before_actors() -> None:
    workers = [memory(b"actor", 9 * MIN_GROWTH_BYTES, retriable=False), memory(b"task", MIN_GROWTH_BYTES)]
    victim = choose_victim(NodeMemory(96, 100), 0.95, workers)
    assert victim is not None and victim.worker_id == b"task"
    victim = choose_victim(NodeMemory(96, 100), 0.95, workers[:1])
    assert victim is not None and victim.worker_id == b"actor"


def test_the_innocent_are_not_killed_for_others() -> None:
    assert choose_victim(NodeMemory(99, 100), 0.95, [memory(b"a", MIN_GROWTH_BYTES - 1)]) is None
