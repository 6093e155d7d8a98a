"""Which checkpoints of an actor there are, from which it goes on, what of its log belongs to them, and what may go.

Everything below ``checkpoint/<actor>/`` in the blob store has a name that says what it is:

    <incarnation>-<number>        a checkpoint: the state after so many calls (of one that is not durable: the how
                                  manyth checkpoint it is)
    log/<incarnation>-<number>    a part of a durable actor's log: its calls from that number on
    incarnation/<incarnation>     an incarnation of a durable actor has begun: earlier ones answer nothing any more

An incarnation of a durable actor first says that it has begun, then reads what there is, and stores a checkpoint of its
own before it takes a call. So what an earlier one still writes meanwhile is told apart by its name: a call counts only
up to where the next incarnation began.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import NamedTuple, Self

#: Checkpoints that are kept: one more than needed, in case the newest is damaged.
KEPT = 2

_NUMBERS = re.compile(r"([0-9a-f]{8})-([0-9a-f]{16})")
LOG = "log/"
INCARNATIONS = "incarnation/"


class Version(NamedTuple):
    """Of a checkpoint, or where a part of the log begins. The later, the greater."""

    incarnation: int
    number: int

    @property
    def name(self) -> str:
        return f"{self.incarnation:08x}-{self.number:016x}"

    @property
    def log_name(self) -> str:
        return LOG + self.name

    @classmethod
    def parse(cls, name: str) -> Self | None:
        match = _NUMBERS.fullmatch(name)
        return cls(int(match[1], 16), int(match[2], 16)) if match else None


class LogPart(NamedTuple):
    version: Version
    #: Calls beyond this number do not count: the next incarnation began there. None = all count.
    until: int | None


class Stored:
    """What is stored for one actor; of other names nothing is known."""

    def __init__(self, names: Iterable[str]) -> None:
        names = list(names)
        #: The oldest first, as the next one.
        self.checkpoints = sorted(version for name in names if (version := Version.parse(name)))
        self.log = sorted(
            version for name in names if name.startswith(LOG) and (version := Version.parse(name.removeprefix(LOG)))
        )
        self.incarnations = sorted(_incarnations(names))

    def log_after(self, start: Version | None) -> list[LogPart]:
        """Where the calls are that ran after a checkpoint (None: after the constructor), in their order.

        Parts that end before it are left out, as the incarnation before may be about to delete them.
        """
        parts = []
        for version, after in self._log_with_next():
            if start is not None and (version.incarnation < start.incarnation or _covers(start, version, after)):
                continue
            begun = [each.number for each in self.checkpoints if each.incarnation > version.incarnation]
            ran = [each.number - 1 for each in self.log if each.incarnation > version.incarnation]
            until = min(begun + ran, default=None)
            if until is None or version.number <= until:
                parts.append(LogPart(version, until))
        return parts

    def superfluous(self, damaged: Collection[Version] = ()) -> list[str]:
        """Names of what nobody needs any more once the newest checkpoint is stored. ``damaged`` ones are of no use."""
        kept = [version for version in self.checkpoints if version not in damaged][-KEPT:]
        if not kept:
            return []
        oldest, newest = kept[0], kept[-1]
        names = [version.name for version in self.checkpoints if version not in kept]
        for version, after in self._log_with_next():
            if version.incarnation < oldest.incarnation or _covers(oldest, version, after):
                names.append(version.log_name)
        return names + [incarnation_name(each) for each in self.incarnations if each < newest.incarnation]

    def _log_with_next(self) -> Iterable[tuple[Version, Version | None]]:
        return zip(self.log, [*self.log[1:], None], strict=False)


def _covers(checkpoint: Version, part: Version, after: Version | None) -> bool:
    """Whether all calls of a part of the log ran before the checkpoint, if ``after`` is the part that follows it."""
    return after is not None and after.incarnation == part.incarnation and after.number <= checkpoint.number + 1


def incarnation_name(incarnation: int) -> str:
    return f"{INCARNATIONS}{incarnation:08x}"


def replaced(incarnation: int, names: Iterable[str]) -> bool:
    """Whether a later one has begun, by the names of what is stored."""
    return any(each > incarnation for each in _incarnations(names))


def _incarnations(names: Iterable[str]) -> list[int]:
    found = []
    for name in names:
        if name.startswith(INCARNATIONS):
            try:
                found.append(int(name.removeprefix(INCARNATIONS), 16))
            except ValueError:
                continue
    return found


class Due:
    """When an actor's next checkpoint is due. Times are in seconds."""

    def __init__(self, every: int, interval_s: float, now: float) -> None:
        """``every`` so many calls, and ``interval_s`` after the last one if calls have run since; 0 = not for that."""
        self._every = every
        self._interval_s = interval_s
        #: Calls since the last checkpoint.
        self.calls = 0
        self._last = now

    def ran(self) -> None:
        self.calls += 1

    def is_due(self, now: float) -> bool:
        if not self.calls:
            return False
        return (0 < self._every <= self.calls) or (0 < self._interval_s <= now - self._last)

    def taken(self, now: float) -> None:
        """Also one that was tried in vain: the next is tried when it is due."""
        self.calls = 0
        self._last = now
