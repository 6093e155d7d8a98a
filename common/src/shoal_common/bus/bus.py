"""``EventBus``: publish and subscribe with wildcards.

Events are hints and the GCS is the truth: an event may be lost, and one that arrives may be out of date by
the time it is handled. Whoever needs certainty reads the state again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

#: Gets subject and data. Runs in the event loop, one event at a time, and must not block.
Handler = Callable[[str, bytes], None]
#: Runs in the event loop and must not block.
OnGap = Callable[[], object]


class EventBusError(Exception):
    """The event was not published, or the subscription is not in force; events are hints, so going on is fine."""


class Subscription(Protocol):
    async def unsubscribe(self) -> None:
        """No handler call begins after this returns. Idempotent."""


class EventBus(Protocol):
    """Events of one publisher arrive in the order they were published, those of different ones in any order."""

    async def publish(self, subject: str, data: bytes) -> None:
        """Raises: ValueError when the subject is not one (empty token, wildcard); EventBusError."""

    async def subscribe(self, pattern: str, handler: Handler, on_gap: OnGap = lambda: None) -> Subscription:
        """Have ``handler`` called for every event whose subject matches; in force when this returns.

        ``on_gap`` is called when it is in force again after an interruption: events may have been lost meanwhile.

        ``*`` stands for exactly one token, ``>`` at the end for one or more. A handler that raises is logged
        and called again for the next event. A subscriber that falls too far behind loses the newest events.

        Raises: ValueError when the pattern is not one; EventBusError.
        """

    async def close(self) -> None:
        """End all subscriptions. Idempotent."""
