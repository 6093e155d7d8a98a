"""Sealed objects in the arena that nobody has pinned, least recently used first: which of them go when room is needed.

Those that are elsewhere too, in a blob or on their home, can be dropped at once. What was fetched ahead and has not
been read is dropped after them, and not for the sake of others that are fetched ahead. What is only here must be
spilled.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, KeysView
from itertools import chain

from shoal_raylet.objects.entry import Entry


class IdleObjects:
    def __init__(self) -> None:
        self._evictable: OrderedDict[Entry, None] = OrderedDict()
        self._unread: OrderedDict[Entry, None] = OrderedDict()
        self._spillable: OrderedDict[Entry, None] = OrderedDict()

    def __contains__(self, entry: Entry) -> bool:
        return entry in self._evictable or entry in self._unread or entry in self._spillable

    @property
    def spillable(self) -> KeysView[Entry]:
        """Those that are only here."""
        return self._spillable.keys()

    def evictable(self, *, for_prefetch: bool) -> Entry | None:
        """The next to be dropped, which it must be at once."""
        for objects in (self._evictable,) if for_prefetch else (self._evictable, self._unread):
            if objects:
                return next(iter(objects))
        return None

    def add(self, entry: Entry) -> None:
        """It was used just now."""
        if entry.unread:
            self._unread[entry] = None
        elif entry.blob is not None or entry.home:
            self._evictable[entry] = None
        else:
            self._spillable[entry] = None

    def __iter__(self) -> Iterator[Entry]:
        return chain(self._evictable, self._unread, self._spillable)

    def discard(self, entry: Entry) -> None:
        for objects in (self._evictable, self._unread, self._spillable):
            objects.pop(entry, None)

    def validate(self) -> None:
        assert all(entry.unread and (entry.home or entry.blob is not None) for entry in self._unread)
        assert all(not entry.unread and (entry.blob is not None or entry.home) for entry in self._evictable)
        assert all(entry.blob is None and not entry.home for entry in self._spillable)
