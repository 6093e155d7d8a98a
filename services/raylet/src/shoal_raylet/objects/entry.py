"""One object of a node's store, and what the index of them asks to have done."""

from __future__ import annotations

from dataclasses import dataclass, field

from shoal_common.ids import job_of
from shoal_raylet.actions import Send


@dataclass(slots=True, eq=False)
class Blob:
    key: str
    #: Objects in it, as the GCS knows them.
    written: int
    #: Those that are not deleted.
    live: int = 0


@dataclass(slots=True, eq=False)
class Entry:
    object_id: bytes
    size: int
    owner: bytes
    creator: bytes
    #: In the arena or in its file; None while only its blob holds it, or nothing yet.
    offset: int | None
    #: The file that holds it; empty = not a file of its own.
    path: str = ""
    #: The node that has the primary copy; empty = this is it.
    home: bytes = b""
    #: The node that had it before this one did, and from which this copy is.
    adopted_from: bytes = b""
    sealed: bool = False
    deleted: bool = False
    pins: dict[bytes, int] = field(default_factory=dict)
    #: Who waits until it is sealed or restored: (peer, request).
    getters: list[tuple[bytes, int]] = field(default_factory=list)
    blob: Blob | None = None
    blob_offset: int = 0
    #: Its place in the order in which objects were spilled; 0 = it was not.
    spilled_as: int = 0
    #: Its bytes are looked for, wait for room, or are on their way here.
    arriving: bool = False
    #: Fetched or restored ahead, and nobody has read it yet.
    unread: bool = False
    uncache_sent: bool = False

    def __str__(self) -> str:
        return f"object {self.object_id.hex()}"

    @property
    def job_id(self) -> bytes:
        return job_of(self.object_id)


@dataclass(frozen=True, slots=True)
class Spill:
    """Write these objects, in order, as the sections of one blob; ``spilled`` answers."""

    key: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Restore:
    """Read the object out of its blob to ``entry.offset``; ``restored`` answers."""

    entry: Entry
    key: str


@dataclass(frozen=True, slots=True)
class DeleteBlob:
    key: str


@dataclass(frozen=True, slots=True)
class MakeFile:
    """Make a file with ``size`` bytes reserved on the disk; ``file_made`` answers."""

    path: str
    size: int


@dataclass(frozen=True, slots=True)
class RemoveFile:
    """Processes that map it keep its bytes until they let go."""

    path: str


@dataclass(frozen=True, slots=True)
class Locate:
    """Find out from whom the copy can be had; ``located`` or ``not_fetched`` answers."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class Hurry:
    """Somebody waits for what was to be fetched ahead."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class Fetch:
    """There is room now: bring the copy to ``entry.offset``; ``fetched`` or ``not_fetched`` answers."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class CancelFetch:
    """Nobody needs the copy any more; ``not_fetched`` answers if there was a ``Fetch``."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class CopyGone:
    """Tell the home that the copy is no more."""

    home: bytes
    object_id: bytes


@dataclass(frozen=True, slots=True)
class Changed:
    """It can be read now, or more of it, or never: who waits for that asks again."""

    object_id: bytes


@dataclass(frozen=True, slots=True)
class Deleted:
    """A primary copy is no more: the others are not needed either."""

    object_id: bytes


StoreAction = (
    Send
    | Spill
    | Restore
    | DeleteBlob
    | MakeFile
    | RemoveFile
    | Locate
    | Hurry
    | Fetch
    | CancelFetch
    | CopyGone
    | Changed
    | Deleted
)
