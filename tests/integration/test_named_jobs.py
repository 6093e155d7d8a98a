"""Jobs with a name: what a driver leaves is there for the next one; keyed calls; results known by their content."""

from __future__ import annotations

import contextlib
import textwrap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.clusters import MIB, ProcessCluster
from support.drivers import Driver
from support.outside import Outside, start_gateway
from support.processes import PATIENCE_S, eventually

import shoal
from shoal._session import named_job
from shoal.exceptions import JobInUseError, NamedObjectError, TaskError
from shoal.util import kv


@pytest.fixture(scope="module")
def outside() -> Iterator[Outside]:
    """Two nodes, one of them a gateway, whose sessions end two seconds after their connection."""
    with ProcessCluster(gcs={"max_named_bytes": 16 * MIB}) as cluster:
        yield start_gateway(cluster, 2.0)


@pytest.fixture
def cluster(outside: Outside) -> ProcessCluster:
    return outside.cluster


class Left(Exception):
    """A driver breaks off."""


@contextlib.contextmanager
def leaving(cluster: ProcessCluster, job: str, **arguments: Any) -> Iterator[None]:
    """This process is the job's driver, and then it is away."""
    with contextlib.suppress(Left), cluster.connected(job=job, **arguments):
        yield
        raise Left


NIGHTLY = textwrap.dedent("""
    context = ray.init(job="nightly", attach=True, logging_level="ERROR", log_to_driver=False)

    @ray.remote(num_cpus=0)
    class Runs:
        def __init__(self):
            self.runs = {}
        def add(self, number):
            self.runs[number] = self.runs.get(number, 0) + 1
        def all(self):
            return list(self.runs.items())

    runs = Runs.options(name="runs", get_if_exists=True).remote()

    @ray.remote
    def work(number):
        ray.get(ray.get_actor("runs").add.remote(number))
        return number * number

    refs = [work.options(key=f"square {number}").remote(number) for number in range(20)]
""")


def test_a_driver_is_killed_half_way_and_another_finishes(outside: Outside) -> None:
    cluster = outside.cluster
    half = """
        ray.put({"begun": 1}, name="notes")
        while refs:
            [ready], refs = ray.wait(refs)
            report(attached=context.attached, value=ray.get(ready))
            command()
    """
    seen = []
    with Driver(NIGHTLY + textwrap.dedent(half), env=cluster.environment) as first:
        for _ in range(8):
            told = first.report()
            assert not told["attached"]
            seen.append(told["value"])
            first.tell("on")
        first.process.kill()
    cluster.gcs.kill()
    cluster.start_the_gcs()
    rest = """
        values = ray.get(refs)
        notes = ray.get(ray.get_object("notes"))
        names = ray.util.list_named_objects()
        runs = ray.get(ray.get_actor("runs").all.remote())
        report(attached=context.attached, values=values, notes=notes, names=len(names), runs=runs)
        ray.shutdown()
    """
    with outside.client(NIGHTLY + textwrap.dedent(rest)) as second:
        told = second.report()
        assert second.wait() == 0, second.text
    assert told["attached"]
    assert told["values"] == [number * number for number in range(20)]
    assert (told["notes"], told["names"]) == ({"begun": 1}, 21)
    runs = dict(told["runs"])
    assert runs.keys() == set(range(20))
    assert all(runs[number] == 1 for number in range(20) if number * number in seen), "what was seen ran once"
    assert max(runs.values()) <= 2, "what was under way ran again"
    with cluster.connected(job="nightly"):  # shutdown() has ended it: nothing is kept
        assert shoal.util.list_named_objects() == []
        with pytest.raises(ValueError, match="Failed to look up actor"):
            shoal.get_actor("runs")


def test_one_driver_at_a_time(cluster: ProcessCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(named_job, "_GONE_WITHIN_S", 0.5)  # this one does not go
    code = """
        ray.init(job="held", namespace="space", logging_level="ERROR")
        report(pid=os.getpid())
        command()
    """
    with Driver(code, env=cluster.environment) as driver:
        pid = driver.report()["pid"]
        for attach in (False, True):
            with (
                pytest.raises(
                    JobInUseError, match=rf"The job 'held' of namespace 'space' has a driver, process {pid} on"
                ),
                cluster.connected(job="held", namespace="space", attach=attach),
            ):
                pass
        with cluster.connected(job="held"):
            assert shoal.get_runtime_context().namespace == "held", "another namespace, another job"


def test_a_killed_client_of_a_gateway(outside: Outside) -> None:
    code = """
        ray.init(job="laptop", logging_level="ERROR")
        ray.put(b"x" * 9_000_000, name="large")
        report()
        command()
    """
    with outside.client(code) as client:
        client.report()
        client.process.kill()

    def attached() -> bool:
        with contextlib.suppress(JobInUseError), outside.cluster.connected(job="laptop", attach=True):
            return bool(shoal.get(shoal.get_object("large")) == b"x" * 9_000_000)
        return False

    eventually(attached, "the session is over, and the job free")


def test_its_time_is_up(cluster: ProcessCluster) -> None:
    @shoal.remote(num_cpus=0)
    class Kept:
        def ping(self) -> str:
            return "pong"

    with leaving(cluster, "short", keep_s=0.5):
        for lifetime, name in ((None, "kept"), ("detached", "for ever"), ("non_detached", "with its driver")):
            actor = Kept.options(name=name, lifetime=lifetime).remote()
            assert shoal.get(actor.ping.remote()) == "pong"
        shoal.put(1, name="with the job")
        shoal.put(2, name="a minute", ttl_s=600)

    def over() -> bool:
        with contextlib.suppress(JobInUseError), cluster.connected(job="short"):
            assert shoal.util.list_named_objects() == ["a minute"]
            assert shoal.get(shoal.get_object("a minute")) == 2
            with pytest.raises(ValueError, match="There is no object named 'with the job' in the job 'short'"):
                shoal.get_object("with the job")
            assert shoal.util.list_named_actors() == ["for ever"]
            shoal.kill(shoal.get_actor("for ever"))
            return True
        return False

    eventually(over, "the time of the job is up")
    eventually(lambda: len(cluster.blobs("named/")) == 1, "blobs without a name are deleted")


def test_what_is_kept_is_not_begun_anew_by_mistake(cluster: ProcessCluster) -> None:
    with leaving(cluster, "precious"):
        shoal.put("the work of a night", name="result")
    with pytest.raises(JobInUseError, match=r"is kept for a driver .*: init\(attach=True\) goes on with it"):
        with cluster.connected(job="precious"):
            pass
    with cluster.connected(job="precious", attach=True):
        assert shoal.get(shoal.get_object("result")) == "the work of a night"
    with cluster.connected(job="precious", attach=True):
        assert shoal.util.list_named_objects() == [], "the driver before has ended in order"


def test_calls_with_keys(cluster: ProcessCluster, tmp_path: Path) -> None:
    log = tmp_path / "runs"

    def runs() -> dict[str, int]:
        return Counter(log.read_text().split())

    @shoal.remote
    def note(what: str, fails: bool = False) -> str:
        with log.open("a") as file:
            file.write(f"{what} ")
        if fails:
            raise RuntimeError(what)
        return what.upper()

    @shoal.remote(num_returns=2)
    def pair() -> tuple[int, Any]:
        with log.open("a") as file:
            file.write("pair ")
        return 1, np.arange(100_000)

    @shoal.remote
    def nested() -> str:
        value: str = shoal.get(note.options(key="inner").remote("inner"))
        return value

    @shoal.remote
    def called() -> str | None:
        return shoal.get_runtime_context().get_task_function_name()

    @shoal.remote
    def later() -> int:
        kv.watch("go", timeout_s=PATIENCE_S)
        with log.open("a") as file:
            file.write("later ")
        return 7

    @shoal.remote
    def holds() -> list[Any]:
        return [shoal.put(1)]

    for number in range(2):
        with leaving(cluster, "keys", attach=True):
            assert shoal.get(note.options(key="a").remote("a")) == "A"
            first, second = shoal.get(pair.options(key="pair").remote())
            assert (first, second.sum()) == (1, sum(range(100_000)))
            assert shoal.get(nested.remote()) == "INNER"
            for _ in range(2):
                with pytest.raises(TaskError, match="failing"):
                    shoal.get(note.options(key="fails").remote("failing", fails=True))
            name = shoal.get(called.options(key="called").remote())
            assert name is not None and name.endswith("test_calls_with_keys.<locals>.called")
            if not number:
                one = later.options(key="later").remote()
                assert later.options(key="later").remote() is one, "it is under way"
                kv.put("go", b"")
            assert shoal.get(later.options(key="later").remote()) == 7
            assert runs() == {"a": 1, "pair": 1, "inner": 1, "later": 1, "failing": 2 * (number + 1)}
            assert shoal.get(shoal.get_object("a")) == "A", "a key is a name"
            with pytest.raises(NamedObjectError, match="references inside"):
                shoal.get(holds.options(key="refs").remote())
    with cluster.connected(job="keys", attach=True):
        with pytest.raises(NamedObjectError, match=r"object named 'large': the job 'keys' keeps .* are the most"):
            shoal.put(b"x" * 17_000_000, name="large")
        with pytest.raises(ValueError, match="There is no object named 'large'"):
            shoal.get_object("large")


def test_results_are_known_by_their_content(cluster: ProcessCluster, tmp_path: Path) -> None:
    log = tmp_path / "runs"
    log.write_text("")

    def total(of: Any) -> Any:
        with log.open("a") as file:
            file.write("x")
        return of.sum()

    def edited(of: Any) -> Any:
        with log.open("a") as file:
            file.write("x")
        return of.sum() + 1

    cached = {"key": shoal.CONTENT, "key_ttl_s": 600}
    for _ in range(2):  # two jobs, without a name
        with cluster.connected():
            remote = shoal.remote(total).options(**cached)
            assert shoal.get(remote.remote(np.arange(4))) == 6
            assert shoal.get(remote.remote(shoal.put(np.arange(4)))) == 6, "a reference counts by its value"
            assert len(log.read_text()) == 1
    with cluster.connected():
        assert shoal.get(shoal.remote(edited).options(**cached).remote(np.arange(4))) == 7
        assert shoal.get(remote.remote(np.arange(5))) == 10
        assert len(log.read_text()) == 3
        short = shoal.remote(total).options(key=shoal.CONTENT, key_ttl_s=0.05)
        assert shoal.get(short.remote(np.arange(6))) == 15

        def again() -> bool:
            assert shoal.get(short.remote(np.arange(6))) == 15
            return len(log.read_text()) > 4

        eventually(again, "what was kept for a moment is run again")
        with pytest.raises(TypeError, match="A reference inside of an argument has no content"):
            shoal.get(remote.remote([shoal.put(1)]))


def test_names_need_a_job_that_has_one(cluster: ProcessCluster) -> None:
    @shoal.remote
    def one() -> int:
        return 1

    with cluster.connected():
        for use in (
            lambda: shoal.put(1, name="a"),
            lambda: shoal.get_object("a"),
            lambda: one.options(key="a").remote(),
            shoal.util.list_named_objects,
        ):
            with pytest.raises(ValueError, match=r"a job that has a name itself: give it one, init\(job=\.\.\.\)"):
                use()
