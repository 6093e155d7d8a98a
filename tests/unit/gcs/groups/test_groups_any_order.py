"""Placement groups from the GCS's table to the raylets' ledgers, in any order of events: messages are lost, doubled and
late, nodes and the GCS die at any moment. Nothing is granted twice, and nothing is kept that nobody needs.

What the manager and the node's shell do is repeated here in short, with the network between them.
"""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shoal_common.placement.resources import ResourceSet
from shoal_common.states import GroupState, PlacementStrategy
from shoal_gcs.groups.bundle_planner import Candidate, Need, plan
from shoal_gcs.groups.messages import group_info, group_of_row
from shoal_gcs.groups.table import (
    Action,
    Bundle,
    Commit,
    Forget,
    PlacementGroup,
    PlacementGroupTable,
    Removed,
    Return,
    Save,
)
from shoal_gcs.groups.turns import KEPT_S, SetAside, Turns
from shoal_raylet.leases.bundle_reservations import COMMIT_WITHIN_S, BundleReservations
from shoal_raylet.leases.resource_ledger import ResourceLedger

NODES = (b"node-a", b"node-b", b"node-c")
CPUS = 3


def cpus(amount: float) -> ResourceSet:
    return ResourceSet.of({"CPU": amount})


class Raylet:
    """One life of a node's raylet. A task takes one CPU of it."""

    def __init__(self) -> None:
        self.ledger = ResourceLedger(cpus(CPUS))
        self.bundles = BundleReservations(self.ledger)
        self.tasks: list[bytes] = []

    def hear(self, kind: str, content: Any, now: float) -> bool:
        if kind == "prepare":
            group_id, reservation, wanted = content
            return not self.bundles.prepare(group_id, reservation, wanted, now)
        if kind == "commit":
            return self.bundles.commit(*content)
        if kind == "return":
            self.bundles.give_back(*content)
        else:
            group_id, need = content
            self.bundles.await_room(group_id, need, now + KEPT_S)
        return True


@dataclass(eq=False)
class Call:
    """What the GCS asks a raylet until it is answered; a prepare only once."""

    node_id: bytes
    kind: str
    content: Any
    #: Not before this group's row is written.
    after_row: bytes = b""
    #: With what is due when it is answered: the table's action, or the attempt to place a group.
    action: Any = None


@dataclass(eq=False)
class Attempt:
    group_id: bytes
    reservation: bytes
    places: dict[int, bytes]
    open: set[bytes]
    failed: bool = False


@dataclass(eq=False)
class Message:
    """On a connection, and so to one process."""

    call: Call
    to: Raylet | None


@dataclass
class Gcs:
    """One active GCS."""

    table: PlacementGroupTable = field(default_factory=PlacementGroupTable)
    turns: Turns = field(default_factory=Turns)
    calls: list[Call] = field(default_factory=list)
    #: Rows that are being written, the oldest first.
    writes: list[tuple[bytes, Any]] = field(default_factory=list)
    #: What each node has said of itself last: what is free there, and held by tasks.
    heard: dict[bytes, tuple[ResourceSet, ResourceSet]] = field(default_factory=dict)


class AnyOrder(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.ids = itertools.count(1)
        #: Those that run, whatever the GCS thinks.
        self.raylets: dict[bytes, Raylet] = {}
        #: Those that the GCS takes for alive.
        self.members: set[bytes] = set()
        self.rows: dict[bytes, Any] = {}
        #: Sent, and not arrived yet; and the last that have arrived.
        self.network: list[Message] = []
        self.arrived: deque[Message] = deque(maxlen=30)
        self.gcs = Gcs()

    @initialize()
    def begin(self) -> None:
        for node_id in NODES:
            self.join(node_id)

    def new_id(self) -> bytes:
        return next(self.ids).to_bytes(16)

    # --- the GCS's shell ---

    def perform(self, actions: list[Action]) -> None:
        gcs = self.gcs
        for action in actions:
            match action:
                case Save(group_id):
                    gcs.writes.append((group_id, group_info(gcs.table[group_id])))
                case Commit(group_id, node_id, reservation):
                    gcs.calls.append(Call(node_id, "commit", (group_id, reservation), group_id, action))
                case Return(group_id, node_id):
                    gcs.calls.append(Call(node_id, "return", (group_id, b""), group_id, action))
                case Removed(group_id):
                    self.set_aside(gcs.turns.ended(group_id))
                case Forget(group_id):
                    gcs.writes.append((group_id, None))
        for call in [call for call in gcs.calls if call.node_id not in self.members]:
            self.answered(call, None)

    def set_aside(self, actions: list[SetAside]) -> None:
        for each in actions:
            if each.node_id in self.members:
                call = Call(each.node_id, "set aside", (each.group_id, each.resources))
                self.network.append(self.message(call))

    def available(self, node_id: bytes) -> ResourceSet:
        return self.gcs.heard[node_id][0]

    @rule()
    def place(self) -> None:
        """The turn of one group."""
        gcs = self.gcs
        group = gcs.table.due(self.now)
        if group is None:
            return
        members = sorted(self.members)
        places = gcs.turns.places(group.group_id, {node_id: self.available(node_id) for node_id in members})
        if not places:
            room = {node_id: gcs.turns.left_for(group, node_id, self.available(node_id)) for node_id in members}
            nodes = [Candidate(node_id, room[node_id], {}) for node_id in members]
            places = plan(group.strategy, group.homeless, group.placed, nodes) or {}
        attempt = Attempt(group.group_id, self.new_id(), places, set(places.values()))
        for node_id in sorted(attempt.open):
            wanted = {i: group.bundles[i].need.resources for i, at in places.items() if at == node_id}
            content = (group.group_id, attempt.reservation, wanted)
            gcs.calls.append(Call(node_id, "prepare", content, action=attempt))
        if not places:
            self.tried(attempt)

    def tried(self, attempt: Attempt) -> None:
        gcs = self.gcs
        actions: list[Action] = []
        if attempt.places and not attempt.failed and set(attempt.places.values()) <= self.members:
            actions = gcs.table.prepared(attempt.group_id, attempt.reservation, attempt.places, self.now)
        if actions:
            self.set_aside(gcs.turns.ended(attempt.group_id))
        else:
            for node_id in sorted(set(attempt.places.values()) & self.members):
                gcs.calls.append(Call(node_id, "return", (attempt.group_id, attempt.reservation)))
            gcs.table.no_room(attempt.group_id, self.now)
            if gcs.table.is_usable(attempt.group_id) and gcs.table[attempt.group_id].homeless:
                nodes = [Candidate(node_id, sum(gcs.heard[node_id], ResourceSet()), {}) for node_id in self.members]
                nodes.sort(key=lambda node: node.node_id)
                self.set_aside(gcs.turns.no_room(gcs.table[attempt.group_id], nodes, self.now))
        self.perform(actions)

    def answered(self, call: Call, answer: bool | None) -> None:
        """None: its node is dead, or for a prepare: nobody answered in time."""
        gcs = self.gcs
        if call not in gcs.calls:
            return
        gcs.calls.remove(call)
        match call.action:
            case Attempt() as attempt:
                attempt.open.discard(call.node_id)
                attempt.failed = attempt.failed or not answer
                if not attempt.open:
                    self.tried(attempt)
            case Commit(group_id, node_id, reservation) if answer is not None:
                outcome = gcs.table.committed if answer else gcs.table.lost
                self.perform(outcome(group_id, node_id, reservation))
            case Return(group_id, node_id):
                self.perform(gcs.table.returned(group_id, node_id))

    def sendable(self) -> list[Call]:
        unwritten = {group_id for group_id, _ in self.gcs.writes}
        return [call for call in self.gcs.calls if call.after_row not in unwritten]

    # --- what users do ---

    @rule(
        amounts=st.lists(st.sampled_from([1, 2, 3]), min_size=1, max_size=3),
        strategy=st.sampled_from(list(PlacementStrategy)),
    )
    def create(self, amounts: list[float], strategy: PlacementStrategy) -> None:
        bundles = [Bundle(Need(cpus(amount))) for amount in amounts]
        self.perform(self.gcs.table.create(PlacementGroup(self.new_id(), b"job", b"driver", strategy, bundles)))

    @precondition(lambda self: self.gcs.table.living())
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        group = data.draw(st.sampled_from(self.gcs.table.living()))
        self.perform(self.gcs.table.remove(group.group_id, "why"))

    @precondition(lambda self: self.raylets)
    @rule(data=st.data(), ends=st.booleans())
    def run_a_task(self, data: st.DataObject, ends: bool) -> None:
        raylet = self.raylets[data.draw(st.sampled_from(sorted(self.raylets)))]
        if ends and raylet.tasks:
            raylet.ledger.release(raylet.tasks.pop(0))
        elif not ends and raylet.ledger.can_hold(cpus(1)):
            raylet.tasks.append(self.new_id())
            raylet.ledger.allocate(raylet.tasks[-1], cpus(1))

    # --- what the network does ---

    @precondition(lambda self: self.sendable())
    @rule(data=st.data())
    def send(self, data: st.DataObject) -> None:
        self.network.append(self.message(data.draw(st.sampled_from(self.sendable()))))

    @precondition(lambda self: self.network)
    @rule(data=st.data(), answer_is_lost=st.booleans())
    def deliver(self, data: st.DataObject, answer_is_lost: bool) -> None:
        self.arrive(self.network.pop(data.draw(st.integers(0, len(self.network) - 1))), answer_is_lost)

    @precondition(lambda self: self.arrived)
    @rule(data=st.data())
    def copies_arrive(self, data: st.DataObject) -> None:
        first = data.draw(st.integers(0, len(self.arrived) - 1))
        for message in list(self.arrived)[first:][:3]:
            self.arrive(message, answer_is_lost=True)

    def message(self, call: Call) -> Message:
        return Message(call, self.raylets.get(call.node_id))

    def arrive(self, message: Message, answer_is_lost: bool) -> None:
        call = message.call
        self.arrived.append(message)
        if message.to is not None and message.to is self.raylets.get(call.node_id):
            answer = message.to.hear(call.kind, call.content, self.now)
            if not answer_is_lost:
                self.answered(call, answer)

    @precondition(lambda self: any(isinstance(call.action, Attempt) for call in self.gcs.calls))
    @rule(data=st.data())
    def a_prepare_is_not_answered_in_time(self, data: st.DataObject) -> None:
        calls = [call for call in self.gcs.calls if isinstance(call.action, Attempt)]
        self.answered(data.draw(st.sampled_from(calls)), None)

    @precondition(lambda self: self.gcs.writes)
    @rule()
    def write_a_row(self) -> None:
        group_id, row = self.gcs.writes.pop(0)
        if row is None:
            self.rows.pop(group_id, None)
        else:
            self.rows[group_id] = row

    @precondition(lambda self: self.members & self.raylets.keys())
    @rule(data=st.data())
    def heartbeat(self, data: st.DataObject) -> None:
        node_id = data.draw(st.sampled_from(sorted(self.members & self.raylets.keys())))
        ledger = self.raylets[node_id].ledger
        self.gcs.heard[node_id] = ledger.available, cpus(len(self.raylets[node_id].tasks))
        self.gcs.table.poke(self.now)

    @rule(seconds=st.sampled_from([0.1, 1.0, KEPT_S, COMMIT_WITHIN_S]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for raylet in self.raylets.values():
            raylet.bundles.tick(self.now)

    @rule()
    def a_while_without_trouble(self) -> None:
        late = list(self.network)
        for _ in range(4):
            self.settle(0.1)
        self.network = late

    # --- deaths ---

    @precondition(lambda self: self.raylets)
    @rule(data=st.data())
    def a_raylet_dies(self, data: st.DataObject) -> None:
        del self.raylets[data.draw(st.sampled_from(sorted(self.raylets)))]

    @precondition(lambda self: self.members)
    @rule(data=st.data())
    def a_node_is_declared_dead(self, data: st.DataObject) -> None:
        """Whether or not it is."""
        self.lose(data.draw(st.sampled_from(sorted(self.members))))

    def lose(self, node_id: bytes) -> None:
        self.members.discard(node_id)
        self.perform(self.gcs.table.node_died(node_id))

    @precondition(lambda self: set(NODES) - self.members)
    @rule(data=st.data())
    def a_node_joins_anew(self, data: st.DataObject) -> None:
        """With nothing of what it had, and under the name that it had."""
        self.join(data.draw(st.sampled_from(sorted(set(NODES) - self.members))))

    def join(self, node_id: bytes) -> None:
        self.raylets[node_id] = Raylet()
        self.members.add(node_id)
        self.gcs.heard[node_id] = cpus(CPUS), ResourceSet()
        self.gcs.table.poke(self.now)

    @rule()
    def the_gcs_dies(self) -> None:
        """What was not written is lost, what is under way still arrives; the next one begins with the rows."""
        heard = self.gcs.heard
        self.gcs = Gcs(heard=heard)
        groups = [group_of_row(row) for row in self.rows.values()]
        self.perform(self.gcs.table.load(groups, self.members))

    # --- what holds always ---

    @invariant()
    def nothing_is_granted_twice(self) -> None:
        for raylet in self.raylets.values():
            raylet.ledger.validate()
            raylet.bundles.validate()
            assert raylet.ledger.available["CPU"] >= 0
            assert not raylet.ledger.available.grains or min(raylet.ledger.available.grains.values()) >= 0

    @invariant()
    def who_is_created_has_its_bundles(self) -> None:
        self.gcs.table.validate()
        self.gcs.turns.validate()
        for group in self.gcs.table.living():
            if group.state is GroupState.CREATED:
                for index, bundle in enumerate(group.bundles):
                    raylet = self.raylets.get(bundle.node_id)
                    if bundle.committed and raylet is not None:
                        assert (group.group_id, index) in committed(raylet), "its bundle is usable"

    @invariant()
    def a_bundle_is_usable_in_one_place(self) -> None:
        seen: set[tuple[bytes, int]] = set()
        for node_id in self.members & self.raylets.keys():
            usable = committed(self.raylets[node_id])
            assert not seen & usable
            seen |= usable

    def teardown(self) -> None:
        """All that is under way arrives, tasks end, and all nodes live: nothing is left that nobody needs."""
        for node_id in NODES:
            if node_id in self.members and node_id not in self.raylets:
                self.lose(node_id)
            if node_id not in self.members:
                self.join(node_id)
        for raylet in self.raylets.values():
            while raylet.tasks:
                raylet.ledger.release(raylet.tasks.pop())
        for message in self.network:
            self.arrive(message, answer_is_lost=True)
        self.network.clear()
        for _ in range(80):
            self.settle(COMMIT_WITHIN_S if not self.gcs.calls else 0.1)
        for group in self.gcs.table.living():
            assert group.state is GroupState.CREATED or not self.has_room(group), "it is placed where there is room"
        wanted = {
            (group.group_id, index): bundle.node_id
            for group in self.gcs.table.living()
            for index, bundle in enumerate(group.bundles)
            if bundle.node_id
        }
        held = {key: node_id for node_id, raylet in self.raylets.items() for key in committed(raylet)}
        assert held == wanted, "raylets hold what the GCS knows of, and nothing else"
        for node_id, raylet in self.raylets.items():
            mine = [need_of(self.gcs.table, key) for key, at in wanted.items() if at == node_id]
            assert raylet.ledger.available["CPU"] == cpus(CPUS)["CPU"] - sum(need["CPU"] for need in mine)
        super().teardown()

    def settle(self, seconds: float) -> None:
        """Everything goes well."""
        self.now += seconds
        for node_id, raylet in self.raylets.items():
            raylet.bundles.tick(self.now)
            self.gcs.heard[node_id] = raylet.ledger.available, cpus(len(raylet.tasks))
        while self.gcs.writes:
            self.write_a_row()
        for call in self.sendable():
            self.arrive(self.message(call), answer_is_lost=False)
        self.gcs.table.poke(self.now)
        self.place()
        told, self.network = self.network, []
        for message in told:
            self.arrive(message, answer_is_lost=True)

    def has_room(self, group: PlacementGroup) -> bool:
        nodes = [Candidate(node_id, self.raylets[node_id].ledger.available, {}) for node_id in sorted(self.members)]
        return plan(group.strategy, group.homeless, group.placed, nodes) is not None


def committed(raylet: Raylet) -> set[tuple[bytes, int]]:
    """Which bundles may be used there."""
    return {
        (held.group_id, index)
        for held in raylet.bundles._reservations.values()
        if held.committed
        for index in held.bundles
    }


def need_of(table: PlacementGroupTable, key: tuple[bytes, int]) -> ResourceSet:
    return table[key[0]].bundles[key[1]].need.resources


AnyOrder.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestAnyOrder = AnyOrder.TestCase
