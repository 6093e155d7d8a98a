"""How often, and after how long, something is tried again. Pure: chance is injected, nobody sleeps here."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with jitter: each pause is uniform between half of a bound, which doubles, and the bound.

    The defaults try for 1.75 to 3.5 s in all. Full jitter, from 0 on, would spread the clients of a dead service
    better, but could use up all tries before a channel connects again, which it attempts every 1.2 s at the latest.
    """

    #: Tries in all, the first included; None = no end.
    attempts: int | None = 7
    #: Bound of the first pause, in seconds.
    initial_s: float = 0.1
    #: Bound of any pause, in seconds.
    maximum_s: float = 1.0

    def pauses(self, rng: random.Random) -> Iterator[float]:
        """The pauses between the tries, in seconds; one fewer than ``attempts``."""
        bound = self.initial_s
        for _ in itertools.count() if self.attempts is None else range(self.attempts - 1):
            yield rng.uniform(bound / 2, bound)
            bound = min(bound * 2, self.maximum_s)


#: Of a call that says nothing else.
USUAL = RetryPolicy()
