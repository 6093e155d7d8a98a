"""``util.metrics``: what is checked, as in Ray. Where the numbers arrive differs: tests/integration/test_metrics.py."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from e2e.compat.target import ray, submodule

metrics: Any = submodule("util.metrics")


def test_what_it_says_of_itself(cluster: None) -> None:
    counter = metrics.Counter("compat_info", description="words", tag_keys=("a",))
    assert counter.set_default_tags({"a": "b"}) is counter
    assert counter.info == {
        "name": "compat_info",
        "description": "words",
        "tag_keys": ("a",),
        "default_tags": {"a": "b"},
    }
    histogram = metrics.Histogram("compat_boundaries", boundaries=[0.5, 2])
    assert histogram.info["boundaries"] == [0.5, 2]
    assert pickle.loads(pickle.dumps(histogram)).info == histogram.info


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: metrics.Gauge(""), ValueError, "Empty name is not allowed"),
        (lambda: metrics.Gauge("compat_t", tag_keys="a"), TypeError, "tag_keys should be a tuple type"),
        (lambda: metrics.Gauge("compat_t", tag_keys=(1,)), TypeError, "Tag keys must be str"),
        (lambda: metrics.Histogram("compat_h"), ValueError, "boundaries argument should be provided"),
        (lambda: metrics.Histogram("compat_h", boundaries=[0, 1]), ValueError, "Invalid `boundaries` argument at ind"),
        (
            lambda: metrics.Gauge("compat_d", tag_keys=("a",)).set_default_tags({"b": "c"}),
            ValueError,
            "Unrecognized tag key b",
        ),
        (
            lambda: metrics.Gauge("compat_d", tag_keys=("a",)).set_default_tags({"a": 1}),
            TypeError,
            "Tag values must be str",
        ),
        (lambda: metrics.Counter("compat_c").inc("x"), TypeError, "value must be int or float"),
        (lambda: metrics.Counter("compat_c").inc(0), ValueError, "value must be >0, got 0"),
        (lambda: metrics.Gauge("compat_g").set("x"), TypeError, "value must be int or float"),
        (lambda: metrics.Gauge("compat_e", tag_keys=("a",)).set(1, {"a": 1}), TypeError, "Tag values must be str"),
        (lambda: metrics.Gauge("compat_e", tag_keys=("a", "b")).set(1), ValueError, r"Missing value for tag key\(s\)"),
        (lambda: metrics.Histogram("compat_o", boundaries=[1]).observe("x"), TypeError, "value must be int or float"),
    ],
)
def test_checks(cluster: None, make: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_gauge_takes_what_is_no_number(cluster: None, value: float) -> None:
    metrics.Gauge("compat_gauge").set(value)


def test_a_bad_name_is_warned_of(cluster: None) -> None:
    with pytest.warns(UserWarning, match="Invalid metric name: no-such"):
        counter = metrics.Counter("no-such")
    counter.inc()


def test_they_travel_to_tasks(cluster: None) -> None:
    gauge = metrics.Gauge("compat_travels", tag_keys=("a",))

    @ray.remote
    def use(given: Any) -> Any:
        given.set(1, {"a": "x"})
        given.set(None)
        gauge.set(2, {"a": "y"})
        return given.info["name"]

    assert ray.get(use.remote(gauge)) == "compat_travels"
