"""The command `shoal`: start, look at and stop a cluster of this and other machines."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from typing import Any

from shoal import _current
from shoal._launch import local_nodes as local
from shoal._launch.daemons import await_end
from shoal._launch.directories import root_directory
from shoal._net.gcs.client import visiting
from shoal._owner.reporting import state_of
from shoal._session import session
from shoal._session.address import ADDRESS_VARIABLE, GATEWAY_SCHEME, token_for
from shoal.exceptions import AuthenticationError
from shoal_common import ids
from shoal_common.auth import (
    DEFAULT_TOKEN_PATH,
    TOKEN_PATH_VARIABLE,
    TokenError,
    find_token,
    load_token,
    new_token,
    token_path,
)
from shoal_common.channel.tcp import MAX_PORT
from shoal_common.placement.resources import GRAINS
from shoal_common.states import NodeState
from shoal_common.surroundings import occupy_standard_streams
from shoal_common.tls import TlsError

#: A raylet takes 28 s at most to stop: for tasks that run, for its objects, for its processes.
_GRACE_S = 30.0
#: Arguments of a head that no other node has.
_HEADS_OWN = ("port", "etcd", "nats", "s3", "directory", "standby")
_UNITS = {"memory": 2**30, "object_store_memory": 2**30}


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code; says what went wrong in one line."""
    occupy_standard_streams()
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
        return code
    except KeyboardInterrupt:
        print(f"shoal {options.command}: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except (OSError, RuntimeError, ValueError, TypeError, TokenError, TlsError, AuthenticationError) as error:
        problem = error.strerror if isinstance(error, OSError) and not error.filename else None
        print(f"shoal {options.command}: {problem or error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="shoal", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    start = commands.add_parser("start", help="start a cluster's head here, or join this machine to one")
    start.set_defaults(run=_start)
    start.add_argument("--head", action="store_true", help="start gcs, scheduler, objectstore and a raylet")
    start.add_argument(
        "--address",
        type=_address,
        help="host:port of the GCS whose cluster a raylet of this machine joins; of several, with commas between them. "
        "With --head: of every head, this one's among them, in the same order everywhere",
    )
    start.add_argument(
        "--standby",
        action="store_true",
        help="head: another one of --address leads; this one takes over when that is lost. Needs --etcd",
    )
    start.add_argument(
        "--directory",
        help="head: for state and spilled objects; a head that is started again on it, at the same address, has its "
        "cluster again. Default: they go with `shoal stop`",
    )
    start.add_argument(
        "--node-ip-address",
        help="address by which others reach this machine; default: of a head 127.0.0.1, else the one towards the GCS",
    )
    start.add_argument("--port", type=_port, help="port of the head's GCS, default 6381; the next two are taken too")
    start.add_argument("--num-cpus", type=float, help="default: the machine's")
    start.add_argument("--num-gpus", type=float, help="default: 0")
    start.add_argument("--resources", type=_json, help="further resources, as JSON: '{\"disk\": 2}'")
    start.add_argument(
        "--gateway-port", type=_port, help="port for drivers outside of the cluster, shoal://; default: none"
    )
    start.add_argument(
        "--metrics-export-port", type=_port, help="port on which Prometheus reads /metrics; default: a free one"
    )
    start.add_argument("--labels", type=_labels, help="labels of the node: zone=a,kind=b")
    start.add_argument("--memory", type=int, help="bytes for tasks and actors; default: 70%% of what is free")
    start.add_argument("--object-store-memory", type=int, help="bytes; default: 30%% of what is free")
    start.add_argument("--etcd", help="head: host:port of each etcd shard, separated by commas; default: a SQLite file")
    start.add_argument("--nats", help="head: host:port of NATS; default: the GCS carries the events")
    start.add_argument(
        "--s3",
        help="head: http(s)://host:port of MinIO or another S3, its credentials in SHOAL_S3_ACCESS_KEY and "
        "SHOAL_S3_SECRET_KEY; default: a directory",
    )
    start.add_argument(
        "--block", action="store_true", help="stay until a signal comes or a process ends, then stop all"
    )

    status = commands.add_parser("status", help="show nodes, resources and actors")
    status.set_defaults(run=_status)
    status.add_argument(
        "--address", type=_address, help="host:port of the GCS; default: SHOAL_ADDRESS, else what runs here"
    )

    explain = commands.add_parser("explain", help="say what an object, task or actor waits for")
    explain.set_defaults(run=_explain_id)
    explain.add_argument("id", type=_id, help="of an ObjectRef, task or actor, as it is printed: hexadecimal digits")
    explain.add_argument(
        "--address", type=_address, help="host:port of the GCS; default: SHOAL_ADDRESS, else what runs here"
    )

    stop = commands.add_parser("stop", help="stop what `shoal start` has started on this machine for this user")
    stop.set_defaults(run=_stop)
    stop.add_argument(
        "--grace-period", type=float, default=_GRACE_S, help=f"seconds before a process is killed, default {_GRACE_S:g}"
    )
    return parser


def _start(options: argparse.Namespace) -> int:
    if options.node_ip_address in ("0.0.0.0", "::"):
        raise ValueError(
            f"--node-ip-address={options.node_ip_address} is no address by which others reach this machine"
        )
    node = local.NodeOptions(
        **{name: getattr(options, name) for name in local.NodeOptions.__struct_fields__ if name in options}
    )
    local.check(node)
    root = root_directory()
    if options.head:
        given = {name: value for name in _HEADS_OWN if (value := getattr(options, name))}
        heads = tuple(options.address.split(",")) if options.address else ()
        head, host = local.HeadOptions(**given, heads=heads), options.node_ip_address or "127.0.0.1"
        local.check_head(head, host)
        running = next(
            (each for each in local.recorded_nodes() if each.head and len(each.dead()) < len(each.daemons)), None
        )
        if running is not None:
            where = running.cluster.gcs_address or "an address not known yet"
            raise RuntimeError(f"a head runs here already, at {where}: run `shoal stop` first")
        started = local.start_head(root, _token(), host, head, node)
    elif not options.address:
        raise ValueError("say --head, or --address=host:port of the GCS whose cluster this machine joins")
    else:
        for name in _HEADS_OWN:
            if getattr(options, name):
                raise ValueError(f"--{name} is the head's to know: leave it out with --address")
        token = load_token(dict(os.environ))
        started = local.start_node(root, token, options.address, options.node_ip_address or "", node)
    _explain(started, options.gateway_port)
    if not options.block:
        return 0
    return _block(started)


def _token() -> str:
    """The cluster's; a new one is written where `load_token` looks for it."""
    path = token_path(os.environ)
    if TOKEN_PATH_VARIABLE not in os.environ and not find_token(os.environ):
        path.parent.mkdir(mode=0o700, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(new_token() + "\n")
        print(f"Wrote a new cluster token to {path}.")
    return load_token(dict(os.environ))


def _explain(node: local.LocalNode, gateway_port: int | None) -> None:
    cluster = node.cluster
    print(f"Node {cluster.node_id} runs at {cluster.node_host}; its logs are in {node.directory / 'logs'}.")
    if node.head:
        if cluster.node_host.startswith("127."):
            print(
                "It listens on this machine only: other machines can join a head with --node-ip-address=<its address>."
            )
        print(f"Another machine joins, with the same token in ~/{DEFAULT_TOKEN_PATH}, by")
        print(f"    shoal start --address={cluster.gcs_address}")
    print("A program on this machine connects by")
    print(f'    shoal.init(address="auto")        or SHOAL_ADDRESS={cluster.gcs_address}')
    if gateway_port:
        print("A program anywhere else connects, with the same token, by")
        print(f'    shoal.init("shoal://{cluster.node_host}:{gateway_port}")')
    print("`shoal status` shows the cluster, `shoal stop` ends what was started on this machine.")


def _block(node: local.LocalNode) -> int:
    def leave(_signum: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, leave)
    try:
        sys.stdout.flush()
        await_end(node.daemons)
        for daemon in node.dead():
            log = node.directory / "logs" / f"{daemon.service}.log"
            print(f"The {daemon.service} has ended:\n{log.read_text(errors='replace')[-2000:]}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        local.stop([node], _GRACE_S)


def _stop(options: argparse.Namespace) -> int:
    nodes = local.recorded_nodes()
    running = sum(len(node.daemons) - len(node.dead()) for node in nodes)
    forced = local.stop(nodes, options.grace_period)
    for daemon in forced:
        print(f"The {daemon.service} (pid {daemon.pid}) did not end in {options.grace_period:g} s and was killed.")
    print(f"Stopped {running} processes of {len(nodes)} nodes." if nodes else "Nothing runs here.")
    return 0


# --- status ----------------------------------------------------------------------------------------


def _gcs_address(options: argparse.Namespace) -> str:
    """Of the cluster that is meant. Raises: RuntimeError, ValueError."""
    address: str = (
        options.address
        or os.environ.get(ADDRESS_VARIABLE)
        or next((cluster.gcs_address for cluster in local.running_clusters()), "")
    )
    if address.startswith(GATEWAY_SCHEME):
        raise ValueError(f"{address} is a gateway, for drivers: name the GCS with --address=host:port")
    if not address:
        raise RuntimeError("nothing was started on this machine: name a cluster with --address=host:port")
    return address


def _status(options: argparse.Namespace) -> int:
    address = _gcs_address(options)
    token = token_for(address)
    with visiting(address, token) as gcs:
        nodes, actors = gcs.nodes.list(), gcs.actors.list()

    living = [node for node in nodes if node.state is not NodeState.DEAD]
    print(f"Cluster at {address}: {len(living)} nodes alive, {len(nodes) - len(living)} dead")
    for node in sorted(nodes, key=lambda node: (node.state, node.start_unix_ms)):
        state = node.state.name.lower()
        detail = f": {node.death_reason}" if node.state is NodeState.DEAD else _usage([node])
        print(f"  {node.node_id.hex()}  {node.host}  {state}{detail}")
    print(f"Resources used / total{_usage(living)}")

    by_state: dict[str, list[Any]] = {}
    for actor in actors:
        by_state.setdefault(actor.state.name.lower(), []).append(actor)
    counts = ", ".join(f"{len(each)} {state}" for state, each in sorted(by_state.items()))
    print(f"Actors: {counts or 'none'}")
    for actor in by_state.get("dead", [])[:10]:
        name = f" {actor.name!r}" if actor.name else ""
        print(f"  {actor.class_name}{name} {actor.actor_id.hex()} dead: {actor.death_reason}")
    return 0


def _usage(nodes: list[Any]) -> str:
    total: dict[str, float] = {}
    free: dict[str, float] = {}
    for node in nodes:
        for amounts, sums in ((node.total, total), (node.available, free)):
            for name, grains in amounts.grains.items():
                sums[name] = sums.get(name, 0.0) + grains / GRAINS
    parts = []
    for name in sorted(total):
        if not name.startswith("node:"):
            unit = _UNITS.get(name, 1)
            used, whole = (total[name] - free.get(name, 0.0)) / unit, total[name] / unit
            parts.append(f"{name} {used:.4g}/{whole:.4g}{' GiB' if unit > 1 else ''}")
    return ": " + ", ".join(parts)


# --- explain ---------------------------------------------------------------------------------------


def _explain_id(options: argparse.Namespace) -> int:
    address, wanted = _gcs_address(options), options.id
    with visiting(address, token_for(address)) as gcs:
        actor = next((each for each in gcs.actors.list() if each.actor_id == wanted), None)
        node_ids = [node.node_id for node in gcs.nodes.list() if node.state is not NodeState.DEAD]
    if actor is not None:
        print(f"Actor {wanted.hex()} of {actor.class_name} is {state_of(actor)}")
        return 0
    if len(wanted) == ids.ACTOR_LENGTH:
        raise ValueError(f"the GCS knows no actor {wanted.hex()}")
    object_id = wanted if len(wanted) == ids.OBJECT_LENGTH else ids.object_of_task(wanted, 0)
    # Its owner is asked as any other driver would ask it.
    with session.init(address=address, log_to_driver=False, logging_level="ERROR"):
        explanation = _current.connected().explaining.find_and_explain(object_id, node_ids)
    if explanation is None:
        raise ValueError(
            f"no process of the cluster owns {wanted.hex()}: it is no object's or task's id, or it is gone"
        )
    print(explanation)
    return 0


# --- arguments -------------------------------------------------------------------------------------


def _port(text: str) -> int:
    if not (text.isdecimal() and 0 < int(text) <= MAX_PORT):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, 1 to {MAX_PORT}")
    return int(text)


def _address(text: str) -> str:
    for part in text.split(","):
        host, _, port = part.rpartition(":")
        if not host or "/" in host:
            raise argparse.ArgumentTypeError(f"{part!r} is not host:port of a GCS")
        _port(port)
    return text


def _id(text: str) -> bytes:
    try:
        value = bytes.fromhex(text.strip().removeprefix("ObjectRef(").removesuffix(")"))
    except ValueError:
        value = b""
    if len(value) not in (ids.ACTOR_LENGTH, ids.TASK_LENGTH, ids.OBJECT_LENGTH):
        raise argparse.ArgumentTypeError(f"{text!r} is not the id of an object, task or actor")
    return value


def _json(text: str) -> dict[str, float]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is not a JSON object")
    return value


def _labels(text: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in text.split(",") if pair]
    if not all(equals for _key, equals, _value in pairs):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form key=value,key=value")
    return {key.strip(): value.strip() for key, _equals, value in pairs}


if __name__ == "__main__":
    sys.exit(main())
