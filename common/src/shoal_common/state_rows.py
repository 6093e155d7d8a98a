"""The rows of the state API: what is told of tasks, actors, nodes and the like. The columns are those of Ray's.

Columns with ``detail`` are told on request only, and rows are filtered by those that are ``filterable``. Ids are
hexadecimal, times milliseconds since 1970, resources in units. Source: Ray 2.60, ``ray.util.state.common``.
"""

# ruff: noqa: RUF009 - column() makes a dataclass field
from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

#: Rows of one answer at most.
MAX_LIMIT = 10_000
DEFAULT_LIMIT = 100


def column(*, filterable: bool = False, detail: bool = False) -> Any:
    """A field of a row; one with ``detail`` is None where it was not asked for."""
    metadata = {"filterable": filterable, "detail": detail}
    return dataclasses.field(default=None, metadata=metadata) if detail else dataclasses.field(metadata=metadata)


@dataclass
class StateRow:
    """Also reads like a dictionary, as Ray's."""

    @classmethod
    def columns(cls, *, detail: bool = True) -> tuple[str, ...]:
        """Names, in order."""
        return tuple(each.name for each in dataclasses.fields(cls) if detail or not each.metadata["detail"])

    @classmethod
    def filterable_columns(cls) -> tuple[str, ...]:
        return tuple(each.name for each in dataclasses.fields(cls) if each.metadata["filterable"])

    @classmethod
    def column_type(cls, name: str) -> str:
        """Of a column, as it is written here: ``int``, ``bool``, ``str | None`` ..."""
        return next(str(each.type) for each in dataclasses.fields(cls) if each.name == name)

    def asdict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def __getitem__(self, key: str) -> Any:
        return getattr(self, key)

    def __setitem__(self, key: str, value: Any) -> None:
        setattr(self, key, value)

    def get(self, key: str, default: Any = None) -> Any:
        return getattr(self, key, default)


@dataclass
class ActorState(StateRow):
    actor_id: str = column(filterable=True)
    class_name: str = column(filterable=True)
    #: DEPENDENCIES_UNREADY, PENDING_CREATION, ALIVE, RESTARTING or DEAD.
    state: str = column(filterable=True)
    job_id: str = column(filterable=True)
    name: str | None = column(filterable=True)
    node_id: str | None = column(filterable=True)
    #: 0 = it has no process.
    pid: int | None = column(filterable=True)
    ray_namespace: str | None = column(filterable=True)
    serialized_runtime_env: str | None = column(detail=True)
    required_resources: dict[str, float] | None = column(detail=True)
    #: Of a dead one: ``reason``, and how its process ended (``exit_type``, ``exit_detail``).
    death_cause: dict[str, Any] | None = column(detail=True)
    is_detached: bool | None = column(detail=True)
    placement_group_id: str | None = column(detail=True, filterable=True)
    repr_name: str | None = column(detail=True, filterable=True)
    num_restarts: int | None = column(detail=True)
    num_restarts_due_to_lineage_reconstruction: int | None = column(detail=True)
    num_restarts_due_to_node_preemption: int | None = column(detail=True)
    call_site: str | None = column(detail=True)
    label_selector: dict[str, str] | None = column(detail=True)
    fallback_strategy: dict[str, Any] | None = column(detail=True)


@dataclass
class PlacementGroupState(StateRow):
    placement_group_id: str = column(filterable=True)
    name: str = column(filterable=True)
    creator_job_id: str = column(filterable=True)
    #: PENDING, PREPARED, CREATED, REMOVED or RESCHEDULING.
    state: str = column(filterable=True)
    #: Each: ``bundle_id``, ``node_id``, ``unit_resources``, ``label_selector``.
    bundles: list[dict[str, Any]] | None = column(detail=True)
    is_detached: bool | None = column(detail=True, filterable=True)
    #: ``strategy``, and why a removed one was removed.
    stats: dict[str, Any] | None = column(detail=True)
    topology_strategy: dict[str, str] | None = column(detail=True)
    topology_assignments: dict[str, str] | None = column(detail=True)


@dataclass
class NodeState(StateRow):
    node_id: str = column(filterable=True)
    node_ip: str = column(filterable=True)
    is_head_node: bool = column(filterable=True)
    #: ALIVE or DEAD; one that is about to leave is ALIVE, and ``state_message`` says so.
    state: str = column(filterable=True)
    state_message: str | None = column()
    node_name: str = column(filterable=True)
    resources_total: dict[str, float] = column()
    labels: dict[str, str] = column()
    start_time_ms: int | None = column(detail=True)
    #: None = it lives.
    end_time_ms: int | None = column(detail=True)


@dataclass
class JobState(StateRow):
    job_id: str | None = column(filterable=True)
    #: Of one that was submitted; None: a driver that somebody started.
    submission_id: str | None = column(filterable=True)
    entrypoint: str = column()
    #: SUBMISSION or DRIVER.
    type: str = column(filterable=True)
    #: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED; what became of a DRIVER is not known, and it has SUCCEEDED.
    status: str = column(filterable=True)
    message: str | None = column()
    error_type: str | None = column()
    #: ``id``, ``node_ip_address``, ``pid``.
    driver_info: dict[str, str] | None = column()
    start_time: int | None = column(detail=True)
    end_time: int | None = column(detail=True)
    metadata: dict[str, str] | None = column(detail=True)
    runtime_env: dict[str, Any] | None = column(detail=True)
    driver_agent_http_address: str | None = column(detail=True)
    driver_node_id: str | None = column(detail=True)
    driver_exit_code: int | None = column(detail=True)


@dataclass
class WorkerState(StateRow):
    worker_id: str = column(filterable=True)
    is_alive: bool = column(filterable=True)
    #: WORKER or DRIVER.
    worker_type: str = column(filterable=True)
    exit_type: str | None = column(filterable=True)
    node_id: str = column(filterable=True)
    ip: str = column(filterable=True)
    pid: int = column(filterable=True)
    exit_detail: str | None = column(detail=True)
    worker_launch_time_ms: int | None = column(detail=True)
    worker_launched_time_ms: int | None = column(detail=True)
    start_time_ms: int | None = column(detail=True)
    end_time_ms: int | None = column(detail=True)
    debugger_port: int | None = column(detail=True, filterable=True)
    num_paused_threads: int | None = column(detail=True, filterable=True)


@dataclass
class TaskState(StateRow):
    """One attempt of a task."""

    task_id: str = column(filterable=True)
    #: From 0.
    attempt_number: int = column(filterable=True)
    name: str = column(filterable=True)
    #: PENDING_ARGS_AVAIL, PENDING_NODE_ASSIGNMENT, SUBMITTED_TO_WORKER, RUNNING, FINISHED or FAILED.
    state: str = column(filterable=True)
    job_id: str = column(filterable=True)
    actor_id: str | None = column(filterable=True)
    #: NORMAL_TASK, ACTOR_CREATION_TASK or ACTOR_TASK.
    type: str = column(filterable=True)
    func_or_class_name: str = column(filterable=True)
    parent_task_id: str = column(filterable=True)
    node_id: str | None = column(filterable=True)
    worker_id: str | None = column(filterable=True)
    worker_pid: int | None = column(filterable=True)
    error_type: str | None = column(filterable=True)
    language: str | None = column(detail=True, filterable=True)
    required_resources: dict[str, float] | None = column(detail=True)
    runtime_env_info: dict[str, Any] | None = column(detail=True)
    placement_group_id: str | None = column(detail=True, filterable=True)
    #: When it came to each state: ``state``, ``created_ms``.
    events: list[dict[str, Any]] | None = column(detail=True)
    profiling_data: dict[str, Any] | None = column(detail=True)
    creation_time_ms: int | None = column(detail=True)
    start_time_ms: int | None = column(detail=True)
    end_time_ms: int | None = column(detail=True)
    task_log_info: dict[str, Any] | None = column(detail=True)
    error_message: str | None = column(detail=True)
    is_debugger_paused: bool | None = column(detail=True, filterable=True)
    call_site: str | None = column(detail=True)
    label_selector: dict[str, str] | None = column(detail=True)
    fallback_strategy: dict[str, Any] | None = column(detail=True)


@dataclass
class ObjectState(StateRow):
    """An object that a node's store holds, in memory or spilled; those that live in their owner are not listed."""

    object_id: str = column(filterable=True)
    #: Bytes.
    object_size: int = column(filterable=True)
    #: FINISHED, or RUNNING while it is written.
    task_status: str = column(filterable=True)
    attempt_number: int = column(filterable=True)
    #: PINNED_IN_MEMORY: some process reads it where it is; LOCAL_REFERENCE: its owner wants it kept.
    reference_type: str = column(filterable=True)
    call_site: str = column(filterable=True)
    #: WORKER or DRIVER: what kind of process owns it.
    type: str = column(filterable=True)
    #: Of its owner; -1 = it is not known.
    pid: int = column(filterable=True)
    ip: str = column(filterable=True)


@dataclass
class RuntimeEnvState(StateRow):
    """A runtime environment on one node."""

    runtime_env: dict[str, Any] = column(filterable=True)
    success: bool = column(filterable=True)
    creation_time_ms: float | None = column()
    node_id: str = column(filterable=True)
    #: Workers in it.
    ref_cnt: int | None = column(detail=True)
    error: str | None = column(detail=True, filterable=True)


@dataclass
class ClusterEventState(StateRow):
    severity: str = column(filterable=True)
    time: str = column()
    source_type: str = column(filterable=True)
    message: str = column()
    event_id: str = column(filterable=True)
    custom_fields: dict[str, Any] | None = column(detail=True)


#: By the name that a resource has in an address.
RESOURCES: dict[str, type[StateRow]] = {
    "actors": ActorState,
    "jobs": JobState,
    "placement_groups": PlacementGroupState,
    "nodes": NodeState,
    "workers": WorkerState,
    "tasks": TaskState,
    "objects": ObjectState,
    "runtime_envs": RuntimeEnvState,
    "cluster_events": ClusterEventState,
}
