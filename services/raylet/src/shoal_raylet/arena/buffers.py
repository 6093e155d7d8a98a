"""Where the bytes of an object are on this node: in the arena, or in a file of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from shoal_raylet.arena.arena import Arena
from shoal_raylet.arena.files import FallbackFiles
from shoal_raylet.objects.entry import Entry


class ObjectBytes:
    """Of entries that have a place. Both raise OSError when a file cannot be used."""

    def __init__(self, arena: Arena, files: FallbackFiles) -> None:
        self._arena = arena
        self._files = files

    @contextmanager
    def of(self, entry: Entry) -> Iterator[memoryview]:
        """All of them, to be let go of with the context."""
        assert entry.offset is not None
        if not entry.path:
            with self._arena.view[entry.offset : entry.offset + entry.size] as view:
                yield view
            return
        with self._files.map(entry.path, entry.size) as file, memoryview(file) as view:
            yield view

    def part(self, entry: Entry, offset: int, length: int) -> memoryview:
        """Some of them; a file stays mapped as long as the view is used."""
        assert entry.offset is not None
        start, view = entry.offset + offset, self._arena.view
        if entry.path:
            start, view = offset, memoryview(self._files.map(entry.path, entry.size))
        return view[start : start + length]
