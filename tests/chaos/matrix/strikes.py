"""One cell of the matrix carried out on a deployment: its moment is reached, its fault strikes, its end is seen."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from chaos.matrix.table import Cell, Fault, Moment, Victim
from support.drivers import Driver
from support.networks import Machine
from support.processes import alive, eventually
from support.shaken import ShakenCluster

_PROGRAM = (Path(__file__).parent / "program.py").read_text()
#: So much has gone out when something counts as under way, in bytes; and so fast does it go until then.
_UNDER_WAY_BYTES = 2 << 20
_SLOW_MBIT_PER_S = 48
#: What has ended is started again after so long, in seconds: its absence is noticed.
_OUTAGE_S = 1.0
#: These are under way when bytes go out: from this machine.
_SENDERS = {
    Moment.TRANSFER: "far1",
    Moment.SPILLING: "far1",
    Moment.RESTORING: "minio",
    Moment.CHECKPOINTING: "far1",
}
#: A reply leaves within about so long after the task has been told to end, in seconds.
_REPLY_S = 0.02
#: Which processes a victim is, where it is always the same.
_PROCESSES = {
    Victim.RAYLET: ("far1",),
    Victim.GCS_BOTH: ("gcs0", "gcs1"),
    Victim.ETCD: ("etcd",),
    Victim.NATS: ("nats",),
    Victim.MINIO: ("minio",),
}


class Part(Protocol):
    """A process to strike at."""

    def kill(self) -> None: ...
    def stop(self) -> None: ...
    def resume(self) -> None: ...
    def terminate(self) -> None: ...
    def runs(self) -> bool: ...


class Foreign:
    """A process that is not a child of this one. Where the moment is hit by chance it may have ended by itself."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def stop(self) -> None:
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        self._send(signal.SIGCONT)

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def runs(self) -> bool:
        return alive(self._pid)

    def _send(self, signum: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signum)


def run(cluster: ShakenCluster, cell: Cell, fault_s: float, rng: random.Random) -> dict[str, str]:
    """``fault_s``: how long something is stopped or cut off. Returns what the user saw of work that may be repeated
    (``again``) and of such that may not (``once``); nothing when the driver has ended. Afterwards nothing is left of
    its job, and the deployment is whole. Raises: AssertionError."""
    kind = "actor" if cell.victim is Victim.ACTOR_WORKER else "tasks"
    outside = cell.victim is Victim.DRIVER and cell.fault is Fault.CUT
    with TemporaryDirectory(dir=cluster.directory) as directory:
        files = Path(directory)
        with cluster.driver(_PROGRAM, cell.moment, kind, directory, outside=outside) as driver:
            job = str(driver.report()["job"])
            with _at(cell.moment, cluster, driver, files):
                parts, machines = _victims(cell, cluster, driver, job, rng)
                if cell.moment is Moment.REPLY:
                    (files / "go").touch()
                    time.sleep(rng.uniform(0, _REPLY_S))
                _strike(cell.fault, parts, machines)
                (files / "go").touch()
            _recover(cell.fault, fault_s, parts, machines)
            cluster.revive()
            seen = {}
            if cell.victim is not Victim.DRIVER or cell.fault in (Fault.STOP, Fault.CUT):
                seen = {sort: str(outcome) for sort, outcome in driver.report().items()}
            driver.wait()
    cluster.revive()
    cluster.remains().check()
    return seen


@contextlib.contextmanager
def _at(moment: Moment, cluster: ShakenCluster, driver: Driver, files: Path) -> Iterator[None]:
    """Around the strike; before a reply leaves. What holds the moment lets go afterwards."""
    with contextlib.ExitStack() as held:
        if moment in _SENDERS:
            sender = cluster.machines[_SENDERS[moment]]
            sender.slow(_SLOW_MBIT_PER_S)
            held.callback(sender.fast)
            before = sender.sent_bytes()
        elif moment is Moment.HALF_PREPARED:
            held_up = cluster.node("far2")
            held_up.stop()
            held.callback(held_up.resume)
        driver.tell("on")
        if moment in (Moment.RUNNING, Moment.REPLY, Moment.CREATING):
            eventually(lambda: all((files / name).exists() for name in ("again", "once")), "both have begun")
        if moment in _SENDERS:
            eventually(lambda: sender.sent_bytes() > before + _UNDER_WAY_BYTES, "it is under way")
        elif moment is Moment.HALF_PREPARED:
            free = lambda: cluster.stats("far1").available.grains["CPU"]  # noqa: E731
            eventually(lambda: free() < 40_000, "a bundle is reserved on the other node")
        yield


def _victims(
    cell: Cell, cluster: ShakenCluster, driver: Driver, job: str, rng: random.Random
) -> tuple[Sequence[Part], Sequence[Machine]]:
    """The processes, and the machines that they are on."""
    match cell.victim:
        case Victim.WORKER | Victim.ACTOR_WORKER:
            workers = [worker for worker in cluster.stats("far1").workers if worker.job_id.hex() == job]
            return [Foreign(worker.pid) for worker in workers], []
        case Victim.DRIVER:
            return [Foreign(driver.pid)], [cluster.outside]
        case Victim.GCS_ACTIVE:
            names: Sequence[str] = [cluster.active_gcs()]
        case Victim.SCHEDULER | Victim.OBJECTSTORE:
            names = [f"{cell.victim}{rng.randrange(2)}"]
        case _:
            names = _PROCESSES[cell.victim]
    return [cluster.part(name) for name in names], [cluster.machines[name] for name in names]


def _strike(fault: Fault, parts: Sequence[Part], machines: Sequence[Machine]) -> None:
    assert parts
    for part in parts:
        match fault:
            case Fault.KILL:
                part.kill()
            case Fault.STOP:
                part.stop()
            case Fault.TERM:
                part.terminate()
    if fault is Fault.CUT:
        for machine in machines:
            machine.cut()


def _recover(fault: Fault, fault_s: float, parts: Sequence[Part], machines: Sequence[Machine]) -> None:
    if fault in (Fault.KILL, Fault.TERM):
        time.sleep(_OUTAGE_S)
        # One that takes its time to leave is not whole, though all answers.
        eventually(lambda: not any(part.runs() for part in parts), "what was struck has ended")
        return
    time.sleep(fault_s)
    for part in parts:
        part.resume()
    for machine in machines:
        machine.heal()
