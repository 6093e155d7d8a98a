"""Who else has copies of this node's objects, and from whom the next one should read. Pure.

Only an object's home keeps this. A node that asks becomes a source itself at once: what it has so far it can pass on,
so that many askers form a tree below the home instead of a queue in front of it. No node reads from one that waits for
it: a partial copy is only offered to those that it does not itself depend on.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from shoal_common.service.story import Story, noted

#: A node that so many others read the same object from is busy: the next asker goes elsewhere if it can.
MAX_READERS = 2
#: Complete copies that one asker reads from at the same time.
MAX_SOURCES = 3


@dataclass(slots=True)
class _Holder:
    complete: bool = False
    #: From whom it reads, while it is not complete.
    sources: frozenset[bytes] = frozenset()


@dataclass(slots=True)
class _Copies:
    holders: dict[bytes, _Holder] = field(default_factory=dict)

    def readers(self, node_id: bytes) -> int:
        return sum(node_id in holder.sources for holder in self.holders.values())

    def waits_for(self, node_id: bytes, other: bytes) -> bool:
        """Whether ``node_id`` gets its bytes from ``other``, perhaps by way of others."""
        seen: set[bytes] = set()
        path = [node_id]
        while path:
            node = path.pop()
            if node == other:
                return True
            if node not in seen:
                seen.add(node)
                path += self.holders[node].sources if node in self.holders else ()
        return False


class ObjectDirectory:
    def __init__(self, node_id: bytes) -> None:
        self._story = Story("the object directory")
        self._node_id = node_id
        self._objects: dict[bytes, _Copies] = {}

    @noted
    def locate(self, object_id: bytes, asker: bytes, without: list[bytes], *, here: bool, blob: bool) -> list[bytes]:
        """From whom ``asker`` shall read, the least busy first; it is a coming source from now on.

        ``here``: this node has the bytes, or will have them in a moment; ``blob``: they can be had without any node.
        Empty = from the blob, or from nobody but ``without``.
        """
        copies = self._objects.setdefault(object_id, _Copies())
        copies.holders.pop(asker, None)
        refused = {asker, *without}
        complete = [node for node, holder in copies.holders.items() if holder.complete and node not in refused]
        if here and self._node_id not in refused:
            complete.insert(0, self._node_id)
        complete.sort(key=copies.readers)
        sources = [node for node in complete if copies.readers(node) < MAX_READERS][:MAX_SOURCES]
        if not sources and not (blob and not complete and not copies.holders):
            partial = [
                node
                for node, holder in copies.holders.items()
                if not holder.complete and node not in refused and not copies.waits_for(node, asker)
            ]
            partial.sort(key=copies.readers)
            idle = [node for node in partial if copies.readers(node) < MAX_READERS]
            sources = (idle or ([] if blob else complete or partial))[:1]
        copies.holders[asker] = _Holder(sources=frozenset(sources))
        return sources

    @noted
    def completed(self, object_id: bytes, node_id: bytes) -> None:
        copies = self._objects.get(object_id)
        if copies is not None:
            copies.holders[node_id] = _Holder(complete=True)

    def gone(self, object_id: bytes, node_id: bytes) -> None:
        """The node has no copy (any more)."""
        copies = self._objects.get(object_id)
        if copies is not None and copies.holders.pop(node_id, None) is not None and not copies.holders:
            del self._objects[object_id]

    @noted
    def node_lost(self, node_id: bytes) -> None:
        for object_id in list(self._objects):
            self.gone(object_id, node_id)

    def complete_copies(self, object_id: bytes) -> list[bytes]:
        copies = self._objects.get(object_id)
        return [node for node, holder in copies.holders.items() if holder.complete] if copies is not None else []

    @noted
    def forget(self, object_id: bytes) -> list[bytes]:
        """The object is deleted: all nodes that have a copy, or are getting one."""
        copies = self._objects.pop(object_id, None)
        return list(copies.holders) if copies is not None else []

    def validate(self) -> None:
        for copies in self._objects.values():
            for node, holder in copies.holders.items():
                assert node != self._node_id, "this node's own is no copy"
                assert not (holder.complete and holder.sources), "who has all, reads from nobody"
                assert not any(copies.waits_for(source, node) for source in holder.sources), "nodes wait for each other"
