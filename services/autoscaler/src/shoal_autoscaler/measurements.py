"""What Prometheus reads of the autoscaler."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from shoal_autoscaler.plan import Plan, View
from shoal_common.service.metrics import Family, Sample, sample

NODES = Family(
    "shoal_autoscaler_nodes", "gauge", "nodes that the provider has started, by kind: in the cluster, or on their way"
)
WAITING = Family("shoal_autoscaler_waiting", "gauge", "requests for a place that wait, and bundles of placement groups")
UNMET = Family("shoal_autoscaler_unmet", "gauge", "kinds of requests that no node which could be started would hold")
LAUNCHED = Family("shoal_autoscaler_launched", "counter", "nodes that it has had started, by kind")
DRAINED = Family("shoal_autoscaler_drained", "counter", "nodes that it has had drained, as nobody used them")
TERMINATED = Family("shoal_autoscaler_terminated", "counter", "nodes that it has had ended")
FAILURES = Family("shoal_autoscaler_failures", "counter", "looks that failed: the provider, the GCS or the bus")
FAMILIES = (NODES, WAITING, UNMET, LAUNCHED, DRAINED, TERMINATED, FAILURES)


class Measurements:
    """Of one autoscaler, since it began."""

    def __init__(self, types: Iterable[str]) -> None:
        self._types = list(types)
        self._view, self._plan = View(), Plan()
        self.launched: Counter[str] = Counter()
        self.drained = self.terminated = self.failures = 0

    def looked(self, view: View, plan: Plan) -> None:
        self._view, self._plan = view, plan

    def samples(self) -> Iterator[Sample]:
        there = {node.provider_id for node in self._view.nodes}
        started = Counter((each.type_name, each.provider_id in there) for each in self._view.started)
        for name in self._types:
            yield sample(NODES, started[name, True], type=name, state="joined")
            yield sample(NODES, started[name, False], type=name, state="starting")
            yield sample(LAUNCHED, self.launched[name], type=name)
        yield sample(WAITING, sum(demand.count for demand in self._view.demands), kind="requests")
        yield sample(WAITING, sum(len(group.bundles) for group in self._view.groups), kind="bundles")
        yield sample(UNMET, len(self._plan.unmet))
        yield sample(DRAINED, self.drained)
        yield sample(TERMINATED, self.terminated)
        yield sample(FAILURES, self.failures)
