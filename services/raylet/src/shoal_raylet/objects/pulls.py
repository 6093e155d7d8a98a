"""Which chunk of which object is asked of which node next. Pure.

A *pull* brings one object here from one or more sources. Each source has a few chunks of it under way at any time, and
whoever delivers faster is asked for more. Over all pulls the bytes under way are bounded; those that somebody waits for
come before those that are fetched ahead, and among equals the first comes first.

A source that owes chunks and sends nothing for a while is given up, with all that it owes. A pull without sources tells
so, and goes on when it is given others.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from shoal_common.service.story import Story, explained, noted
from shoal_raylet.objects.entry import Changed

CHUNK_BYTES = 4 * 1024 * 1024
#: Chunks of one object that one source owes at most.
WINDOW_CHUNKS = 4
#: Bytes under way in all: enough to keep a few fast sources busy, and little beside an arena.
MAX_BYTES_UNDER_WAY = 128 * 1024 * 1024
#: A source that sends nothing for so long is given up, in seconds. Less than a MiB counts as nothing.
SOURCE_STALL_S = 15.0
#: One that sends, but nothing of this object, is given up for it after this time, in seconds.
PULL_STALL_S = 60.0


@dataclass(frozen=True, slots=True)
class AskChunk:
    source: bytes
    object_id: bytes
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class EndChunks:
    """Nothing more of this object is wanted from the source; what it still sends is dropped."""

    source: bytes
    object_id: bytes


@dataclass(frozen=True, slots=True)
class HangUp:
    """The source does not deliver: end the connection to it."""

    source: bytes


@dataclass(frozen=True, slots=True)
class Pulled:
    """All bytes are here."""

    object_id: bytes


@dataclass(frozen=True, slots=True)
class SourcesWanted:
    """All sources of this pull have failed; ``add_sources`` or ``cancel`` answers."""

    object_id: bytes


PullAction = AskChunk | EndChunks | HangUp | Changed | Pulled | SourcesWanted


@dataclass(slots=True, eq=False)
class _Pull:
    object_id: bytes
    size: int
    #: Offsets of chunks that nobody has been asked for, ascending.
    todo: deque[int]
    #: What each source owes: offset -> when it was asked for, or sent something last.
    owed: dict[bytes, dict[int, float]] = field(default_factory=dict)
    arrived: set[int] = field(default_factory=set)
    progress_at: float = 0.0

    def length(self, offset: int) -> int:
        return min(CHUNK_BYTES, self.size - offset)


class PullManager:
    def __init__(self) -> None:
        self._story = Story("the pulls")
        self._pulls: dict[bytes, _Pull] = {}
        #: Pulls with chunks that nobody has been asked for, in the order in which they are served.
        self._urgent: dict[bytes, _Pull] = {}
        self._ahead: dict[bytes, _Pull] = {}
        self._bytes_under_way = 0
        #: Of each source that owes something: since when, or when it sent something last; and how many chunks.
        self._heard: dict[bytes, float] = {}
        self._owed_by: Counter[bytes] = Counter()

    def __len__(self) -> int:
        return len(self._pulls)

    @property
    def bytes_under_way(self) -> int:
        return self._bytes_under_way

    def progress_at(self, object_id: bytes) -> float:
        return self._pulls[object_id].progress_at

    def has(self, object_id: bytes, offset: int, length: int) -> bool:
        """Whether these bytes of a pull have arrived."""
        pull = self._pulls.get(object_id)
        if pull is None:
            return False
        first = offset - offset % CHUNK_BYTES
        return all(at in pull.arrived for at in range(first, offset + length, CHUNK_BYTES))

    # --- events ---

    @noted
    def begin(self, object_id: bytes, size: int, sources: list[bytes], urgent: bool, now: float) -> list[PullAction]:
        """An object of 0 bytes is pulled at once."""
        if not size:
            return [Pulled(object_id)]
        pull = _Pull(object_id, size, deque(range(0, size, CHUNK_BYTES)), progress_at=now)
        self._pulls[object_id] = pull
        (self._urgent if urgent else self._ahead)[object_id] = pull
        return self.add_sources(object_id, sources, now)

    @noted
    def add_sources(self, object_id: bytes, sources: list[bytes], now: float) -> list[PullAction]:
        pull = self._pulls[object_id]
        for source in sources:
            pull.owed.setdefault(source, {})
        return self._ask(now)

    @noted
    def hurry(self, object_id: bytes) -> None:
        """Somebody waits for it now."""
        pull = self._ahead.pop(object_id, None)
        if pull is not None:
            self._urgent[object_id] = pull

    def heard(self, source: bytes, now: float) -> None:
        """It has sent some bytes."""
        if source in self._heard:
            self._heard[source] = now

    @noted
    def arrived(self, source: bytes, object_id: bytes, offset: int, now: float) -> list[PullAction]:
        """A chunk is complete. One that is not expected any more is ignored."""
        pull = self._pulls.get(object_id)
        if pull is None or offset not in pull.owed.get(source, ()):
            return []
        self._settle(pull, source, offset)
        self.heard(source, now)
        pull.arrived.add(offset)
        pull.progress_at = now
        for at in pull.owed[source]:
            pull.owed[source][at] = now
        if len(pull.arrived) * CHUNK_BYTES < pull.size:
            return [Changed(object_id), *self._ask(now)]
        self._forget(pull)
        actions: list[PullAction] = [EndChunks(node, object_id) for node in pull.owed]
        return [*actions, Pulled(object_id), *self._ask(now)]

    @noted
    def refused(self, source: bytes, object_id: bytes, now: float) -> list[PullAction]:
        """The source does not have the object (any more). If it has sent some of it before, it holds that until the end
        is told."""
        pull = self._pulls.get(object_id)
        if pull is None or source not in pull.owed:
            return []
        return [EndChunks(source, object_id), *self._give_up(pull, source), *self._ask(now)]

    @noted
    def source_lost(self, source: bytes, now: float) -> list[PullAction]:
        """The connection to it has ended."""
        actions: list[PullAction] = []
        for pull in list(self._pulls.values()):
            if source in pull.owed:
                actions += self._give_up(pull, source)
        return actions + self._ask(now)

    @noted
    def cancel(self, object_id: bytes, now: float) -> list[PullAction]:
        pull = self._pulls.get(object_id)
        if pull is None:
            return []
        for source, owed in pull.owed.items():
            for offset in list(owed):
                self._settle(pull, source, offset)
        self._forget(pull)
        return [*(EndChunks(source, object_id) for source in pull.owed), *self._ask(now)]

    @explained
    def tick(self, now: float) -> list[PullAction]:
        silent = [source for source, at in self._heard.items() if now >= at + SOURCE_STALL_S]
        actions: list[PullAction] = []
        for source in silent:
            actions.append(HangUp(source))
            actions += self.source_lost(source, now)
        for pull in list(self._pulls.values()):
            for source, owed in list(pull.owed.items()):
                if any(now >= at + PULL_STALL_S for at in owed.values()):
                    actions.append(EndChunks(source, pull.object_id))
                    actions += self._give_up(pull, source)
        return actions + self._ask(now)

    def next_deadline(self) -> float | None:
        """Stalls are found within half of their time."""
        return min(self._heard.values()) + SOURCE_STALL_S if self._heard else None

    # --- inside ---

    def _ask(self, now: float) -> list[PullAction]:
        actions: list[PullAction] = []
        for waiting in (self._urgent, self._ahead):
            for pull in list(waiting.values()):
                if self._bytes_under_way >= MAX_BYTES_UNDER_WAY:
                    return actions
                while pull.todo and self._bytes_under_way < MAX_BYTES_UNDER_WAY:
                    source = min(pull.owed, key=lambda node: len(pull.owed[node]), default=None)
                    if source is None or len(pull.owed[source]) >= WINDOW_CHUNKS:
                        break
                    offset = pull.todo.popleft()
                    pull.owed[source][offset] = now
                    self._heard.setdefault(source, now)
                    self._owed_by[source] += 1
                    self._bytes_under_way += pull.length(offset)
                    actions.append(AskChunk(source, pull.object_id, offset, pull.length(offset)))
                if not pull.todo:
                    del waiting[pull.object_id]
        return actions

    def _settle(self, pull: _Pull, source: bytes, offset: int) -> None:
        del pull.owed[source][offset]
        self._bytes_under_way -= pull.length(offset)
        self._owed_by[source] -= 1
        if not self._owed_by[source]:
            del self._owed_by[source], self._heard[source]

    def _give_up(self, pull: _Pull, source: bytes) -> list[PullAction]:
        owed = sorted(pull.owed[source])
        for offset in owed:
            self._settle(pull, source, offset)
        del pull.owed[source]
        pull.todo.extendleft(reversed(owed))
        if pull.todo and pull.object_id not in self._ahead:
            self._urgent[pull.object_id] = pull
        return [] if pull.owed else [SourcesWanted(pull.object_id)]

    def _forget(self, pull: _Pull) -> None:
        for pulls in (self._pulls, self._urgent, self._ahead):
            pulls.pop(pull.object_id, None)

    def validate(self) -> None:
        owed: Counter[bytes] = Counter()
        under_way = 0
        for object_id, pull in self._pulls.items():
            assert pull.object_id == object_id
            asked = [offset for chunks in pull.owed.values() for offset in chunks]
            for source, chunks in pull.owed.items():
                owed[source] += len(chunks)
            under_way += sum(map(pull.length, asked))
            chunks_of_it = [*pull.todo, *asked, *pull.arrived]
            assert sorted(chunks_of_it) == list(range(0, pull.size, CHUNK_BYTES)), "a chunk is lost, or asked twice"
            assert not pull.todo or object_id in self._urgent or object_id in self._ahead, "chunks nobody will ask for"
        assert +owed == self._owed_by and self._heard.keys() == self._owed_by.keys()
        assert under_way == self._bytes_under_way
