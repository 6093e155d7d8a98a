"""Scheduling policies: a request and what is believed of the nodes go in, places come out. Pure."""

from shoal_scheduler.policies.placement import Placer
from shoal_scheduler.policies.request import Answer, Request, node_id_of

__all__ = ["Answer", "Placer", "Request", "node_id_of"]
