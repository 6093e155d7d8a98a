"""Nodes and what they do, live: out of their heartbeats, which come every second and on change."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table

from shoal._cli.heartbeats import Heartbeats
from shoal._cli.output import counted
from shoal._cli.parameters import address_option, asking
from shoal_common.placement.resources import GRAINS
from shoal_common.states import NodeState

if TYPE_CHECKING:
    from shoal._net.gcs.client import GcsClient
    from shoal_proto.v1 import events_pb2

#: Between two pictures, in seconds.
_REFRESH_S = 1.0
#: Nodes that are shown: those that have most to do.
_ROWS = 40


@click.command(help="Show nodes and what they do, live; ends with Ctrl-C.")
@click.option("--once", is_flag=True, help="One picture, after the first heartbeats.")
@address_option
def top(once: bool, address: str | None) -> None:
    console = Console()
    with asking(address) as gcs:
        load = Heartbeats(gcs)
        try:
            if once:
                load.wait_for([node.node_id for node in gcs.nodes.list() if node.state is not NodeState.DEAD])
                console.print(_picture(gcs, load))
                return
            with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
                while True:
                    live.update(_picture(gcs, load), refresh=True)
                    time.sleep(_REFRESH_S)
        except KeyboardInterrupt:
            return  # that is how one leaves
        finally:
            load.close()


def _picture(gcs: GcsClient, load: Heartbeats) -> Table:
    nodes = [node for node in gcs.nodes.list() if node.state is not NodeState.DEAD]
    beats = [beat for node in nodes if (beat := load.last.get(node.node_id)) is not None]
    table = Table(
        title=f"{counted(len(nodes), 'node')} at {gcs.address}, "
        f"{sum(beat.queued_leases for beat in beats)} leases waited for",
        box=None,
    )
    for name in ("node", "host", "state"):
        table.add_column(name)
    for name in ("CPU", "GPU", "memory GiB", "store MiB", "waiting", "task ms"):
        table.add_column(name, justify="right")
    beats.sort(key=lambda beat: (-beat.queued_leases, beat.available.grains["CPU"], beat.node_id))
    by_id = {node.node_id: node for node in nodes}
    for beat in beats[:_ROWS]:
        node = by_id[beat.node_id]
        table.add_row(
            beat.node_id.hex()[:12],
            node.host,
            node.state.name.lower(),
            _used(beat, "CPU"),
            _used(beat, "GPU"),
            _used(beat, "memory", 2**30),
            f"{beat.store_used_bytes / 2**20:,.0f}/{beat.store_bytes / 2**20:,.0f}",
            f"{beat.queued_leases:,}",
            f"{beat.mean_task_us / 1000:,.1f}" if beat.mean_task_us else "",
        )
    if len(beats) > _ROWS:
        table.caption = f"and {len(beats) - _ROWS} more nodes, which have less to do"
    return table


def _used(beat: events_pb2.Heartbeat, name: str, unit: int = 1) -> str:
    total = beat.total.grains[name] / GRAINS / unit if name in beat.total.grains else 0.0
    if not total:
        return ""
    free = beat.available.grains[name] / GRAINS / unit if name in beat.available.grains else 0.0
    return f"{total - free:.4g}/{total:.4g}"
