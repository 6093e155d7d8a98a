"""What is waited for, and why."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from shoal._cli.parameters import address_option, asking, thing_id
from shoal._owner.reporting import group_standing, standing
from shoal._session.address import token_for
from shoal_common import ids
from shoal_common.errors import NO_ANSWER, NotFound
from shoal_common.states import NodeState

if TYPE_CHECKING:
    from shoal._net.gcs.records import NodeRecord


@click.command(
    help="Say what an object, task, actor or placement group waits for. ID is printed with it: hexadecimal digits."
)
@click.argument("id", type=thing_id)
@address_option
def explain(id: bytes, address: str | None) -> None:
    with asking(address) as gcs:
        actor = next((each for each in gcs.actors.list() if each.actor_id == id), None)
        group = next((each for each in gcs.groups.list() if each.group_id == id), None)
        nodes = [node for node in gcs.nodes.list() if node.state is not NodeState.DEAD]
    token = token_for(gcs.address)
    if actor is not None:
        print(f"Actor {id.hex()} of {actor.class_name} is {standing(actor).told(node.state for node in nodes)}")
        there = [node for node in nodes if node.node_id == actor.address.node_id]
        if said := _said(there, token, actor_id=id):
            print(said)
        return
    if group is not None:
        print(f"PlacementGroup({id.hex()}) is {'; '.join(group_standing(group, nodes))}")
        return
    if len(id) in (ids.ACTOR_LENGTH, ids.PLACEMENT_GROUP_LENGTH):
        raise ValueError(f"the GCS knows neither an actor nor a placement group {id.hex()}")
    object_id = id if len(id) == ids.OBJECT_LENGTH else ids.object_of_task(id, 0)
    said = _said(nodes, token, object_id=object_id)
    if said is None:
        raise ValueError(f"no process of the cluster owns {id.hex()}: it is no object's or task's id, or it is gone")
    print(said)


def _said(nodes: list[NodeRecord], token: str, *, object_id: bytes = b"", actor_id: bytes = b"") -> str | None:
    """By the first of these nodes that knows; None = none does."""
    from shoal._net import node_waits
    from shoal_common.tls import Tls

    tls = Tls.from_environ(os.environ)
    for node in nodes:
        try:
            return node_waits.explain(node.raylet_address, token, tls, object_id=object_id, actor_id=actor_id)
        except NotFound:
            continue
        except NO_ANSWER as error:
            print(f"Node {node.node_id.hex()} does not tell: {error}", file=sys.stderr)
    return None
