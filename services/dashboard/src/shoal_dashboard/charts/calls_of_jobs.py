"""Who calls whom in a job, read once for all who look at it, and not more often than it costs little."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import partial

from shoal_dashboard.cluster.listing import Listing
from shoal_dashboard.events.rows import Calls

#: Jobs that are remembered, those looked at last.
JOBS = 16


class CallsOfJobs:
    """Belongs to one event loop."""

    def __init__(self, read: Callable[[str], Awaitable[list[Calls]]]) -> None:
        """``read``: of a job, or of all ("")."""
        self._read = read
        self._jobs: OrderedDict[str, Listing[list[Calls]]] = OrderedDict()

    async def of(self, job_id: str, patience_s: float) -> list[Calls]:
        """As `Listing.recent`. Raises: what ``read`` does."""
        listing = self._jobs.pop(job_id, None) or Listing(partial(self._read, job_id))
        self._jobs[job_id] = listing
        if len(self._jobs) > JOBS:
            await self._jobs.popitem(last=False)[1].close()
        return await listing.recent(patience_s)

    async def close(self) -> None:
        while self._jobs:
            await self._jobs.popitem()[1].close()
