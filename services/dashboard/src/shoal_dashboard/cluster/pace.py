"""How often the cluster is asked the same. Pure: the time comes in.

However many look at it, however often: answering takes at most a quarter of the time of whoever answers. What is
cheap is so read at once, and only what is large is waited for.
"""

from __future__ import annotations

from dataclasses import dataclass

#: The share of the time that answers to one question may take.
SHARE = 0.25


@dataclass(slots=True)
class Pace:
    """Of one question. All times are seconds."""

    #: Before that it is not asked again.
    not_before: float = 0.0

    def answered(self, began: float, ended: float) -> None:
        self.not_before = began + (ended - began) / SHARE

    def pause(self, now: float) -> float:
        """How long to wait before it is asked again."""
        return max(0.0, self.not_before - now)
