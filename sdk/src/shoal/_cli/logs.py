"""What services, tasks and actors have printed, wherever in the cluster that was."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from shoal._cli.parameters import address_option, asking
from shoal._session.address import token_for
from shoal_common import ids
from shoal_common.errors import NO_ANSWER, NotFound
from shoal_common.states import NodeState

if TYPE_CHECKING:
    from shoal._net.gcs.client import GcsClient
    from shoal._net.gcs.records import NodeRecord
    from shoal._net.node_logs import GoneNodeLogs, NodeLogs

#: Nodes that are gone, of which what is kept is looked at: the last ones that came.
_MAX_GONE = 50


@click.command(
    help="Show FILE of a node, or what a task, an actor or a worker has printed, which may be named by its id alone in "
    "place of FILE; without any of these, list the files."
)
@click.argument("file", default="")
@click.option("--task", help="Id of a task, as it is printed.")
@click.option("--attempt", type=click.IntRange(min=0), help="Of that task, from 0 on; default: all.")
@click.option("--actor", help="Id of an actor.")
@click.option("--worker", help="Id of a worker.")
@click.option(
    "--node",
    default="",
    help="Id of the node, or its beginning; default: all; those that are gone last.",
)
@click.option("--err", is_flag=True, help="Standard error in place of standard output.")
@click.option("--tail", type=click.IntRange(min=1), help="Only so many lines, the last ones; default: all.")
@click.option("--follow", "-f", is_flag=True, help="What comes later, too.")
@click.option("--json", is_flag=True, help="Each line as a JSON object, which says whose it is.")
@address_option
def logs(
    file: str,
    task: str | None,
    attempt: int | None,
    actor: str | None,
    worker: str | None,
    node: str,
    err: bool,
    tail: int | None,
    follow: bool,
    json: bool,
    address: str | None,
) -> None:
    for option, value, length in (
        ("--task", task, ids.TASK_LENGTH),
        ("--actor", actor, ids.ACTOR_LENGTH),
        ("--worker", worker, ids.WORKER_LENGTH),
    ):
        if value is not None:
            _check_id(option, value, length)
    with asking(address) as gcs:
        if task is None and actor is None and worker is None:
            file, task, actor, worker = _meant(gcs, file)
        if worker is not None:
            file = f"worker-{worker.lower()}.{'err' if err else 'out'}"
        living, gone = _nodes(gcs, node, actor)
        if not file and task is None and actor is None:
            _list(gcs, [*living, *gone])
            return
        found = False
        # Those that are gone are looked at when no other one has it.
        for each in (each for nodes in (living, gone) if not found for each in nodes):
            with _logs_of(gcs, each) as node_logs:
                lines = node_logs.read(
                    file,
                    task_id=(task or "").lower(),
                    attempt=attempt,
                    actor_id=(actor or "").lower(),
                    stderr=err,
                    last_lines=tail or 0,
                    follow=follow,
                    json=json,
                )
                try:
                    for data in lines:
                        found = True
                        sys.stdout.buffer.write(data)
                        sys.stdout.buffer.flush()
                except NotFound:
                    continue  # another node has it
                except NO_ANSWER as error:
                    print(f"Node {each.node_id.hex()} does not tell: {error}", file=sys.stderr)
    if not found:
        what = f"task {task}" if task else f"actor {actor}" if actor else file
        raise RuntimeError(f"no node has anything of {what}, nor is anything kept of it of those that are gone")


def _meant(gcs: GcsClient, text: str) -> tuple[str, str | None, str | None, str | None]:
    """A file, or else a task, an actor or a worker: no file's name is an id alone."""
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(value) == ids.TASK_LENGTH:
        return "", text, None, None
    if len(value) != ids.WORKER_LENGTH:
        return text, None, None, None
    if any(actor.actor_id == value for actor in gcs.actors.list()):
        return "", None, text, None
    return "", None, None, text


def _check_id(option: str, text: str, length: int) -> None:
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(value) != length:
        raise click.BadParameter(f"{text!r} is no id: those have {2 * length} hexadecimal digits", param_hint=option)


def _nodes(gcs: GcsClient, beginning: str, actor: str | None) -> tuple[list[NodeRecord], list[NodeRecord]]:
    """Those to ask, and those that are gone. Raises: ValueError."""
    nodes = [node for node in gcs.nodes.list() if node.node_id.hex().startswith(beginning.lower())]
    living = [node for node in nodes if node.state is not NodeState.DEAD]
    gone = sorted((node for node in nodes if node.state is NodeState.DEAD), key=lambda node: -node.start_unix_ms)
    if not nodes:
        raise ValueError(f"no node's id begins with {beginning!r}: `shoal status` lists them")
    if actor is not None:
        # Where it runs now comes last, as what is followed there goes on.
        places = {each.actor_id: each.address.node_id for each in gcs.actors.list()}
        living.sort(key=lambda node: node.node_id == places.get(bytes.fromhex(actor)))
    return living, gone[:_MAX_GONE]


@contextmanager
def _logs_of(gcs: GcsClient, node: NodeRecord) -> Iterator[NodeLogs | GoneNodeLogs]:
    from shoal._net.node_logs import GoneNodeLogs, NodeLogs
    from shoal_common.tls import Tls

    token, tls = token_for(gcs.address), Tls.from_environ(os.environ)
    logs: NodeLogs | GoneNodeLogs
    if node.state is NodeState.DEAD:
        logs = GoneNodeLogs(gcs.nodes.cluster().objectstore_addresses, token, tls, node.node_id)
    else:
        logs = NodeLogs(node.raylet_address, token, tls)
    try:
        yield logs
    finally:
        logs.close()


def _list(gcs: GcsClient, nodes: list[NodeRecord]) -> None:
    for node in nodes:
        gone = ", which is gone" if node.state is NodeState.DEAD else ""
        print(f"Node {node.node_id.hex()} at {node.host}{gone}:")
        with _logs_of(gcs, node) as logs:
            try:
                files = logs.list()
            except NO_ANSWER as error:
                print(f"  it does not tell: {error}")
                continue
        for file in files:
            print(f"  {file.size:>12,}  {file.name}")
