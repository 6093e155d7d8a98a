"""Rows, measured in rounds in which all participants take turns: a slow minute is bad for each of them."""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import median

from participants import Participant, ParticipantError, Participants
from rows import Row


class Comparison:
    """Runs rows and collects what they measured. ``stop()`` ends it."""

    def __init__(self, rounds: int, seconds: float, scratch: Path, *, fresh: bool) -> None:
        """``seconds``: of one measurement. ``fresh``: each row gets processes and clusters of its own."""
        self._rounds = rounds
        self._seconds = seconds
        self._fresh = fresh
        self.participants = Participants(scratch)
        self._running: dict[str, Participant] = {}
        #: Row key → participant → the rate of each round.
        self.rates: dict[str, dict[str, list[float]]] = {}
        self.failures: list[str] = []

    def run_row(self, row: Row) -> None:
        rates: dict[str, list[float]] = {}
        for name in ("shoal", "ray", *row.yardsticks):
            if name not in self._running:
                self._running[name] = self.participants.start(name)
            try:
                self._running[name].prepare(row.key)
                rates[name] = []
            except ParticipantError as error:
                self._failed(name, error)
        for _ in range(row.rounds or self._rounds):
            for name in list(rates):
                try:
                    rates[name].append(self._running[name].measure(self._seconds))
                except ParticipantError as error:
                    del rates[name]
                    self._failed(name, error)
        self.rates[row.key] = rates
        print(f"{row.title}: " + ", ".join(f"{n} {median(r):,.3g}" for n, r in rates.items()), flush=True)
        if self._fresh:
            self.stop()

    def stop(self) -> None:
        for participant in self._running.values():
            participant.stop()
        self._running.clear()

    def failed(self, error: ParticipantError) -> None:
        self.failures.append(str(error))
        print(f"FAILED {error}", file=sys.stderr, flush=True)

    def _failed(self, name: str, error: ParticipantError) -> None:
        self._running.pop(name).stop()
        self.failed(error)
