"""In which order objects were spilled: who reads them in that order has the next ones restored ahead. Pure."""

from __future__ import annotations

from shoal_raylet.objects.entry import Entry

#: So many of the next ones.
READ_AHEAD = 2


class SpilledOrder:
    def __init__(self) -> None:
        #: What was spilled and not deleted since, by its place in the order.
        self._entries: dict[int, Entry] = {}
        self._places: dict[Entry, int] = {}
        self._last_place = 0
        #: The place of what was read last.
        self._read = 0

    def add(self, entry: Entry) -> None:
        """It has just been spilled."""
        self._last_place += 1
        self._entries[self._last_place] = entry
        self._places[entry] = self._last_place

    def discard(self, entry: Entry) -> None:
        """It is deleted."""
        place = self._places.pop(entry, None)
        if place is not None:
            del self._entries[place]

    def after(self, entry: Entry) -> list[Entry]:
        """It is read: those behind it, if what was read last stands before it."""
        place = self._places.get(entry, 0)
        in_order, self._read = place == self._read + 1, place
        if not in_order:
            return []
        following = map(self._entries.get, range(place + 1, place + 1 + READ_AHEAD))
        return [entry for entry in following if entry is not None]

    def validate(self, blobs: set[Entry]) -> None:
        """``blobs``: all and only the objects that lie in blobs."""
        assert self._places.keys() == blobs
        assert all(self._entries[place] is entry for entry, place in self._places.items())
        assert len(self._entries) == len(self._places)
