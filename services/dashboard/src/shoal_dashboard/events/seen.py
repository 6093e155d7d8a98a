"""Which reports of which node have come, so that each counts once and what is missing is asked for. Pure."""

from __future__ import annotations

from shoal_common.node_events import Listening, NodeReport


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

    def listening(self) -> Listening:
        return Listening({node_id: (node.incarnation, node.upto) for node_id, node in self._nodes.items()})

    def forget(self, node_id: bytes) -> None:
        """It is gone for good."""
        self._nodes.pop(node_id, None)

    def validate(self) -> None:
        """Asserts what must always hold; for tests."""
        for node in self._nodes.values():
            assert all(number > node.upto + 1 for number in node.ahead)
