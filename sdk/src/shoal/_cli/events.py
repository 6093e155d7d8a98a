"""What happens to nodes, actors, placement groups and jobs, as the GCS tells everybody, and on nodes, as they tell."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from shoal._cli.parameters import address_option, asking
from shoal_common.bus import subjects
from shoal_common.events.node_events import decode_event
from shoal_common.states import ActorState, GroupState, NodeState


@click.command(
    help="Show what happens to nodes, actors, placement groups, jobs and spilling, from now on; ends with Ctrl-C."
)
@click.option("--count", type=click.IntRange(min=1), help="End after so many.")
@click.option("--json", "as_json", is_flag=True, help="Each as a JSON object.")
@address_option
def events(count: int | None, as_json: bool, address: str | None) -> None:
    with asking(address) as gcs:
        cluster_id = gcs.nodes.cluster().cluster_id
        subscription = gcs.events.subscribe(
            subjects.all_nodes(cluster_id),
            subjects.all_actors(cluster_id),
            subjects.all_groups(cluster_id),
            subjects.all_jobs(cluster_id),
            subjects.all_happened(cluster_id),
        )
        try:
            for number, (subject, data) in enumerate(subscription, 1):
                event = {"time_ms": time.time_ns() // 1_000_000, **told(subject.split(".")[2], data)}
                print(json.dumps(event) if as_json else _line(event), flush=True)
                if number == count:
                    return
        except KeyboardInterrupt:
            return  # that is how one leaves
        finally:
            subscription.cancel()


def told(kind: str, data: bytes) -> dict[str, Any]:
    """Of what it is, its id, its state, and why."""
    from shoal_proto.v1 import events_pb2

    if kind == "happened":
        event = decode_event(data)
        id_ = event.ids.get("node_id", "")
        return {"what": "node", "id": id_, "name": "", "state": event.kind, "why": event.message}
    if kind == "node":
        node = events_pb2.NodeEvent.FromString(data).node
        state = NodeState(node.state).name
        return {"what": kind, "id": node.node_id.hex(), "name": node.host, "state": state, "why": node.death_reason}
    if kind == "actor":
        actor = events_pb2.ActorEvent.FromString(data).actor
        state = ActorState(actor.state).name
        why = actor.death_reason or actor.exit.detail
        return {"what": kind, "id": actor.actor_id.hex(), "name": actor.class_name, "state": state, "why": why}
    if kind == "group":
        group = events_pb2.PlacementGroupEvent.FromString(data).group
        state = GroupState(group.state).name
        return {
            "what": kind,
            "id": group.group_id.hex(),
            "name": group.name,
            "state": state,
            "why": group.removal_reason,
        }
    job = events_pb2.JobEvent.FromString(data).job
    state = ("FAILED" if job.failure else "FINISHED") if job.end_unix_ms else "RUNNING"
    return {"what": kind, "id": job.job_id.hex(), "name": job.entrypoint, "state": state, "why": job.failure}


def _line(event: dict[str, Any]) -> str:
    at = time.strftime("%H:%M:%S", time.localtime(event["time_ms"] / 1000))
    why = f": {event['why']}" if event["why"] else ""
    return f"{at}  {event['what']:<6} {event['id']}  {event['state'].lower():<20} {event['name']}{why}"
