"""Values of the option ``scheduling_strategy`` besides "DEFAULT" and "SPREAD"."""

from __future__ import annotations

from typing import Any

from shoal_common import ids


class NodeAffinitySchedulingStrategy:
    """Run the task or actor on one node.

    While that node lives and is big enough the task waits for it. If not, it runs elsewhere when ``soft``, else it
    fails with TaskUnschedulableError or ActorUnschedulableError.

    Raises: ValueError when ``node_id`` (hexadecimal, see ``shoal.nodes()``) cannot be the id of a node.
    """

    def __init__(self, node_id: Any, soft: bool) -> None:
        self.node_id: str = node_id if isinstance(node_id, str) else node_id.hex()
        self.soft = soft
        try:
            raw = bytes.fromhex(self.node_id)
        except ValueError:
            raw = b""
        if len(raw) != ids.NODE_LENGTH or not any(raw):
            raise ValueError(
                f"Invalid node_id '{self.node_id}'. Node ID must be a valid hex string. To get a list of all nodes and "
                "their IDs in your cluster, use shoal.nodes()."
            )

    def __repr__(self) -> str:
        return f"NodeAffinitySchedulingStrategy({self.node_id!r}, soft={self.soft})"
