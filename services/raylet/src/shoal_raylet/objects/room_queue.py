"""Who waits for room: in one queue for the arena, first come, first served, or for a file that is being made. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from shoal_raylet.objects.entry import Entry, MakeFile


@dataclass(slots=True)
class Waiting:
    """A creator (``entry`` None), a restore or a copy that waits for room."""

    object_id: bytes
    size: int
    since: float
    peer: bytes = b""
    request: int = 0
    owner: bytes = b""
    entry: Entry | None = None


class RoomQueue:
    def __init__(self, grace_s: float, fallback_dir: str) -> None:
        """``grace_s``: how long to wait without any progress, in seconds; ``fallback_dir``: where the files lie."""
        self._grace_s = grace_s
        self._fallback_dir = fallback_dir
        self._queue: deque[Waiting] = deque()
        self._progress_at = 0.0
        #: Files that are being made, by path.
        self._files: dict[str, Waiting] = {}
        self._file_counter = 0

    def __bool__(self) -> bool:
        """Somebody waits for the arena."""
        return bool(self._queue)

    @property
    def first(self) -> Waiting:
        return self._queue[0]

    @property
    def size(self) -> int:
        """Bytes that the queue waits for."""
        return sum(waiting.size for waiting in self._queue)

    @property
    def patience_ends(self) -> float:
        """When the first one has waited too long without any progress."""
        return max(self._queue[0].since, self._progress_at) + self._grace_s

    def add(self, waiting: Waiting, now: float) -> None:
        if not self._queue:
            self._progress_at = now
        self._queue.append(waiting)

    def pop(self) -> Waiting:
        """The first one waits no longer."""
        return self._queue.popleft()

    def progress(self, now: float) -> None:
        """Room has been found, or is found soon."""
        self._progress_at = now

    def fall_back(self, waiting: Waiting) -> MakeFile:
        """It gets a file of its own. Answered with ``file_made``."""
        self._file_counter += 1
        path = f"{self._fallback_dir}/{self._file_counter:08x}"
        self._files[path] = waiting
        return MakeFile(path, waiting.size)

    def file_made(self, path: str) -> Waiting | None:
        """Who waited for it; None = nobody wants it any more."""
        return self._files.pop(path, None)

    def forget(self, entry: Entry) -> None:
        """It needs no room any more."""
        self._queue = deque(waiting for waiting in self._queue if waiting.entry is not entry)
        self._files = {path: waiting for path, waiting in self._files.items() if waiting.entry is not entry}

    def forget_creator(self, peer: bytes) -> None:
        self._queue = deque(waiting for waiting in self._queue if waiting.entry is not None or waiting.peer != peer)
        self._files = {path: w for path, w in self._files.items() if w.entry is not None or w.peer != peer}

    def validate(self) -> None:
        """For tests: what is always true of it."""
        waiting = [*self._queue, *self._files.values()]
        assert len({id(each) for each in waiting}) == len(waiting), "who waits is in one place"
        entries = [each.entry for each in waiting if each.entry is not None]
        assert len(set(entries)) == len(entries), "an object waits for one room"
