"""How often, and after how long, something is tried again. Pure: chance is injected, nobody sleeps here."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with full jitter: each pause is uniform between 0 and a bound that doubles.

    Full jitter and not a fixed share of it, because many clients see one service die in the same instant.
    """

    #: Tries in all, the first included.
    attempts: int = 5
    #: Bound of the first pause, in seconds.
    initial_s: float = 0.1
    #: Bound of any pause, in seconds.
    maximum_s: float = 1.0

    def pauses(self, rng: random.Random) -> Iterator[float]:
        """The pauses between the tries, in seconds; one fewer than ``attempts``."""
        bound = self.initial_s
        for _ in range(self.attempts - 1):
            yield rng.uniform(0, bound)
            bound = min(bound * 2, self.maximum_s)
