"""Carries out what the node table decides: rows, events, heartbeats, direct checks of silent raylets."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable

import structlog

from shoal_common.bus import EventBus, Subscription, subjects
from shoal_common.channel.frames import PROTOCOL_VERSION
from shoal_common.errors import AlreadyExists, InvalidRequest, PreconditionFailed
from shoal_common.ids import NODE_LENGTH
from shoal_common.placement.resources import OBJECT_STORE_MEMORY
from shoal_common.service.background import Background
from shoal_common.states import NodeState
from shoal_gcs.config import GcsConfig
from shoal_gcs.events import EventPublisher
from shoal_gcs.nodes import table as node_table
from shoal_gcs.nodes.table import Node, NodeTable
from shoal_gcs.peers import HEALTH_DEADLINE_S, Raylets
from shoal_gcs.store.rows import Rows, message, written
from shoal_proto.v1 import events_pb2, gcs_pb2

#: A store that has not answered by then is one that the GCS does not reach.
STORE_DEADLINE_S = 1.0
#: A GCS that hears so long after its deadline that a check has failed has not run meanwhile, in seconds.
HELD_UP_S = 0.7

_log = structlog.get_logger()


class NodeManager:
    def __init__(
        self,
        config: GcsConfig,
        *,
        table: NodeTable,
        rows: Rows,
        raylets: Raylets,
        publisher: EventPublisher,
        background: Background,
        on_room: Callable[[], None],
        on_death: Callable[[bytes, str, bool], list[asyncio.Future[None]]],
        on_return: Callable[[int], None],
    ) -> None:
        """``on_room``: resources may have become free. ``on_death``: what the node held is lost, why, and whether it
        was leaving on purpose; returns the writes that follow from it. ``on_return``: a node has joined anew that had
        been dead since that Unix time, in milliseconds."""
        self._cluster_id = config.cluster_id
        self._table = table
        self._rows = rows
        self._raylets = raylets
        self._publisher = publisher
        self._background = background
        self._on_room = on_room
        self._on_death = on_death
        self._on_return = on_return
        self._infos: dict[bytes, gcs_pb2.NodeInfo] = {}
        #: Of the list of nodes, apart from their resources; no other GCS has the same ones. Never 0.
        self.version = secrets.randbits(62) + 1
        self._timer: asyncio.TimerHandle | None = None
        self._heartbeats: Subscription | None = None

    async def load(self) -> None:
        nodes: list[Node] = []
        infos = await self._rows.load(message(gcs_pb2.NodeInfo, lambda info: info.node_id.hex()))
        for info in sorted(infos, key=lambda info: (info.start_unix_ms, info.node_id)):
            self._infos[info.node_id] = info
            state = NodeState(info.state)
            nodes.append(Node(info.node_id, info.raylet_address, info.incarnation, state, info.death_reason))
        self._perform(self._table.load(nodes, self._now()))

    async def listen(self, bus: EventBus) -> None:
        self._heartbeats = await bus.subscribe(subjects.all_heartbeats(self._cluster_id), self._on_heartbeat)

    async def stop(self) -> None:
        """Idempotent."""
        heartbeats, self._heartbeats = self._heartbeats, None
        if heartbeats is not None:
            await heartbeats.unsubscribe()
        if self._timer is not None:
            self._timer.cancel()

    async def register(self, info: gcs_pb2.NodeInfo) -> None:
        if len(info.node_id) != NODE_LENGTH:
            raise InvalidRequest(f"a node id has {NODE_LENGTH} bytes, this one has {len(info.node_id)}")
        if not info.raylet_address:
            raise InvalidRequest("raylet_address is empty: the GCS must be able to call the raylet")
        if info.protocol_version != PROTOCOL_VERSION:
            raise PreconditionFailed(
                f"the raylet speaks version {info.protocol_version} of the framed channel, and this cluster version "
                f"{PROTOCOL_VERSION}: install the same Shoal release on all nodes"
            )
        await self._check_not_alive_elsewhere(info)
        actions = self._table.register(info.node_id, info.incarnation, info.raylet_address, self._now())
        saves = self._perform(actions)
        joined = any(isinstance(action, node_table.Joined) for action in actions)
        before = self._infos.get(info.node_id)
        died_unix_ms = before.end_unix_ms if before is not None else 0
        if joined:
            stored = gcs_pb2.NodeInfo()
            stored.CopyFrom(info)
            stored.state = gcs_pb2.NODE_STATE_ALIVE
            stored.available.CopyFrom(info.total)
            stored.start_unix_ms = stored.start_unix_ms or time.time_ns() // 1_000_000
            stored.end_unix_ms, stored.drain_deadline_unix_ms, stored.death_reason = 0, 0, ""
            self._infos[info.node_id] = stored
            self.version += 1
            _log.info("node_joined", node_id=info.node_id.hex(), address=info.raylet_address)
            if died_unix_ms:
                self._on_return(died_unix_ms)
        await written([*saves, self._save(info.node_id)])
        if joined:
            self._on_room()

    async def _check_not_alive_elsewhere(self, info: gcs_pb2.NodeInfo) -> None:
        """A raylet that has crashed may come again at once; but while the first one answers, the second is a mistake.

        Raises: AlreadyExists.
        """
        known = self._table.address_of(info.node_id)
        if known and known != info.raylet_address and not await self._raylets.check_health(known):
            raise AlreadyExists(
                f"node {info.node_id.hex()} is alive at {known}: give this raylet a node id of its own, or stop the "
                "other one first"
            )

    async def drain(self, node_id: bytes, reason: str, deadline_unix_ms: int) -> None:
        """``deadline_unix_ms``: it will have left by then; 0 = not known."""
        actions = self._table.drain(node_id, reason)
        if actions:
            self._infos[node_id].drain_deadline_unix_ms = deadline_unix_ms
        await written(self._perform(actions) or [self._rows.settled(node_id.hex())])

    async def unregister(self, node_id: bytes, reason: str) -> None:
        saves = self._perform(self._table.unregister(node_id, reason or "it left the cluster"))
        await written(saves or [self._rows.settled(node_id.hex())])

    def list_nodes(self) -> list[gcs_pb2.NodeInfo]:
        return list(self._infos.values())

    def _on_heartbeat(self, _subject: str, data: bytes) -> None:
        beat = events_pb2.Heartbeat.FromString(data)
        if not self._table.heartbeat(beat.node_id, beat.incarnation, beat.sent_unix_ms, self._now()):
            return
        info = self._infos[beat.node_id]
        before = info.available.grains
        has_more = any(
            amount > before.get(name, 0)
            for name, amount in beat.available.grains.items()
            if name != OBJECT_STORE_MEMORY
        )
        info.total.CopyFrom(beat.total)
        info.available.CopyFrom(beat.available)
        info.leased.CopyFrom(beat.leased)
        if has_more:
            self._on_room()

    def _perform(self, actions: Iterable[node_table.Action]) -> list[asyncio.Future[None]]:
        """Begin everything; returns the writes that an answer must wait for."""
        saves: list[asyncio.Future[None]] = []
        for action in actions:
            if not isinstance(action, node_table.CheckHealth | node_table.Joined):
                self.version += 1
            match action:
                case node_table.Died(node_id, _, reason, drained):
                    _log.warning("node_died", node_id=node_id.hex(), reason=reason)
                    info = self._infos[node_id]
                    info.state = gcs_pb2.NODE_STATE_DEAD
                    info.end_unix_ms = time.time_ns() // 1_000_000
                    info.death_reason = reason
                    saves += [self._save(node_id), *self._on_death(node_id, reason, drained)]
                    self._background.spawn(self._raylets.forget(info.raylet_address))
                case node_table.Drains(node_id, reason):
                    _log.info("node_drains", node_id=node_id.hex(), reason=reason)
                    self._infos[node_id].state = gcs_pb2.NODE_STATE_DRAINING
                    saves.append(self._save(node_id))
                case node_table.CheckHealth():
                    self._background.spawn(self._check(action))
                case node_table.Forget(node_id):
                    del self._infos[node_id]
                    saves.append(self._rows.delete(node_id.hex()))
                case node_table.Joined():
                    pass
        self._set_timer()
        return saves

    async def _check(self, action: node_table.CheckHealth) -> None:
        asked_at = self._now()
        problem = await self._raylets.check_health(action.raylet_address)
        # Who is kept from running hears nobody either: the answers wait in its sockets.
        held_up = self._now() - asked_at > HEALTH_DEADLINE_S + HELD_UP_S
        # Asked afterwards: a link that came back during the question would let an earlier answer pass for a later one.
        cut_off = bool(problem) and (held_up or not await self._rows.reached(STORE_DEADLINE_S))
        actions = self._table.checked(action.node_id, action.incarnation, problem, self._now(), cut_off=cut_off)
        self._perform(actions)

    def _save(self, node_id: bytes) -> asyncio.Future[None]:
        info = gcs_pb2.NodeInfo()
        info.CopyFrom(self._infos[node_id])
        return self._rows.put(node_id.hex(), info.SerializeToString(), lambda: self._publish(info))

    def _publish(self, info: gcs_pb2.NodeInfo) -> None:
        event = events_pb2.NodeEvent(node=info)
        self._publisher.publish(subjects.node(self._cluster_id, info.node_id), event.SerializeToString())

    def _tick(self) -> None:
        self._perform(self._table.tick(self._now()))

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._table.next_deadline()
        if deadline is not None:
            self._timer = asyncio.get_running_loop().call_at(deadline, self._tick)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
