"""Work of every kind for minutes, while something is killed, stopped or cut off every few seconds: ``make soak``.

    .venv/bin/python tests/chaos/soak/soak.py [--minutes 10] [--seed N] [embedded] [cluster] [compose]

On an embedded cluster workers and the template are struck; on a `Cluster` of four nodes also raylets, whole nodes, and
the connection of a driver outside, which works beside the other one; on the deployment of compose.yaml containers of
every service, and links between them. (That takes a Docker engine and root, so it has to be asked for.) Prints 0 wrong,
0 lost, 0 hung, or what was, with memory and open files of every service at the start and at the end; exits with 1 when
a result was not the right one.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from support.drivers import Driver
from support.processes import command, descendants, eventually, head_of
from support.servers import free_port
from support.stack import Stack, build_images, engine
from support.tcp_proxy import TcpProxy

from shoal.cluster_utils import Cluster, Node

_WORK = (Path(__file__).parent / "work.py").read_text()
#: Between two faults, in seconds.
_PAUSES_S = (1.0, 5.0)
_STOPS_S = (0.5, 3.0)
#: Every kind of work has been done by then, so that what it needs once is there.
_WARM_UP_S = 10.0
#: Of a service's log, at most.
_LOG_LINES = 40
_NODE_STORE_BYTES = 96 << 20
_NODE_ARGS = {"num_cpus": 2, "object_store_memory": _NODE_STORE_BYTES}
#: Of compose.yaml: several of each, and those of which there is one.
_REPLICAS = ("raylet", "gcs", "scheduler", "objectstore")
_SERVERS = ("etcd-1", "etcd-2", "nats", "minio")

#: Strikes once, and says at what.
Fault = Callable[[random.Random], str]


def main() -> int:
    arguments = argparse.ArgumentParser(description="Work under faults")
    arguments.add_argument("--minutes", type=float, default=10)
    arguments.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    runs = {"embedded": embedded, "cluster": cluster, "compose": compose}
    arguments.add_argument("where", nargs="*", choices=runs, default=["embedded", "cluster"])
    options = arguments.parse_args()
    return sum(runs[where](options.minutes * 60, options.seed) for where in options.where)


def embedded(seconds: float, seed: int) -> int:
    print(f"--- embedded, seed {seed}", flush=True)
    with Driver(_WORK, "", str(seed)) as driver:
        driver.report()
        head = head_of(driver.pid)
        faults = (
            [Workers(lambda: [head]).kill] * 4
            + [Workers(lambda: [head]).stop] * 2
            + [Workers(lambda: [head]).kill_template]
        )
        with measured(lambda: {"driver": driver.pid, "head": head}):
            strike(faults, seconds, random.Random(seed))
            return outcome([driver])


def cluster(seconds: float, seed: int) -> int:
    print(f"--- cluster of four nodes, seed {seed}", flush=True)
    gateway = free_port()
    with contextlib.ExitStack() as stack:
        nodes = Cluster(True, head_node_args={**_NODE_ARGS, "gateway_port": gateway})
        stack.callback(nodes.shutdown)
        for _ in range(3):
            nodes.add_node(**_NODE_ARGS)
        link = stack.enter_context(TcpProxy(gateway))
        inside, outside = (
            stack.enter_context(Driver(_WORK, address, str(seed)))
            for address in (nodes.address, f"shoal://127.0.0.1:{link.port}")
        )
        for driver in (inside, outside):
            driver.report()
        workers = Workers(lambda: [raylet_of(node) for node in nodes.list_all_nodes()])
        lost = Nodes(nodes)

        def cut(rng: random.Random) -> str:
            link.cut()
            return "the connection of the driver outside was cut"

        def hold(rng: random.Random) -> str:
            link.hold()
            time.sleep(duration := rng.uniform(*_STOPS_S))
            link.heal()
            return f"the link of the driver outside swallowed all for {duration:.1f} s"

        faults: list[Fault] = (
            [workers.kill] * 4 + [workers.stop] * 2 + [workers.kill_template, lost.kill, lost.stop, cut, hold]
        )

        assert nodes.head_node is not None
        head = {daemon.service: daemon.pid for daemon in nodes.head_node.daemons}
        with measured(lambda: {"driver": inside.pid, "driver outside": outside.pid, **head}):
            strike(faults, seconds, random.Random(seed))
            status = outcome([inside, outside])
            if status:
                print_warnings(nodes.head_node)
            return status


def compose(seconds: float, seed: int) -> int:
    print(f"--- compose, seed {seed}", flush=True)
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(contextlib.closing(engine()))
        build_images()
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        deployment = stack.enter_context(Stack(client, directory, store_bytes=_NODE_STORE_BYTES).deployed())
        gateway = f"shoal://localhost:{deployment.gateway_port}"
        token = {"SHOAL_AUTH_TOKEN": deployment.read("gateway", "/run/shoal/token")}
        inside = stack.enter_context(deployment.driver(_WORK, "auto", str(seed)))
        outside = stack.enter_context(Driver(_WORK, gateway, str(seed), env=token))
        kept = {driver.report()["host"] for driver in (inside, outside)}
        containers = Containers(deployment, kept)
        workers = Workers(containers.main_processes)
        faults: list[Fault] = (
            [workers.kill] * 4
            + [workers.stop] * 2
            + [workers.kill_template, containers.kill, containers.kill, containers.pause, containers.cut]
        )
        with measured(lambda: {"driver outside": outside.pid, **containers.services()}):
            strike(faults, seconds, random.Random(seed))
            deployment.restore()
            status = outcome([inside, outside])
            if status:
                print(*(line for line in deployment.logs().splitlines() if '"level": "info"' not in line), sep="\n")
            return status


def strike(faults: list[Fault], seconds: float, rng: random.Random) -> None:
    """One after the other, until the time is over."""
    struck: collections.Counter[str] = collections.Counter()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(rng.uniform(*_PAUSES_S))
        fault = rng.choice(faults)
        what = fault(rng)
        struck[fault.__name__] += 1
        print(f"{time.strftime('%T')} {what}", flush=True)
    print("struck:", ", ".join(f"{name} {number}" for name, number in struck.most_common()))


def outcome(drivers: list[Driver]) -> int:
    """0 when every result was the right one."""
    done: collections.Counter[str] = collections.Counter()
    for driver in drivers:
        driver.tell("end")
    for driver in drivers:
        facts = driver.report()
        done.update(facts["done"])
        print(*facts["failed"], sep="\n")
    sums = {
        what: sum(n for name, n in done.items() if name.endswith(what)) for what in ("right", "wrong", "lost", "hung")
    }
    print(", ".join(f"{name} {number:,}" for name, number in sorted(done.items())))
    print(", ".join(f"{number:,} {what}" for what, number in sums.items()), flush=True)
    return int(any(sums[what] for what in ("wrong", "lost", "hung")))


class Workers:
    """The workers below these processes."""

    def __init__(self, raylets: Callable[[], list[int]]) -> None:
        self._raylets = raylets

    def kill(self, rng: random.Random) -> str:
        pid, title = self._one(rng, is_template=False)
        _send(pid, signal.SIGKILL)
        return f"killed {title}"

    def stop(self, rng: random.Random) -> str:
        pid, title = self._one(rng, is_template=False)
        _send(pid, signal.SIGSTOP)
        time.sleep(duration := rng.uniform(*_STOPS_S))
        _send(pid, signal.SIGCONT)
        return f"stopped {title} for {duration:.1f} s"

    def kill_template(self, rng: random.Random) -> str:
        pid, title = self._one(rng, is_template=True)
        _send(pid, signal.SIGKILL)
        return f"killed {title}"

    def _one(self, rng: random.Random, *, is_template: bool) -> tuple[int, str]:
        def found() -> list[tuple[int, str]]:
            titles = ((pid, command(pid)) for raylet in self._raylets() for pid in sorted(descendants(raylet)))
            return [
                (pid, title)
                for pid, title in titles
                if title.startswith("shoal::") and ("shoal::template" in title) == is_template
            ]

        return rng.choice(eventually(found, "there is a worker"))


class Nodes:
    """Those without the head; another one joins for each that is lost."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def kill(self, rng: random.Random) -> str:
        node = rng.choice(self._cluster.worker_nodes)
        self._cluster.remove_node(node, allow_graceful=False)
        self._cluster.add_node(**_NODE_ARGS)
        return f"killed node {node.node_id}"

    def stop(self, rng: random.Random) -> str:
        node = rng.choice(self._cluster.worker_nodes)
        _send(raylet_of(node), signal.SIGSTOP)
        time.sleep(duration := rng.uniform(*_STOPS_S))
        _send(raylet_of(node), signal.SIGCONT)
        return f"stopped the raylet of {node.node_id} for {duration:.1f} s"


class Containers:
    """Those of a deployment; what is struck are not the nodes where its drivers are."""

    def __init__(self, stack: Stack, kept: set[str]) -> None:
        """``kept``: addresses of those nodes."""
        self._stack = stack
        self._kept = kept

    def kill(self, rng: random.Random) -> str:
        container = rng.choice(self._running(_REPLICAS))
        container.kill()
        container.start()
        return f"killed container {container.name}"

    def pause(self, rng: random.Random) -> str:
        container = rng.choice(self._running((*_REPLICAS, *_SERVERS)))
        container.pause()
        time.sleep(duration := rng.uniform(*_STOPS_S))
        container.unpause()
        return f"stopped container {container.name} for {duration:.1f} s"

    def cut(self, rng: random.Random) -> str:
        one, *others = rng.sample(self._running(("raylet", "nats", "minio")), 3)
        with self._stack.cut(one, *(self._stack.address_of(other) for other in others)):
            time.sleep(duration := rng.uniform(*_STOPS_S))
        return f"cut {one.name} from {' and '.join(other.name for other in others)} for {duration:.1f} s"

    def main_processes(self) -> list[int]:
        """Of all nodes: their workers may be struck anywhere."""
        nodes = (container for service in ("raylet", "gateway") for container in self._stack.running(service))
        return [container.attrs["State"]["Pid"] for container in nodes]

    def services(self) -> dict[str, int]:
        """Processes of Shoal's services, by the name of their container."""
        mains = {container.name: container.attrs["State"]["Pid"] for container in self._stack.running()}
        return {
            name: pid
            for name, main in mains.items()
            for pid in (main, *descendants(main))
            if command(pid).startswith("python -m shoal_")
        }

    def _running(self, services: tuple[str, ...]) -> list[Any]:
        found = [container for service in services for container in self._stack.running(service)]
        return [container for container in found if self._stack.address_of(container) not in self._kept]


def print_warnings(node: Node) -> None:
    """What its services have logged of more than the usual: a driver whose own node is lost only says that it is."""
    for log in sorted(node.directory.glob("logs/*.log")):
        lines = log.read_text(errors="replace").splitlines()
        told = [line for line in lines if '"level": "info"' not in line]
        print(f"--- {log.name}", *told[-_LOG_LINES:], sep="\n", flush=True)


def raylet_of(node: Node) -> int:
    return next(daemon.pid for daemon in node.daemons if daemon.service == "raylet")


@contextlib.contextmanager
def measured(processes: Callable[[], dict[str, int]]) -> Iterator[None]:
    """Memory and open files of these, by name, before and after; not of those that were started again."""
    time.sleep(_WARM_UP_S)
    before = {(name, pid): _usage(pid) for name, pid in processes().items()}
    yield
    for name, pid in processes().items():
        if (name, pid) not in before:
            continue
        (memory, files), (later, more) = before[name, pid], _usage(pid)
        print(f"{name}: {memory:.0f} MiB and {files} files before, {later:.0f} MiB and {more} files after", flush=True)


def _usage(pid: int) -> tuple[float, int]:
    """MiB of its own, and open files."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]) / 1024, len(os.listdir(f"/proc/{pid}/fd"))


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended by itself
        os.kill(pid, number)


if __name__ == "__main__":
    sys.exit(main())
