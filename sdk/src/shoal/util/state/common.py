"""What the state API is asked and what it tells: resources, options, rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, unique
from typing import Any

from shoal_common.state_rows import (
    DEFAULT_LIMIT,
    ActorState,
    ClusterEventState,
    JobState,
    NodeState,
    ObjectState,
    PlacementGroupState,
    RuntimeEnvState,
    StateRow,
    TaskState,
    WorkerState,
)

__all__ = [
    "DEFAULT_LIMIT",
    "DEFAULT_RPC_TIMEOUT",
    "ActorState",
    "ClusterEventState",
    "GetApiOptions",
    "JobState",
    "ListApiOptions",
    "NodeState",
    "ObjectState",
    "PlacementGroupState",
    "RuntimeEnvState",
    "StateResource",
    "StateRow",
    "SummaryApiOptions",
    "SummaryResource",
    "TaskState",
    "WorkerState",
]

#: In seconds.
DEFAULT_RPC_TIMEOUT = 30

#: Column, "=" or "!=", value.
FilterType = tuple[str, str, Any]


@unique
class StateResource(Enum):
    ACTORS = "actors"
    JOBS = "jobs"
    PLACEMENT_GROUPS = "placement_groups"
    NODES = "nodes"
    WORKERS = "workers"
    TASKS = "tasks"
    OBJECTS = "objects"
    RUNTIME_ENVS = "runtime_envs"
    CLUSTER_EVENTS = "cluster_events"


@unique
class SummaryResource(Enum):
    ACTORS = "actors"
    TASKS = "tasks"
    OBJECTS = "objects"


@dataclass
class ListApiOptions:
    """Raises: ValueError for a filter that is none."""

    limit: int = DEFAULT_LIMIT
    #: Seconds.
    timeout: float = DEFAULT_RPC_TIMEOUT
    detail: bool = False
    #: All of them are met.
    filters: Sequence[FilterType] | None = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.filters is not None and not isinstance(self.filters, Sequence):
            raise TypeError(f"filters must be a list of (key, predicate, value), not {type(self.filters).__name__}")
        self.filters = list(self.filters or ())
        for each in self.filters:
            if len(each) != 3:
                raise ValueError(f"The given filter {each!r} is no (key, predicate, value)")
            if each[1] not in ("=", "!="):
                raise ValueError(f"Unsupported filter predicate {each[1]} is given. Available predicates: =, !=.")


@dataclass
class GetApiOptions:
    #: Seconds.
    timeout: float = DEFAULT_RPC_TIMEOUT


@dataclass
class SummaryApiOptions:
    #: Seconds.
    timeout: float = DEFAULT_RPC_TIMEOUT
    filters: Sequence[FilterType] | None = field(default_factory=list)
    #: Of tasks: "func_name" or "lineage"; None = the former.
    summary_by: str | None = None
