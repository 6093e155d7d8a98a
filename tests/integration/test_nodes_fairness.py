"""Two jobs at once share the cluster evenly, whoever came first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.clusters import ProcessCluster
from support.drivers import Driver

#: Each task writes the letter of its job at the end of one file: the order in which tasks of both jobs end.
_JOB = """
ray.init(logging_level="ERROR", log_to_driver=False)

@ray.remote
def work(letter, path):
    time.sleep(0.01)
    with open(path, "a") as file:
        file.write(letter)

ray.get([work.remote("", os.devnull) for _ in range(8)])
report(ready=True)
letter, path = command().split()
ray.get([work.remote(letter, path) for _ in range(1000)])
report(done=True)
"""


def one_node(cluster: ProcessCluster) -> None:
    cluster.add_node(cpus=4)


def two_nodes(cluster: ProcessCluster) -> None:
    cluster.add_node(cpus=2)
    cluster.add_node(cpus=2)


@pytest.mark.parametrize("nodes", [one_node, two_nodes])
def test_two_jobs_get_the_same_share(nodes: Callable[[ProcessCluster], None], tmp_path: Path) -> None:
    with ProcessCluster() as cluster:
        nodes(cluster)
        with Driver(_JOB, env=cluster.environment) as one, Driver(_JOB, env=cluster.environment) as other:
            for job in (one, other):
                job.report()
            ended = tmp_path / "ended"
            for letter, job in zip("ab", (one, other), strict=True):
                job.tell(f"{letter} {ended}")
            for job in (one, other):
                job.report()
        order = ended.read_text()
        assert sorted(order) == ["a"] * 1000 + ["b"] * 1000
        # While both had something to do: the second begins a moment after the first.
        both = order[max(map(order.index, "ab")) : min(map(order.rindex, "ab"))]
        assert len(both) > 1000
        assert 0.45 <= both.count("a") / len(both) <= 0.55, f"of {len(both)} tasks {both.count('a')} were of one job"
