"""A name belongs to one actor at a time, whoever asks and whoever dies meanwhile: histories are linearizable."""

from __future__ import annotations

import json
from math import inf
from pathlib import Path
from typing import Any

from support.deployed import DeployedCluster
from support.drivers import Driver
from support.linearizability import Linearization, Operation

#: Creates, finds and kills actors of two names, and writes down when each of that began and what came of it.
_CLIENT = """
import random
ray.init(namespace="n", logging_level="ERROR", log_to_driver=False)
client, path, seed = sys.argv[1:]
chance = random.Random(seed)

@ray.remote(num_cpus=0)
class Holder:
    def __init__(self, token):
        self.token = token
    def tell(self):
        return self.token

def note(*what):
    with open(path, "a") as file:
        file.write(json.dumps([*what, time.monotonic()]) + "\\n")

def perform(what, name):
    if what[0] == "create":
        try:
            Holder.options(name=name, lifetime="detached").remote(what[1])
            return True
        except ValueError as error:
            if "already" not in str(error):
                raise
            return False
    try:
        holder = ray.get_actor(name)
    except ValueError:
        return None
    token = ray.get(holder.tell.remote(), timeout=60)
    if what[0] == "kill":
        note("meant", token)
        ray.kill(holder)
        return None
    return token

report(ready=True)
for number in range(int(command())):
    name = chance.choice(["a", "b"])
    what = [chance.choice(["create", "create", "get", "get", "kill"]), f"{client}-{number}"]
    note("begin", name, what)
    try:
        result = perform(what, name)
    except Exception as error:
        note("failed", repr(error))
    else:
        note("end", result)
    report(done=number)
"""


def step(state: str | None, what: tuple[str, ...]) -> tuple[str | None, Any]:
    match what:
        case ("create", token):
            return state or token, state is None
        case ("kill", token):
            return None if state == token else state, None
        case _:
            return state, state


def history(path: Path) -> dict[str, list[Operation]]:
    """By name. A kill is what it meant to kill; one that found nothing is a look."""
    found: dict[str, list[Operation]] = {"a": [], "b": []}
    begun: list[Any] = []
    meant = ""

    def ended(returned: float, result: Any) -> None:
        _, name, (kind, token), called = begun
        what = ("create", token) if kind == "create" else ("kill", meant) if meant else ("get",)
        if what != ("get",) or returned < inf:
            found[name].append(Operation(what, called, returned, result))

    for line in path.read_text().splitlines():
        event = json.loads(line)
        if event[0] == "begin":
            if begun:
                ended(inf, None)
            begun, meant = event, ""
        elif event[0] == "meant":
            meant = event[1]
        elif event[0] == "end":
            ended(event[-1], event[1])
            begun = []
    if begun:
        ended(inf, None)
    return found


def test_names_while_the_gcs_and_a_client_are_killed(tmp_path: Path) -> None:
    with DeployedCluster() as cluster:
        cluster.add_node(cpus=2)
        clients = []
        try:
            for number in range(3):
                arguments = (str(number), str(tmp_path / str(number)), f"seed {number}")
                clients.append(Driver(_CLIENT, *arguments, env=cluster.environment))
            for client in clients:
                client.report()
            for client in clients:
                client.tell("12")
            clients[0].report()
            leader = next(number for number in range(2) if cluster.listens(number))
            cluster.replicas[leader].kill()
            clients[1].report()
            clients[2].process.kill()
            for client in clients[:2]:
                while client.report() != {"done": 11}:
                    pass
        finally:
            for client in clients:
                client.__exit__()
        histories = [history(tmp_path / str(number)) for number in range(3)]
        for name in ("a", "b"):
            operations = [operation for each in histories for operation in each[name]]
            assert sum(operation.returned < inf for operation in operations) >= 5
            assert Linearization[str | None](None, step).order(operations) is not None, operations
