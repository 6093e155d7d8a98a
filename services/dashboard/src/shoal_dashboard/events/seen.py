"""Which reports of which node have come, so that each counts once and what is missing is asked for. Pure."""

from __future__ import annotations

from typing import NamedTuple

from shoal_common.events.node_events import Listening, NodeReport
from shoal_dashboard.events.rows import QueryError


class Mark(NamedTuple):
    """A node's report, up to which somebody wants its reports to have come."""

    node_id: bytes
    incarnation: int
    number: int

    @classmethod
    def of(cls, text: str) -> Mark:
        """ "node:incarnation:number". Raises: QueryError."""
        try:
            node_id, incarnation, number = text.split(":")
            return cls(bytes.fromhex(node_id), int(incarnation), int(number))
        except ValueError:
            raise QueryError(f"after={text[:100]} is not a report, as <node id>:<incarnation>:<number>") from None


class _Node:
    __slots__ = ("ahead", "incarnation", "upto")

    def __init__(self, incarnation: int, upto: int) -> None:
        self.incarnation = incarnation
        #: All up to this number have come, or are lost.
        self.upto = upto
        #: Those beyond that have come.
        self.ahead: set[int] = set()


class Seen:
    """Of all nodes."""

    def __init__(self, seen: dict[bytes, tuple[int, int]] | None = None) -> None:
        """``seen``: as ``listening`` told it in an earlier life."""
        self._nodes = {node_id: _Node(*each) for node_id, each in (seen or {}).items()}
        #: Reports that never come any more.
        self.lost = 0

    def take(self, report: NodeReport) -> bool:
        """Whether it is new."""
        node = self._nodes.get(report.node_id)
        if node is None:
            # What it has told before anybody listened, and does not have any more, is nobody's loss.
            node = self._nodes[report.node_id] = _Node(report.incarnation, report.oldest - 1)
        elif report.incarnation > node.incarnation:
            node = self._nodes[report.node_id] = _Node(report.incarnation, 0)
        elif report.incarnation < node.incarnation:
            return False
        if report.oldest - 1 > node.upto:
            gone = report.oldest - 1 - node.upto
            self.lost += gone - sum(number < report.oldest for number in node.ahead)
            node.ahead = {number for number in node.ahead if number >= report.oldest}
            node.upto = report.oldest - 1
        if report.number <= node.upto or report.number in node.ahead:
            return False
        node.ahead.add(report.number)
        while node.upto + 1 in node.ahead:
            node.upto += 1
            node.ahead.discard(node.upto)
        return True

    def knows(self, node_id: bytes) -> bool:
        """Something has come from it."""
        return node_id in self._nodes

    def reached(self, mark: Mark) -> bool:
        """All up to it have come, or are lost."""
        node = self._nodes.get(mark.node_id)
        return not mark.number or (
            node is not None and (node.incarnation, node.upto) >= (mark.incarnation, mark.number)
        )

    def listening(self) -> Listening:
        return Listening({node_id: (node.incarnation, node.upto) for node_id, node in self._nodes.items()})

    def forget(self, node_id: bytes) -> None:
        """It is gone for good."""
        self._nodes.pop(node_id, None)

    def validate(self) -> None:
        """Asserts what must always hold; for tests."""
        for node in self._nodes.values():
            assert all(number > node.upto + 1 for number in node.ahead)
