"""Carries out what the table of placement groups decides: rows, calls to raylets, waiting callers.

What others see of a group is what the store has, as with actors: ``_committed`` holds the rows as they were last
written.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from functools import partial
from operator import attrgetter

import structlog

from shoal_common.bus import subjects
from shoal_common.errors import InvalidRequest, NotFound, PreconditionFailed, ServiceError
from shoal_common.metadata import MAX_VALUE_BYTES
from shoal_common.placement.resources import ResourceSet
from shoal_common.rpc.client import retrying
from shoal_common.rpc.retry import RetryPolicy
from shoal_common.rpc.values import amounts
from shoal_common.service.background import Background
from shoal_common.states import GroupState
from shoal_gcs.events import EventPublisher
from shoal_gcs.groups import table as placement_groups
from shoal_gcs.groups.bundle_planner import Candidate, plan
from shoal_gcs.groups.messages import group_info, group_of_row, new_group
from shoal_gcs.groups.table import PlacementGroup, PlacementGroupTable
from shoal_gcs.groups.turns import KEPT_S, SetAside, Turns
from shoal_gcs.jobs.quota_manager import QuotaManager
from shoal_gcs.jobs.table import JobTable
from shoal_gcs.nodes.table import NodeTable
from shoal_gcs.peers import Raylets
from shoal_gcs.store.rows import Rows, message, written
from shoal_proto.v1 import events_pb2, gcs_pb2, raylet_pb2

#: A long poll is answered after this time at the latest, in seconds.
MAX_WAIT_S = 30.0
#: A raylet that does not answer is asked again, as long as its node is not dead.
_INSIST = RetryPolicy(attempts=None, initial_s=1.0, maximum_s=1.0)
#: Of a reservation's id.
RESERVATION_BYTES = 8

_log = structlog.get_logger()


class PlacementGroupManager:
    def __init__(
        self,
        *,
        table: PlacementGroupTable,
        rows: Rows,
        cluster_id: str,
        publisher: EventPublisher,
        jobs: JobTable,
        quotas: QuotaManager,
        nodes: NodeTable,
        raylets: Raylets,
        background: Background,
        list_nodes: Callable[[], Iterable[gcs_pb2.NodeInfo]],
        detached_creator: Callable[[bytes], bytes],
        on_created: Callable[[], None],
        on_removed: Callable[[bytes], None],
    ) -> None:
        """``detached_creator``: the detached actor that a worker belongs to, or nothing. ``on_removed``: what waits for
        a group's bundles, or runs in them, is to fail."""
        self._rows = rows
        self._cluster_id = cluster_id
        self._publisher = publisher
        self._jobs = jobs
        self._quotas = quotas
        self._nodes = nodes
        self._raylets = raylets
        self._background = background
        self._list_nodes = list_nodes
        self._detached_creator = detached_creator
        self._on_created = on_created
        self._on_removed = on_removed
        self._table = table
        self._turns = Turns()
        #: The oldest first.
        self._committed: dict[bytes, gcs_pb2.PlacementGroupInfo] = {}
        #: Set, and replaced, whenever a row has been written.
        self._news = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    async def load(self) -> None:
        """After the nodes, and before what has ended meanwhile is told."""
        infos = await self._rows.load(message(gcs_pb2.PlacementGroupInfo, lambda info: info.group_id.hex()))
        self._committed = {info.group_id: info for info in sorted(infos, key=attrgetter("sequence"))}
        living = {node.node_id for node in self._nodes.living()}
        groups = [group_of_row(info) for info in infos]
        for group in groups:
            self._note_quota(group)
        self._perform(self._table.load(groups, living))

    def end_orphans(self, is_alive: Callable[[bytes], bool]) -> None:
        """After jobs and actors are loaded: an earlier GCS may not have removed what ended with them."""
        for group in self._table.living():
            if not self._jobs.is_running(group.job_id):
                self._perform(self._table.job_finished(group.job_id))
            if group.actor_id and not is_alive(group.actor_id):
                self.actor_died(group.actor_id)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    # --- the rpcs ---

    async def create(self, info: gcs_pb2.PlacementGroupInfo) -> None:
        group = new_group(info)
        if info.ByteSize() > MAX_VALUE_BYTES // 2:
            raise InvalidRequest(f"the group's {len(group.bundles)} bundles are too many: make several groups of them")
        if group.job_id not in self._jobs:
            raise PreconditionFailed(f"job {group.job_id.hex()} is not known: a driver calls StartJob first")
        if group.group_id in self._table:
            if group.group_id not in self._committed:
                await written([self._save(self._table[group.group_id])])
            return
        group.actor_id = self._detached_creator(group.owner_id)
        actions = self._table.create(group)
        if not self._jobs.is_running(group.job_id):
            actions += self._table.job_finished(group.job_id)
        await written(self._perform(actions))

    async def wait(self, group_id: bytes, known_version: int, wait_ms: int) -> gcs_pb2.PlacementGroupInfo:
        deadline = self._now() + min(wait_ms / 1000, MAX_WAIT_S)
        while True:
            info = self._committed.get(group_id)
            if info is None:
                raise NotFound(f"placement group {group_id.hex()} does not exist, or was removed long ago")
            if info.version > known_version or self._now() >= deadline:
                return self._told(info)
            try:
                async with asyncio.timeout_at(deadline):
                    await self._news.wait()
            except TimeoutError:
                continue

    def get_named(self, name: str, namespace: str) -> gcs_pb2.PlacementGroupInfo:
        group = self._table.named(namespace, name)
        info = self._committed.get(group.group_id) if group is not None else None
        if info is None:
            raise NotFound(f"there is no placement group named {name!r} in namespace {namespace!r}")
        return info

    def list_groups(self) -> list[gcs_pb2.PlacementGroupInfo]:
        return list(map(self._told, self._committed.values()))

    def _told(self, info: gcs_pb2.PlacementGroupInfo) -> gcs_pb2.PlacementGroupInfo:
        if not self._quotas.is_waiting(info.job_id, info.group_id):
            return info
        told = gcs_pb2.PlacementGroupInfo()
        told.CopyFrom(info)
        told.waits_for_quota = True
        return told

    async def remove(self, group_id: bytes) -> None:
        saves = self._perform(self._table.remove(group_id, "remove_placement_group was called"))
        await written(saves or [self._rows.settled(group_id.hex())])

    # --- what happens elsewhere ---

    def node_died(self, node_id: bytes) -> list[asyncio.Future[None]]:
        """Returns the writes that an answer must wait for."""
        return self._perform(self._table.node_died(node_id))

    def job_finished(self, job_id: bytes) -> list[asyncio.Future[None]]:
        """Returns the writes that an answer must wait for."""
        return self._perform(self._table.job_finished(job_id))

    def actor_died(self, actor_id: bytes) -> None:
        self._perform(self._table.actor_died(actor_id))

    def room_may_be_free(self) -> None:
        """A node joined, or a heartbeat told of its resources."""
        self._table.poke(self._now())
        self._place_due()

    # --- carrying out ---

    def _perform(self, actions: Iterable[placement_groups.Action]) -> list[asyncio.Future[None]]:
        """Begin everything at once; returns the writes that an answer must wait for."""
        saves: dict[bytes, asyncio.Future[None]] = {}
        for action in actions:
            match action:
                case placement_groups.Save(group_id):
                    self._note_quota(self._table[group_id])
                    saves[group_id] = self._save(self._table[group_id])
                case placement_groups.Commit():
                    self._background.spawn(self._commit(action, saves.get(action.group_id)))
                case placement_groups.Return():
                    self._background.spawn(self._return(action, saves.get(action.group_id)))
                case placement_groups.Removed(group_id):
                    self._tell_set_aside(self._turns.ended(group_id))
                    self._on_removed(group_id)
                case placement_groups.Forget(group_id):
                    saves[group_id] = self._rows.delete(group_id.hex())
                    self._committed.pop(group_id, None)
        self._place_due()
        return list(saves.values())

    def _save(self, group: PlacementGroup) -> asyncio.Future[None]:
        info = group_info(group)
        return self._rows.put(group.group_id.hex(), info.SerializeToString(), partial(self._on_committed, info))

    def _on_committed(self, info: gcs_pb2.PlacementGroupInfo) -> None:
        if info.group_id not in self._table:
            return  # it was forgotten while the row was being written
        before = self._committed.get(info.group_id)
        self._committed[info.group_id] = info
        if before is None or before.state != info.state:
            event = events_pb2.PlacementGroupEvent(group=info).SerializeToString()
            self._publisher.publish(subjects.group(self._cluster_id, info.group_id), event)
        self._news.set()
        self._news = asyncio.Event()
        if info.state == gcs_pb2.PLACEMENT_GROUP_STATE_CREATED:
            self._on_created()

    # --- a place for each group ---

    def _place_due(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._now()
        group = self._table.due(now)
        if group is not None:
            self._background.spawn(self._place(group))
            return
        deadline = self._table.next_deadline()
        if deadline is not None:
            self._timer = asyncio.get_running_loop().call_at(max(deadline, now + 0.001), self._place_due)

    async def _place(self, group: PlacementGroup) -> None:
        """Phase one. What is prepared and then not needed is given back, or goes by itself."""
        places = self._plan(group) if self._may_hold_all(group) else {}
        reservation = os.urandom(RESERVATION_BYTES)
        reserved = await self._prepare(group, reservation, places) if places else False
        actions: list[placement_groups.Action] = []
        if reserved and self._may_hold_all(group):
            actions = self._table.prepared(group.group_id, reservation, places, self._now())
        if not actions:
            for node_id in set(places.values()):
                self._background.spawn(self._give_back(group.group_id, node_id, reservation, "the group found no room"))
            self._table.no_room(group.group_id, self._now())
            self._note_quota(group)
            self._set_room_aside(group)
        else:
            self._tell_set_aside(self._turns.ended(group.group_id))
        self._perform(actions)

    def _may_hold_all(self, group: PlacementGroup) -> bool:
        """Its job's quota has room for all of its bundles; they count from now on."""
        bundles = ResourceSet.sum(bundle.need.resources for bundle in group.bundles)
        return self._quotas.take(group.job_id, group.group_id, bundles)

    def _note_quota(self, group: PlacementGroup) -> None:
        """What has a place counts, until it is known to be given back there."""
        usable = group.state is not GroupState.REMOVED
        if usable and self._quotas.is_waiting(group.job_id, group.group_id):
            return
        placed = (bundle.need.resources for bundle in group.bundles if bundle.node_id)
        self._quotas.holds(group.job_id, group.group_id, ResourceSet.sum(placed))

    def _plan(self, group: PlacementGroup) -> dict[int, bytes]:
        """Where there is room by the last heartbeats; empty = nowhere."""
        available = {node.node_id: ResourceSet(node.available.grains) for node in self._alive()}
        if places := self._turns.places(group.group_id, available):
            return places
        candidates = [
            Candidate(node.node_id, self._turns.left_for(group, node.node_id, available[node.node_id]), node.labels)
            for node in self._alive()
        ]
        return plan(group.strategy, group.homeless, group.placed, candidates) or {}

    def _alive(self) -> list[gcs_pb2.NodeInfo]:
        return [node for node in self._list_nodes() if node.state == gcs_pb2.NODE_STATE_ALIVE]

    def _set_room_aside(self, group: PlacementGroup) -> None:
        if not group.homeless or not self._table.is_usable(group.group_id):
            return
        if self._quotas.is_waiting(group.job_id, group.group_id):
            self._tell_set_aside(self._turns.ended(group.group_id))
            return
        coming = [
            Candidate(node.node_id, ResourceSet(node.available.grains) + ResourceSet(node.leased.grains), node.labels)
            for node in self._alive()
        ]
        self._tell_set_aside(self._turns.no_room(group, coming, self._now()))

    def _tell_set_aside(self, actions: Iterable[SetAside]) -> None:
        for action in actions:
            self._background.spawn(self._tell_raylet(action))

    async def _tell_raylet(self, action: SetAside) -> None:
        """Once: it is said again while it holds, and forgotten when it is not."""
        request = raylet_pb2.SetAsideRequest(
            group_id=action.group_id, resources=amounts(action.resources), for_ms=int(KEPT_S * 1000)
        )
        try:
            await self._raylets.set_aside(self._nodes.address_of(action.node_id), request)
        except ServiceError as error:
            _log.info("room_not_set_aside", node_id=action.node_id.hex(), error=str(error))

    async def _prepare(self, group: PlacementGroup, reservation: bytes, places: dict[int, bytes]) -> bool:
        requests: dict[bytes, raylet_pb2.PrepareBundlesRequest] = {}
        for index, node_id in places.items():
            request = requests.setdefault(
                node_id, raylet_pb2.PrepareBundlesRequest(group_id=group.group_id, reservation=reservation)
            )
            resources = amounts(group.bundles[index].need.resources)
            request.bundles.append(raylet_pb2.Bundle(index=index, resources=resources))

        async def prepare(node_id: bytes) -> bool:
            address = self._nodes.address_of(node_id)
            if not address:
                return False
            try:
                await self._raylets.prepare_bundles(address, requests[node_id])
            except ServiceError as error:
                _log.info("bundles_not_prepared", node_id=node_id.hex(), error=str(error))
                return False
            return bool(self._nodes.address_of(node_id))

        return all(await asyncio.gather(*map(prepare, requests))) and all(map(self._nodes.address_of, requests))

    async def _commit(self, action: placement_groups.Commit, saved: asyncio.Future[None] | None) -> None:
        """Phase two, once the row says where the bundles are."""
        group_id, node_id, reservation = action.group_id, action.node_id, action.reservation
        request = raylet_pb2.CommitBundlesRequest(group_id=group_id, reservation=reservation)

        async def commit() -> bool:
            try:
                await self._raylets.commit_bundles(self._nodes.address_of(node_id), request)
            except NotFound:
                return False
            return True

        await self._until_stored(group_id, saved)
        committed = await retrying(
            commit,
            _INSIST,
            until=lambda: not self._nodes.address_of(node_id) or not self._table.is_usable(group_id),
            on=(ServiceError,),
            failed=partial(_warn, "bundles_not_committed", node_id=node_id.hex()),
        )
        if committed is not None:
            answer = self._table.committed if committed else self._table.lost
            self._perform(answer(group_id, node_id, reservation))

    async def _return(self, action: placement_groups.Return, saved: asyncio.Future[None] | None) -> None:
        """Once the row says that the group is removed."""
        await self._until_stored(action.group_id, saved)
        await self._give_back(action.group_id, action.node_id, b"", action.reason)
        self._perform(self._table.returned(action.group_id, action.node_id))

    async def _until_stored(self, group_id: bytes, saved: asyncio.Future[None] | None) -> None:
        """Never returns in a GCS that has been replaced without having noticed: it has nothing to say to raylets."""

        if saved is None:
            return
        saves = [saved]  # the first, then those that are tried in its place

        async def store() -> None:
            await written([saves.pop() if saves else self._save(self._table[group_id])])

        await retrying(
            store,
            _INSIST,
            until=lambda: not saves and group_id not in self._table,
            on=(ServiceError,),
            failed=partial(_warn, "placement_group_not_stored", group_id=group_id.hex()),
        )

    async def _give_back(self, group_id: bytes, node_id: bytes, reservation: bytes, reason: str) -> None:
        request = raylet_pb2.ReturnBundlesRequest(group_id=group_id, reservation=reservation, reason=reason)
        await retrying(
            lambda: self._raylets.return_bundles(self._nodes.address_of(node_id), request),
            _INSIST,
            until=lambda: not self._nodes.address_of(node_id),
            on=(ServiceError,),
            failed=partial(_warn, "bundles_not_returned", node_id=node_id.hex()),
        )

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _warn(event: str, error: ServiceError, **what: str) -> None:
    _log.warning(event, error=str(error), **what)
