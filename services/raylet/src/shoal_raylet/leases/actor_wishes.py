"""What is set aside on one node for actors that found no room, until the GCS tries again to create them. Pure."""

from __future__ import annotations

from shoal_common.placement.resources import ResourceSet

#: At most so long, in seconds.
ACTOR_WISH_S = 2.0


class ActorWishes:
    def __init__(self) -> None:
        self._wishes: dict[bytes, tuple[ResourceSet, float]] = {}

    def __bool__(self) -> bool:
        return bool(self._wishes)

    @property
    def needs(self) -> list[ResourceSet]:
        return [need for need, _ in self._wishes.values()]

    def add(self, actor_id: bytes, need: ResourceSet, now: float) -> None:
        self._wishes[actor_id] = (need, now)

    def discard(self, actor_id: bytes) -> None:
        self._wishes.pop(actor_id, None)

    def forget_old(self, now: float) -> None:
        for actor_id in [a for a, (_, since) in self._wishes.items() if now - since >= ACTOR_WISH_S]:
            del self._wishes[actor_id]
