"""``shoal.actor``, as Ray's ``ray.actor``."""

from __future__ import annotations

from shoal._api.actor_classes import ActorClass, exit_actor
from shoal._api.actor_handles import ActorHandle, ActorMethod, ActorProxy
from shoal.exceptions import ActorClassInheritanceException

__all__ = ["ActorClass", "ActorClassInheritanceException", "ActorHandle", "ActorMethod", "ActorProxy", "exit_actor"]
