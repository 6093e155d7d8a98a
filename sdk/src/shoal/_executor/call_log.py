"""The log of a durable actor's calls: what has run is in it before anybody is answered.

Where this machine has the directory in which the cluster's blobs are, the log is a file among them to which the worker
appends: what is written outlives every process. Otherwise it is made of blobs, one for all that has run while the one
before was being stored. Either way each answer waits until it is written, and until no later incarnation had begun by
then: every later one will find what was written, as it says that it has begun before it reads.
"""

from __future__ import annotations

import errno
import os
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from shoal._core.checkpoints import INCARNATIONS, Version, replaced
from shoal._executor.checkpoint_store import CheckpointStore, StoreFailure, insist
from shoal_common.blob.file import SUFFIX, appended_path
from shoal_common.kinds import BlobErrorKind

#: Calls that have run and are not stored yet, in bytes; while there are more, no further one begins.
MAX_UNSTORED_BYTES = 32 * 1024 * 1024
#: While the worker has more to run, what has run waits for so long to be stored with it in one blob, in seconds.
GATHER_S = 0.005
#: A file goes on in another one before it is longer, in bytes, so that a message can hold what a later process reads.
MAX_PART_BYTES = 64 * 1024 * 1024
#: Changes of a directory that are further apart have different times.
_CLOCK_STEP_NS = 1_000_000_000
#: What keeps the log may be away or full for so long, in seconds.
PATIENCE_S = 60.0


class CallLog(ABC):
    """Of one incarnation. ``append``, ``roll`` and ``drain`` never at the same time."""

    def __init__(self, store: CheckpointStore, incarnation: int, lost: Callable[[str], None]) -> None:
        """``lost``: it cannot be written any more, or a later incarnation has begun; ends the process."""
        self._store = store
        self._incarnation = incarnation
        self._lost = lost

    @abstractmethod
    def append(self, first: int, calls: bytes, stored: Callable[[], None], more: bool = False) -> None:
        """``calls`` as framed, from the number ``first`` on; empty: there are none. ``stored`` is called, in this
        order, when all before are stored. ``more``: further ones follow at once."""

    @abstractmethod
    def roll(self) -> None:
        """A checkpoint covers all that was appended: what follows is another part."""

    def read(self, part: Version) -> bytes:
        """A part of whatever incarnation. Raises: StoreFailure."""
        return insist(lambda: self._store.get(part.log_name), PATIENCE_S, lambda _: None)

    def end_if_replaced(self, names: Iterable[str]) -> None:
        """``names``: of the incarnations that have begun."""
        if replaced(self._incarnation, names):
            self._lost("a later incarnation of the actor has begun")

    @abstractmethod
    def wait_for_room(self) -> None:
        """Until less than ``MAX_UNSTORED_BYTES`` are not stored."""

    @abstractmethod
    def drain(self) -> None:
        """Until all is stored."""


class FileLog(CallLog):
    """Appends in the calling thread: some ten microseconds."""

    def __init__(self, directory: Path, store: CheckpointStore, incarnation: int, lost: Callable[[str], None]) -> None:
        """``directory``: of the actor's blobs."""
        super().__init__(store, incarnation, lost)
        self._directory = directory
        self._incarnations = os.path.join(directory, INCARNATIONS)
        #: When the directory last changed, if a change after that would have another time.
        self._seen_change = -1
        self._file = -1
        self._size = 0

    def append(self, first: int, calls: bytes, stored: Callable[[], None], more: bool = False) -> None:
        if calls:
            try:
                insist(lambda: self._write(first, calls), PATIENCE_S, lambda _: None)
            except StoreFailure as failure:
                self._lost(f"its log was not written: {failure}")
        stored()

    def _write(self, first: int, data: bytes) -> None:
        try:
            if self._size + len(data) > MAX_PART_BYTES:
                self.roll()
            if self._file < 0:
                path = appended_path(self._directory, Version(self._incarnation, first).log_name)
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
                self._size = 0
            written = os.write(self._file, data)
            if written < len(data):
                os.ftruncate(self._file, self._size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._size += written
            self.end_if_replaced(self._begun())
        except FileNotFoundError:
            self._lost("all that was stored for it has been deleted, as its actor is dead")
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise StoreFailure(BlobErrorKind.OUT_OF_DISK if full else BlobErrorKind.AWAY, str(error)) from error

    def _begun(self) -> list[str]:
        """Incarnations that have begun since the last look. Listing a directory takes ten times as long as looking
        when it changed, of which the kernel's clock tells some milliseconds only: so an old change counts as seen."""
        changed = os.stat(self._incarnations).st_mtime_ns
        if changed == self._seen_change:
            return []
        now = time.time_ns()
        names = [INCARNATIONS + name.removesuffix(SUFFIX) for name in os.listdir(self._incarnations)]
        if now - changed > _CLOCK_STEP_NS:
            self._seen_change = changed
        return names

    def roll(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            self._size = 0

    def wait_for_room(self) -> None:
        return  # nothing waits

    def drain(self) -> None:
        return


class _Append(NamedTuple):
    first: int
    calls: bytes
    stored: Callable[[], None]
    more: bool


class BlobLog(CallLog):
    """Stores in a thread of its own, while further calls run."""

    def __init__(self, store: CheckpointStore, incarnation: int, lost: Callable[[str], None]) -> None:
        super().__init__(store, incarnation, lost)
        self._waiting: queue.SimpleQueue[_Append] = queue.SimpleQueue()
        self._changed = threading.Condition()
        #: Bytes, and appends, that are not stored.
        self._unstored = 0
        self._appends = 0
        threading.Thread(target=self._serve, name="shoal-log", daemon=True).start()

    def append(self, first: int, calls: bytes, stored: Callable[[], None], more: bool = False) -> None:
        with self._changed:
            self._unstored += len(calls)
            self._appends += 1
        self._waiting.put(_Append(first, calls, stored, more))

    def roll(self) -> None:
        return  # each blob is a part

    def wait_for_room(self) -> None:
        if self._unstored > MAX_UNSTORED_BYTES:
            with self._changed:
                self._changed.wait_for(lambda: self._unstored <= MAX_UNSTORED_BYTES)

    def drain(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._appends)

    def _serve(self) -> None:
        while True:
            batch = self._next_batch()
            size = sum(len(each.calls) for each in batch)
            first = next((each.first for each in batch if each.calls), None)
            if first is not None:
                self._put(first, b"".join(each.calls for each in batch))
            for each in batch:
                each.stored()
            with self._changed:
                self._unstored -= size
                self._appends -= len(batch)
                self._changed.notify_all()

    def _next_batch(self) -> list[_Append]:
        batch = [self._waiting.get()]
        size = len(batch[0].calls)
        end = time.monotonic() + GATHER_S
        while size < MAX_UNSTORED_BYTES:
            left = end - time.monotonic() if batch[-1].more else 0.0
            try:
                batch.append(self._waiting.get(timeout=left) if left > 0 else self._waiting.get_nowait())
            except queue.Empty:
                break
            size += len(batch[-1].calls)
        return batch

    def _put(self, first: int, data: bytes) -> None:
        name = Version(self._incarnation, first).log_name
        try:
            names = insist(lambda: self._store.put(name, data, INCARNATIONS), PATIENCE_S, lambda _: None)
        except StoreFailure as failure:
            self._lost(f"its log was not stored: {failure}")
            return
        self.end_if_replaced(names)
