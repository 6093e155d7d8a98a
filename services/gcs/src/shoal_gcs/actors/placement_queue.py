"""Actors that need a node, in the order they came, and when to ask the scheduler about them.

Actors that need the same are of one scheduling class. While a class finds room, several of its actors are asked for at
once; when there is none, only its first is asked for again, after a pause that doubles from milliseconds to a quarter
of a second, and at once when something has changed (``poke``). A thousand waiting actors so cost one question each
time. A node that is found may still refuse the actor: until the raylet has accepted it, the question is open. What fits
nowhere even when idle is given up after a grace period, in which a node may join.

Pure: takes the time, keeps no clock.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from shoal_common.channel.frames import SchedulingClass

#: Open questions for one class.
WINDOW = 16
FIRST_PAUSE_S = 0.005
LAST_PAUSE_S = 0.25


@dataclass(slots=True)
class _Waiting:
    since: float
    not_before: float
    asked: bool = False


@dataclass(slots=True)
class _Class:
    waiting: OrderedDict[bytes, _Waiting] = field(default_factory=OrderedDict)
    #: How many of ``waiting`` are asked for, or are being started.
    asked: int = 0
    #: Pauses since the last actor that was accepted.
    pauses: int = 0
    retry_at: float = 0.0
    #: Something changed since the first question that is still open: its answer may be out of date.
    poked: bool = False
    infeasible_since: float | None = None

    @property
    def window(self) -> int:
        return 1 if self.pauses else WINDOW


class PlacementQueue:
    def __init__(self, infeasible_grace_s: float) -> None:
        """``infeasible_grace_s``: 0 = give up at once, negative = never."""
        self._grace_s = infeasible_grace_s
        self._classes: dict[SchedulingClass, _Class] = {}
        #: All and only the actors in ``_classes``.
        self._class_of: dict[bytes, SchedulingClass] = {}

    def __contains__(self, actor_id: bytes) -> bool:
        return actor_id in self._class_of

    def add(self, actor_id: bytes, scheduling_class: SchedulingClass, now: float, delay_s: float = 0.0) -> None:
        """Append an actor. One that waits already keeps its turn; one whose question is open begins anew."""
        if actor_id in self._class_of:
            if not self._classes[self._class_of[actor_id]].waiting[actor_id].asked:
                return
            self.discard(actor_id)
        self._class_of[actor_id] = scheduling_class
        self._classes.setdefault(scheduling_class, _Class()).waiting[actor_id] = _Waiting(now, now + delay_s)

    def discard(self, actor_id: bytes) -> None:
        """It needs no node any more; fine when it does not wait."""
        scheduling_class = self._class_of.pop(actor_id, None)
        if scheduling_class is not None:
            self._classes[scheduling_class].asked -= self._classes[scheduling_class].waiting.pop(actor_id).asked
            if not self._classes[scheduling_class].waiting:
                del self._classes[scheduling_class]

    def found(self, actor_id: bytes) -> None:
        """There is a node for it, which is asked now."""
        scheduling_class = self._class_of.get(actor_id)
        if scheduling_class is not None:
            self._classes[scheduling_class].infeasible_since = None

    def accepted(self, actor_id: bytes) -> None:
        """The node has room: the class may go on at full speed."""
        scheduling_class = self._class_of.get(actor_id)
        if scheduling_class is not None:
            self._classes[scheduling_class].pauses = 0
            self.discard(actor_id)

    def no_room(self, actor_id: bytes, now: float) -> None:
        """No node has room now, or the one that was found refused it; it keeps its turn."""
        scheduling_class = self._class_of.get(actor_id)
        if scheduling_class is not None:
            self._classes[scheduling_class].infeasible_since = None
            self._pause(actor_id, now)

    def infeasible(self, actor_id: bytes, now: float) -> list[bytes]:
        """No node could hold it even when idle; returns the actors whose grace is over, which stop waiting."""
        scheduling_class = self._class_of.get(actor_id)
        if scheduling_class is None:
            return []
        group = self._classes[scheduling_class]
        self._pause(actor_id, now)
        if group.infeasible_since is None:
            group.infeasible_since = now
        if self._grace_s < 0:
            return []
        begin = group.infeasible_since
        over = [i for i, waiting in group.waiting.items() if now - max(begin, waiting.since) >= self._grace_s]
        for given_up in over:
            self.discard(given_up)
        return over

    def poke(self, now: float) -> None:
        """Room may have become free: a node joined, a worker ended, a heartbeat told of resources."""
        for group in self._classes.values():
            group.poked = True
            group.retry_at = now

    def due(self, now: float) -> list[bytes]:
        """The actors to ask for now; each is answered with ``found`` and ``accepted``, or with ``no_room``,
        ``infeasible`` or ``discard``."""
        asking: list[bytes] = []
        for group in self._classes.values():
            if now < group.retry_at:
                continue
            for actor_id, waiting in group.waiting.items():
                if group.asked >= group.window:
                    break
                if not waiting.asked and waiting.not_before <= now:
                    waiting.asked = True
                    group.asked += 1
                    group.poked = False
                    asking.append(actor_id)
        return asking

    def waiting(self) -> dict[SchedulingClass, list[bytes]]:
        """The actors that wait, by what they need."""
        return {scheduling_class: list(group.waiting) for scheduling_class, group in self._classes.items()}

    def next_deadline(self) -> float | None:
        """When ``due`` may return something that it does not return now."""
        times = [time for group in self._classes.values() if (time := _next_question(group)) is not None]
        return min(times, default=None)

    def without_room(self, actor_id: bytes) -> list[bytes]:
        """The actors of its class, when the last answer for it was not a node; else none."""
        scheduling_class = self._class_of.get(actor_id)
        if scheduling_class is None or not self._classes[scheduling_class].pauses:
            return []
        return list(self._classes[scheduling_class].waiting)

    def validate(self) -> None:
        """For tests: what is always true of it."""
        waiting = [(actor_id, key) for key, group in self._classes.items() for actor_id in group.waiting]
        assert dict(waiting) == self._class_of, "each actor waits in its own class only"
        assert len(waiting) == len(self._class_of)
        for group in self._classes.values():
            assert group.waiting, "a class without actors is gone"
            assert group.asked == sum(each.asked for each in group.waiting.values()) <= WINDOW
            assert group.pauses >= 0

    def _pause(self, actor_id: bytes, now: float) -> None:
        group = self._classes[self._class_of[actor_id]]
        group.asked -= group.waiting[actor_id].asked
        group.waiting[actor_id].asked = False
        if group.poked:
            group.poked = False
            group.pauses = max(group.pauses, 1)
            group.retry_at = now
        elif now >= group.retry_at:
            # Not for each of the answers to one burst of questions.
            group.retry_at = now + min(FIRST_PAUSE_S * 2.0**group.pauses, LAST_PAUSE_S)
            group.pauses = min(group.pauses + 1, 16)


def _next_question(group: _Class) -> float | None:
    if group.asked >= group.window:
        return None
    times = []
    for waiting in group.waiting.values():
        if not waiting.asked:
            if waiting.not_before <= group.retry_at:
                return group.retry_at
            times.append(waiting.not_before)
    return min(times, default=None)
