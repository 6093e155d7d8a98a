"""Why no node can take a request, for humans: the closest node, and what it is missing."""

from __future__ import annotations

from collections.abc import Sequence

from shoal_common.placement.labels import LabelRule, unmet
from shoal_common.placement.resources import ResourceSet
from shoal_common.placement.strategy import Strategy
from shoal_scheduler.cluster_view import NodeView


def not_there(strategy: Strategy, node: NodeView | None, resources: ResourceSet) -> str:
    """``node`` is the one of the strategy's hard affinity, None when it is not known."""
    assert strategy.node_id is not None
    bound = f"node {strategy.node_id.hex()}, to which the request is bound,"
    if node is None or not node.usable:
        return f"{bound} is not in the cluster, or is dead or draining"
    return f"{bound} {_lack(node, resources, _fewest_unmet(node, strategy))}"


def anywhere(nodes: Sequence[NodeView], resources: ResourceSet, strategy: Strategy) -> str:
    """The closest has the fewest labels and kinds of resources missing and, among those, the smallest share of them."""
    if not nodes:
        return ""
    if all(node.draining for node in nodes):
        return f"each of the {len(nodes)} nodes is draining: it takes nothing new"

    def distance(node: NodeView) -> tuple[int, float]:
        asked, missing = resources.to_units(), resources.missing_from(node.report.total)
        share = sum(amount / asked[name] for name, amount in missing.items())
        return len(missing) + len(_fewest_unmet(node, strategy)), share

    node = min(nodes, key=distance)
    wanted = "{" + ", ".join(f"{name}: {amount:g}" for name, amount in sorted(resources.to_units().items())) + "}"
    if any(strategy.selectors):
        wanted += " with labels " + " or ".join(" and ".join(map(str, rules)) for rules in strategy.selectors)
    return (
        f"no node can hold {wanted}, even when idle: the closest of {len(nodes)}, "
        f"node {node.node_id.hex()}, {_lack(node, resources, _fewest_unmet(node, strategy))}"
    )


def _fewest_unmet(node: NodeView, strategy: Strategy) -> list[LabelRule]:
    return min((unmet(selector, node.report.labels) for selector in strategy.selectors), key=len, default=[])


def _lack(node: NodeView, resources: ResourceSet, rules: Sequence[LabelRule]) -> str:
    missing, total = resources.missing_from(node.report.total), node.report.total.to_units()
    amounts = [f"{amount:g} {name} (it has {total.get(name, 0):g})" for name, amount in sorted(missing.items())]
    labels = [f"{rule} ({_label(node, rule.key)})" for rule in rules]
    return " and ".join(
        [f"lacks {', '.join(amounts)}"] * bool(amounts) + [f"does not meet {', '.join(labels)}"] * bool(labels)
    )


def _label(node: NodeView, key: str) -> str:
    value = node.report.labels.get(key)
    return "it has no such label" if value is None else f"it is {value!r}"
