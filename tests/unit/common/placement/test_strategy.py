from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal_common.errors import InvalidRequest
from shoal_common.ids import NodeID
from shoal_common.placement.labels import LabelRule, check_labels, given_labels, labels_of_node, parse_selector, unmet
from shoal_common.placement.strategy import Strategy

A, B = NodeID(b"a" * 16), NodeID(b"b" * 16)

KEYS = st.sampled_from(["zone", "gpu", "a.b/c", "ray.io/node-id"])
VALUES = st.sampled_from(["", "a", "b", "in", "x.y-z_1"])
RULES = st.one_of(
    st.builds(lambda key, value, negated: LabelRule(key, (value,), negated), KEYS, VALUES, st.booleans()),
    st.builds(
        lambda key, values, negated: LabelRule(key, tuple(sorted(values)), negated),
        KEYS,
        st.sets(VALUES.filter(bool)),
        st.booleans(),
    ),
)
SELECTORS = st.builds(lambda rules: tuple(sorted(rules)), st.sets(RULES, max_size=4))
LABELS = st.dictionaries(KEYS, VALUES)


@given(RULES)
def test_a_rule_is_its_text(rule: LabelRule) -> None:
    assert LabelRule.parse(str(rule)) == rule


@given(RULES, LABELS)
def test_a_rule_is_met_exactly_when_its_opposite_is_not(rule: LabelRule, labels: dict[str, str]) -> None:
    opposite = LabelRule(rule.key, rule.values, not rule.negated)
    assert rule.meets(labels) != opposite.meets(labels)


@given(st.booleans(), st.sampled_from([None, A, B]), st.booleans(), st.lists(SELECTORS.filter(bool), max_size=3))
def test_a_strategy_is_its_text(
    spread: bool, node: NodeID | None, soft: bool, selectors: list[tuple[LabelRule, ...]]
) -> None:
    strategy = Strategy(spread and node is None, node, soft and node is not None, tuple(selectors))
    assert Strategy.decode(strategy.encode()) == strategy


@given(st.sampled_from([None, 0, 12]), st.booleans(), st.lists(SELECTORS.filter(bool), max_size=2))
def test_a_place_in_a_group_is_its_text(
    bundle: int | None, captures: bool, selectors: list[tuple[LabelRule, ...]]
) -> None:
    strategy = Strategy(selectors=tuple(selectors), group_id=bytes(range(16)), bundle=bundle, captures=captures)
    assert Strategy.decode(strategy.encode()) == strategy
    assert strategy.outside_group() == Strategy(selectors=tuple(selectors))


@given(st.lists(SELECTORS, min_size=1, max_size=3), LABELS)
def test_the_first_selector_that_is_met_counts(selectors: list[tuple[LabelRule, ...]], labels: dict[str, str]) -> None:
    chosen = Strategy(selectors=tuple(selectors)).alternative(labels)
    met = [not unmet(selector, labels) for selector in selectors]
    assert chosen == (met.index(True) if any(met) else None)


@pytest.mark.parametrize(
    ("condition", "matching", "others"),
    [
        ("a", ["a"], ["b", "", None]),
        ("!a", ["b", "", None], ["a"]),
        ("in(a, b)", ["a", "b"], ["c", "", None]),
        ("!in(a,b)", ["c", "", None], ["a", "b"]),
        ("", [""], ["a", None]),
    ],
)
def test_conditions(condition: str, matching: list[str | None], others: list[str | None]) -> None:
    selector = parse_selector({"zone": condition})
    for value in matching + others:
        labels = {} if value is None else {"zone": value}
        assert (not unmet(selector, labels)) == (value in matching), value


def test_order_and_spaces_make_no_other_strategy() -> None:
    one = Strategy(selectors=(parse_selector({"a": "in(x, y)", "b": "z"}),))
    other = Strategy(selectors=(parse_selector({"b": "z", "a": "in(y,x,x)"}),))
    assert one.encode() == other.encode() == ";a=in(x,y)&b=z"


def test_every_node_has_its_id_and_what_it_was_given() -> None:
    labels = labels_of_node(A, {"ray.io/market-type": "spot", "zone": "a"})
    assert labels == {"ray.io/node-id": A.hex(), "ray.io/market-type": "spot", "zone": "a"}
    assert not unmet(parse_selector({"ray.io/node-id": A.hex(), "ray.io/market-type": "spot"}), labels)


def test_labels_of_the_environment() -> None:
    environ = {
        "SHOAL_NODE_MARKET_TYPE": "spot",
        "SHOAL_NODE_TYPE_NAME": "small",
        "SHOAL_NODE_REGION": "north",
        "SHOAL_NODE_ZONE": "",
        "HOME": "/root",
    }
    assert given_labels({"zone": "a", "ray.io/market-type": "on-demand"}, environ) == {
        "zone": "a",
        "ray.io/market-type": "on-demand",
        "ray.io/node-group": "small",
        "ray.io/availability-region": "north",
    }
    assert given_labels(None, {}) == {}


@pytest.mark.parametrize(
    "labels",
    [
        {"": "a"},
        {"-a": "b"},
        {"a/b/c": "d"},
        {"a": "b c"},
        {"a": "b" * 64},
        {"a": 1},
        {1: "a"},
        {"ray.io/node-id": "a"},
    ],
)
def test_bad_labels_are_refused(labels: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"[lL]abel"):
        check_labels(labels)


@pytest.mark.parametrize("condition", ["in()", "!", "a b", "!!a", "in(a", "*", "a&b", "a|b", "in(a;b)"])
def test_bad_conditions_are_refused(condition: str) -> None:
    if condition == "!":
        assert parse_selector({"a": condition})[0].negated  # not the empty value
        return
    with pytest.raises(ValueError, match="Invalid label selector value"):
        parse_selector({"a": condition})


@pytest.mark.parametrize(
    "text",
    [
        "PACK",
        "spread",
        "node:",
        "node:xyz",
        "node:00",
        ";a=in()",
        ";a=b&",
        "SPREAD;-=a",
        "SPREAD|a=b",
        "group:",
        "group:00",
    ],
)
def test_a_text_that_is_no_strategy_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="unknown scheduling strategy"):
        Strategy.decode(text)


def test_where_a_request_may_run() -> None:
    hard, soft = Strategy(node_id=A), Strategy(node_id=A, soft=True)
    assert (hard.allows(A, {}), hard.allows(B, {})) == (True, False)
    assert (soft.allows(A, {}), soft.allows(B, {})) == (True, True)
    bound = Strategy(node_id=A, selectors=(parse_selector({"zone": "a"}),))
    assert (bound.allows(A, {"zone": "a"}), bound.allows(A, {"zone": "b"})) == (True, False)
