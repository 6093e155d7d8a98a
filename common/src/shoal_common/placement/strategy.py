"""Scheduling strategies: where a task or an actor may run and where it should. SDK, raylet and scheduler share this.

As text, which is ``SchedulingClass.strategy``, ``ActorSpec.strategy`` and ``PickNodeRequest.strategy``::

    strategy   = base [";" selector *("|" selector)]
    base       = "" / "SPREAD" / "node:" hex / "node?:" hex          ; DEFAULT, SPREAD, node affinity hard and soft
               / "group:" hex [":" index] ["+"]                      ; placement group, bundle, children are captured
    selector   = "" / rule *("&" rule)                               ; "" is met by every node
    rule       = key "=" ("v" / "!v" / "in(a,b)" / "!in(a,b)")
               / key / "!" key                                       ; the label is there, or not

Of several selectors the first that a node can serve now counts, else the first that a node can ever serve. The text is
canonical (sorted, no spaces), because requests with the same text share worker leases.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass

from shoal_common.errors import InvalidRequest
from shoal_common.ids import NODE_LENGTH, NodeID
from shoal_common.placement import bundles
from shoal_common.placement.labels import Selector, decode_selector, encode_selector, unmet
from shoal_common.placement.resources import ResourceSet

_SPREAD = "SPREAD"
_HARD, _SOFT = "node:", "node?:"
_GROUP = re.compile(r"group:([0-9a-f]{32})(?::(\d+))?(\+?)")


@dataclass(frozen=True, slots=True)
class Strategy:
    spread: bool = False
    #: Node affinity; None = to none.
    node_id: NodeID | None = None
    #: Node affinity is a wish: the request runs elsewhere when that node is gone, too small or differently labelled.
    soft: bool = False
    #: Alternatives, best first; empty = any node.
    selectors: tuple[Selector, ...] = ()
    #: The placement group in which it runs; empty = in none.
    group_id: bytes = b""
    #: The bundle of that group; None = any.
    bundle: int | None = None
    #: The tasks and actors that it creates run in that group too.
    captures: bool = False

    def encode(self) -> str:
        base = _SPREAD if self.spread else ""
        if self.group_id:
            base = f"group:{self.group_id.hex()}" + f":{self.bundle}" * (self.bundle is not None) + "+" * self.captures
        if self.node_id is not None:
            base = (_SOFT if self.soft else _HARD) + self.node_id.hex()
        if not any(self.selectors):
            return base
        return base + ";" + "|".join(map(encode_selector, self.selectors))

    @classmethod
    def decode(cls, text: str) -> Strategy:
        """Raises: InvalidRequest for a text that ``encode`` does not make."""
        return _decode(text)

    def needed(self, resources: ResourceSet) -> ResourceSet:
        """What a node must have to run what asks for ``resources``."""
        return bundles.needed(resources, self.group_id, self.bundle) if self.group_id else resources

    def outside_group(self) -> Strategy:
        """What remains to be decided when the group is in what is ``needed``."""
        return dataclasses.replace(self, group_id=b"", bundle=None, captures=False) if self.group_id else self

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
        selectors = tuple(decode_selector(part) for part in alternatives.split("|")) if alternatives else ()
        if base in ("", "DEFAULT", _SPREAD):
            return Strategy(spread=base == _SPREAD, selectors=selectors)
        if base.startswith((_HARD, _SOFT)):
            node_id = NodeID(bytes.fromhex(base.partition(":")[2]))
            if len(node_id) == NODE_LENGTH:
                return Strategy(node_id=node_id, soft=base.startswith(_SOFT), selectors=selectors)
        if match := _GROUP.fullmatch(base):
            bundle = None if match[2] is None else int(match[2])
            return Strategy(
                selectors=selectors, group_id=bytes.fromhex(match[1]), bundle=bundle, captures=bool(match[3])
            )
    except ValueError as error:
        raise InvalidRequest(f"unknown scheduling strategy {text!r}: {error}") from None
    raise InvalidRequest(
        f"unknown scheduling strategy {text!r}: use DEFAULT, SPREAD, node:<hex>, node?:<hex> or group:<hex>, selectors "
        "after a ';'"
    )
