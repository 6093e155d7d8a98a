"""What starts and ends nodes: Docker, processes of this machine, some day Kubernetes or a cloud."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from shoal_autoscaler.plan import NodeType


class ProviderError(Exception):
    """It did not do what was asked; the text says why. It is asked again."""


@dataclass(frozen=True, slots=True)
class ProviderNode:
    provider_id: str
    type_name: str


class Provider(Protocol):
    """Belongs to one event loop. All methods raise ProviderError, and take seconds at most: a node comes up later."""

    async def nodes(self) -> Sequence[ProviderNode]:
        """All that it has started and that neither have ended nor are being ended; where they outlive it, those of an
        earlier one too."""

    async def launch(self, provider_id: str, node_type: NodeType) -> None:
        """Start a node whose label ``PROVIDER_LABEL`` is ``provider_id``."""

    async def terminate(self, provider_id: str) -> None:
        """End it: SIGTERM, so that it leaves the cluster, and by force when that takes long. Idempotent."""

    async def close(self) -> None:
        """At the autoscaler's end: what cannot outlive it ends."""
