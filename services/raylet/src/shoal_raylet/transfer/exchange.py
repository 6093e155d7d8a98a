"""Objects between nodes: fetches copies from other raylets, and serves them what is here.

Its home knows who else has copies of an object (``object_directory``), so whoever needs one asks there first, then
reads chunks from the nodes that it is given (``pull_manager``), and can pass on at once what it has got. When the home
is dead, or does not have it, the GCS knows whether it was spilled, and who has made its own copy the primary one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from shoal_common.blob.local import Blobs
from shoal_common.channel import frames
from shoal_common.errors import DataLoss, ServiceError
from shoal_common.service.background import Background
from shoal_proto.v1 import gcs_pb2
from shoal_raylet.arena.buffers import ObjectBytes
from shoal_raylet.channel.connection import Connection
from shoal_raylet.deadline import DeadlineTimer
from shoal_raylet.objects.directory import ObjectDirectory
from shoal_raylet.objects.entry import Changed, Entry, StoreAction
from shoal_raylet.objects.errors import fetch_timed_out, file_unusable, lost_with_home, spilled_copy_lost
from shoal_raylet.objects.index import ObjectIndex
from shoal_raylet.objects.leaving import Ending
from shoal_raylet.objects.pulls import AskChunk, EndChunks, HangUp, PullAction, Pulled, PullManager, SourcesWanted
from shoal_raylet.transfer.chunk_stream import ChunkStream
from shoal_raylet.transfer.copy_server import CopyServer, node_of
from shoal_raylet.transfer.links import LinkLost, RayletLinks
from shoal_raylet.transfer.locations import ObjectLocations

log = structlog.get_logger(__name__)

#: A fetch that gets no further for so long fails, in seconds.
FETCH_TIMEOUT_S = 600.0
#: The home answers a question by then, in seconds.
_ASK_TIMEOUT_S = 5.0
#: Whoever is asked to adopt copies tells the GCS before it answers.
_ADOPT_TIMEOUT_S = 10.0
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 2.0


class Nodes(Protocol):
    """The nodes that live."""

    def get(self, node_id: bytes) -> gcs_pb2.NodeInfo | None: ...
    def why_dead(self, node_id: bytes) -> str: ...
    async def find(self, node_id: bytes) -> gcs_pb2.NodeInfo | None:
        """As ``get``, but one that is not known yet is looked for."""


class FetchFailed(Exception):
    """The text is what ``ObjectLocated.error`` says."""


@dataclass(frozen=True, slots=True)
class _Where:
    size: int
    owner: bytes
    sources: list[bytes]
    blob_key: str = ""
    blob_offset: int = 0


@dataclass(slots=True)
class _Fetch:
    """One copy on its way here."""

    task: asyncio.Task[None]
    room: asyncio.Future[None]
    #: Nodes that did not deliver since something last arrived.
    without: set[bytes] = field(default_factory=set)
    progress_at: float = 0.0
    #: Before the next try, in seconds.
    pause: float = _FIRST_PAUSE_S
    #: Why the last try did not succeed.
    problem: str = ""
    target: memoryview | None = None
    #: True = all bytes are here; False = other sources are needed.
    outcome: asyncio.Future[bool] | None = None


class ObjectExchange:
    """Belongs to one event loop. ``execute`` carries out what the index decides."""

    def __init__(
        self,
        index: ObjectIndex,
        object_bytes: ObjectBytes,
        blobs: Blobs,
        links: RayletLinks,
        locations: ObjectLocations,
        nodes: Nodes,
        execute: Callable[[list[StoreAction]], None],
    ) -> None:
        self._index = index
        self._bytes = object_bytes
        self._blobs = blobs
        self._links = links
        self._locations = locations
        self._nodes = nodes
        self._execute = execute
        self._loop = asyncio.get_running_loop()
        self.directory = ObjectDirectory(links.node_id)
        self._pulls = PullManager()
        self._timer = DeadlineTimer(self._loop, lambda: self._run(self._pulls.tick(self._loop.time())))
        self._fetches: dict[Entry, _Fetch] = {}
        self._targets: dict[bytes, _Fetch] = {}
        self._streams: dict[bytes, ChunkStream] = {}
        self._server = CopyServer(index, object_bytes, self.directory, self._pulls.has, self._loop.time, execute)
        self._reports = Background()
        self.handlers: dict[type[frames.Message], Callable[[Connection, Any], None]] = {
            **self._server.handlers,
            frames.CopiesFree: self._copies_free,
            frames.CopiesAdopt: self._copies_adopt,
            frames.ObjectFree: self._objects_free,
        }

    async def stop(self) -> None:
        self._timer.cancel()
        tasks = [fetch.task for fetch in self._fetches.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._reports.stop()
        streams = list(self._streams.values())
        for stream in streams:
            stream.close()
        await asyncio.gather(*(stream.dialing for stream in streams), return_exceptions=True)
        await self._links.stop()

    # --- what the index asks for ---

    def locate(self, entry: Entry) -> None:
        room: asyncio.Future[None] = self._loop.create_future()
        task = self._loop.create_task(self._fetch(entry))
        self._fetches[entry] = _Fetch(task, room, progress_at=self._loop.time())
        # Also of one that is cancelled before it has begun.
        task.add_done_callback(lambda _: self._fetches.pop(entry, None))

    def hurry(self, entry: Entry) -> None:
        self._pulls.hurry(entry.object_id)

    def problem(self, object_id: bytes) -> str:
        """What keeps a copy from coming here, as far as it is known; "" = nothing does."""
        entry = self._index.find(object_id)
        fetch = self._fetches.get(entry) if entry is not None else None
        return fetch.problem if fetch is not None else ""

    def room_made(self, entry: Entry) -> None:
        fetch = self._fetches[entry]
        if not fetch.room.done():
            fetch.room.set_result(None)

    def cancel(self, entry: Entry) -> None:
        fetch = self._fetches.get(entry)
        if fetch is not None:
            fetch.task.cancel()

    def copy_gone(self, home: bytes, object_id: bytes) -> None:
        self._links.tell(home, frames.CopiesGone([object_id]))

    def deleted(self, object_ids: Iterable[bytes]) -> None:
        """Primary copies are no more: those who have others drop them."""
        holders: dict[bytes, list[bytes]] = {}
        for object_id in object_ids:
            for node_id in self.directory.forget(object_id):
                holders.setdefault(node_id, []).append(object_id)
        for node_id, ids in holders.items():
            self._links.tell(node_id, frames.CopiesFree(ids))

    def changed(self, object_id: bytes) -> None:
        """Nodes that wait for it are answered, or wait on."""
        self._server.changed(object_id)

    def free(self, object_ids: list[bytes], home: bytes) -> None:
        """The owner needs these no more, whose home is another node."""
        if self._nodes.get(home) is not None:
            self._links.tell(home, frames.ObjectFree(object_ids))
        else:
            self._reports.spawn(self._free_orphans(object_ids))

    async def hand_over(self, ending: Ending) -> list[Entry]:
        """This node leaves the cluster: copies elsewhere become primary. The objects that have none are returned."""
        left: list[Entry] = []
        by_holder: dict[bytes, list[Entry]] = {}
        for entry in self._index.only_here(ending):
            holders = [node for node in self.directory.complete_copies(entry.object_id) if self._nodes.get(node)]
            if holders:
                by_holder.setdefault(holders[0], []).append(entry)
            else:
                left.append(entry)

        async def ask(holder: bytes, entries: list[Entry]) -> None:
            question = frames.CopiesAdopt(0, [entry.object_id for entry in entries])
            adopted: set[bytes] = set()
            try:
                answer: frames.CopiesAdopted = await self._links.ask(holder, question, _ADOPT_TIMEOUT_S)
                adopted.update(answer.object_ids)
            except LinkLost as error:
                log.info("copies_not_adopted", node_id=holder.hex(), reason=str(error))
            left.extend(entry for entry in entries if entry.object_id not in adopted)

        await asyncio.gather(*(ask(holder, entries) for holder, entries in by_holder.items()))
        return left

    def node_lost(self, node_id: bytes) -> None:
        """It is dead, or has left: copies of its objects that are here are the primary ones now."""
        orphans = [entry for entry in self._index.copies() if self._nodes.get(entry.home) is None]
        for entry in orphans:
            self._index.adopt(entry)
        self._reports.spawn(self._report_copies(node_id, [entry.object_id for entry in orphans]))
        self.directory.node_lost(node_id)
        self._links.node_lost(node_id)
        stream = self._streams.get(node_id)
        if stream is not None:
            self._hang_up(node_id)
            self._run(self._pulls.source_lost(node_id, self._loop.time()))

    # --- fetching ---

    async def _fetch(self, entry: Entry) -> None:
        try:
            await self._bring(entry, self._fetches[entry])
        except FetchFailed as failure:
            self._end_fetch(entry, str(failure))
        except BaseException:
            # Cancelled: nobody waits for it.
            self._end_fetch(entry, "")
            raise
        else:
            self._execute(self._index.fetched(entry, self._loop.time()))
            if self._nodes.get(entry.home) is not None:
                self._links.tell(entry.home, frames.CopyMade(entry.object_id))
            elif not entry.deleted:
                # The home has died meanwhile.
                self._index.adopt(entry)
                self._reports.spawn(self._report_copies(entry.home, [entry.object_id]))

    def _end_fetch(self, entry: Entry, error: str) -> None:
        self._links.tell(entry.home, frames.CopiesGone([entry.object_id]))
        self._execute(self._index.not_fetched(entry, error, self._loop.time()))

    async def _bring(self, entry: Entry, fetch: _Fetch) -> None:
        """Raises: FetchFailed."""
        where = await self._find(entry, fetch)
        self._execute(self._index.located(entry, where.size, where.owner, self._loop.time()))
        await fetch.room
        fetch.progress_at = self._loop.time()
        with self._writable(entry) as target:
            try:
                while not await self._read(entry, fetch, where, target):
                    where = await self._find(entry, fetch)
                    if where.size != entry.size:
                        raise FetchFailed(lost_with_home(entry.home, "has made it anew meanwhile, with another size"))
            finally:
                self._end_pull(entry.object_id, fetch)

    async def _read(self, entry: Entry, fetch: _Fetch, where: _Where, target: memoryview) -> bool:
        """Whether all bytes are here; else what has come is kept. Raises: FetchFailed."""
        fetch.problem = ""
        if not where.blob_key:
            return await self._pull(entry, fetch, where, target)
        try:
            await self._blobs.get_into(where.blob_key, target, where.blob_offset)
        except DataLoss as error:
            raise FetchFailed(spilled_copy_lost(error)) from error
        except ServiceError as error:
            # Also where the blob is gone: its writer has the object in memory again, or the owner has freed it.
            await self._pause(fetch, f"its spilled copy cannot be read now: {error}")
            return False
        return True

    async def _pull(self, entry: Entry, fetch: _Fetch, where: _Where, target: memoryview) -> bool:
        object_id = entry.object_id
        now = self._loop.time()
        fetch.outcome = self._loop.create_future()
        if self._targets.get(object_id) is fetch:
            self._run(self._pulls.add_sources(object_id, where.sources, now))
        else:
            # One that was cancelled a moment ago may not have ended yet.
            self._run(self._pulls.cancel(object_id, now))
            fetch.target = target
            self._targets[object_id] = fetch
            urgent = self._index.is_awaited(entry)
            self._run(self._pulls.begin(object_id, where.size, where.sources, urgent, now))
        if await fetch.outcome:
            return True
        progress_at = self._pulls.progress_at(object_id)
        if progress_at > fetch.progress_at:
            fetch.progress_at = progress_at
            fetch.pause = _FIRST_PAUSE_S
            fetch.without.clear()
        fetch.without.update(where.sources)
        return False

    def _end_pull(self, object_id: bytes, fetch: _Fetch) -> None:
        if self._targets.get(object_id) is fetch:
            self._run(self._pulls.cancel(object_id, self._loop.time()))
            del self._targets[object_id]
        fetch.target = None

    async def _find(self, entry: Entry, fetch: _Fetch) -> _Where:
        """Where to read it from. Raises: FetchFailed."""
        home, reason = entry.home, ""
        denied: set[bytes] = {self._links.node_id}
        while True:
            if entry.home not in denied and await self._nodes.find(entry.home) is not None:
                try:
                    answer = await self._ask_home(entry, fetch)
                except LinkLost as error:
                    problem = str(error)
                else:
                    if answer.sources or answer.blob_key:
                        return _Where(answer.size, answer.owner, answer.sources, answer.blob_key, answer.blob_offset)
                    if not answer.later:
                        reason = "does not have it any more"
                        denied.add(entry.home)
                        continue
                    problem = "none of the nodes that have it delivers"
                    fetch.without.clear()
            else:
                try:
                    place = await self._locations.locate(entry.object_id)
                except ServiceError as error:
                    problem = f"the GCS does not tell where it is: {error}"
                else:
                    if place is None or place.node_id in denied:
                        reason = reason or f"has left the cluster ({self._nodes.why_dead(home)})"
                        raise FetchFailed(lost_with_home(home, reason))
                    if place.blob_key:
                        return _Where(place.size_bytes, b"", [], place.blob_key, place.offset)
                    # Its new home.
                    entry.home = place.node_id
                    continue
            await self._pause(fetch, problem)

    async def _pause(self, fetch: _Fetch, problem: str) -> None:
        """Before the next try. Raises: FetchFailed when the last progress was too long ago."""
        if self._loop.time() >= fetch.progress_at + FETCH_TIMEOUT_S:
            raise FetchFailed(fetch_timed_out(FETCH_TIMEOUT_S, problem))
        fetch.problem = problem
        await asyncio.sleep(fetch.pause)
        fetch.pause = min(fetch.pause * 2, _LONGEST_PAUSE_S)

    async def _ask_home(self, entry: Entry, fetch: _Fetch) -> frames.ObjectSources:
        """Raises: LinkLost."""
        question = frames.ObjectLocate(0, entry.object_id, list(fetch.without))
        answer: frames.ObjectSources = await self._links.ask(entry.home, question, _ASK_TIMEOUT_S)
        return answer

    @contextmanager
    def _writable(self, entry: Entry) -> Iterator[memoryview]:
        """Raises: FetchFailed."""
        with ExitStack() as stack:
            try:
                target = stack.enter_context(self._bytes.of(entry))
            except OSError as error:
                raise FetchFailed(file_unusable(entry.object_id, error)) from error
            yield target

    # --- what the pull manager asks for ---

    def _run(self, actions: list[PullAction]) -> None:
        for action in actions:
            match action:
                case AskChunk(source, object_id, offset, length):
                    target = self._targets[object_id].target
                    assert target is not None
                    self._stream(source).ask(object_id, offset, target[offset : offset + length])
                case EndChunks(source, object_id):
                    if source in self._streams:
                        self._streams[source].end(object_id)
                case HangUp(source):
                    log.info("source_given_up", node_id=source.hex())
                    self._hang_up(source)
                case Changed(object_id):
                    self._server.changed(object_id)
                case Pulled(object_id):
                    self._set_outcome(object_id, True)
                case SourcesWanted(object_id):
                    self._set_outcome(object_id, False)
        self._timer.set(self._pulls.next_deadline())

    def _set_outcome(self, object_id: bytes, done: bool) -> None:
        fetch = self._targets[object_id]
        if fetch.outcome is not None and not fetch.outcome.done():
            fetch.outcome.set_result(done)

    def _stream(self, source: bytes) -> ChunkStream:
        stream = self._streams.get(source)
        if stream is None:
            stream = self._streams[source] = ChunkStream(
                self._links.dial(source),
                on_bytes=lambda: self._pulls.heard(source, self._loop.time()),
                on_chunk=lambda object_id, offset, has_it: self._on_chunk(source, object_id, offset, has_it),
                on_lost=lambda reason: self._on_stream_lost(source, reason),
            )
        return stream

    def _hang_up(self, source: bytes) -> None:
        stream = self._streams.pop(source, None)
        if stream is not None:
            stream.close()

    def _on_chunk(self, source: bytes, object_id: bytes, offset: int, has_it: bool) -> None:
        now = self._loop.time()
        if has_it:
            self._run(self._pulls.arrived(source, object_id, offset, now))
        else:
            self._run(self._pulls.refused(source, object_id, now))

    def _on_stream_lost(self, source: bytes, reason: str) -> None:
        log.info("source_lost", node_id=source.hex(), reason=reason)
        self._streams.pop(source, None)
        self._run(self._pulls.source_lost(source, self._loop.time()))

    # --- other raylets ---

    def connected(self, connection: Connection) -> None:
        self._server.connected(connection)

    def closed(self, connection: Connection) -> None:
        self._server.closed(connection)

    # --- objects without a home ---

    async def _report_copies(self, home: bytes, object_ids: list[bytes]) -> None:
        try:
            freed = await self._locations.copies(home, object_ids)
            self._execute(self._index.free(freed, self._loop.time()))
        except ServiceError as error:
            log.error("copies_not_reported", home=home.hex(), objects=len(object_ids), reason=str(error))

    async def _free_orphans(self, object_ids: list[bytes]) -> None:
        try:
            freed = await self._locations.free(object_ids)
            if freed.blob_keys:
                await self._blobs.delete(list(freed.blob_keys))
        except ServiceError as error:
            # The end of the job deletes them.
            log.info("objects_not_freed", objects=len(object_ids), reason=str(error))
            return
        for copies in freed.copies:
            if copies.node_id != self._links.node_id:
                self._links.tell(copies.node_id, frames.ObjectFree(list(copies.object_ids)))
        # Those that are here, adopted or not.
        self._execute(self._index.free(object_ids, self._loop.time()))

    def _copies_free(self, connection: Connection, message: frames.CopiesFree) -> None:
        copies = [entry for entry in map(self._index.find, message.object_ids) if entry is not None and entry.home]
        self._execute(self._index.free([entry.object_id for entry in copies], self._loop.time()))

    def _copies_adopt(self, connection: Connection, message: frames.CopiesAdopt) -> None:
        entries = [entry for entry in map(self._index.find, message.object_ids) if entry is not None and entry.sealed]
        for entry in entries:
            self._index.adopt(entry)
        self._reports.spawn(self._adopt(connection, message.request, [entry.object_id for entry in entries]))

    async def _adopt(self, connection: Connection, request: int, object_ids: list[bytes]) -> None:
        try:
            if object_ids:
                freed = await self._locations.copies(node_of(connection), object_ids)
                self._execute(self._index.free(freed, self._loop.time()))
        except ServiceError as error:
            log.warning("copies_not_adopted", objects=len(object_ids), reason=str(error))
            object_ids = []
        connection.send(frames.CopiesAdopted(request, object_ids))

    def _objects_free(self, connection: Connection, message: frames.ObjectFree) -> None:
        """Another node's owner needs these no more; it has asked its own raylet to tell."""
        self._execute(self._index.free(message.object_ids, self._loop.time()))
