"""Starting and stopping what runs on this machine: a cluster's head, or a node that joins one."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import click

from shoal._cli import parameters
from shoal._cli.output import counted
from shoal._launch import local_nodes as local
from shoal._launch.daemons import await_end
from shoal._launch.directories import remove_dead_dashboards, root_directory
from shoal_common.auth import (
    DEFAULT_TOKEN_PATH,
    TOKEN_PATH_VARIABLE,
    find_token,
    load_token,
    new_token,
    token_path,
)

#: A raylet takes 28 s at most to stop: for tasks that run, for its objects, for its processes.
_GRACE_S = 30.0
_DASHBOARDS = ("include_dashboard", "dashboard_host", "dashboard_port")
#: Arguments of a head that no other node has.
_HEADS_OWN = ("port", "etcd", "nats", "s3", "directory", "standby", *_DASHBOARDS)


@click.command(help="Start a cluster's head here, or join this machine to one.")
@click.option("--head", is_flag=True, help="Start gcs, scheduler, objectstore and a raylet.")
@click.option(
    "--address",
    type=parameters.address,
    help="host:port of the GCS whose cluster a raylet of this machine joins; of several, with commas between them. "
    "With --head: of every head, this one's among them, in the same order everywhere.",
)
@click.option(
    "--standby",
    is_flag=True,
    help="Head: another one of --address leads; this one takes over when that is lost. Needs --etcd.",
)
@click.option(
    "--directory",
    help="Head: for state and spilled objects; a head that is started again on it, at the same address, has its "
    "cluster again. Default: they go with `shoal stop`.",
)
@click.option(
    "--node-ip-address",
    help="Address by which others reach this machine; default: of a head 127.0.0.1, else the one towards the GCS.",
)
@click.option("--port", type=parameters.port, help="Port of the head's GCS, default 6381; the next two are taken too.")
@click.option("--num-cpus", type=float, help="Default: the machine's.")
@click.option("--num-gpus", type=float, help="Default: 0.")
@click.option("--resources", type=parameters.json_object, help="Further resources, as JSON: '{\"disk\": 2}'.")
@click.option(
    "--gateway-port", type=parameters.port, help="Port for drivers outside of the cluster, shoal://; default: none."
)
@click.option(
    "--metrics-export-port", type=parameters.port, help="Port on which Prometheus reads /metrics; default: a free one."
)
@click.option("--labels", type=parameters.labels, help="Labels of the node: zone=a,kind=b.")
@click.option("--memory", type=int, help="Bytes for tasks and actors; default: 70% of what is free.")
@click.option("--object-store-memory", type=int, help="Bytes; default: 30% of what is free.")
@click.option("--etcd", help="Head: host:port of each etcd shard, separated by commas; default: a SQLite file.")
@click.option("--nats", help="Head: host:port of NATS; default: the GCS carries the events.")
@click.option(
    "--s3",
    help="Head: http(s)://host:port of MinIO or another S3, its credentials in SHOAL_S3_ACCESS_KEY and "
    "SHOAL_S3_SECRET_KEY; default: a directory.",
)
@click.option(
    "--include-dashboard",
    type=bool,
    is_flag=False,
    flag_value=True,
    help="Head: start the dashboard, too; default: if one of the next is given.",
)
@click.option("--dashboard-host", help="Head: address on which it listens; default: the head's.")
@click.option("--dashboard-port", type=parameters.port, help="Head: default 8265, or the next that is free.")
@click.option("--block", is_flag=True, help="Stay until a signal comes or a process ends, then stop all.")
def start(
    head: bool, address: str | None, node_ip_address: str | None, gateway_port: int | None, block: bool, **options: Any
) -> int:
    if node_ip_address in ("0.0.0.0", "::"):
        raise ValueError(f"--node-ip-address={node_ip_address} is no address by which others reach this machine")
    options["gateway_port"] = gateway_port
    node = local.NodeOptions(
        **{name: value for name, value in options.items() if name in local.NodeOptions.__struct_fields__}
    )
    local.check(node)
    root = root_directory()
    if head:
        if options["include_dashboard"] is None:
            options["include_dashboard"] = any(options[name] for name in _DASHBOARDS)
        given = {name: value for name in _HEADS_OWN if (value := options[name])}
        heads = tuple(address.split(",")) if address else ()
        what, host = local.HeadOptions(**given, heads=heads), node_ip_address or "127.0.0.1"
        local.check_head(what, host)
        running = next(
            (each for each in local.recorded_nodes() if each.head and len(each.dead()) < len(each.daemons)), None
        )
        if running is not None:
            where = running.cluster.gcs_address or "an address not known yet"
            if ended := " and ".join(daemon.service for daemon in running.dead()):
                raise RuntimeError(
                    f"a head runs here already, at {where}, but its {ended} has ended: run `shoal stop`, then start it "
                    "again, with the same --directory (or --etcd) where its state is to be found again"
                )
            raise RuntimeError(f"a head runs here already, at {where}: run `shoal stop` first")
        started = local.start_head(root, _token(), host, what, node)
    elif not address:
        raise ValueError("say --head, or --address=host:port of the GCS whose cluster this machine joins")
    else:
        for name in _HEADS_OWN:
            if options[name]:
                raise ValueError(f"--{name.replace('_', '-')} is the head's to know: leave it out with --address")
        token = load_token(dict(os.environ))
        started = local.start_node(root, token, address, node_ip_address or "", node)
    _explain(started, gateway_port)
    return _block(started) if block else 0


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
    if node.dashboard_url:
        print(f"The dashboard is at {node.dashboard_url}: log in with the cluster's token.")
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


@click.command(help="Stop what `shoal start` has started on this machine for this user.")
@click.option("--grace-period", type=float, default=_GRACE_S, help="Seconds before a process is killed; default: 30.")
def stop(grace_period: float) -> None:
    nodes = local.recorded_nodes()
    running = sum(len(node.daemons) - len(node.dead()) for node in nodes)
    forced = local.stop(nodes, grace_period)
    remove_dead_dashboards()
    for daemon in forced:
        print(f"The {daemon.service} (pid {daemon.pid}) did not end in {grace_period:g} s and was killed.")
    print(f"Stopped {running} processes of {counted(len(nodes), 'node')}." if nodes else "Nothing runs here.")
