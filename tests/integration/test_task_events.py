"""What processes and nodes tell of tasks, as whoever listens gets it: on a cluster of two nodes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.clusters import ProcessCluster
from support.processes import PATIENCE_S, eventually

import shoal
from shoal_common.bus.gcs import GcsBus
from shoal_common.events.node_events import NodeReport, ProcessInfo
from shoal_common.events.task_events import FunctionTally, TaskEvent, TaskState, decode_events
from shoal_common.rpc.client import aio_channel, sync_channel
from shoal_dashboard.events.receiver import Receiver
from shoal_dashboard.events.seen import Seen
from shoal_proto.v1 import gcs_pb2, gcs_pb2_grpc


class Listener:
    """Keeps what it hears, in a thread of its own."""

    def __init__(self, address: str, token: str, cluster_id: str) -> None:
        self._address, self._token, self._cluster_id = address, token, cluster_id
        self.seen = Seen()
        self.events: list[TaskEvent] = []
        self.tallies: dict[tuple[bytes, str], FunctionTally] = {}
        self.workers: dict[bytes, ProcessInfo] = {}
        self._stop = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))
        self._thread.start()

    async def _run(self) -> None:
        async def connect() -> GcsBus:
            channel = aio_channel(self._address, self._token)
            return GcsBus(channel, owns_channel=True, deadline_s=PATIENCE_S)

        receiver = Receiver(connect, self._cluster_id, self.seen, self._take)
        receiver.start()
        await self._stop.wait()
        await receiver.stop()

    async def _take(self, reports: list[NodeReport]) -> None:
        for report in reports:
            for part in report.events:
                self.events += decode_events(part.events)
            for tally in report.tallies:
                self.tallies[report.node_id, tally.function] = tally
            self.workers.update({worker.worker_id: worker for worker in report.workers})

    def count(self, function: str) -> tuple[int, int, int]:
        """Submitted, finished and failed."""
        told = [tally for (_, name), tally in list(self.tallies.items()) if name == function]
        return sum(t.submitted for t in told), sum(t.finished for t in told), sum(t.failed for t in told)

    def of(self, function: str, state: TaskState | None = None) -> list[TaskEvent]:
        return [e for e in list(self.events) if e.function == function and state in (None, e.state)]

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()


@pytest.fixture(scope="module")
def processes() -> Iterator[ProcessCluster]:
    with ProcessCluster() as cluster:
        cluster.add_node(cpus=2, resources={"first": 10})
        cluster.add_node(cpus=2, resources={"second": 10})
        with cluster.connected():
            yield cluster


@pytest.fixture(scope="module")
def listener(processes: ProcessCluster) -> Iterator[Listener]:
    listener = Listener(processes.address, processes.token, processes.cluster_id)
    yield listener
    listener.close()


def heard(listener: Listener, function: str, submitted: int, finished: int, failed: int) -> None:
    expected = submitted, finished, failed
    eventually(lambda: listener.count(function) == expected, f"of {function} is told {expected}")


def test_counts_are_exact_after_many_short_tasks(listener: Listener) -> None:
    @shoal.remote
    def short(number: int) -> int:
        return number

    shoal.get([short.remote(number) for number in range(20_000)])
    heard(listener, "short", 20_000, 20_000, 0)
    assert listener.of("short"), "some are told of singly"


def test_every_failure_is_told_with_its_line(listener: Listener) -> None:
    @shoal.remote(max_retries=0)
    def broken(number: int) -> None:
        raise ValueError(f"no {number}\nand more")

    refs = [broken.remote(number) for number in range(300)]
    for ref in refs:
        with pytest.raises(ValueError, match="no"):
            shoal.get(ref)
    heard(listener, "broken", 300, 0, 300)
    eventually(lambda: len(listener.of("broken", TaskState.FAILED)) == 300, "each has come")
    failures = {event.failure.text for event in listener.of("broken") if event.failure is not None}
    assert {text.splitlines()[0] for text in failures} == {f"no {number}" for number in range(300)}
    assert all("raise ValueError(" in text for text in failures), "the line where it was raised"
    event = listener.of("broken", TaskState.FAILED)[0]
    assert event.failure is not None
    assert (event.failure.type, event.failure.error_class) == ("TASK_EXECUTION_EXCEPTION", "ValueError")


def test_what_runs_long_is_told_while_it_runs_and_by_whom(listener: Listener, tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    @shoal.remote(resources={"second": 1})
    def child(path: str) -> int:
        while not os.path.exists(path):
            threading.Event().wait(0.05)
        return os.getpid()

    @shoal.remote(resources={"first": 1})
    def parent(path: str) -> int:
        return int(shoal.get(child.remote(path)))

    ref = parent.remote(str(gate))
    eventually(
        lambda: _running(listener, "child") and _running(listener, "parent"),
        lambda: f"both are told to run, and not only {listener.of('child')}, {listener.of('parent')}",
    )
    outer, inner = _running(listener, "parent")[0], _running(listener, "child")[0]
    assert inner.pid != outer.pid and inner.node_id != outer.node_id
    gate.touch()
    assert shoal.get(ref) == inner.pid
    eventually(lambda: listener.of("child", TaskState.FINISHED), "its end is told")
    assert {event.parent for event in listener.of("child") if event.parent} == {outer.task_id}
    assert listener.workers[inner.worker_id].pid == inner.pid


def _running(listener: Listener, function: str) -> list[TaskEvent]:
    """As its worker says."""
    return [event for event in listener.of(function, TaskState.RUNNING) if event.pid and event.started_ms]


def test_a_killed_workers_task_has_failed_and_runs_again(listener: Listener, tmp_path: Path) -> None:
    @shoal.remote(max_retries=1)
    def dies_once(path: str) -> str:
        if not os.path.exists(path):
            Path(path).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return "alive"

    @shoal.remote(max_retries=0)
    def dies() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    assert shoal.get(dies_once.remote(str(tmp_path / "died"))) == "alive"
    with pytest.raises(shoal.exceptions.WorkerCrashedError):
        shoal.get(dies.remote())
    heard(listener, "dies_once", 1, 1, 0)
    heard(listener, "dies", 1, 0, 1)
    eventually(lambda: listener.of("dies_once", TaskState.FINISHED), "its end is told")
    failed = listener.of("dies_once", TaskState.FAILED)[0]
    assert failed.attempt == 0 and failed.failure is not None
    assert failed.failure.type == "WORKER_DIED"
    assert [event.attempt for event in listener.of("dies_once", TaskState.FINISHED)] == [1]
    eventually(
        lambda: any("SIGKILL" in each.exit_detail for each in list(listener.workers.values())), "why a worker died"
    )


def test_actors_constructors_and_calls(listener: Listener) -> None:
    @shoal.remote
    class Counter:
        def __init__(self, fails: bool) -> None:
            if fails:
                raise RuntimeError("not made")

        def count(self) -> int:
            return 1

    actor, failed = Counter.remote(False), Counter.remote(True)
    shoal.get([actor.count.remote() for _ in range(50)])
    with pytest.raises(shoal.exceptions.ActorDiedError):
        shoal.get(failed.count.remote())
    heard(listener, "Counter.count", 51, 50, 1)
    heard(listener, "Counter.__init__", 2, 1, 1)
    # What waits or runs for more than a second is told of before, too.
    finished, told_failed = TaskState.FINISHED, TaskState.FAILED
    eventually(
        lambda: len(listener.of("Counter.count", finished)) == 50 and listener.of("Counter.count", told_failed),
        lambda: f"the end of each call has come: {listener.of('Counter.count')}",
    )
    ended = listener.of("Counter.count", finished)
    assert {event.actor_id for event in ended} == {actor._actor_id.binary()}


def test_what_is_told_of_is_an_option(listener: Listener) -> None:
    @shoal.remote(enable_task_events=False)
    def quiet() -> None:
        pass

    @shoal.remote
    def loud() -> None:
        pass

    @shoal.remote(enable_task_events=False)
    class Quiet:
        def call(self) -> None:
            pass

        @shoal.method(enable_task_events=True)
        def loud_call(self) -> None:
            pass

    actor = Quiet.remote()
    shoal.get([quiet.remote(), quiet.options(enable_task_events=True).remote(), loud.remote()])
    shoal.get([actor.call.remote(), actor.loud_call.remote()])
    shoal.get(actor.loud_call.options(enable_task_events=False).remote())
    heard(listener, "loud", 1, 1, 0)
    heard(listener, "quiet", 1, 1, 0)
    heard(listener, "Quiet.loud_call", 1, 1, 0)
    assert listener.count("Quiet.call") == listener.count("Quiet.__init__") == (0, 0, 0)


def test_who_listens_later_hears_what_was_before(processes: ProcessCluster, listener: Listener) -> None:
    @shoal.remote(max_retries=0)
    def earlier() -> None:
        raise KeyError("before")

    with pytest.raises(KeyError):
        shoal.get(earlier.remote())
    heard(listener, "earlier", 1, 0, 1)
    late = Listener(processes.address, processes.token, processes.cluster_id)
    try:
        heard(late, "earlier", 1, 0, 1)
        eventually(lambda: late.of("earlier", TaskState.FAILED), "the failure of then")
        assert late.seen.lost == listener.seen.lost == 0
    finally:
        late.close()


def test_a_job_may_keep_its_tasks_to_itself(processes: ProcessCluster, listener: Listener, drive: Drive) -> None:
    drive(
        """
        import shoal
        shoal.init(job_config=shoal.job_config.JobConfig(enable_task_events=False))
        @shoal.remote
        def inner(): pass
        @shoal.remote
        def secret(): shoal.get(inner.remote())
        shoal.get(secret.remote())
        shoal.shutdown()
        shoal.init()
        @shoal.remote
        def public(): pass
        shoal.get(public.remote())
        """
    )
    heard(listener, "public", 1, 1, 0)
    assert listener.count("secret") == listener.count("inner") == (0, 0, 0)


def test_how_drivers_have_ended_is_known(processes: ProcessCluster) -> None:
    begin = "import os, signal, shoal; shoal.init()"
    endings = {
        "": "",
        "shoal.shutdown(); raise SystemExit(3)": "",
        "raise ValueError('on purpose\\nmore')": "ValueError: on purpose",
        "os.kill(os.getpid(), signal.SIGTERM)": "it was ended by SIGTERM",
        "os.kill(os.getpid(), signal.SIGKILL)": "its process has ended, or was killed, without shoal.shutdown()",
    }
    drivers = [
        subprocess.Popen(
            [sys.executable, "-c", f"{begin}\n{end}"],
            env={**os.environ, **processes.environment},
            stderr=subprocess.DEVNULL,
        )
        for end in endings
    ]
    for driver in drivers:
        driver.wait(PATIENCE_S)
    pids = [driver.pid for driver in drivers]

    def failures() -> list[str] | None:
        with sync_channel(processes.address, processes.token) as channel:
            jobs = gcs_pb2_grpc.JobServiceStub(channel).ListJobs(gcs_pb2.ListJobsRequest(), timeout=PATIENCE_S).jobs
        ended = {job.pid: job.failure for job in jobs if job.end_unix_ms}
        return [ended[pid] for pid in pids] if ended.keys() >= set(pids) else None

    assert eventually(failures, "all have ended") == list(endings.values())


def test_what_a_driver_leaves_behind_has_failed(processes: ProcessCluster, listener: Listener, drive: Drive) -> None:
    drive(
        """
        import shoal, time
        shoal.init()
        @shoal.remote
        def endless(): time.sleep(3600)
        ref = endless.remote()
        shoal.wait([ref], timeout=2.5)
        """
    )
    heard(listener, "endless", 1, 0, 1)


Drive = Callable[[str], Any]


@pytest.fixture
def drive(processes: ProcessCluster) -> Drive:
    """Run a program as a driver of its own."""
    import subprocess
    import sys
    import textwrap

    def run(program: str) -> None:
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)],
            env={**os.environ, **processes.environment},
            check=True,
            timeout=PATIENCE_S,
            capture_output=True,
        )

    return run
