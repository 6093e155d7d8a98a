"""Since when a node has had nothing to do. Pure."""

from __future__ import annotations


class Idleness:
    def __init__(self) -> None:
        self._since: dict[bytes, float] = {}

    def since(self, node_id: bytes, *, busy: bool, now: float) -> float | None:
        """None = it has something to do. To be told of each node at each look."""
        if busy:
            self._since.pop(node_id, None)
            return None
        return self._since.setdefault(node_id, now)
