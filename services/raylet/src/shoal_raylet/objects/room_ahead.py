"""Pieces of the arena that processes hold ahead of need, so that they write small objects without asking first. Pure.

A piece is granted only where there is plenty, and never pushes anything out. It shrinks by the objects that its holder
places in it; what is left is given back when the holder has had no use for it for a moment, when it is asked to, and
when it ends.
"""

from __future__ import annotations

from shoal_raylet.objects.allocator import Allocator

#: All pieces together take at most this share of the arena, and at least half of that stays free for others.
SHARE = 1 / 16
FREE_SHARE = 1 / 2


class RoomAhead:
    def __init__(self, allocator: Allocator) -> None:
        self._allocator = allocator
        #: Start -> end of the pieces of each holder.
        self._pieces: dict[bytes, dict[int, int]] = {}
        self._bytes = 0
        #: Holders that were asked for what they do not need, and have got nothing since.
        self._asked: set[bytes] = set()

    def holds(self, peer: bytes) -> bool:
        return peer in self._pieces

    @property
    def holders(self) -> list[bytes]:
        return list(self._pieces)

    def grant(self, peer: bytes, size: int) -> int | None:
        """Where ``size`` bytes begin that are the peer's from now on; None = there is not plenty."""
        length, capacity = Allocator.rounded(size), self._allocator.capacity
        if self._bytes + length > capacity * SHARE or self._allocator.used + length > capacity * FREE_SHARE:
            return None
        offset = self._allocator.allocate(size)
        if offset is not None:
            self._pieces.setdefault(peer, {})[offset] = offset + length
            self._bytes += length
            self._asked.discard(peer)
        return offset

    def take(self, peer: bytes, offset: int, size: int) -> None:
        """These bytes of a piece become an object's, or nobody's: they belong to no piece any more.

        Raises: ValueError when they are not all in one piece of the peer's.
        """
        end = offset + Allocator.rounded(size)
        pieces = self._pieces.get(peer, {})
        at = next((start for start, until in pieces.items() if start <= offset and end <= until), None)
        if at is None:
            raise ValueError(f"bytes {offset} to {end} of the arena are not the process's to use")
        until = pieces.pop(at)
        if at < offset:
            pieces[at] = offset
        if end < until:
            pieces[end] = until
        if not pieces:
            del self._pieces[peer]
            self._asked.discard(peer)
        self._bytes -= end - offset

    def give_back(self, peer: bytes, offset: int, size: int) -> None:
        """Raises: as ``take``."""
        self.take(peer, offset, size)
        self._allocator.free(offset, size)

    def peer_gone(self, peer: bytes) -> None:
        for start, end in list(self._pieces.get(peer, {}).items()):
            self.give_back(peer, start, end - start)

    def to_ask(self) -> list[bytes]:
        """Holders that are to be asked, once, for what they do not need."""
        peers = [peer for peer in self._pieces if peer not in self._asked]
        self._asked.update(peers)
        return peers

    # --- for tests ---

    def extents(self) -> list[tuple[int, int]]:
        return [extent for pieces in self._pieces.values() for extent in pieces.items()]

    def validate(self) -> None:
        assert all(self._pieces.values()), "who holds nothing is no holder"
        assert self._bytes == sum(end - start for start, end in self.extents())
        assert self._asked <= self._pieces.keys()
