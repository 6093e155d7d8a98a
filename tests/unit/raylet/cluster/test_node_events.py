"""What a node tells of its tasks and workers: counts add up over the ends of processes, and what is kept is bounded."""

from __future__ import annotations

import random

import pytest

from shoal_common.channel.frames import TaskReport, WorkerAddress
from shoal_common.events.node_events import ClusterEvent, NodeReport, ProcessInfo, decode_report
from shoal_common.events.task_events import FunctionTally, TaskKind
from shoal_raylet.cluster import node_events
from shoal_raylet.cluster.node_events import NodeEvents
from shoal_raylet.leases.worker_pool import Worker, WorkerState

NODE, JOB = b"n" * 16, b"job1"


def tally(function: str = "f", submitted: int = 0, finished: int = 0, failed: int = 0) -> FunctionTally:
    return FunctionTally(JOB, function, TaskKind.NORMAL_TASK, submitted, finished, failed, run_us=finished)


def report(*tallies: FunctionTally, events: bytes = b"", unnamed: int = 0, lost: int = 0) -> TaskReport:
    return TaskReport(list(tallies), events, len(events), unnamed, lost)


@pytest.fixture
def node() -> NodeEvents:
    return NodeEvents(NODE, 7)


def new(node: NodeEvents) -> list[NodeReport]:
    """Reports of what has happened since the last time."""
    first = node.newest + 1
    node.report(1_000)
    node.validate()
    kept = [node.get(number) for number in range(first, node.newest + 1)]
    return [decode_report(each) for each in kept if each is not None]


def counts(told: NodeReport) -> dict[str, tuple[int, int, int]]:
    return {each.function: (each.submitted, each.finished, each.failed) for each in told.tallies}


def test_counts_are_those_of_all_processes_those_that_have_ended_too(node: NodeEvents) -> None:
    node.reported(b"a", report(tally(submitted=5, finished=5)))
    node.reported(b"b", report(tally(submitted=3, finished=1), tally("g", submitted=1)))
    (told,) = new(node)
    assert counts(told) == {"f": (8, 6, 0), "g": (1, 0, 0)}
    node.reported(b"b", report(tally(submitted=4, finished=4)))
    node.ended(b"a", 2_000)
    node.reported(b"c", report(tally(submitted=1, finished=1)))
    (told,) = new(node)
    assert counts(told) == {"f": (10, 10, 0)}, "g has not changed"


def test_what_an_ended_process_had_not_seen_end_has_failed(node: NodeEvents) -> None:
    waiting = tally(submitted=5, finished=3)
    waiting.alive = [1, 0, 0, 1]
    node.reported(b"a", report(waiting))
    node.ended(b"a", 2_000)
    (told,) = new(node)
    assert counts(told) == {"f": (5, 3, 2)}
    assert told.tallies[0].alive == [0, 0, 0, 0]


def test_nothing_new_is_no_report(node: NodeEvents) -> None:
    assert new(node) == []
    node.reported(b"a", report(unnamed=3, lost=1))
    (told,) = new(node)
    assert (told.unnamed, told.lost, told.number, told.oldest, told.incarnation) == (3, 1, 1, 1, 7)
    assert new(node) == []


def test_workers_come_and_go_with_the_reason(node: NodeEvents) -> None:
    worker = ProcessInfo(b"w", 12, JOB, b"", 500)
    node.started(worker)
    assert new(node)[0].workers == [worker]
    node.ended(b"w", 2_000, "SYSTEM_ERROR", "killed by SIGKILL")
    (gone,) = new(node)[0].workers
    assert (gone.ended_ms, gone.exit_kind, gone.exit_detail) == (2_000, "SYSTEM_ERROR", "killed by SIGKILL")


def test_who_begins_to_listen_is_told_all_counts_and_living_workers(node: NodeEvents) -> None:
    node.reported(b"a", report(tally(submitted=1), tally("g", submitted=2)))
    node.started(ProcessInfo(b"w", 12, JOB, b"", 500))
    node.started(ProcessInfo(b"v", 13, JOB, b"", 500))
    new(node)
    node.ended(b"v", 600)
    new(node)
    node.tell_all()
    (told,) = new(node)
    assert counts(told).keys() == {"f", "g"}
    assert [worker.worker_id for worker in told.workers] == [b"w"]


def test_a_large_amount_is_several_reports_in_order(node: NodeEvents) -> None:
    blobs = [bytes([number]) * (node_events.MAX_REPORT_BYTES // 3) for number in range(10)]
    for blob in blobs:
        node.reported(b"a", report(events=blob))
    told = new(node)
    assert [each.number for each in told] == list(range(1, len(told) + 1))
    assert [part.events for each in told for part in each.events] == blobs
    assert all(sum(len(part.events) for part in each.events) <= node_events.MAX_REPORT_BYTES for each in told)


def test_the_oldest_go_when_too_much_is_kept(node: NodeEvents) -> None:
    blob = bytes(node_events.MAX_REPORT_BYTES)
    for _ in range(60):
        node.reported(b"a", report(events=blob))
        new(node)
    assert node.oldest > 1
    assert node.get(node.oldest - 1) is None
    assert node.get(node.oldest) is not None


def test_functions_and_events_are_bounded(node: NodeEvents, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_events, "MAX_FUNCTIONS", 10)
    monkeypatch.setattr(node_events, "MAX_CLUSTER_EVENTS", 5)
    for number in range(50):
        node.reported(b"a", report(tally(f"f{number}", submitted=1)))
        node.happened(ClusterEvent(number, "WORKER_DIED", "ERROR", "RAYLET", "", {}))
    (told,) = new(node)
    assert counts(told).keys() == {f"f{number}" for number in range(40, 50)}
    assert [event.at_ms for event in told.cluster] == list(range(45, 50))
    assert told.lost == 45


@pytest.mark.parametrize("seed", range(3))
def test_totals_are_exact_whatever_comes_and_goes(node: NodeEvents, seed: int) -> None:
    rng = random.Random(seed)
    living: dict[bytes, FunctionTally] = {}
    done = {"submitted": 0, "ended": 0}
    seen: dict[str, FunctionTally] = {}
    for number in range(500):
        if rng.random() < 0.1 or not living:
            living[number.to_bytes(4, "big")] = tally()
        process = rng.choice(list(living))
        mine = living[process]
        more, fewer = rng.randrange(5), rng.randrange(mine.unended + 1)
        mine.submitted += more
        mine.finished += fewer
        node.reported(process, report(FunctionTally(JOB, "f", 0, mine.submitted, mine.finished)))
        if rng.random() < 0.08:
            done["submitted"] += mine.submitted
            done["ended"] += mine.submitted
            del living[process]
            node.ended(process, number)
        if rng.random() < 0.3:
            for each in new(node):
                seen.update({told.function: told for told in each.tallies})
    for each in new(node):
        seen.update({told.function: told for told in each.tallies})
    assert seen["f"].submitted == done["submitted"] + sum(each.submitted for each in living.values())
    ended = done["ended"] + sum(each.finished for each in living.values())
    assert seen["f"].finished + seen["f"].failed == ended


def test_workers_are_told_of_when_they_have_come_and_when_they_work_for_another(node: NodeEvents) -> None:
    worker = Worker(b"w", WorkerState.IDLE, since=0.0, pid=5)
    node.note([worker], 1_000)
    assert not new(node), "nobody reaches it yet"
    worker.address = WorkerAddress(NODE, b"w", "path")
    node.note([worker], 2_000)
    node.note([worker], 3_000)
    (told,) = new(node)
    assert [(each.pid, each.job_id, each.started_ms) for each in told.workers] == [(5, b"", 2_000)]
    worker.job_id = JOB
    node.note([worker], 4_000)
    (told,) = new(node)
    assert [(each.pid, each.job_id, each.started_ms) for each in told.workers] == [(5, JOB, 2_000)]
