"""Where processes of this machine are in their code, by py-spy."""

from __future__ import annotations

import subprocess
from pathlib import Path

import click

from shoal._cli.parameters import address_option, asking
from shoal_common import py_spy
from shoal_common.states import NodeState

#: One dump takes a fraction of a second; a process that is swapped out much longer.
_DUMP_S = 30.0
#: How the title of a process that runs users' code begins.
_TITLE = b"shoal::"


@click.command(
    help="Show the stacks of the workers and actors of this machine, or of WHAT: process ids, ids of actors or their "
    "beginnings. Needs py-spy."
)
@click.argument("what", nargs=-1)
@click.option("--native", is_flag=True, help="Frames of C and C++, too.")
@address_option
def stack(what: tuple[str, ...], native: bool, address: str | None) -> int:
    pids = [_pid(each, address) for each in what] or _processes()
    if not pids:
        raise RuntimeError("no worker of Shoal runs on this machine")
    failures = 0
    for pid in pids:
        done = subprocess.run(py_spy.dump(pid, native=native), capture_output=True, text=True, timeout=_DUMP_S)
        failures += done.returncode != 0
        print(done.stdout if done.returncode == 0 else f"{py_spy.failure(pid, done.stderr)}\n", flush=True)
    return 1 if failures else 0


def _pid(what: str, address: str | None) -> int:
    """Raises: ValueError."""
    if what.isdecimal() and Path(f"/proc/{what}").exists():
        return int(what)
    with asking(address) as gcs:
        actors = [actor for actor in gcs.actors.list() if actor.actor_id.hex().startswith(what.lower()) and actor.pid]
        here = {
            node.node_id
            for node in gcs.nodes.list()
            if node.state is not NodeState.DEAD and Path(node.raylet_path).exists()
        }
    if len(actors) != 1:
        raise ValueError(f"{what!r} is no process of this machine, and the beginning of {len(actors)} ids of actors")
    actor = actors[0]
    if actor.address.node_id not in here:
        raise ValueError(f"{actor.actor_id.hex()} runs on another machine: node {actor.address.node_id.hex()}")
    return actor.pid


def _processes() -> list[int]:
    """Workers of this machine, of this user's clusters or others': by their titles."""
    pids = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdecimal():
            try:
                title = (directory / "cmdline").read_bytes()
            except OSError:
                continue  # it has ended
            if title.startswith(_TITLE) and not title.startswith(_TITLE + b"template"):
                pids.append(int(directory.name))
    return sorted(pids)
