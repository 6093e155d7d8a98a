"""What jobs with a quota may hold on this node: allowances, of which the GCS keeps the books. Pure.

A job without a quota is not known here. For one with a quota the raylet asks the GCS, whole leases at a time, when
tasks wait for which the node has room; it says in the same breath what it keeps. What is not used for a moment goes
back, at once where others wait for it. A question that is not answered gives away what it gave back, and gets nothing:
so the GCS never counts less than is held here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from shoal_common.placement.resources import ResourceSet
from shoal_common.service.story import Story, noted
from shoal_raylet.actions import AskAllowance

#: Allowance that nothing uses is given back after so long, in seconds.
IDLE_S = 0.5
#: Who holds an allowance, or for whom something waits, asks so often how things are, in seconds.
RENEW_S = 1.0
#: Bounds of the pause before the same is asked again, in seconds.
FIRST_PAUSE_S = 0.02
LAST_PAUSE_S = 0.5
#: So many leases are asked for at a time.
MOST_WANTS = 64


@dataclass(frozen=True, slots=True)
class AllowanceAnswer:
    granted: ResourceSet
    #: What nobody in the cluster holds of the quota.
    left: ResourceSet
    #: What tasks may hold of it altogether.
    for_tasks: ResourceSet
    #: What others wait for that have less.
    asked_back: ResourceSet


@dataclass(slots=True)
class Allowance:
    #: Of the quota, in grains.
    limit: Mapping[str, int]
    granted: ResourceSet = field(default_factory=ResourceSet)
    #: By the last answer, from here on; until there is one, all.
    left: ResourceSet = field(default_factory=ResourceSet)
    for_tasks: ResourceSet = field(default_factory=ResourceSet)
    asked_back: ResourceSet = field(default_factory=ResourceSet)
    #: Of the last question.
    number: int = 0
    asking: bool = False
    #: For more, not before.
    ask_at: float = 0.0
    pause_s: float = FIRST_PAUSE_S
    renew_at: float = 0.0
    #: Since when more is granted than used.
    idle_since: float | None = None
    #: Something waits, and for more of it.
    waits: bool = False
    wants: bool = False

    def counted(self, resources: ResourceSet) -> ResourceSet:
        """What of this the quota is about."""
        return ResourceSet({name: resources[name] for name in self.limit})


class Allowances:
    def __init__(self) -> None:
        self._story = Story("allowances of jobs")
        self._jobs: dict[bytes, Allowance] = {}

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._jobs)

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def __contains__(self, job_id: bytes) -> bool:
        return job_id in self._jobs

    def __getitem__(self, job_id: bytes) -> Allowance:
        return self._jobs[job_id]

    @noted
    def begin(self, job_id: bytes, limit: Mapping[str, int]) -> Allowance:
        """Something of a job with this quota waits here. Idempotent."""
        all_of_it = ResourceSet(limit)
        return self._jobs.setdefault(job_id, Allowance(limit, left=all_of_it, for_tasks=all_of_it))

    @noted
    def revoked(self, job_id: bytes) -> None:
        """The job is over, and its quota with it."""
        if job_id in self._jobs:
            self._jobs[job_id].granted = self._jobs[job_id].asked_back = ResourceSet()

    @noted
    def keep_only(self, job_ids: Collection[bytes]) -> None:
        """Of other jobs nothing is left here; what has been granted to them goes back first."""
        for job_id in [each for each in self._jobs if each not in job_ids]:
            if not self._jobs[job_id].granted and not self._jobs[job_id].asking:
                del self._jobs[job_id]

    @noted
    def settle(
        self, job_id: bytes, spare: ResourceSet, waits: bool, wants: Sequence[ResourceSet], now: float
    ) -> list[AskAllowance]:
        """``spare``: granted and not used. ``waits``: something of the job does. ``wants``: what each lease needs that
        waits for nothing else."""
        allowance = self._jobs[job_id]
        allowance.waits, allowance.wants = waits, bool(wants)
        if not spare:
            allowance.idle_since = None
        elif allowance.idle_since is None:
            allowance.idle_since = now
        if allowance.asking:
            return []
        idle = allowance.idle_since is not None and now - allowance.idle_since >= IDLE_S
        back = spare if wants or idle else _least(spare, allowance.asked_back)
        due = now >= (allowance.ask_at if wants else allowance.renew_at) and (waits or bool(allowance.granted))
        if not due and (wants or not back):
            return []
        allowance.granted -= back
        allowance.asked_back -= _least(allowance.asked_back, back)
        allowance.idle_since = None
        allowance.number += 1
        allowance.asking = True
        return [AskAllowance(job_id, allowance.number, allowance.granted, tuple(wants[:MOST_WANTS]))]

    @noted
    def answered(self, job_id: bytes, number: int, answer: AllowanceAnswer | None, now: float) -> None:
        """None: nobody has answered, or has understood."""
        allowance = self._jobs.get(job_id)
        if allowance is None or number != allowance.number or not allowance.asking:
            return
        allowance.asking = False
        allowance.renew_at = now + RENEW_S
        if answer is None or answer.granted == allowance.granted:
            allowance.ask_at = now + allowance.pause_s
            allowance.pause_s = min(2 * allowance.pause_s, LAST_PAUSE_S)
        else:
            allowance.ask_at, allowance.pause_s = now, FIRST_PAUSE_S
        if answer is not None:
            allowance.granted, allowance.asked_back = answer.granted, answer.asked_back
            allowance.left, allowance.for_tasks = answer.left, answer.for_tasks

    def next_deadline(self) -> float | None:
        """When ``settle`` may have something to ask."""
        deadlines = []
        for allowance in self._jobs.values():
            if allowance.asking:
                continue
            if allowance.wants:
                deadlines.append(allowance.ask_at)
            if allowance.granted or allowance.waits:
                deadlines.append(allowance.renew_at)
            if allowance.idle_since is not None:
                deadlines.append(allowance.idle_since + IDLE_S)
        return min(deadlines, default=None)

    def validate(self) -> None:
        for allowance in self._jobs.values():
            for amounts in (allowance.granted, allowance.asked_back):
                assert all(grains > 0 for grains in amounts.grains.values())
                assert amounts.grains.keys() <= allowance.limit.keys()


def _least(first: ResourceSet, second: ResourceSet) -> ResourceSet:
    return ResourceSet({name: min(first[name], second[name]) for name in first})
