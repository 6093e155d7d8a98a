"""``JobConfig(max_resources=)``: what a job holds at once over the whole cluster, tasks, actors and placement groups
together; what is over waits, and other jobs do not."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.clusters import ProcessCluster
from support.drivers import Driver
from support.processes import eventually

import shoal
from shoal.job_config import JobConfig
from shoal.util.placement_group import PlacementGroup, placement_group, remove_placement_group

_OTHER_JOB = """
ray.init(logging_level="ERROR", log_to_driver=False)

@ray.remote
def f():
    return 1

report(got=ray.get(f.remote()))
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[ProcessCluster]:
    """Two nodes with two CPUs each."""
    with ProcessCluster() as cluster:
        cluster.add_node(cpus=2)
        cluster.add_node(cpus=2)
        yield cluster


@pytest.fixture
def session(cluster: ProcessCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A job that may hold three of the four CPUs."""
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    shoal.init(log_to_driver=False, job_config=JobConfig(max_resources={"CPU": 3}))
    yield
    shoal.shutdown()


@shoal.remote(num_cpus=1)
def work(running: Path, until: Path | None = None) -> tuple[str, int]:
    """On which node it ran, and with how many others at most. Waits without lending what it holds."""
    mark = running / str(os.getpid())
    mark.touch()
    most = len(os.listdir(running))
    while until is not None and not until.exists():
        most = max(most, len(os.listdir(running)))
        time.sleep(0.01)
    mark.unlink()
    return shoal.get_runtime_context().get_node_id(), most


@shoal.remote
class Actor:
    def ready(self) -> bool:
        return True


def quota_used(ref: shoal.ObjectRef[object]) -> bool:
    return "max_resources" in str(shoal.explain(ref))


@pytest.mark.usefixtures("session")
def test_tasks_of_two_nodes_together(cluster: ProcessCluster, tmp_path: Path) -> None:
    running, go = tmp_path / "running", tmp_path / "go"
    running.mkdir()
    refs = [work.remote(running, go) for _ in range(8)]
    eventually(lambda: len(os.listdir(running)) == 3, "three of them run")
    eventually(lambda: quota_used(refs[-1]), lambda: f"it waits for its job: {shoal.explain(refs[-1])}")
    with Driver(_OTHER_JOB, env=cluster.environment) as other:
        assert other.report()["got"] == 1, "the fourth CPU is for others"
    go.touch()
    nodes, most = zip(*shoal.get(refs), strict=True)
    assert max(most) == 3 and len(set(nodes)) == 2


@pytest.mark.usefixtures("session")
def test_actors_groups_and_tasks_together(tmp_path: Path) -> None:
    running, go = tmp_path / "running", tmp_path / "go"
    running.mkdir()
    group = placement_group([{"CPU": 1}])
    shoal.get(group.ready())
    actor = Actor.options(num_cpus=1).remote()
    shoal.get(actor.ready.remote())
    refs = [work.remote(running, go) for _ in range(3)]
    eventually(lambda: quota_used(refs[-1]), lambda: f"it waits for its job: {shoal.explain(refs[-1])}")
    eventually(lambda: len(os.listdir(running)) == 1, "one of them runs")
    second, another = Actor.options(num_cpus=1).remote(), placement_group([{"CPU": 1}])
    called, usable = second.ready.remote(), another.ready()
    eventually(lambda: quota_used(called), lambda: f"the actor waits for its job: {shoal.explain(called)}")
    eventually(lambda: quota_used(usable), lambda: f"the group waits for its job: {shoal.explain(usable)}")
    go.touch()
    assert max(most for _, most in shoal.get(refs)) == 1
    # One of the two has what the tasks held, the other gets what is given back.
    shoal.kill(actor)
    shoal.get([called, usable])
    for each in (group, another):
        remove_placement_group(each)


@pytest.mark.usefixtures("session")
def test_a_task_that_waits_for_its_own_lends_what_it_holds() -> None:
    @shoal.remote(num_cpus=1)
    def leaf(x: int) -> int:
        return x

    @shoal.remote(num_cpus=1)
    def parent() -> int:
        return sum(shoal.get([leaf.remote(x) for x in range(4)]))

    assert shoal.get([parent.remote() for _ in range(5)]) == [6] * 5

    @shoal.remote(num_cpus=2)
    class Parent:
        def ask(self) -> int:
            return sum(shoal.get([leaf.remote(x) for x in range(4)]))

    other = Actor.options(num_cpus=1).remote()
    shoal.get(other.ready.remote())
    assert shoal.get(Parent.remote().ask.remote()) == 6


@pytest.mark.usefixtures("session")
def test_what_is_larger_than_all_of_it_is_refused() -> None:
    with pytest.raises(ValueError, match="work needs 4 CPU at once, and its job may hold no more than 3"):
        work.options(num_cpus=4).remote(Path())
    with pytest.raises(ValueError, match="Actor needs 4 CPU"):
        Actor.options(num_cpus=4).remote()
    with pytest.raises(ValueError, match="The placement group needs 4 CPU"):
        placement_group([{"CPU": 2}, {"CPU": 2}])
    assert isinstance(placement_group([{"CPU": 2}, {"GPU": 1}]), PlacementGroup)


_CAPPED = """
deadline = time.monotonic() + 60
while True:
    try:
        ray.init(
            job="capped", attach=True, logging_level="ERROR", log_to_driver=False,
            job_config=ray.job_config.JobConfig(max_resources={"CPU": 1}),
        )
        break
    except ray.exceptions.JobInUseError:  # nobody has noticed yet that the driver before is gone
        assert time.monotonic() < deadline
        time.sleep(0.1)

@ray.remote(num_cpus=1)
class Kept:
    def pid(self):
        return os.getpid()

@ray.remote(num_cpus=1)
def f():
    return 1

def waits(ref):
    while "max_resources" not in str(ray.explain(ref)):
        assert not ray.wait([ref], timeout=0.1)[0], "it runs beside the actor"
    return ref

kept = Kept.options(name="kept", get_if_exists=True).remote()
pid = ray.get(kept.pid.remote())
ref = waits(f.remote())
report(pid=pid)
command()
"""


def test_what_is_kept_of_a_named_job_counts_for_its_next_driver(cluster: ProcessCluster) -> None:
    with Driver(_CAPPED, env=cluster.environment) as first:
        kept = first.report()["pid"]
        first.process.kill()
    end = """
another = waits(f.options(num_cpus=0.5).remote())
ray.kill(kept)
report(got=ray.get([ref, another]))
ray.shutdown()
"""
    with Driver(_CAPPED + end, env=cluster.environment) as second:
        assert second.report()["pid"] == kept, "the actor lives on"
        cluster.gcs.kill()
        cluster.start_the_gcs()
        second.tell("on")
        assert second.report()["got"] == [1, 1]
        assert second.wait() == 0, second.text
