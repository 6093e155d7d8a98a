"""Fetches copies of objects from other raylets or out of blobs: does what the searches and the pulls decide."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol

import structlog

from shoal_common.blob.local import Blobs
from shoal_common.channel import frames
from shoal_common.errors import DataLoss, ServiceError
from shoal_proto.v1 import gcs_pb2
from shoal_raylet.arena.buffers import ObjectBytes
from shoal_raylet.deadline import DeadlineTimer
from shoal_raylet.objects.entry import Changed, Entry, StoreAction
from shoal_raylet.objects.errors import file_unusable, lost, spilled_copy_lost
from shoal_raylet.objects.index import ObjectIndex
from shoal_raylet.objects.pulls import AskChunk, EndChunks, HangUp, PullAction, Pulled, PullManager, SourcesWanted
from shoal_raylet.objects.search import (
    AskGcs,
    AskHome,
    Begin,
    BlobUnreadable,
    GcsAnswered,
    GiveUp,
    HomeAnswered,
    HomeGone,
    MakeRoom,
    NoAnswer,
    Pause,
    PauseOver,
    ReadBlob,
    ReadFrom,
    RoomMade,
    Search,
    SearchEvent,
    SourcesFailed,
)
from shoal_raylet.transfer.chunk_stream import ChunkStream
from shoal_raylet.transfer.links import LinkLost, RayletLinks
from shoal_raylet.transfer.locations import ObjectLocations

log = structlog.get_logger(__name__)

#: The home answers a question by then, in seconds.
_ASK_TIMEOUT_S = 5.0


class Nodes(Protocol):
    """The nodes that live."""

    def get(self, node_id: bytes) -> gcs_pb2.NodeInfo | None: ...
    def why_dead(self, node_id: bytes) -> str: ...
    async def find(self, node_id: bytes) -> gcs_pb2.NodeInfo | None:
        """As ``get``, but one that is not known yet is looked for."""


class FetchFailed(Exception):
    """Whoever asked for the object is told ``error``."""

    def __init__(self, error: frames.StoreError) -> None:
        super().__init__(error.text)
        self.error = error


@dataclass(slots=True, eq=False)
class _Fetch:
    """One copy on its way here."""

    search: Search
    task: asyncio.Task[None]
    room: asyncio.Future[None]
    target: memoryview | None = None
    #: True = all bytes are here; False = other sources are needed.
    outcome: asyncio.Future[bool] | None = None


class Fetcher:
    """Belongs to one event loop. ``execute`` carries out what the index decides; ``on_fetched(copy, home)`` is told of
    each one that is here, and of the node that has the primary copy."""

    def __init__(
        self,
        index: ObjectIndex,
        object_bytes: ObjectBytes,
        blobs: Blobs,
        links: RayletLinks,
        locations: ObjectLocations,
        nodes: Nodes,
        execute: Callable[[list[StoreAction]], None],
        on_fetched: Callable[[Entry, bytes], None],
        on_part: Callable[[bytes], None],
    ) -> None:
        """``on_part(object id)``: more of an object that is on its way is here."""
        self._index = index
        self._bytes = object_bytes
        self._blobs = blobs
        self._links = links
        self._locations = locations
        self._nodes = nodes
        self._execute = execute
        self._on_fetched = on_fetched
        self._on_part = on_part
        self._loop = asyncio.get_running_loop()
        self._pulls = PullManager()
        self._timer = DeadlineTimer(self._loop, lambda: self._run(self._pulls.tick(self._loop.time())))
        self._fetches: dict[Entry, _Fetch] = {}
        #: Those whose chunks are being read, by object id.
        self._pulled: dict[bytes, _Fetch] = {}
        self._streams: dict[bytes, ChunkStream] = {}

    async def stop(self) -> None:
        self._timer.cancel()
        tasks = [fetch.task for fetch in self._fetches.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        streams = list(self._streams.values())
        for stream in streams:
            stream.close()
        await asyncio.gather(*(stream.dialing for stream in streams), return_exceptions=True)

    # --- what the index asks for ---

    def locate(self, entry: Entry) -> None:
        room: asyncio.Future[None] = self._loop.create_future()
        search = Search(entry.home, self._links.node_id, self._loop.time())
        task = self._loop.create_task(self._fetch(entry))
        self._fetches[entry] = _Fetch(search, task, room)
        # Also of one that is cancelled before it has begun.
        task.add_done_callback(lambda _: self._fetches.pop(entry, None))

    def hurry(self, entry: Entry) -> None:
        self._pulls.hurry(entry.object_id)

    def problem(self, object_id: bytes) -> str:
        """What keeps a copy from coming here, as far as it is known; "" = nothing does."""
        entry = self._index.find(object_id)
        fetch = self._fetches.get(entry) if entry is not None else None
        return fetch.search.problem if fetch is not None else ""

    def room_made(self, entry: Entry) -> None:
        fetch = self._fetches[entry]
        if not fetch.room.done():
            fetch.room.set_result(None)

    def cancel(self, entry: Entry) -> None:
        fetch = self._fetches.get(entry)
        if fetch is not None:
            fetch.task.cancel()

    def has(self, object_id: bytes, offset: int, length: int) -> bool:
        """Whether these bytes of a copy that is on its way are here."""
        return self._pulls.has(object_id, offset, length)

    def node_lost(self, node_id: bytes) -> None:
        if node_id in self._streams:
            self._hang_up(node_id)
            self._run(self._pulls.source_lost(node_id, self._loop.time()))

    # --- what the searches ask for ---

    async def _fetch(self, entry: Entry) -> None:
        fetch = self._fetches[entry]
        try:
            await self._bring(entry, fetch)
        except FetchFailed as failure:
            self._end_fetch(entry, fetch, failure.error)
        except BaseException:
            # Cancelled: nobody waits for it.
            self._end_fetch(entry, fetch, lost())
            raise
        else:
            home = fetch.search.home
            self._execute(self._index.fetched(entry, home, self._loop.time()))
            self._on_fetched(entry, home)

    def _end_fetch(self, entry: Entry, fetch: _Fetch, error: frames.StoreError) -> None:
        self._links.tell(fetch.search.home, frames.CopiesGone([entry.object_id]))
        self._execute(self._index.not_fetched(entry, error, self._loop.time()))

    async def _bring(self, entry: Entry, fetch: _Fetch) -> None:
        """Raises: FetchFailed."""
        with ExitStack() as stack:
            event: SearchEvent | None = Begin()
            while event is not None:
                match fetch.search.handle(event, self._loop.time()):
                    case AskHome(home, without):
                        event = await self._ask_home(entry.object_id, home, without)
                    case AskGcs():
                        event = await self._ask_gcs(entry.object_id)
                    case MakeRoom(size, owner):
                        self._execute(self._index.located(entry, size, owner, self._loop.time()))
                        await fetch.room
                        fetch.target = stack.enter_context(self._writable(entry))
                        stack.callback(self._end_pull, entry.object_id, fetch)
                        event = RoomMade()
                    case ReadFrom(sources):
                        event = await self._pull(entry, fetch, sources)
                    case ReadBlob(key, offset):
                        event = await self._read_blob(fetch, key, offset)
                    case Pause(seconds):
                        await asyncio.sleep(seconds)
                        event = PauseOver()
                    case GiveUp(error):
                        raise FetchFailed(error)

    async def _ask_home(self, object_id: bytes, home: bytes, without: tuple[bytes, ...]) -> SearchEvent:
        if await self._nodes.find(home) is None:
            return HomeGone(self._nodes.why_dead(home))
        question = frames.ObjectLocate(0, object_id, list(without))
        try:
            answer: frames.ObjectSources = await self._links.ask(home, question, _ASK_TIMEOUT_S)
        except LinkLost as error:
            return NoAnswer(str(error))
        return HomeAnswered(
            answer.size, answer.owner, tuple(answer.sources), answer.blob_key, answer.blob_offset, answer.later
        )

    async def _ask_gcs(self, object_id: bytes) -> SearchEvent:
        try:
            place = await self._locations.locate(object_id)
        except ServiceError as error:
            return NoAnswer(f"the GCS does not tell where it is: {error}")
        if place is None:
            return GcsAnswered()
        return GcsAnswered(place.node_id, place.size_bytes, place.blob_key, place.offset)

    async def _read_blob(self, fetch: _Fetch, key: str, offset: int) -> SearchEvent | None:
        """None = all bytes are here. Raises: FetchFailed."""
        assert fetch.target is not None
        try:
            await self._blobs.get_into(key, fetch.target, offset)
        except DataLoss as error:
            raise FetchFailed(spilled_copy_lost(error)) from error
        except ServiceError as error:
            return BlobUnreadable(f"its spilled copy cannot be read now: {error}")
        return None

    async def _pull(self, entry: Entry, fetch: _Fetch, sources: tuple[bytes, ...]) -> SearchEvent | None:
        """None = all bytes are here; else what has come is kept."""
        object_id = entry.object_id
        now = self._loop.time()
        fetch.outcome = self._loop.create_future()
        if self._pulled.get(object_id) is fetch:
            self._run(self._pulls.add_sources(object_id, list(sources), now))
        else:
            # One that was cancelled a moment ago may not have ended yet.
            self._run(self._pulls.cancel(object_id, now))
            self._pulled[object_id] = fetch
            urgent = self._index.is_awaited(entry)
            self._run(self._pulls.begin(object_id, entry.size, list(sources), urgent, now))
        if await fetch.outcome:
            return None
        return SourcesFailed(self._pulls.progress_at(object_id))

    def _end_pull(self, object_id: bytes, fetch: _Fetch) -> None:
        if self._pulled.get(object_id) is fetch:
            self._run(self._pulls.cancel(object_id, self._loop.time()))
            del self._pulled[object_id]
        fetch.target = None

    @contextmanager
    def _writable(self, entry: Entry) -> Iterator[memoryview]:
        """Raises: FetchFailed."""
        with ExitStack() as stack:
            try:
                target = stack.enter_context(self._bytes.of(entry))
            except OSError as error:
                raise FetchFailed(file_unusable(entry.object_id, error)) from error
            yield target

    # --- what the pulls ask for ---

    def _run(self, actions: list[PullAction]) -> None:
        for action in actions:
            match action:
                case AskChunk(source, object_id, offset, length):
                    target = self._pulled[object_id].target
                    assert target is not None
                    self._stream(source).ask(object_id, offset, target[offset : offset + length])
                case EndChunks(source, object_id):
                    if source in self._streams:
                        self._streams[source].end(object_id)
                case HangUp(source):
                    log.info("source_given_up", node_id=source.hex())
                    self._hang_up(source)
                case Changed(object_id):
                    self._on_part(object_id)
                case Pulled(object_id):
                    self._set_outcome(object_id, True)
                case SourcesWanted(object_id):
                    self._set_outcome(object_id, False)
        self._timer.set(self._pulls.next_deadline())

    def _set_outcome(self, object_id: bytes, done: bool) -> None:
        fetch = self._pulled[object_id]
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
