"""The cluster as its operator sees it: what it has, whether it answers, a node that is to leave."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from shoal._cli.heartbeats import Heartbeats
from shoal._cli.output import counted
from shoal._cli.parameters import address_option, asking
from shoal._owner.reporting import standing
from shoal._session.usage import usage
from shoal.job_submission.details import NAMESPACE as JOBS_NAMESPACE
from shoal_common.placement.resources import GRAINS
from shoal_common.states import ActorState, GroupState, NodeState

if TYPE_CHECKING:
    from shoal._net.gcs.records import ActorRecord, GroupRecord, NodeRecord

#: Dead actors that are shown with their reasons.
_DEAD_SHOWN = 10
#: Of what waits.
_WAITING_SHOWN = 20


@click.command(help="Show nodes, resources, actors, and what waits for which.")
@address_option
def status(address: str | None) -> None:
    with asking(address) as gcs:
        nodes, actors, groups = gcs.nodes.list(), gcs.actors.list(), gcs.groups.list()
        heartbeats = Heartbeats(gcs)
        try:
            heartbeats.wait_for([node.node_id for node in nodes if node.state is not NodeState.DEAD])
        finally:
            heartbeats.close()

    living = [node for node in nodes if node.state is not NodeState.DEAD]
    print(f"Cluster at {gcs.address}: {counted(len(living), 'node')} alive, {len(nodes) - len(living)} dead")
    for node in sorted(nodes, key=lambda node: (node.state, node.start_unix_ms)):
        state = node.state.name.lower()
        detail = f": {node.death_reason}" if node.state is NodeState.DEAD else _usage([node])
        print(f"  {node.node_id.hex()}  {node.host}  {state}{detail}")
    print(f"Resources used / total{_usage(living)}")

    # Each submitted job has a supervisor, which ends with it; what became of the job, `shoal job list` says.
    actors = [each for each in actors if each.state is not ActorState.DEAD or each.namespace != JOBS_NAMESPACE]
    by_state: dict[str, list[Any]] = {}
    for actor in actors:
        by_state.setdefault(actor.state.name.lower(), []).append(actor)
    counts = ", ".join(f"{len(each)} {state}" for state, each in sorted(by_state.items()))
    print(f"Actors: {counts or 'none'}")
    for actor in by_state.get("dead", [])[:_DEAD_SHOWN]:
        name = f" {actor.name!r}" if actor.name else ""
        print(f"  {actor.class_name}{name} {actor.actor_id.hex()} dead: {actor.death_reason}")
    for line in _waiting(living, heartbeats, actors, groups):
        print(line)


def _waiting(
    nodes: list[NodeRecord], heartbeats: Heartbeats, actors: list[ActorRecord], groups: list[GroupRecord]
) -> Iterator[str]:
    """What waits, and why, a line each; nothing = nothing does."""
    lines = []
    for node in nodes:
        if (beat := heartbeats.last.get(node.node_id)) is None:
            continue
        for each in beat.waiting:
            needs = ", ".join(f"{grains / GRAINS:g} {name}" for name, grains in sorted(each.resources.grains.items()))
            lines.append(f"  {each.count} leases of tasks on {node.node_id.hex()}: each needs {needs or 'a worker'}")
    for actor in actors:
        if actor.state in (ActorState.DEPENDENCIES_UNREADY, ActorState.PENDING_CREATION, ActorState.RESTARTING):
            stands = standing(actor).told(node.state for node in nodes)
            lines.append(f"  {actor.class_name} {actor.actor_id.hex()} is {stands}")
    for group in groups:
        if group.state in (GroupState.PENDING, GroupState.PREPARED, GroupState.RESCHEDULING):
            placed = sum(1 for bundle in group.bundles if bundle.node_id)
            lines.append(
                f"  placement group {group.group_id.hex()} is {group.state.name.lower()}: "
                f"{placed} of {len(group.bundles)} bundles have a node"
            )
    if lines:
        yield "Waiting (`shoal explain <id>` says more):"
        yield from lines[:_WAITING_SHOWN]
        if len(lines) > _WAITING_SHOWN:
            yield f"  and {len(lines) - _WAITING_SHOWN} more"


def _usage(nodes: list[NodeRecord]) -> str:
    return ": " + ", ".join(f"{name} {used}" for name, used in usage(nodes))


@click.command("health-check", help="Exit with 0 when the cluster's GCS answers and a node lives, else with 1.")
@address_option
def health_check(address: str | None) -> int:
    with asking(address) as gcs:
        living = [node for node in gcs.nodes.list() if node.state is not NodeState.DEAD]
    print(f"The GCS at {gcs.address} answers: {counted(len(living), 'node')} alive")
    return 0 if living else 1


@click.command(
    help="Have NODE, an id or its beginning, take nothing new; what runs there goes on. There is no way back: end its "
    "raylet and start it again to have the node take part anew."
)
@click.argument("node")
@click.option("--reason", default="shoal drain", help="For humans.")
@click.option(
    "--deadline-s",
    type=click.FloatRange(min=0, min_open=True),
    help="The node will have left in so many seconds, as its programs are told; default: not known.",
)
@address_option
def drain(node: str, reason: str, deadline_s: float | None, address: str | None) -> None:
    with asking(address) as gcs:
        ids = [each.node_id for each in gcs.nodes.list() if each.state is not NodeState.DEAD]
        found = [node_id for node_id in ids if node_id.hex().startswith(node.lower())]
        if len(found) != 1:
            raise ValueError(f"{node!r} begins {len(found)} ids of living nodes: `shoal status` lists them")
        deadline = int((time.time() + deadline_s) * 1000) if deadline_s is not None else 0
        gcs.nodes.drain(found[0], reason, deadline)
    print(f"Node {found[0].hex()} is draining: nothing new is placed there.")
