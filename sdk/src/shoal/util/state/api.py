"""What the cluster has, and how it is: rows of actors, tasks, nodes and the like, told by its dashboard."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast
from urllib.parse import urlencode

from shoal._core.object_ref import ObjectRef
from shoal._net.dashboard import DashboardError
from shoal._session.dashboards import dashboard_client, own_tasks_mark
from shoal.util.state.common import (
    DEFAULT_LIMIT,
    DEFAULT_RPC_TIMEOUT,
    ActorState,
    ClusterEventState,
    FilterType,
    GetApiOptions,
    JobState,
    ListApiOptions,
    NodeState,
    ObjectState,
    PlacementGroupState,
    RuntimeEnvState,
    StateResource,
    StateRow,
    SummaryApiOptions,
    SummaryResource,
    TaskState,
    WorkerState,
)
from shoal.util.state.exception import RayStateApiException, ServerUnavailable
from shoal_common.state_rows import RESOURCES

_IDS = {
    StateResource.NODES: "node_id",
    StateResource.ACTORS: "actor_id",
    StateResource.PLACEMENT_GROUPS: "placement_group_id",
    StateResource.WORKERS: "worker_id",
    StateResource.TASKS: "task_id",
    StateResource.OBJECTS: "object_id",
    StateResource.JOBS: "submission_id",
}

R = TypeVar("R", bound=StateRow)


class StateApiClient:
    """``address``: as `shoal.job_submission.JobSubmissionClient` takes it; also host:port of a GCS, or "auto".

    Raises: ServerUnavailable (no dashboard is known), ValueError (no such address), AuthenticationError. Methods raise:
    RayStateApiException (the dashboard cannot answer this), ServerUnavailable, AuthenticationError.
    """

    def __init__(
        self,
        address: str | None = None,
        cookies: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        try:
            self._dashboard = dashboard_client(address, headers=headers, cookies=cookies)
        except ConnectionError as error:
            raise ServerUnavailable(str(error)) from None

    def list(
        self, resource: StateResource, options: ListApiOptions, raise_on_missing_output: bool, _explain: bool = False
    ) -> list[StateRow]:
        """``raise_on_missing_output``: raise when some of the cluster could not be asked."""
        found = self._ask(
            resource.value, options.timeout, options.filters or (), limit=options.limit, detail=options.detail
        )
        missing = found["partial_failure_warning"]
        if missing and raise_on_missing_output:
            raise RayStateApiException(
                f"Failed to retrieve all {resource.value} from the cluster: {missing}. To have what there is, set "
                "raise_on_missing_output=False"
            )
        if _explain:
            self._warn(found, missing)
        kind = RESOURCES[resource.value]
        return [kind(**row) for row in found["result"]]

    def get(self, resource: StateResource, id: str, options: GetApiOptions | None, _explain: bool = False) -> Any:
        """All columns of one; None = there is none. Of objects, and of a task with several attempts, a list."""
        if resource not in _IDS:
            raise ValueError(f"Can't get {resource.name} by id.")
        found = self._ask(
            resource.value, (options or GetApiOptions()).timeout, [(_IDS[resource], "=", id)], detail=True
        )
        rows = [RESOURCES[resource.value](**row) for row in found["result"]]
        if not rows:
            return None
        return rows if resource is StateResource.OBJECTS or len(rows) > 1 else rows[0]

    def summary(
        self,
        resource: SummaryResource,
        *,
        options: SummaryApiOptions,
        raise_on_missing_output: bool,
        _explain: bool = False,
    ) -> dict[str, Any]:
        """Counts, under "cluster"."""
        by = {} if options.summary_by is None else {"summary_by": options.summary_by}
        found = self._ask(f"{resource.value}/summarize", options.timeout, options.filters or (), **by)
        if found["partial_failure_warning"] and raise_on_missing_output:
            raise RayStateApiException(found["partial_failure_warning"])
        return cast(dict[str, Any], found["result"]["node_id_to_summary"])

    def _ask(self, path: str, timeout: float, filters: Sequence[FilterType], **parameters: Any) -> dict[str, Any]:
        query = [*parameters.items(), ("timeout", int(timeout))]
        if path.partition("/")[0] == StateResource.TASKS.value:
            query += own_tasks_mark().items()
        for key, predicate, value in filters:
            query += [("filter_keys", key), ("filter_predicates", predicate), ("filter_values", value)]
        try:
            answer = self._dashboard.get(f"api/v0/{path}?{urlencode(query)}", timeout)
        except DashboardError as error:
            raise RayStateApiException(_reason(error)) from None
        except ConnectionError as error:
            raise ServerUnavailable(str(error)) from None
        return cast(dict[str, Any], answer["data"]["result"])

    @staticmethod
    def _warn(found: Mapping[str, Any], missing: str) -> None:
        for warning in ([missing] if missing else []) + (found["warnings"] or []):
            warnings.warn(warning, stacklevel=4)
        if found["num_filtered"] > len(found["result"]):
            warnings.warn(
                f"{len(found['result'])} of {found['num_filtered']} are listed: use filters, or a higher limit",
                stacklevel=4,
            )


def _reason(error: DashboardError) -> str:
    try:
        return str(json.loads(error.message.partition(": ")[2])["msg"])
    except (ValueError, LookupError, TypeError):
        return error.message


def _listed(
    kind: type[R],
    resource: StateResource,
    address: str | None,
    filters: Sequence[FilterType] | None,
    limit: int,
    timeout: float,
    detail: bool,
    raise_on_missing_output: bool,
    explain: bool,
) -> list[R]:
    options = ListApiOptions(limit, timeout, detail, filters)
    rows = StateApiClient(address).list(resource, options, raise_on_missing_output, explain)
    return [row for row in rows if isinstance(row, kind)]


def list_actors(
    address: str | None = None,
    filters: Sequence[FilterType] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: float = DEFAULT_RPC_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[ActorState]:
    """Actors, the newest first. Arguments and errors: see `StateApiClient`."""
    return _listed(
        ActorState,
        StateResource.ACTORS,
        address,
        filters,
        limit,
        timeout,
        detail,
        raise_on_missing_output,
        _explain,
    )


def list_placement_groups(
    address: str | None = None,
    filters: Sequence[FilterType] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: float = DEFAULT_RPC_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[PlacementGroupState]:
    """Placement groups, the newest first. Arguments and errors: see `StateApiClient`."""
    return _listed(
        PlacementGroupState,
        StateResource.PLACEMENT_GROUPS,
        address,
        filters,
        limit,
        timeout,
        detail,
        raise_on_missing_output,
        _explain,
    )


def list_nodes(
    address: str | None = None,
    filters: Sequence[FilterType] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: float = DEFAULT_RPC_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[NodeState]:
    """Nodes, those that have ended too. Arguments and errors: see `StateApiClient`."""
    return _listed(
        NodeState,
        StateResource.NODES,
        address,
        filters,
        limit,
        timeout,
        detail,
        raise_on_missing_output,
        _explain,
    )


def list_jobs(
    address: str | None = None,
    filters: Sequence[FilterType] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: float = DEFAULT_RPC_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[JobState]:
    """Jobs, the newest first: those that were handed in, and drivers. Arguments and errors: see `StateApiClient`."""
    return _listed(
        JobState,
        StateResource.JOBS,
        address,
        filters,
        limit,
        timeout,
        detail,
        raise_on_missing_output,
        _explain,
    )


def list_workers(
    address: str | None = None,
    filters: Sequence[FilterType] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: float = DEFAULT_RPC_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[WorkerState]:
    """Processes that run: workers and drivers. Arguments and errors: see `StateApiClient`."""
    return _listed(
        WorkerState,
        StateResource.WORKERS,
        address,
        filters,
        limit,
        timeout,
        detail,
        raise_on_missing_output,
        _explain,
    )


def list_tasks(
    address: str | None = None,
    filters: Sequence[FilterType] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: float = DEFAULT_RPC_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[TaskState]:
    """Tasks, the newest first: each attempt by itself. Arguments and errors: see `StateApiClient`."""
    return _listed(
        TaskState,
        StateResource.TASKS,
        address,
        filters,
        limit,
        timeout,
        detail,
        raise_on_missing_output,
        _explain,
    )


def list_objects(
    address: str | None = None,
    filters: Sequence[FilterType] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: float = DEFAULT_RPC_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[ObjectState]:
    """Objects in the nodes' stores. Arguments and errors: see `StateApiClient`."""
    return _listed(
        ObjectState,
        StateResource.OBJECTS,
        address,
        filters,
        limit,
        timeout,
        detail,
        raise_on_missing_output,
        _explain,
    )


def list_runtime_envs(
    address: str | None = None,
    filters: Sequence[FilterType] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: float = DEFAULT_RPC_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[RuntimeEnvState]:
    """Those that are made on nodes, and those that could not be. Arguments and errors: see `StateApiClient`."""
    return _listed(
        RuntimeEnvState,
        StateResource.RUNTIME_ENVS,
        address,
        filters,
        limit,
        timeout,
        detail,
        raise_on_missing_output,
        _explain,
    )


def list_cluster_events(
    address: str | None = None,
    filters: Sequence[FilterType] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: float = DEFAULT_RPC_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[ClusterEventState]:
    """What has happened in the cluster, the newest first. Arguments and errors: see `StateApiClient`."""
    return _listed(
        ClusterEventState,
        StateResource.CLUSTER_EVENTS,
        address,
        filters,
        limit,
        timeout,
        detail,
        raise_on_missing_output,
        _explain,
    )


def get_actor(
    id: str, address: str | None = None, timeout: float = DEFAULT_RPC_TIMEOUT, _explain: bool = False
) -> ActorState | None:
    """By its id; None = there is none."""
    found = StateApiClient(address).get(StateResource.ACTORS, id, GetApiOptions(timeout), _explain)
    return cast("ActorState | None", found)


def get_job(
    id: str, address: str | None = None, timeout: float = DEFAULT_RPC_TIMEOUT, _explain: bool = False
) -> JobState | None:
    """A job that was handed in, by its submission id; None = there is none."""
    found = StateApiClient(address).get(StateResource.JOBS, id, GetApiOptions(timeout), _explain)
    return cast("JobState | None", found)


def get_placement_group(
    id: str, address: str | None = None, timeout: float = DEFAULT_RPC_TIMEOUT, _explain: bool = False
) -> PlacementGroupState | None:
    """By its id; None = there is none."""
    found = StateApiClient(address).get(StateResource.PLACEMENT_GROUPS, id, GetApiOptions(timeout), _explain)
    return cast("PlacementGroupState | None", found)


def get_node(
    id: str, address: str | None = None, timeout: float = DEFAULT_RPC_TIMEOUT, _explain: bool = False
) -> NodeState | None:
    """By its id; None = there is none."""
    found = StateApiClient(address).get(StateResource.NODES, id, GetApiOptions(timeout), _explain)
    return cast("NodeState | None", found)


def get_worker(
    id: str, address: str | None = None, timeout: float = DEFAULT_RPC_TIMEOUT, _explain: bool = False
) -> WorkerState | None:
    """By its id; None = there is none."""
    found = StateApiClient(address).get(StateResource.WORKERS, id, GetApiOptions(timeout), _explain)
    return cast("WorkerState | None", found)


def get_task(
    id: str | ObjectRef[Any], address: str | None = None, timeout: float = DEFAULT_RPC_TIMEOUT, _explain: bool = False
) -> TaskState | list[TaskState] | None:
    """By its id, or by what it returns; a list when there were several attempts, None = it is not known."""
    task_id = id if isinstance(id, str) else id.task_id().hex()
    found = StateApiClient(address).get(StateResource.TASKS, task_id, GetApiOptions(timeout), _explain)
    return cast("TaskState | list[TaskState] | None", found)


def get_objects(
    id: str, address: str | None = None, timeout: float = DEFAULT_RPC_TIMEOUT, _explain: bool = False
) -> list[ObjectState]:
    """One for each node that has it."""
    found = StateApiClient(address).get(StateResource.OBJECTS, id, GetApiOptions(timeout), _explain)
    return cast("list[ObjectState]", found or [])


def summarize_tasks(
    address: str | None = None,
    timeout: float = DEFAULT_RPC_TIMEOUT,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> dict[str, Any]:
    """How many tasks of each function are in which state, under "cluster": exact, also of those that have no row."""
    client = StateApiClient(address)
    options = SummaryApiOptions(timeout)
    return client.summary(
        SummaryResource.TASKS, options=options, raise_on_missing_output=raise_on_missing_output, _explain=_explain
    )


def summarize_actors(
    address: str | None = None,
    timeout: float = DEFAULT_RPC_TIMEOUT,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> dict[str, Any]:
    """How many actors of each class are in which state, under "cluster"."""
    client = StateApiClient(address)
    options = SummaryApiOptions(timeout)
    return client.summary(
        SummaryResource.ACTORS, options=options, raise_on_missing_output=raise_on_missing_output, _explain=_explain
    )


def summarize_objects(
    address: str | None = None,
    timeout: float = DEFAULT_RPC_TIMEOUT,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> dict[str, Any]:
    """How many objects there are and how large they are, under "cluster"."""
    client = StateApiClient(address)
    options = SummaryApiOptions(timeout)
    return client.summary(
        SummaryResource.OBJECTS, options=options, raise_on_missing_output=raise_on_missing_output, _explain=_explain
    )
