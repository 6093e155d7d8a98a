"""Exact counts by function, out of the totals that nodes tell. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy

from shoal_common.events.node_events import NodeReport
from shoal_common.events.task_events import ALIVE, FunctionTally, TaskKind, TaskState
from shoal_dashboard.events.rows import FunctionCounts

_Key = tuple[bytes, str, int]
#: A node in one of its lives.
Life = tuple[bytes, int]


class Counters:
    """Of all nodes, also of those that are gone."""

    def __init__(self) -> None:
        #: By node and its incarnation; and the report that each was in.
        self._told: dict[Life, dict[_Key, FunctionTally]] = {}
        self._numbers: dict[tuple[Life, _Key], int] = {}
        self.unnamed = 0
        self.lost = 0

    def take(self, report: NodeReport) -> list[tuple[Life, FunctionTally]]:
        """Returns what has changed. Reports may come in any order."""
        life = (report.node_id, report.incarnation)
        changed = []
        if life not in self._told:
            for other in self._told:
                if other[0] == report.node_id and other[1] < report.incarnation:
                    changed += self._ended(other)
        told = self._told.setdefault(life, {})
        for tally in report.tallies:
            key = (tally.job_id, tally.function, tally.kind)
            if self._numbers.get((life, key), 0) < report.number:
                self._numbers[life, key] = report.number
                told[key] = tally
                changed.append((life, tally))
        self.unnamed += report.unnamed
        self.lost += report.lost
        return changed

    def node_ended(self, node_id: bytes) -> list[tuple[Life, FunctionTally]]:
        """What its processes had not seen end has failed with them. Returns what has changed."""
        return [each for life in self._told if life[0] == node_id for each in self._ended(life)]

    def restore(self, told: Iterable[tuple[Life, FunctionTally]], unnamed: int, lost: int) -> None:
        for life, tally in told:
            key = (tally.job_id, tally.function, tally.kind)
            self._told.setdefault(life, {})[key] = tally
        self.unnamed, self.lost = unnamed, lost

    def told(self) -> list[tuple[Life, FunctionTally]]:
        """For ``restore``."""
        return [(life, tally) for life, told in self._told.items() for tally in told.values()]

    def counts(self, job_id: bytes = b"") -> list[FunctionCounts]:
        """Those with most tasks first; ``job_id`` empty: of all jobs."""
        sums: dict[_Key, FunctionTally] = {}
        for told in self._told.values():
            for key, tally in told.items():
                if job_id and key[0] != job_id:
                    continue
                known = sums.get(key)
                if known is None:
                    known = sums[key] = copy(tally)
                    known.alive = list(tally.alive)
                else:
                    known.add(tally)
        return sorted(map(_counts, sums.values()), key=lambda counts: -counts.submitted)

    def _ended(self, life: Life) -> list[tuple[Life, FunctionTally]]:
        changed = []
        for tally in self._told[life].values():
            if tally.unended or any(tally.alive):
                tally.failed += tally.unended
                tally.alive = [0] * len(ALIVE)
                changed.append((life, tally))
        return changed


def _counts(tally: FunctionTally) -> FunctionCounts:
    alive = list(tally.alive)
    # The look at what is alive may be older than the counts, which are what is exact.
    missing = tally.unended - sum(alive)
    if missing > 0:
        alive[TaskState.PENDING_NODE_ASSIGNMENT] += missing
    for state in ALIVE:
        less = min(alive[state], max(0, -missing))
        alive[state] -= less
        missing += less
    states = {state.name: alive[state] for state in ALIVE if alive[state]}
    states |= {TaskState.FINISHED.name: tally.finished, TaskState.FAILED.name: tally.failed}
    return FunctionCounts(
        job_id=tally.job_id.hex(),
        func_or_class_name=tally.function,
        type=TaskKind(tally.kind).name,  # type: ignore[arg-type]  # the same names
        states={state: count for state, count in states.items() if count},
        cancelled=tally.cancelled,
        retried=tally.retried,
        total_run_ms=tally.run_us / 1_000,
        min_run_ms=tally.min_us / 1_000,
        max_run_ms=tally.max_us / 1_000,
    )
