"""When what is known of the cluster is read again. Pure: the time comes in.

Whoever asks gets what was read after the question, or so shortly before that reading it again would cost the GCS more
than a tenth of its time, however many ask.
"""

from __future__ import annotations

from dataclasses import dataclass

#: The share of the time that the GCS may spend on answering, for one kind of rows.
SHARE = 0.1
#: What was read so recently is fresh in any case, in seconds.
LEAST_S = 0.05


@dataclass(slots=True)
class Freshness:
    """Of one kind of rows."""

    #: When the last reading that succeeded began, and how long it took; seconds.
    began: float = float("-inf")
    took_s: float = 0.0

    def read(self, began: float, ended: float) -> None:
        self.began, self.took_s = began, ended - began

    def fresh(self, now: float) -> bool:
        return now - self.began <= max(LEAST_S, self.took_s / SHARE)
