"""From where a copy of one object can be had, tried until it is here or lost. Pure.

Its home knows who has copies, so that is asked first. When the home is dead, or does not have the object, the GCS knows
whether it was spilled, and who has made its own copy the primary one: that node is the home then. Sources that have
failed are named to the home, until something has arrived again. Nobody is asked without a pause after an answer that
leads nowhere, and after a time without progress the search ends.
"""

from __future__ import annotations

from dataclasses import dataclass

from shoal_common.channel.frames import StoreError
from shoal_common.service.story import Story, noted
from shoal_raylet.objects.errors import fetch_timed_out, lost_with_home

#: A search that gets no further for so long fails, in seconds.
FETCH_TIMEOUT_S = 600.0
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 2.0

# --- what happens ---


@dataclass(frozen=True, slots=True)
class Begin:
    """The first event."""


@dataclass(frozen=True, slots=True)
class PauseOver:
    pass


@dataclass(frozen=True, slots=True)
class HomeGone:
    """The home is not in the cluster; ``why``: how it has left."""

    why: str


@dataclass(frozen=True, slots=True)
class HomeAnswered:
    """``sources``, or else a blob, to read from; neither: the home does not have the object, or just now nobody that
    delivers (``later``)."""

    size: int = 0
    owner: bytes = b""
    sources: tuple[bytes, ...] = ()
    blob_key: str = ""
    blob_offset: int = 0
    later: bool = False


@dataclass(frozen=True, slots=True)
class GcsAnswered:
    """It lies in a blob, or has a new home; neither: it is nowhere."""

    home: bytes = b""
    size: int = 0
    blob_key: str = ""
    blob_offset: int = 0


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """Home or GCS cannot be reached just now."""

    problem: str


@dataclass(frozen=True, slots=True)
class RoomMade:
    pass


@dataclass(frozen=True, slots=True)
class SourcesFailed:
    """All of them; something last arrived at ``progress_at``."""

    progress_at: float


@dataclass(frozen=True, slots=True)
class BlobUnreadable:
    """Just now. It may be gone, too: its writer has the object in memory again, or the owner has freed it."""

    problem: str


SearchEvent = (
    Begin | PauseOver | HomeGone | HomeAnswered | GcsAnswered | NoAnswer | RoomMade | SourcesFailed | BlobUnreadable
)

# --- what to do ---


@dataclass(frozen=True, slots=True)
class AskHome:
    """``HomeGone``, ``HomeAnswered`` or ``NoAnswer`` answers."""

    home: bytes
    #: Nodes that have not delivered.
    without: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class AskGcs:
    """``GcsAnswered`` or ``NoAnswer`` answers."""


@dataclass(frozen=True, slots=True)
class MakeRoom:
    """It is found for the first time: ``RoomMade`` answers when there is a place to write it to."""

    size: int
    owner: bytes


@dataclass(frozen=True, slots=True)
class ReadFrom:
    """``SourcesFailed`` answers, or the search has come to its end."""

    sources: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ReadBlob:
    """``BlobUnreadable`` answers, or the search has come to its end."""

    key: str
    offset: int


@dataclass(frozen=True, slots=True)
class Pause:
    """``PauseOver`` answers."""

    seconds: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """As ``ObjectLocated.error``."""

    error: StoreError


SearchAction = AskHome | AskGcs | MakeRoom | ReadFrom | ReadBlob | Pause | GiveUp


class Search:
    """Each event has one action as its answer, each action one event, until the object is here or given up."""

    def __init__(self, home: bytes, node_id: bytes, now: float) -> None:
        """``node_id``: this node's, which does not have it."""
        self._story = Story("a search")
        #: The node that has the primary copy, as far as is known.
        self.home = home
        #: Why the last try did not succeed; empty = nothing is known to keep the object away.
        self.problem = ""
        self._node_id = node_id
        #: Asked in vain since the last try to read.
        self._denied = {node_id}
        self._first_home = home
        #: What the first of the homes asked has done with the object.
        self._reason = ""
        #: Nodes that did not deliver since something last arrived.
        self._without: set[bytes] = set()
        self._reading: ReadFrom | ReadBlob | None = None
        self._size: int | None = None
        self._progress_at = now
        self._pause_s = FIRST_PAUSE_S

    @noted
    def handle(self, event: SearchEvent, now: float) -> SearchAction:
        match event:
            case Begin():
                return self._ask()
            case PauseOver():
                return self._ask()
            case HomeGone(why):
                self._reason = self._reason or f"has left the cluster ({why})"
                return AskGcs()
            case HomeAnswered():
                return self._home_answered(event, now)
            case GcsAnswered():
                return self._gcs_answered(event, now)
            case NoAnswer(problem):
                return self._pause(problem, now)
            case RoomMade():
                # Waiting for room was no lack of progress.
                self._progress_at = now
                return self._read()
            case SourcesFailed(progress_at):
                self._sources_failed(progress_at)
                return self._ask_anew()
            case BlobUnreadable(problem):
                self._forget_answers()
                return self._pause(problem, now)

    def validate(self) -> None:
        assert self._node_id in self._denied, "this node would be asked"
        assert FIRST_PAUSE_S <= self._pause_s <= LONGEST_PAUSE_S

    def _ask(self) -> SearchAction:
        return AskGcs() if self.home in self._denied else AskHome(self.home, tuple(sorted(self._without)))

    def _ask_anew(self) -> SearchAction:
        self._forget_answers()
        return self._ask()

    def _forget_answers(self) -> None:
        """Something has happened since: who was asked in vain may be asked again."""
        self._denied = {self._node_id}
        self._first_home = self.home
        self._reason = ""

    def _home_answered(self, answer: HomeAnswered, now: float) -> SearchAction:
        if answer.sources:
            return self._found(ReadFrom(answer.sources), answer.size, answer.owner)
        if answer.blob_key:
            return self._found(ReadBlob(answer.blob_key, answer.blob_offset), answer.size, answer.owner)
        if answer.later:
            self._without.clear()
            return self._pause("none of the nodes that have it delivers", now)
        self._denied.add(self.home)
        self._reason = "does not have it any more"
        return AskGcs()

    def _gcs_answered(self, answer: GcsAnswered, now: float) -> SearchAction:
        if answer.blob_key:
            return self._found(ReadBlob(answer.blob_key, answer.blob_offset), answer.size, b"")
        if not answer.home or answer.home in self._denied:
            return GiveUp(lost_with_home(self._first_home, self._reason))
        if answer.home == self.home:
            # Here it is known to be gone, at the GCS not yet.
            return self._pause(f"its home, node {self.home.hex()}, cannot be reached", now)
        self.home = answer.home
        return self._ask()

    def _found(self, reading: ReadFrom | ReadBlob, size: int, owner: bytes) -> SearchAction:
        self._reading = reading
        if self._size is None:
            self._size = size
            return MakeRoom(size, owner)
        if size != self._size:
            return GiveUp(lost_with_home(self.home, "has made it anew meanwhile, with another size"))
        return self._read()

    def _read(self) -> SearchAction:
        assert self._reading is not None
        self.problem = ""
        return self._reading

    def _sources_failed(self, progress_at: float) -> None:
        if progress_at > self._progress_at:
            self._progress_at = progress_at
            self._pause_s = FIRST_PAUSE_S
            self._without.clear()
        assert isinstance(self._reading, ReadFrom)
        self._without.update(self._reading.sources)

    def _pause(self, problem: str, now: float) -> SearchAction:
        if now >= self._progress_at + FETCH_TIMEOUT_S:
            return GiveUp(fetch_timed_out(FETCH_TIMEOUT_S, problem))
        self.problem = problem
        seconds, self._pause_s = self._pause_s, min(self._pause_s * 2, LONGEST_PAUSE_S)
        return Pause(seconds)
