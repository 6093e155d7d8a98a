"""Options that say where to run become one canonical text."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from shoal._api.options import ActorOptions, TaskOptions
from shoal.util.scheduling_strategies import (
    DoesNotExist,
    Exists,
    In,
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
    NotIn,
)

NODE = "0a" * 16


@pytest.mark.parametrize("options", [TaskOptions, ActorOptions])
@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, ""),
        ({"scheduling_strategy": "DEFAULT"}, ""),
        ({"scheduling_strategy": "SPREAD"}, "SPREAD"),
        ({"scheduling_strategy": NodeAffinitySchedulingStrategy(NODE, soft=False)}, f"node:{NODE}"),
        ({"scheduling_strategy": NodeAffinitySchedulingStrategy(NODE, soft=True)}, f"node?:{NODE}"),
        (
            {"label_selector": {"zone": "in(b, a)", "ray.io/market-type": "!spot"}},
            ";ray.io/market-type=!spot&zone=in(a,b)",
        ),
        ({"label_selector": {"zone": ""}}, ";zone="),
        (
            {
                "label_selector": {"zone": "a"},
                "fallback_strategy": [{"label_selector": {"zone": "b"}}],
                "scheduling_strategy": "SPREAD",
            },
            "SPREAD;zone=a|zone=b",
        ),
        ({"label_selector": {"zone": "a"}, "fallback_strategy": [{"label_selector": {}}]}, ";zone=a|"),
        (
            {
                "scheduling_strategy": NodeLabelSchedulingStrategy(
                    {"a": In("y", "x"), "b": NotIn("z"), "c": Exists(), "d": DoesNotExist()}
                )
            },
            ";a=in(x,y)&b=!z&c&!d",
        ),
        ({"scheduling_strategy": NodeLabelSchedulingStrategy({}, soft={"a": In("x")})}, ";a=x|"),
        (
            {
                "scheduling_strategy": NodeLabelSchedulingStrategy({"a": Exists()}, soft={"b": In("x")}),
                "label_selector": {"zone": "z"},
            },
            ";a&b=x&zone=z|a&zone=z",
        ),
    ],
)
def test_where_to_run(options: Any, given: dict[str, Any], text: str) -> None:
    assert options.from_kwargs(given).strategy() == text


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NodeLabelSchedulingStrategy({}), "both are empty"),
        (lambda: NodeLabelSchedulingStrategy(None, soft={}), "both are empty"),
        (lambda: NodeLabelSchedulingStrategy([("a", In("b"))]), "must map labels to conditions"),  # type: ignore[arg-type]
        (lambda: NodeLabelSchedulingStrategy({"a": "b"}), "must be In, NotIn, Exists or DoesNotExist"),
        (lambda: NodeLabelSchedulingStrategy({1: In("b")}), "Invalid label key"),  # type: ignore[dict-item]
        (lambda: In(), "at least one value"),
        (lambda: NotIn(), "NotIn needs at least one value"),
        (lambda: In(1), "Invalid label value"),  # type: ignore[arg-type]
        (lambda: In("a,b"), "Invalid label value"),
    ],
)
def test_conditions_that_are_none_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_strategies_travel() -> None:
    strategy = NodeLabelSchedulingStrategy({"a": In("b")}, soft={"c": Exists()})
    copy = pickle.loads(pickle.dumps(strategy))
    assert copy.selectors() == strategy.selectors()
