"""Two jobs at once share the cluster evenly, whoever came first."""

from __future__ import annotations

import bisect
from collections.abc import Callable

import pytest
from support.clusters import ProcessCluster
from support.drivers import Driver

_JOB = """
ray.init(logging_level="ERROR", log_to_driver=False)

@ray.remote
def work():
    time.sleep(0.01)
    return time.time()

ray.get([work.remote() for _ in range(8)])
report(ready=True)
command()
report(ended=sorted(ray.get([work.remote() for _ in range(1000)])))
"""


def one_node(cluster: ProcessCluster) -> None:
    cluster.add_node(cpus=4)


def two_nodes(cluster: ProcessCluster) -> None:
    cluster.add_node(cpus=2)
    cluster.add_node(cpus=2)


@pytest.mark.parametrize("nodes", [one_node, two_nodes])
def test_two_jobs_get_the_same_share(nodes: Callable[[ProcessCluster], None]) -> None:
    with ProcessCluster() as cluster:
        nodes(cluster)
        with Driver(_JOB, env=cluster.environment) as one, Driver(_JOB, env=cluster.environment) as other:
            for job in (one, other):
                job.report()
            for job in (one, other):
                job.tell("go")
            first, second = sorted((job.report()["ended"] for job in (one, other)), key=max)
        done = bisect.bisect(second, first[-1])
        assert 0.45 <= done / (done + len(first)) <= 0.55, f"{done} of one job's tasks when the other's 1,000 had ended"
