"""A durable register while its processes and nodes die or hang, and a client dies: its history is linearizable."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from math import inf
from pathlib import Path
from typing import Any

import pytest
from support.clusters import ProcessCluster
from support.linearizability import Linearization, Operation
from support.processes import PATIENCE_S, eventually

import shoal

CLIENTS = 3
#: Of each client while one fault happens.
OPERATIONS = 12


@shoal.remote(num_cpus=0, durable=True, checkpoint_every=10, resources={"register": 1})
class Register:
    def __init__(self) -> None:
        self.value = 0

    def read(self) -> int:
        return self.value

    def write(self, value: int) -> None:
        self.value = value

    def cas(self, old: int, new: int) -> bool:
        if self.value != old:
            return False
        self.value = new
        return True

    def where(self) -> tuple[int, str]:
        return os.getpid(), shoal.get_runtime_context().get_node_id()


@shoal.remote(num_cpus=0, resources={"client": 1})
class Client:
    """Writes down when each operation began, and what came of it."""

    def __init__(self, register: Any, path: str, number: int) -> None:
        self.register = register
        self.path = path
        self.chance = random.Random(number)
        self.next = number * 1_000
        self.seen = 0

    def note(self, *what: Any) -> None:
        with open(self.path, "a") as file:
            file.write(json.dumps([*what, time.monotonic()]) + "\n")

    def run(self, operations: int) -> None:
        for _ in range(operations):
            self.next += 1
            kind = self.chance.choice(["read", "write", "cas", "cas"])
            arguments = {"read": [], "write": [self.next], "cas": [self.seen, self.next]}[kind]
            self.note("begin", [kind, *arguments])
            result = shoal.get(getattr(self.register, kind).remote(*arguments), timeout=PATIENCE_S)
            self.note("end", result)
            if kind == "read":
                self.seen = result
            elif kind == "write" or result:
                self.seen = self.next

    def pid(self) -> int:
        return os.getpid()


def step(value: int, what: tuple[Any, ...]) -> tuple[int, Any]:
    match what:
        case ("write", new):
            return new, None
        case ("cas", old, new):
            return (new, True) if value == old else (value, False)
        case _:
            return value, value


def history(path: Path) -> list[Operation]:
    operations: list[Operation] = []
    for line in path.read_text().splitlines():
        kind, what, at = json.loads(line)
        if kind == "begin":
            operations.append(Operation(tuple(what), at))
        else:
            last = operations[-1]
            operations[-1] = Operation(last.what, last.called, at, what)
    return operations


@pytest.mark.timeout(300)
def test_while_its_process_its_node_and_a_client_die(tmp_path: Path) -> None:
    with ProcessCluster() as cluster:
        cluster.add_node(resources={"client": CLIENTS})
        # Its log is a file where the node has the directory of the blobs, and made of blobs elsewhere.
        places = [
            cluster.add_node(resources={"register": 1}, **flags)
            for flags in ({"blob_directory": cluster.directory / "blobs"}, {})
        ]
        with cluster.connected():
            register = Register.remote()
            paths: list[Path] = []

            def client() -> Any:
                paths.append(tmp_path / str(len(paths)))
                return Client.remote(register, str(paths[-1]), len(paths))

            def begun() -> int:
                return sum(path.read_text().count("begin") for path in paths if path.exists())

            clients = [client() for _ in range(CLIENTS)]
            for fault in ("worker", "hung raylet", "client", "node"):
                pid, node_id = shoal.get(register.where.remote(), timeout=PATIENCE_S)
                node = next(place for place in places if place.node_id == node_id)
                before = begun()
                rounds = [each.run.remote(OPERATIONS) for each in clients]
                eventually(lambda before=before: begun() > before + CLIENTS, "operations are under way")
                if fault == "worker":
                    os.kill(pid, signal.SIGKILL)
                elif fault == "hung raylet":
                    # Its node counts as dead, and the register begins elsewhere, while the old process still runs.
                    node.stop()
                elif fault == "node":
                    node.kill()
                else:
                    shoal.kill(clients.pop())
                    rounds.pop()
                    clients.append(client())
                shoal.get(rounds, timeout=PATIENCE_S)
                if fault == "hung raylet":
                    node.resume()
    operations = [operation for path in paths if path.exists() for operation in history(path)]
    assert sum(operation.returned < inf for operation in operations) >= 4 * (CLIENTS - 1) * OPERATIONS
    assert Linearization(0, step).order(operations) is not None, operations
