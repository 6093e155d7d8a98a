"""What Prometheus reads of the GCS: the cluster in numbers, under our names and under Ray's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import TypeVar

from shoal_common.service.metrics import Family, Sample, sample
from shoal_common.states import ActorState, GroupState, NodeState

NODES = Family("shoal_nodes", "gauge", "nodes by state; dead ones as far as they are remembered")
ACTORS = Family("shoal_actors", "gauge", "actors by state; dead ones as far as they are remembered")
GROUPS = Family("shoal_placement_groups", "gauge", "placement groups by state")
JOBS = Family("shoal_jobs", "gauge", "jobs by state; finished ones as far as they are remembered")
LEADS = Family("shoal_gcs_leads", "gauge", "1 = this process is the GCS, 0 = it is on standby")
EPOCH = Family("shoal_gcs_epoch", "gauge", "number of the lead, which grows with each fail-over; 0 without etcd")
RAY_ACTORS = Family("ray_actors", "gauge", "actors by state, for Ray's boards")
RAY_GROUPS = Family("ray_placement_groups", "gauge", "as shoal_placement_groups, for Ray's boards")
FAMILIES = (NODES, ACTORS, GROUPS, JOBS, LEADS, EPOCH, RAY_ACTORS, RAY_GROUPS)

S = TypeVar("S", bound=IntEnum)


def cluster_samples(
    nodes: Mapping[NodeState, int],
    actors: Mapping[ActorState, int],
    groups: Mapping[GroupState, int],
    running_jobs: int,
    finished_jobs: int,
    session_name: str,
) -> Iterator[Sample]:
    yield from _by_state(NODES, NodeState, nodes)
    yield from _by_state(ACTORS, ActorState, actors)
    yield from _by_state(GROUPS, GroupState, groups)
    yield sample(JOBS, running_jobs, state="running")
    yield sample(JOBS, finished_jobs, state="finished")
    for state in ActorState:
        yield sample(RAY_ACTORS, actors.get(state, 0), State=state.name, Source="gcs", SessionName=session_name)
    for group_state in GroupState:
        yield sample(RAY_GROUPS, groups.get(group_state, 0), State=group_state.name, SessionName=session_name)


def _by_state(family: Family, states: type[S], counts: Mapping[S, int]) -> Iterator[Sample]:
    """Each state, also those that nothing is in: a series that comes and goes cannot be alerted on."""
    for state in states:
        yield sample(family, counts.get(state, 0), state=state.name.lower())
