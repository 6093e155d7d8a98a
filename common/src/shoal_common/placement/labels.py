"""Labels of nodes, and the selectors by which tasks and actors choose among them.

Keys and values have Kubernetes' syntax. Keys that mean something to the cluster begin with ``ray.io/``, as Ray's do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from shoal_common.ids import NodeID

#: Every node has it: its id in hexadecimal. Nobody may set it.
NODE_ID = "ray.io/node-id"
#: Labels that a node has by default: environment variable of whoever starts it -> key.
FROM_ENVIRONMENT = {
    "SHOAL_NODE_MARKET_TYPE": "ray.io/market-type",
    "SHOAL_NODE_TYPE_NAME": "ray.io/node-group",
    "SHOAL_NODE_REGION": "ray.io/availability-region",
    "SHOAL_NODE_ZONE": "ray.io/availability-zone",
}

_NAME = r"[a-zA-Z0-9](?:[a-zA-Z0-9_.-]{0,61}[a-zA-Z0-9])?"
_KEY = re.compile(rf"(?:(?=[^/]{{1,253}}/){_NAME}(?:\.{_NAME})*/)?{_NAME}")
_VALUE = re.compile(rf"(?:{_NAME})?")
_CONDITION = re.compile(rf"(!?)(?:in\(({_NAME}(?:, ?{_NAME})*)\)|((?:{_NAME})?))")


def check_key(key: str) -> None:
    """Raises: ValueError when it is not a label's key."""
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise ValueError(f"Invalid label key `{key}`. It must be [prefix/]name, of letters, digits, '-', '_' and '.'.")


def check_value(value: str) -> None:
    """Raises: ValueError when it is not a label's value."""
    if not isinstance(value, str) or not _VALUE.fullmatch(value):
        raise ValueError(
            f"Invalid label value `{value}`. It must be empty or up to 63 letters, digits, '-', '_' and '.', which "
            "begin and end with a letter or digit."
        )


def check_labels(labels: Mapping[str, str]) -> None:
    """Of labels that somebody gave a node. Raises: ValueError for a bad key or value, and for the id of a node."""
    for key, value in labels.items():
        check_key(key)
        check_value(value)
    if NODE_ID in labels:
        raise ValueError(f"The label {NODE_ID} must not be given: every node sets it itself.")


def given_labels(labels: Mapping[str, str] | None, environ: Mapping[str, str]) -> dict[str, str]:
    """Those that a node is started with: ``labels``, and what the environment says beside them."""
    default = {key: environ[variable] for variable, key in FROM_ENVIRONMENT.items() if environ.get(variable)}
    return {**default, **(labels or {})}


def labels_of_node(node_id: NodeID, given: Mapping[str, str]) -> dict[str, str]:
    """All labels of a node: those it was ``given``, and its own. Raises: as ``check_labels``."""
    check_labels(given)
    return {**given, NODE_ID: node_id.hex()}


@dataclass(frozen=True, slots=True, order=True)
class LabelRule:
    """What one label must be."""

    key: str
    #: Sorted; the label is one of these. Empty: it is there, whatever it is.
    values: tuple[str, ...]
    #: The rule is met when it otherwise would not be: also by a node without the label.
    negated: bool = False

    @classmethod
    def of(cls, key: str, condition: str) -> LabelRule:
        """``condition`` is ``v``, ``!v``, ``in(a, b)`` or ``!in(a, b)``. Raises: ValueError."""
        match = _CONDITION.fullmatch(condition) if isinstance(condition, str) else None
        if match is None:
            raise ValueError(f"Invalid label selector value `{condition}`. It must be v, !v, in(a, b) or !in(a, b).")
        negation, several, one = match.groups()
        values = [one] if several is None else re.split(", ?", several)
        check_key(key)
        return cls(key, tuple(sorted(set(values))), bool(negation))

    @classmethod
    def parse(cls, text: str) -> LabelRule:
        """The opposite of ``str``. Raises: ValueError."""
        key, equals, condition = text.partition("=")
        if equals:
            return cls.of(key, condition)
        bare = key.removeprefix("!")
        check_key(bare)
        return cls(bare, (), key.startswith("!"))

    def meets(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        return (value in self.values if self.values else value is not None) != self.negated

    def __str__(self) -> str:
        """``key=v``, ``key=!v``, ``key=in(a,b)``, ``key=!in(a,b)``; ``key`` and ``!key``: it is there, or not."""
        negation = "!" * self.negated
        if not self.values:
            return negation + self.key
        values = f"in({','.join(self.values)})" if len(self.values) > 1 else self.values[0]
        return f"{self.key}={negation}{values}"


#: All rules must be met. Sorted, so that the same selector is always the same text.
Selector = tuple[LabelRule, ...]


def parse_selector(selector: Mapping[str, str | None] | None) -> Selector:
    """As the option ``label_selector`` gives it; None as a value is the empty one. Raises: ValueError."""
    return tuple(sorted(LabelRule.of(key, condition or "") for key, condition in (selector or {}).items()))


def encode_selector(selector: Selector) -> str:
    return "&".join(map(str, selector))


def decode_selector(text: str) -> Selector:
    """The opposite of ``encode_selector``. Raises: ValueError."""
    return tuple(sorted(map(LabelRule.parse, text.split("&")))) if text else ()


def unmet(selector: Selector, labels: Mapping[str, str]) -> list[LabelRule]:
    return [rule for rule in selector if not rule.meets(labels)]
