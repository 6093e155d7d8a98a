"""What is built on top of the core API: pools, queues, iterators over results; as ``ray.util``.

``shoal.util.queue``, ``.multiprocessing`` and ``.joblib`` are imported by those who use them.
"""

from __future__ import annotations

from shoal._api.cluster import list_named_actors
from shoal._values.serialization import deregister_serializer, register_serializer
from shoal.util import scheduling_strategies as scheduling_strategies
from shoal.util.actor_pool import ActorPool
from shoal.util.check_serialize import inspect_serializability
from shoal.util.completion import as_completed, map_unordered
from shoal.util.node_address import get_node_ip_address
from shoal.util.placement_group import (
    get_current_placement_group,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)

__all__ = [
    "ActorPool",
    "as_completed",
    "deregister_serializer",
    "get_current_placement_group",
    "get_node_ip_address",
    "get_placement_group",
    "inspect_serializability",
    "list_named_actors",
    "map_unordered",
    "placement_group",
    "placement_group_table",
    "register_serializer",
    "remove_placement_group",
]
