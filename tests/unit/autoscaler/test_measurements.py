"""What Prometheus is told of the autoscaler."""

from __future__ import annotations

from shoal_autoscaler.measurements import FAMILIES, Measurements
from shoal_autoscaler.plan import PROVIDER_LABEL, Demand, Node, Plan, Started, View
from shoal_common.placement.resources import ResourceSet
from shoal_common.service.metrics import grouped, render

CPU = ResourceSet.of({"CPU": 1})


def test_all_is_told_from_the_beginning_on() -> None:
    measurements = Measurements(["small", "large"])
    assert {each.family for each in measurements.samples()} == set(FAMILIES)
    joined = Node(b"n" * 16, CPU, CPU, {PROVIDER_LABEL: "small-1"})
    started = [Started("small-1", "small", 0.0), Started("small-2", "small", 1.0)]
    measurements.looked(View([joined], started, [Demand(CPU, 5), Demand(CPU, 2)]), Plan(unmet=["1 × 8 GPU"]))
    measurements.launched["small"] += 2
    measurements.failures += 1
    lines = render(grouped(measurements.samples()), openmetrics=False).splitlines()
    for line in (
        'shoal_autoscaler_nodes{state="joined",type="small"} 1.0',
        'shoal_autoscaler_nodes{state="starting",type="small"} 1.0',
        'shoal_autoscaler_nodes{state="joined",type="large"} 0.0',
        'shoal_autoscaler_waiting{kind="requests"} 7.0',
        "shoal_autoscaler_unmet 1.0",
        'shoal_autoscaler_launched_total{type="small"} 2.0',
        "shoal_autoscaler_failures_total 1.0",
    ):
        assert line in lines, lines
