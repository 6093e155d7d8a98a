"""What every family of endpoints is given, and how long it lives."""

from __future__ import annotations

from types import TracebackType

from shoal_common.errors import ServiceError, Unavailable
from shoal_common.service.background import Background
from shoal_dashboard.charts.calls_of_jobs import CallsOfJobs
from shoal_dashboard.charts.ring import Ring
from shoal_dashboard.cluster.cluster import Cluster
from shoal_dashboard.config import DashboardConfig
from shoal_dashboard.events.rows import Calls
from shoal_dashboard.events.seen import Mark
from shoal_dashboard.events.store import TaskStore
from shoal_dashboard.jobs.jobs import Jobs
from shoal_dashboard.logs.search import LogSearch
from shoal_dashboard.recording import Recording
from shoal_dashboard.streams import Streams


class Context:
    """The parts behind the endpoints. An asynchronous context manager: within it they run.

    Entering waits for nobody: a cluster that is not there yet is looked for in the background.
    """

    def __init__(self, config: DashboardConfig) -> None:
        self.config = config
        #: Where it is reached, as others are told; empty = nobody is told.
        self.url = ""
        #: Awaited at the end; for what outlives a request.
        self.background = Background()
        #: How busy nodes were in the last hour.
        self.ring = Ring()
        #: Pages that are watched.
        self.streams = Streams()
        self.cluster: Cluster
        self.jobs: Jobs
        self.log_search: LogSearch
        #: Who calls whom in jobs that are looked at.
        self.calls: CallsOfJobs
        #: None = the cluster has not been found yet.
        self.tasks: TaskStore | None = None

    async def __aenter__(self) -> Context:
        self.cluster = Cluster(self.config)
        self.jobs = Jobs(self.config, self.cluster)
        self.log_search = LogSearch(self.cluster)
        self.calls = CallsOfJobs(self._read_calls)
        self._recording = Recording(self.config, self.cluster, self.ring, self._opened)
        self._recording.start()
        if self.url:
            self.background.spawn(self.cluster.announce(self.url))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.streams.close()
        await self.background.stop()
        await self.calls.close()
        await self._recording.close()
        await self.jobs.close()
        await self.cluster.close()

    async def caught_up(self, after: str) -> None:
        """Before a question about tasks: ``after`` is the report that it is to know of; empty = none. Waits a few
        seconds at most. Raises: QueryError."""
        if after:
            await self._recording.caught_up(Mark.of(after))

    def cluster_away(self) -> ServiceError | None:
        """As `Cluster.away`, which is there only within this."""
        return self.cluster.away

    async def _read_calls(self, job_id: str) -> list[Calls]:
        if self.tasks is None:
            raise Unavailable("the cluster has not been found yet")
        return await self.tasks.calls(job_id)

    def _opened(self, tasks: TaskStore) -> None:
        self.tasks = tasks
