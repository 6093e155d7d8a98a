"""Values of the option ``scheduling_strategy`` that choose nodes: by id, and by labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shoal._core.public_ids import NodeID
from shoal._values.flags import flag
from shoal_common.placement.labels import LabelRule, Selector, check_key, check_value


class NodeAffinitySchedulingStrategy:
    """Run the task or actor on one node.

    While that node lives and is big enough the task waits for it. If not, it runs elsewhere when ``soft``, else it
    fails with TaskUnschedulableError or ActorUnschedulableError.

    Raises: ValueError when ``node_id`` (hexadecimal, see ``shoal.nodes()``) cannot be the id of a node, TypeError when
    it is neither text nor bytes nor a ``NodeID``, or ``soft`` no bool.
    """

    def __init__(self, node_id: Any, soft: bool) -> None:
        if not isinstance(node_id, str | bytes | NodeID):
            raise TypeError(f"node_id must be hexadecimal text, bytes or a NodeID, not {type(node_id).__name__}")
        self.node_id: str = node_id if isinstance(node_id, str) else node_id.hex()
        self.soft = flag(soft, "soft")
        try:
            known = not NodeID.from_hex(self.node_id).is_nil()
        except ValueError:
            known = False
        if not known:
            raise ValueError(
                f"Invalid node_id '{self.node_id}'. Node ID must be a valid hex string. To get a list of all nodes and "
                "their IDs in your cluster, use shoal.nodes()."
            )

    def __repr__(self) -> str:
        return f"NodeAffinitySchedulingStrategy({self.node_id!r}, soft={self.soft})"


class In:
    """The label is one of ``values``. Raises: ValueError when there are none, or one is no label's value."""

    def __init__(self, *values: str) -> None:
        self.values = list(values)
        if not values:
            raise ValueError(f"{type(self).__name__} needs at least one value, e.g. {type(self).__name__}('a', 'b').")
        for value in values:
            check_value(value)


class NotIn(In):
    """The label is none of ``values``, or the node does not have it. Raises: as ``In``."""


class Exists:
    """The node has the label."""


class DoesNotExist:
    """The node does not have the label."""


class NodeLabelSchedulingStrategy:
    """Run the task or actor on a node whose labels meet all of ``hard``, by preference one that meets ``soft`` too.

    Both map a label's key to ``In``, ``NotIn``, ``Exists`` or ``DoesNotExist``. The option ``label_selector`` does the
    same in fewer words.

    Raises: ValueError when both are empty, or for a key or a condition that is none.
    """

    def __init__(self, hard: Mapping[str, Any] | None = None, *, soft: Mapping[str, Any] | None = None) -> None:
        self.hard = _rules("hard", hard)
        self.soft = _rules("soft", soft)
        if not self.hard and not self.soft:
            raise ValueError("NodeLabelSchedulingStrategy needs labels in 'hard' or in 'soft'; both are empty.")

    def selectors(self) -> tuple[Selector, ...]:
        """The alternatives, best first."""
        return (tuple(sorted({*self.hard, *self.soft})), self.hard) if self.soft else (self.hard,)


def _rules(name: str, conditions: Mapping[str, Any] | None) -> Selector:
    if conditions is not None and not isinstance(conditions, Mapping):
        raise ValueError(f"'{name}' must map labels to conditions, e.g. {{'zone': In('a')}}, not {conditions!r}.")
    rules = []
    for key, condition in (conditions or {}).items():
        if not isinstance(condition, In | Exists | DoesNotExist):
            raise ValueError(
                f"The condition of the label {key!r} in '{name}' must be In, NotIn, Exists or DoesNotExist, "
                f"not {condition!r}."
            )
        values = tuple(sorted(set(condition.values))) if isinstance(condition, In) else ()
        check_key(key)
        rules.append(LabelRule(key, values, negated=isinstance(condition, NotIn | DoesNotExist)))
    return tuple(sorted(rules))
