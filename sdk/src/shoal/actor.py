"""``shoal.actor``, as Ray's ``ray.actor``."""

from __future__ import annotations

from shoal._actor import ActorClass, exit_actor
from shoal._actor_handle import ActorHandle, ActorMethod
from shoal.exceptions import ActorClassInheritanceException

__all__ = ["ActorClass", "ActorClassInheritanceException", "ActorHandle", "ActorMethod", "exit_actor"]
