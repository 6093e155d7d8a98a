"""What is waited for, and why."""

from __future__ import annotations

import click

from shoal import _current
from shoal._cli.parameters import address_option, asking, object_task_or_actor_id
from shoal._owner.reporting import state_of
from shoal._session import session
from shoal_common import ids
from shoal_common.states import NodeState


@click.command(help="Say what an object, task or actor waits for. ID is printed with it: hexadecimal digits.")
@click.argument("id", type=object_task_or_actor_id)
@address_option
def explain(id: bytes, address: str | None) -> None:
    with asking(address) as gcs:
        actor = next((each for each in gcs.actors.list() if each.actor_id == id), None)
        nodes = gcs.nodes.list()
    if actor is not None:
        print(f"Actor {id.hex()} of {actor.class_name} is {state_of(actor, nodes)}")
        return
    if len(id) == ids.ACTOR_LENGTH:
        raise ValueError(f"the GCS knows no actor {id.hex()}")
    node_ids = [node.node_id for node in nodes if node.state is not NodeState.DEAD]
    object_id = id if len(id) == ids.OBJECT_LENGTH else ids.object_of_task(id, 0)
    # Its owner is asked as any other driver would ask it.
    with session.init(address=gcs.address, log_to_driver=False, logging_level="ERROR"):
        explanation = _current.connected().explaining.find_and_explain(object_id, node_ids)
    if explanation is None:
        raise ValueError(f"no process of the cluster owns {id.hex()}: it is no object's or task's id, or it is gone")
    print(explanation)
