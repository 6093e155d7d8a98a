"""Labels decide where tasks and actors run; what no node has is said."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import shoal
from shoal import exceptions
from shoal.util.scheduling_strategies import DoesNotExist, In, NodeLabelSchedulingStrategy


@pytest.fixture(scope="module", autouse=True)
def labelled() -> Iterator[None]:
    """One node in zone a; what cannot be placed fails at once."""
    with shoal.init(
        num_cpus=2,
        labels={"zone": "a", "ray.io/market-type": "spot"},
        _system_config={"infeasible_grace_s": 0},
        logging_level="ERROR",
        log_to_driver=False,
    ):
        yield


@shoal.remote
def runs() -> bool:
    return True


@shoal.remote
class Actor:
    def runs(self) -> bool:
        return True


MET: list[dict[str, Any]] = [
    {"label_selector": {"zone": "a"}},
    {"label_selector": {"zone": "in(a, b)", "ray.io/market-type": "!on-demand"}},
    {"label_selector": {"zone": "b"}, "fallback_strategy": [{"label_selector": {"zone": "!b"}}]},
    {"label_selector": {"zone": "a"}, "scheduling_strategy": "SPREAD"},
    {"scheduling_strategy": NodeLabelSchedulingStrategy({"zone": In("a"), "gpu": DoesNotExist()}, soft={"x": In("y")})},
]

UNMET: list[dict[str, Any]] = [
    {"label_selector": {"zone": "b"}},
    {"label_selector": {"zone": "a", "gpu": "h100"}},
    {"label_selector": {"zone": "b"}, "fallback_strategy": [{"label_selector": {"zone": "c"}}]},
    {"scheduling_strategy": NodeLabelSchedulingStrategy({"zone": DoesNotExist()})},
]


@pytest.mark.parametrize("options", MET)
def test_it_runs_where_the_labels_are(options: dict[str, Any]) -> None:
    assert shoal.get(runs.options(**options).remote())
    assert shoal.get(Actor.options(**options).remote().runs.remote())


@pytest.mark.parametrize("options", UNMET)
def test_without_such_a_node_it_fails_and_says_what_is_missing(options: dict[str, Any]) -> None:
    node = shoal.get_runtime_context().get_node_id()
    with pytest.raises(exceptions.TaskUnschedulableError, match=f"{node}.* does not meet !?(zone|gpu)"):
        shoal.get(runs.options(**options).remote())
    with pytest.raises(exceptions.ActorUnschedulableError, match=f"{node}.* does not meet !?(zone|gpu)"):
        shoal.get(Actor.options(**options).remote().runs.remote())


def test_labels_are_those_given_and_the_id() -> None:
    labels = shoal.get_runtime_context().get_node_labels()
    node = shoal.get_runtime_context().get_node_id()
    assert labels == {"zone": "a", "ray.io/market-type": "spot", "ray.io/node-id": node}


@pytest.mark.parametrize("labels", [{"-a": "b"}, {"a": "b c"}, {"ray.io/node-id": "a"}, {"a": 1}])
def test_bad_labels_of_a_node_are_refused(labels: Any) -> None:
    shoal.shutdown()
    with pytest.raises(ValueError, match=r"[Ll]abel"):
        shoal.init(num_cpus=1, labels=labels)
