"""What a node spills and restores, as events: added up, and told once a minute. Pure."""

from __future__ import annotations

from dataclasses import dataclass

#: In seconds.
EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class Told:
    """Of an event, as ``ClusterEvent``."""

    kind: str
    severity: str
    message: str


class SpillTally:
    """Times are seconds, of any clock that does not go back."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        #: Since when something has been counted that is not told; None = nothing has.
        self._since: float | None = None
        self._spilled = self._spilled_bytes = 0
        self._restored = self._restored_bytes = 0
        self._failures = 0
        self._reason = ""

    def spilled(self, count: int, size: int, now: float) -> None:
        self._begin(now)
        self._spilled += count
        self._spilled_bytes += size

    def restored(self, size: int, now: float) -> None:
        self._begin(now)
        self._restored += 1
        self._restored_bytes += size

    def failed(self, reason: str, now: float) -> None:
        """A blob was not written, or an object not read."""
        self._begin(now)
        self._failures += 1
        self._reason = reason

    def told(self, now: float) -> list[Told]:
        """What has been counted for a minute; it is told once."""
        if self._since is None or now - self._since < EVERY_S:
            return []
        found = []
        within = f"in {now - self._since:.0f} s"
        if self._spilled:
            text = f"Spilled {_objects(self._spilled)}, {_size(self._spilled_bytes)}, {within}: its store was full"
            found.append(Told("OBJECTS_SPILLED", "INFO", text))
        if self._restored:
            text = f"Restored {_objects(self._restored)}, {_size(self._restored_bytes)}, {within}"
            found.append(Told("OBJECTS_RESTORED", "INFO", text))
        if self._failures:
            text = f"Blobs could not be written or read {self._failures} times {within}; the last time: {self._reason}"
            found.append(Told("SPILLING_FAILED", "WARNING", text))
        self._reset()
        return found

    def _begin(self, now: float) -> None:
        if self._since is None:
            self._since = now


def _objects(count: int) -> str:
    return f"{count:,} objects" if count != 1 else "1 object"


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
