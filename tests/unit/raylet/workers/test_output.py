from __future__ import annotations

from pathlib import Path

from shoal_raylet.leases.worker_pool import WorkerPool
from shoal_raylet.workers.output import Batch, WorkerOutput

JOB, OTHER, NODE = b"job1", b"job2", b"n" * 16


async def test_what_the_raylet_tells_drivers_goes_the_way_of_workers_lines(tmp_path: Path) -> None:
    published: list[Batch] = []

    async def publish(batch: Batch) -> None:
        published.append(batch)

    output = WorkerOutput(tmp_path, WorkerPool(1, 0, 1.0, lambda: b"w"), publish)
    for job_id, line in ((JOB, "one"), (JOB, "two"), (OTHER, "one")):
        output.tell(job_id, NODE, line)
    await output.flush()
    assert [(batch.source.job_id, batch.lines) for batch in published] == [(JOB, ["one", "two"]), (OTHER, ["one"])]
    assert all(batch.is_stderr and batch.source.name == "raylet" for batch in published)
