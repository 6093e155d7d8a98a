"""Scheduling strategies: where a task or an actor may run and where it should. SDK, raylet and scheduler share this.

As text, which is ``SchedulingClass.strategy``, ``ActorSpec.strategy`` and ``PickNodeRequest.strategy``::

    strategy   = base [";" selector *("|" selector)]
    base       = "" / "SPREAD" / "node:" hex / "node?:" hex          ; DEFAULT, SPREAD, node affinity hard and soft
    selector   = "" / rule *("&" rule)                               ; "" is met by every node
    rule       = key "=" ("v" / "!v" / "in(a,b)" / "!in(a,b)")
               / key / "!" key                                       ; the label is there, or not

Of several selectors the first that a node can serve now counts, else the first that a node can ever serve. The text is
canonical (sorted, no spaces), because requests with the same text share worker leases.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

from shoal_common.errors import InvalidRequest
from shoal_common.ids import NODE_LENGTH, NodeID
from shoal_common.labels import LabelRule, Selector, unmet

_SPREAD = "SPREAD"
_HARD, _SOFT = "node:", "node?:"


@dataclass(frozen=True, slots=True)
class Strategy:
    spread: bool = False
    #: Node affinity; None = to none.
    node_id: NodeID | None = None
    #: Node affinity is a wish: the request runs elsewhere when that node is gone, too small or differently labelled.
    soft: bool = False
    #: Alternatives, best first; empty = any node.
    selectors: tuple[Selector, ...] = ()

    def encode(self) -> str:
        base = _SPREAD if self.spread else ""
        if self.node_id is not None:
            base = (_SOFT if self.soft else _HARD) + self.node_id.hex()
        if not any(self.selectors):
            return base
        return base + ";" + "|".join("&".join(map(str, selector)) for selector in self.selectors)

    @classmethod
    def decode(cls, text: str) -> Strategy:
        """Raises: InvalidRequest for a text that ``encode`` does not make."""
        return _decode(text)

    def alternative(self, labels: Mapping[str, str]) -> int | None:
        """The first of the selectors that a node with these labels meets; None = none: it must not run there."""
        return next((i for i, selector in enumerate(self.selectors or ((),)) if not unmet(selector, labels)), None)

    def allows(self, node_id: NodeID, labels: Mapping[str, str]) -> bool:
        """May it run on this node?"""
        if self.node_id not in (None, node_id) and not self.soft:
            return False
        return self.alternative(labels) is not None


@functools.lru_cache(maxsize=4096)
def _decode(text: str) -> Strategy:
    base, _, alternatives = text.partition(";")
    try:
        selectors = tuple(_selector(part) for part in alternatives.split("|")) if alternatives else ()
        if base in ("", "DEFAULT", _SPREAD):
            return Strategy(spread=base == _SPREAD, selectors=selectors)
        if base.startswith((_HARD, _SOFT)):
            node_id = NodeID(bytes.fromhex(base.partition(":")[2]))
            if len(node_id) == NODE_LENGTH:
                return Strategy(node_id=node_id, soft=base.startswith(_SOFT), selectors=selectors)
    except ValueError as error:
        raise InvalidRequest(f"unknown scheduling strategy {text!r}: {error}") from None
    raise InvalidRequest(
        f"unknown scheduling strategy {text!r}: use DEFAULT, SPREAD, node:<hex> or node?:<hex>, selectors after a ';'"
    )


def _selector(text: str) -> Selector:
    return tuple(sorted(map(LabelRule.parse, text.split("&")))) if text else ()
