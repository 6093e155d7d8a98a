"""Named objects: values that jobs keep under names, in blobs, for as long as the job is kept or for a stated time.

Those of no job are the cache of results: their names tell what was called with what. Of one job, and of the cache,
there are at most so many and so many bytes: one more is refused, except that the cache gives up what ends first.

Pure: takes the time (Unix milliseconds), keeps no clock.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from shoal_common.errors import ResourceExhausted

#: Ends of what has been replaced are forgotten when there are more than so many.
_SPARE_ENDS = 100


class Scope(NamedTuple):
    """Whose names they are; without a job: the cache's."""

    namespace: str
    job: str


@dataclass(frozen=True, slots=True)
class NamedObject:
    scope: Scope
    name: str
    #: Of its blobs, which nothing else has.
    place: str
    size_bytes: int
    stored_unix_ms: int
    #: 0 = with its job.
    end_unix_ms: int = 0

    @property
    def key(self) -> tuple[Scope, str]:
        return self.scope, self.name


@dataclass(slots=True)
class Changes:
    """``gone``: rows and blobs to delete; ``replaced``: only the blobs."""

    written: list[NamedObject] = field(default_factory=list)
    gone: list[NamedObject] = field(default_factory=list)
    replaced: list[NamedObject] = field(default_factory=list)


class NamedObjectTable:
    """``max_objects``, ``max_bytes``: of one job, and of the cache."""

    def __init__(self, *, max_objects: int, max_bytes: int) -> None:
        self._max_objects = max_objects
        self._max_bytes = max_bytes
        self._scopes: dict[Scope, dict[str, NamedObject]] = {}
        self._bytes: dict[Scope, int] = {}
        self._places: set[str] = set()
        #: Ends to come, the first first; some of what has been replaced or has gone since.
        self._ends: list[tuple[int, Scope, str, str]] = []

    def load(self, objects: Iterable[NamedObject]) -> None:
        for each in objects:
            self._add(each)

    def has_place(self, place: str) -> bool:
        return place in self._places

    def scopes(self) -> list[Scope]:
        return list(self._scopes)

    def of(self, scope: Scope) -> Mapping[str, NamedObject]:
        return self._scopes.get(scope, {})

    def get(self, scope: Scope, name: str, now_unix_ms: int) -> NamedObject | None:
        found = self.of(scope).get(name)
        return None if found is None or 0 < found.end_unix_ms <= now_unix_ms else found

    def put(self, new: NamedObject) -> Changes:
        """It replaces one of the same name; a repeat changes nothing.

        Raises: ResourceExhausted, having changed nothing.
        """
        there = self.of(new.scope).get(new.name)
        if there is not None and there.place == new.place:
            return Changes()
        given_up = self._make_room(new, there)
        if there is not None:
            self._remove(there)
        self._add(new)
        return Changes([new], given_up, [there] if there is not None else [])

    def _make_room(self, new: NamedObject, there: NamedObject | None) -> list[NamedObject]:
        """Raises: ResourceExhausted."""
        objects = self.of(new.scope)
        count = len(objects) - (there is not None)
        size = self._bytes.get(new.scope, 0) - (there.size_bytes if there is not None else 0)
        fits = count < self._max_objects and size + new.size_bytes <= self._max_bytes
        if not fits and (new.scope.job or new.size_bytes > self._max_bytes):
            whose = f"the job {new.scope.job!r} keeps" if new.scope.job else "the cache has"
            raise ResourceExhausted(
                f"{whose} {count:,} named objects of {size:,} bytes, this one has {new.size_bytes:,}, and "
                f"{self._max_objects:,} of {self._max_bytes:,} bytes are the most"
            )
        given_up: list[NamedObject] = []
        if not fits:
            for each in sorted(objects.values(), key=lambda each: each.end_unix_ms):
                if count < self._max_objects and size + new.size_bytes <= self._max_bytes:
                    break
                if each is not there:
                    given_up.append(each)
                    count, size = count - 1, size - each.size_bytes
        for each in given_up:
            self._remove(each)
        return given_up

    def expire(self, now_unix_ms: int) -> Changes:
        """Those whose time is up."""
        gone: list[NamedObject] = []
        while self._ends and self._ends[0][0] <= now_unix_ms:
            _, scope, name, place = heapq.heappop(self._ends)
            found = self.of(scope).get(name)
            if found is not None and found.place == place:
                self._remove(found)
                gone.append(found)
        return Changes(gone=gone)

    def next_end_unix_ms(self) -> int | None:
        """When ``expire`` may have something to do."""
        return self._ends[0][0] if self._ends else None

    def job_over(self, scope: Scope) -> Changes:
        """What has no time of its own goes with it."""
        gone = [each for each in self.of(scope).values() if not each.end_unix_ms]
        for each in gone:
            self._remove(each)
        return Changes(gone=gone)

    def _add(self, new: NamedObject) -> None:
        self._scopes.setdefault(new.scope, {})[new.name] = new
        self._bytes[new.scope] = self._bytes.get(new.scope, 0) + new.size_bytes
        self._places.add(new.place)
        if new.end_unix_ms:
            heapq.heappush(self._ends, (new.end_unix_ms, new.scope, new.name, new.place))
            if len(self._ends) > 2 * len(self._places) + _SPARE_ENDS:
                lasting = ((each.end_unix_ms, *each.key, each.place) for each in self._all() if each.end_unix_ms)
                self._ends = sorted(lasting)

    def _remove(self, gone: NamedObject) -> None:
        self._places.discard(gone.place)
        objects = self._scopes[gone.scope]
        del objects[gone.name]
        self._bytes[gone.scope] -= gone.size_bytes
        if not objects:
            del self._scopes[gone.scope], self._bytes[gone.scope]

    def _all(self) -> Iterator[NamedObject]:
        return (each for objects in self._scopes.values() for each in objects.values())

    def validate(self) -> None:
        """For tests: what is always true of it."""
        for scope, objects in self._scopes.items():
            assert 0 < len(objects) <= self._max_objects
            assert self._bytes[scope] == sum(each.size_bytes for each in objects.values()) <= self._max_bytes
            assert all(each.key == (scope, name) for name, each in objects.items())
        everything = list(self._all())
        assert self._bytes.keys() == self._scopes.keys()
        assert self._places == {each.place for each in everything}
        ends = {(each.end_unix_ms, *each.key, each.place) for each in everything if each.end_unix_ms}
        assert ends <= set(self._ends), "what has an end is told of it"
        assert len(self._ends) <= 2 * len(everything) + _SPARE_ENDS + 1
