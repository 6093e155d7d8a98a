"""How instances of a class are sent: ``shoal.util.register_serializer``, as ``ray.util.serialization``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shoal._values.serialization import deregister_serializer, register_reducer, register_serializer

__all__ = ["StandaloneSerializationContext", "deregister_serializer", "register_serializer"]


class StandaloneSerializationContext:
    """Registers serializers before a session has started, by the names that libraries call. In Shoal that makes no
    difference: all of them hold for this process, whether a session runs or not."""

    def _register_cloudpickle_reducer(self, cls: type, reducer: Callable[[Any], Any]) -> None:
        """``reducer(instance)`` is as ``__reduce__``."""
        register_reducer(cls, reducer)

    def _unregister_cloudpickle_reducer(self, cls: type) -> None:
        deregister_serializer(cls)

    def _register_cloudpickle_serializer(
        self, cls: type, custom_serializer: Callable[[Any], Any], custom_deserializer: Callable[[Any], Any]
    ) -> None:
        register_serializer(cls, serializer=custom_serializer, deserializer=custom_deserializer)
