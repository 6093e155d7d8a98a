"""Who holds the bytes of which object where they are; those of deleted ones too, until the last one lets go. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from shoal_common.channel import frames
from shoal_raylet.actions import Send
from shoal_raylet.objects.entry import Entry

#: The raylet's own pins, while it copies the bytes to or from somewhere.
SELF = b""


class Pins:
    def __init__(self) -> None:
        #: Ordered, so that what is asked because of them is, too.
        self._by_peer: dict[bytes, dict[Entry, None]] = {}
        #: Deleted, but their bytes are still pinned.
        self._dying: dict[bytes, list[Entry]] = {}

    def add(self, entry: Entry, peer: bytes) -> None:
        """A peer may pin an object several times."""
        entry.pins[peer] = entry.pins.get(peer, 0) + 1
        entry.uncache_sent = False
        self._by_peer.setdefault(peer, {})[entry] = None

    def remove(self, entry: Entry, peer: bytes) -> bool:
        """One of the peer's pins ends. True = nobody has any more."""
        left = entry.pins[peer] - 1
        if left:
            entry.pins[peer] = left
            return False
        del entry.pins[peer]
        pinned = self._by_peer[peer]
        del pinned[entry]
        if not pinned:
            del self._by_peer[peer]
        if entry.pins:
            return False
        if entry.deleted:
            dying = self._dying[entry.object_id]
            dying.remove(entry)
            if not dying:
                del self._dying[entry.object_id]
        return True

    def deleted(self, entry: Entry) -> None:
        """A pinned object is deleted: it is kept here until the last pin ends."""
        self._dying.setdefault(entry.object_id, []).append(entry)

    def dying(self, object_id: bytes) -> list[Entry]:
        """Earlier objects of this id whose bytes are still pinned."""
        return list(self._dying.get(object_id, ()))

    def of(self, peer: bytes) -> list[Entry]:
        return list(self._by_peer.get(peer, ()))

    def entries(self) -> dict[Entry, None]:
        """All that are pinned, deleted or not."""
        return dict.fromkeys(entry for entries in self._by_peer.values() for entry in entries)

    def arena_bytes(self) -> int:
        """Bytes of the arena that are pinned."""
        return sum(entry.size for entry in self.entries() if not entry.path)

    def validate(self, entries: Iterable[Entry]) -> None:
        """``entries``: those that are not deleted."""
        living = list(entries)
        for entry in living:
            assert not entry.deleted, f"{entry} is deleted and indexed"
        dying = [entry for each in self._dying.values() for entry in each]
        for entry in dying:
            assert entry.deleted and entry.pins, f"{entry} is dying without a pin, or not deleted"
        pinned = {(peer, entry) for peer, each in self._by_peer.items() for entry in each}
        assert pinned == {(peer, entry) for entry in [*living, *dying] for peer in entry.pins}
        assert all(count > 0 for entry in [*living, *dying] for count in entry.pins.values())


def ask_to_uncache(pinned: Iterable[tuple[bytes, bytes]]) -> Iterator[Send]:
    """Have processes drop pins that no value uses: (peer, object id) of each; one message a process."""
    asked: dict[bytes, list[bytes]] = {}
    for peer, object_id in pinned:
        if peer != SELF:
            asked.setdefault(peer, []).append(object_id)
    for peer, object_ids in asked.items():
        yield Send(peer, frames.ObjectUncache(object_ids))
