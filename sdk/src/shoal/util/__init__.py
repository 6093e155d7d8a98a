"""What is built on top of the core API: pools, queues, iterators over results; as ``ray.util``.

``shoal.util.queue``, ``.multiprocessing`` and ``.joblib`` are imported by those who use them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from shoal._api.cluster import list_named_actors
from shoal._api.named_objects import list_named_objects
from shoal._not_implemented import missing
from shoal._values.serialization import deregister_serializer, register_serializer
from shoal.util import accelerators as accelerators
from shoal.util import scheduling_strategies as scheduling_strategies
from shoal.util.actor_pool import ActorPool
from shoal.util.check_serialize import inspect_serializability
from shoal.util.client_connect import connect, disconnect
from shoal.util.completion import as_completed, map_unordered
from shoal.util.debug import disable_log_once_globally, enable_periodic_logging, log_once
from shoal.util.node_address import get_node_instance_id, get_node_ip_address
from shoal.util.placement_group import (
    get_current_placement_group,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)

__all__ = [
    "ActorPool",
    "accelerators",
    "as_completed",
    "connect",
    "deregister_serializer",
    "disable_log_once_globally",
    "disconnect",
    "enable_periodic_logging",
    "get_current_placement_group",
    "get_node_instance_id",
    "get_node_ip_address",
    "get_placement_group",
    "inspect_serializability",
    "list_named_actors",
    "list_named_objects",
    "log_once",
    "map_unordered",
    "placement_group",
    "placement_group_table",
    "register_serializer",
    "remove_placement_group",
]

_NOT_THERE = {
    "iter": "shoal.util.as_completed() and map_unordered() go over results as they come",
    "ray_debugpy": "breakpoint(), and `shoal debug` in a terminal",
}
#: Modules that are attributes without having been imported, as in Ray; few programs need them.
_WHEN_ASKED_FOR = ("collective", "pdb")


if not TYPE_CHECKING:  # a type checker would take every name for one of the module's

    def __getattr__(name: str) -> Any:
        if name in _WHEN_ASKED_FOR:
            return importlib.import_module(f"{__name__}.{name}")
        raise missing(__name__, name, _NOT_THERE)
