"""The event bus: hints about what has changed, under one interface for every carrier."""

from shoal_common.bus.bus import EventBus, EventBusError, Handler, Subscription

__all__ = ["EventBus", "EventBusError", "Handler", "Subscription"]
