"""The life of one actor in any order: requests and reports are late, lost or doubled, processes and nodes die, and the
GCS begins anew with what it has written. At most one incarnation lives, and it is the one that callers know.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass

from support.walks import walks

from shoal_common.channel.frames import WorkerAddress
from shoal_common.kinds import ExitKind
from shoal_common.states import ActorState
from shoal_gcs.actors import machine
from shoal_gcs.actors.machine import Actor

CRASH = machine.Exit(ExitKind.SYSTEM_ERROR, "killed")


@dataclass(eq=False)
class Process:
    incarnation: int
    address: WorkerAddress
    alive: bool = True


class World:
    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.actor = Actor(b"a", b"job", b"owner", max_restarts=self.rng.choice([-1, 0, 1, 3]))
        self.written = copy.deepcopy(self.actor)
        self.nodes = [b"node-1", b"node-2"]
        #: Declared dead; their processes may live for a while.
        self.dead_nodes: list[bytes] = []
        self.processes: list[Process] = []
        #: Requests of the GCS, which are lost with it.
        self.requests: list[Callable[[], None]] = []
        #: Reports of raylets, repeated until the GCS has them.
        self.reports: list[Callable[[], None]] = []
        self.tell(machine.Create())

    def tell(self, event: machine.Event) -> None:
        self.perform(machine.handle(self.actor, event))
        self.actor.validate()

    def perform(self, actions: list[machine.Action]) -> None:
        for action in actions:
            match action:
                case machine.Save():
                    self.written = copy.deepcopy(self.actor)
                case machine.FindPlace():
                    self.requests.append(lambda: self.tell(machine.Placed(self.rng.choice(self.nodes))))
                case machine.StartProcess():
                    self.requests.append(lambda start=action: self.start(start))  # type: ignore[misc]
                case machine.StopProcess():
                    self.requests.append(lambda stop=action: self.stop(stop))  # type: ignore[misc]

    # -- raylets --

    def start(self, action: machine.StartProcess) -> None:
        current = (self.actor.incarnation, self.actor.node_id) == (action.incarnation, action.node_id)
        if action.node_id in self.dead_nodes:
            if current:
                self.tell(machine.NodeDied(action.node_id, "it has left the cluster"))
            return
        answer = self.rng.choice(["started"] * 4 + ["refused", "unknown"])
        if answer == "refused":
            if current:
                self.tell(machine.Refuse())
            return
        there = [each for each in self.living() if each.address.node_id == action.node_id]
        process = next((each for each in there if each.incarnation == action.incarnation), None)
        if process is None:
            address = WorkerAddress(action.node_id, b"w%d" % len(self.processes), "")
            process = Process(action.incarnation, address)
            self.processes.append(process)
        self.report(machine.Started(process.incarnation, process.address, 1))
        if answer == "unknown" and current:
            self.tell(machine.StartFailed(action.incarnation, "no answer"))
        elif self.actor.state is ActorState.DEAD:
            # As the manager does: the order to stop it may have overtaken this one.
            self.stop(machine.StopProcess(b"a", action.node_id, b"", True, "the actor is dead"))

    def stop(self, action: machine.StopProcess) -> None:
        for process in self.living():
            if process.address.node_id == action.node_id and action.worker_id in (b"", process.address.worker_id):
                self.end(process)

    def end(self, process: Process) -> None:
        process.alive = False
        if process.address.node_id not in self.dead_nodes:
            self.report(machine.WorkerDied(process.incarnation, CRASH))

    def report(self, event: machine.Event) -> None:
        for _ in range(self.rng.choice([1, 1, 2])):
            self.reports.append(lambda: self.tell(event))

    def living(self) -> list[Process]:
        return [process for process in self.processes if process.alive]

    # -- what happens --

    def deliver(self, queue: list[Callable[[], None]]) -> None:
        queue.pop(self.rng.randrange(len(queue)))()

    def node_is_lost(self) -> None:
        node = self.rng.choice(self.nodes)
        self.nodes = [*(each for each in self.nodes if each != node), b"node-%d" % (len(self.dead_nodes) + 3)]
        self.dead_nodes.append(node)
        self.tell(machine.NodeDied(node, "silent"))

    def gcs_begins_anew(self) -> None:
        self.requests.clear()
        self.actor = copy.deepcopy(self.written)
        self.perform(machine.resume(self.actor))
        if self.actor.node_id in self.dead_nodes:
            self.tell(machine.NodeDied(self.actor.node_id, "silent"))

    def step(self) -> None:
        possible: list[Callable[[], None]] = []
        if self.requests:
            possible += [lambda: self.deliver(self.requests)] * 6
        if self.reports:
            possible += [lambda: self.deliver(self.reports)] * 6
        if self.living():
            possible += [lambda: self.end(self.rng.choice(self.living()))]
        if self.rng.random() < 0.2:
            possible += [self.node_is_lost, self.gcs_begins_anew]
            possible += [lambda: self.tell(machine.Kill(no_restart=False))]
        if self.rng.random() < 0.02:
            ends: list[machine.Event] = [machine.Kill(True), machine.Release(), machine.OwnerDied("so")]
            possible = [lambda: self.tell(self.rng.choice(ends))]
        if possible:
            self.rng.choice(possible)()

    def settle(self) -> None:
        """Everything arrives, and nodes that count as dead have ended their processes."""
        for process in self.living():
            if process.address.node_id in self.dead_nodes:
                process.alive = False
        while self.requests or self.reports:
            self.deliver(self.rng.choice([queue for queue in (self.requests, self.reports) if queue]))

    def callers_know_one_that_was_started_for_them(self) -> None:
        address = self.actor.address
        if address is not None:
            (process,) = (each for each in self.processes if each.address == address)
            assert process.incarnation == self.actor.incarnation

    def at_most_one_lives(self) -> None:
        living = self.living()
        if self.actor.state is ActorState.DEAD:
            assert not living
        else:
            assert self.actor.state is ActorState.ALIVE
            assert [process.address for process in living] == [self.actor.address]


@walks(60)
def test_any_order(seed: int) -> None:
    world = World(seed)
    for _ in range(6):
        for _ in range(25):
            world.step()
            world.callers_know_one_that_was_started_for_them()
        world.settle()
        world.at_most_one_lives()
