"""Scheduling policies: pure functions from a request and the nodes to a choice."""

from shoal_scheduler.policies.placement import pick
from shoal_scheduler.policies.request import Choice, Request, node_id_of

__all__ = ["Choice", "Request", "node_id_of", "pick"]
