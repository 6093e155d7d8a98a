"""Calls to one actor from one process: kept in order, sent when the actor is there, settled when it dies.

The GCS owns the actor's life; this follows it. Calls go out in the order of submission (a call waits for the
arguments of the earlier ones), unless the actor runs its calls out of order anyway. Each incarnation of the actor is
a new connection; what was in flight on the old one has an unknown fate.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from typing import Any, Protocol

from shoal._core.batches import push_bytes
from shoal._core.deadlines import ARGUMENTS, BEHIND, PAUSING, RUNNING, UNSENT
from shoal._core.object_ref import ObjectEntry
from shoal._core.retries import pause_before_retry
from shoal._core.task_record import FunctionRecord, TaskRecord, find_record
from shoal._wire.value_kinds import PENDING
from shoal_common.service.story import Story, noted

#: Calls sent and unanswered at most; further ones wait here.
WINDOW = 2_000
#: After so many bytes of arguments it is looked whether the actor's process has room for more.
PORTION_BYTES = 1024 * 1024
#: When a durable actor's process ends so often, one after the other, before it has answered one and the same call, then
#: it is taken not to survive that call, which fails.
MAX_DEATHS = 5
#: Calls are sent at once when the last sending is so long ago, else collected for the next one. Seconds.
GATHER_S = 0.0005

UNASKED = "UNASKED"  # a handle of it has come here, and nothing was called yet
REGISTERING = "REGISTERING"  # made here, and the GCS does not know it yet
RESOLVING = "RESOLVING"  # where it is, or whether it is up again, is being asked
CONNECTED = "CONNECTED"
RESTARTING = "RESTARTING"
DEAD = "DEAD"


class Port(Protocol):
    def has_room(self, client: ActorClient) -> bool:
        """Its process has not left too much unread. If it has, ``client.flush`` follows when it has read that."""

    def push_calls(self, client: ActorClient, records: list[TaskRecord]) -> None: ...

    def fail_call(self, client: ActorClient, record: TaskRecord) -> None:
        """``client.state`` tells whether it is for good."""

    def resolve(self, client: ActorClient) -> None:
        """Ask the GCS what there is beyond ``client.version``."""

    def watch_creator(self, client: ActorClient) -> None:
        """``resolve`` anew when ``client.lifetime`` is no longer pending."""

    def end_lifetime(self, client: ActorClient) -> None:
        """Its own ``lifetime`` fails: who holds a handle elsewhere may ask for it."""

    def tell_killed(self, client: ActorClient) -> None:
        """Have the GCS end it, for good."""

    def tell_released(self, client: ActorClient) -> None:
        """Tell the GCS that the last handle is gone."""

    def stop_call(self, client: ActorClient, record: TaskRecord) -> None:
        """It is past its deadline: tell the actor's process."""

    def tell_cancelled(self, client: ActorClient, record: TaskRecord, recursive: bool) -> None:
        """Tell the actor's process."""

    def renew(self, client: ActorClient, record: TaskRecord) -> None:
        """It is made once more: give it as much time again."""

    def pause(self, client: ActorClient, record: TaskRecord, pause_s: float) -> None:
        """``client.after_pause`` follows in so many seconds."""

    def tell_repeated(self, client: ActorClient, record: TaskRecord) -> None:
        """It is made once more, as nobody knows how its last attempt has ended; ``client.cause`` tells why."""


class ActorClient:
    """Not thread-safe: the process's lock protects it."""

    def __init__(
        self,
        actor_id: bytes,
        class_name: str,
        port: Port,
        *,
        in_order: bool,
        window: int,
        lifetime: ObjectEntry | None = None,
        durable: bool = False,
        submitted: int = 0,
        rng: random.Random,
        told: dict[str, FunctionRecord] | None = None,
        untold: dict[str, FunctionRecord] | None = None,
    ) -> None:
        """``submitted``: the calls are numbered from the next number on; a durable actor knows them by these numbers,
        which no earlier client of this process may have used."""
        self.actor_id = actor_id
        self.class_name = class_name
        #: Of the reference that counts the handles, which the creator owns; None = these handles do not count. It is
        #: pending as long as the creator and the actor live.
        self.lifetime = lifetime
        self._creator_watched = False
        #: Its class's methods by name: those of whose calls events are told, and those of which none are.
        self.told = {} if told is None else told
        self.untold = {} if untold is None else untold
        self._port = port
        self._rng = rng
        self._story = Story(f"the calls of actor {actor_id.hex()}")
        self.in_order = in_order
        self.window = max(WINDOW, 2 * window)
        #: Calls that may run at the same time.
        self.concurrency = window
        self.state = UNASKED
        #: Version of the GCS's record that this follows; 0 = none seen.
        self.version = 0
        self.worker_id = b""
        #: Of its process; 0 = not known yet.
        self.pid = 0
        #: To its process while CONNECTED, else None.
        self.connection: Any = None
        #: Why the last connection ended; for humans.
        self.disconnected_because = ""
        #: Submitted and not sent, in the order of submission.
        self.queue: deque[TaskRecord] = deque()
        #: Sent and not answered, in order. Empty unless CONNECTED, or until the GCS has told what became of the actor.
        self.in_flight: dict[bytes, TaskRecord] = {}
        self._submitted = submitted
        #: Its calls in flight are sent again whatever happens to it: it runs each once.
        self.durable = durable
        #: An exception has made a call run again, so that ``in_flight`` need not be in the order of submission.
        self._repeated = False
        #: The oldest unanswered call when its process last ended, and how often it was that.
        self._suspect = b""
        self._deaths = 0
        self.last_sent = 0.0
        #: This process made it, and it has handles.
        self.owned = False
        #: What its constructor needs, kept for restarts as long as it is owned.
        self.creation: object = None
        self._released = False
        #: Killed before the GCS knew it.
        self._killed = False
        #: Why it died or cannot be reached; the port makes the error of it.
        self.cause: Any = None

    # -- its creation, by this process ------------------------------------------------------------------

    def create(self, creation: object) -> None:
        """It is made here, and the GCS is to be told; ``on_registered`` or ``on_dead`` follows."""
        self._story.note("create")
        self.state = REGISTERING
        self.owned = True
        self.creation = creation

    @noted
    def on_registered(self) -> None:
        """The GCS knows it now, and what has happened to it meanwhile."""
        if self._killed:
            self._port.tell_killed(self)
            return
        if self.state == REGISTERING:
            self.state = RESOLVING
        if self._released:
            self._port.tell_released(self)
        self._port.resolve(self)

    @noted
    def release(self) -> None:
        """The last handle is gone."""
        self.owned = False
        self.creation = None
        self._released = True
        if self.state != REGISTERING and not self._killed:
            self._port.tell_released(self)

    @noted
    def kill(self, cause: Any) -> bool:
        """Before anybody tells the GCS to end it for good: False when that does not know it yet, and is told later."""
        if self.state != REGISTERING:
            return True
        self._killed = True
        self.on_dead(self.version, cause)
        return False

    # -- calls --------------------------------------------------------------------------------------------

    @property
    def pending_calls(self) -> int:
        return len(self.queue) + len(self.in_flight)

    def submit(self, record: TaskRecord, now: float) -> bool:
        """Take a call. True when it waits to be sent with others (the caller sees to a ``flush``)."""
        if self.state == DEAD:
            self._port.fail_call(self, record)
            return False
        if self.state == RESTARTING and record.retries_left == 0 and not self.durable:
            self._port.fail_call(self, record)
            return False
        self._submitted += 1
        record.push.sequence = self._submitted
        self.queue.append(record)
        if self.state == UNASKED:
            self.state = RESOLVING
            self._port.resolve(self)
        if self.state != CONNECTED:
            return False
        if not self.in_flight or now - self.last_sent >= GATHER_S:
            self.flush(now)
            return False
        return True

    def flush(self, now: float) -> None:
        """Send what can be sent."""
        while self.state == CONNECTED and self.queue and self._port.has_room(self):
            if not self._send_some(now):
                return

    def _send_some(self, now: float) -> bool:
        """One message at most; False when nothing can be sent."""
        room = self.window - len(self.in_flight)
        if room <= 0:
            return False
        batch: list[TaskRecord] = []
        size = 0
        if self.in_order:
            while self.queue and len(batch) < room and size < PORTION_BYTES and not self.queue[0].unready:
                record = self.queue.popleft()
                batch.append(record)
                size += record.size if record.references is None else _size(record)
        else:
            waiting: deque[TaskRecord] = deque()
            while self.queue and len(batch) < room and size < PORTION_BYTES:
                record = self.queue.popleft()
                if record.unready:
                    waiting.append(record)
                else:
                    batch.append(record)
                    size += record.size if record.references is None else _size(record)
            self.queue.extendleft(reversed(waiting))
        if not batch:
            return False
        for record in batch:
            self.in_flight[record.push.task_id] = record
        self.last_sent = now
        self._port.push_calls(self, batch)
        return True

    def on_reply(self, task_id: bytes, retriable: bool) -> TaskRecord | None:
        """An answer. The call that has ended with it; None when it is made once more, or was not expected."""
        record = self.in_flight.pop(task_id, None)
        if record is None or record.late or not retriable:
            return record
        pause_s = pause_before_retry(record, self._rng.random())
        if pause_s is None:
            return record
        self._repeated = True
        self._put_back(record)
        if pause_s:
            record.unready = record.pausing = True
            self._port.pause(self, record, pause_s)
        return None

    def after_pause(self, record: TaskRecord, now: float) -> None:
        """It may be made once more now."""
        record.unready = record.pausing = False
        self.flush(now)

    def expire(self, record: TaskRecord, now: float) -> str:
        """As ``deadlines.Queue``. What was sent stays in ``in_flight`` until that is answered."""
        if record.push.task_id not in self.in_flight:
            self.queue.remove(record)
            self.flush(now)  # it may have held up those behind it
            if record.pausing:
                return PAUSING
            return ARGUMENTS if record.unready else UNSENT
        if self.state == CONNECTED:
            self._port.stop_call(self, record)
        place = list(self.in_flight).index(record.push.task_id)
        return RUNNING if place < self.concurrency else BEHIND

    def cancel(self, record: TaskRecord, recursive: bool, now: float) -> bool:
        """It is ``cancelled``. True = it is over. Else the actor's process answers, or is lost."""
        if record.push.task_id not in self.in_flight:
            self.queue.remove(record)
            self.flush(now)  # it may have held up those behind it
            return True
        if self.state == CONNECTED:
            self._port.tell_cancelled(self, record, recursive)
        return False

    def records(self) -> Iterator[TaskRecord]:
        """Those that have not been answered."""
        yield from self.in_flight.values()
        yield from self.queue

    def find(self, task_id: bytes) -> TaskRecord | None:
        """One that has not been answered."""
        return self.in_flight.get(task_id) or find_record(self.queue, task_id)

    def name_of(self, record: TaskRecord) -> str:
        """For humans."""
        return f"{self.class_name}.{record.push.name}"

    def repeat(self, record: TaskRecord) -> None:
        """A call that was late has ended, and is made once more."""
        self._port.renew(self, record)
        self._put_back(record)

    @property
    def answered(self) -> int:
        """All calls up to this sequence are over."""
        oldest = self.queue[0].push.sequence if self.queue else self._submitted + 1
        if self._repeated:
            oldest = min(oldest, *(record.push.sequence for record in self.in_flight.values()), oldest)
        elif self.in_flight:
            oldest = min(oldest, next(iter(self.in_flight.values())).push.sequence)
        return oldest - 1

    def _put_back(self, record: TaskRecord) -> None:
        """Before all calls that were made after it: one of these may wait for its value."""
        earlier: list[TaskRecord] = []
        while self.queue and self.queue[0].push.sequence < record.push.sequence:
            earlier.append(self.queue.popleft())
        self.queue.appendleft(record)
        self.queue.extendleft(reversed(earlier))

    # -- where it is --------------------------------------------------------------------------------------

    @noted
    def on_alive(self, version: int, worker_id: bytes, connection: Any, now: float) -> None:
        self.version = version
        self.worker_id = worker_id
        self.connection = connection
        self.state = CONNECTED
        self.flush(now)

    @noted
    def on_unknown(self, cause: Any) -> None:
        """The GCS has not heard of it: not yet, if its creator lives; handles may be anywhere before."""
        if self.lifetime is None or self.lifetime.owner is None or self.lifetime.state != PENDING:
            self.on_dead(self.version, cause)
            return
        if not self._creator_watched:
            self._creator_watched = True
            self._port.watch_creator(self)
        self._port.resolve(self)

    @property
    def doubtful(self) -> bool:
        """Nothing says that the GCS will ever know it: it is asked with little patience."""
        alive = self.lifetime is None or (self._creator_watched and self.lifetime.state == PENDING)
        return self.version == 0 and not alive

    @noted
    def on_disconnected(self) -> None:
        """The connection ended; the GCS will tell what became of the actor."""
        self.connection = None
        self.state = RESOLVING

    @noted
    def on_unconnected(self) -> None:
        """The connection never came about: what was sent over it has not arrived, and waits again."""
        records = list(self.in_flight.values())
        self.in_flight.clear()
        for record in reversed(records):
            if record.late:
                if record.again:
                    self.repeat(record)
            elif record.cancelled:
                self._port.fail_call(self, record)
            else:
                self._put_back(record)
        # So that the GCS tells where the actor is even if that has not changed.
        self.version -= 1
        self.on_disconnected()

    @noted
    def on_restarting(self, version: int, cause: Any) -> None:
        """Its last incarnation is gone, another will come. Calls in flight that may not be repeated fail now; those
        never sent wait for it."""
        self.version = version
        self.cause = cause
        self.state = RESTARTING
        self._settle_in_flight()

    @noted
    def on_lost_connection_only(self) -> None:
        """The actor lives on, or has restarted already: what was in flight has an unknown fate."""
        self._settle_in_flight()

    def _settle_in_flight(self) -> None:
        records = list(self.in_flight.values())
        self.in_flight.clear()
        again: list[TaskRecord] = []
        if self.durable and records:
            again = records if self._may_go_on(records[0]) else records[1:]
            for record in records[: len(records) - len(again)]:
                self._port.fail_call(self, record)
            records = [record for record in again if record.cancelled]
            again = [record for record in again if not record.cancelled]
        for record in records:
            if record.late:
                if record.again:
                    self._port.renew(self, record)
                    again.append(record)
            elif record.retry():
                self._port.tell_repeated(self, record)
                again.append(record)
            else:
                self._port.fail_call(self, record)
        for record in reversed(again):
            self._put_back(record)

    def _may_go_on(self, oldest: TaskRecord) -> bool:
        """A durable actor's process has ended: whether its oldest unanswered call is sent once more."""
        if oldest.push.task_id != self._suspect:
            self._suspect, self._deaths = oldest.push.task_id, 0
        self._deaths += 1
        return self._deaths < MAX_DEATHS

    def forget_all(self) -> None:
        """Let go of every record."""
        self.queue.clear()
        self.in_flight.clear()
        self.creation = None

    @noted
    def on_dead(self, version: int, cause: Any) -> None:
        """For good. What is said of a dead actor later changes nothing."""
        if self.state == DEAD:
            return
        self.version = version
        self.cause = cause
        self.state = DEAD
        self.connection = None
        if self.owned:
            self._port.end_lifetime(self)
        self.owned = False
        self.creation = None
        records = [*self.in_flight.values(), *self.queue]
        self.in_flight.clear()
        self.queue.clear()
        for record in records:
            self._port.fail_call(self, record)

    def validate(self) -> None:
        """Asserts what must always hold; for tests."""
        try:
            assert (self.connection is not None) == (self.state == CONNECTED)
            assert not self.in_flight or self.state in (CONNECTED, RESOLVING)
            assert not self.queue or self.state != DEAD
            assert not self.creation or self.owned
            assert len(self.in_flight) <= self.window
            numbers = [record.push.sequence for record in self.queue]
            assert numbers == sorted(set(numbers)), "calls that wait are in the order of submission"
            for task_id, record in self.in_flight.items():
                assert record.push.task_id == task_id and not record.unready
            assert not {record.push.task_id for record in self.queue} & set(self.in_flight)
        except AssertionError as broken:
            self._story.explain(broken)
            raise


def _size(record: TaskRecord) -> int:
    """Bytes that will go along with a call whose references are not resolved yet."""
    return push_bytes(record.push) + sum(len(ref._entry.payload) for _, _, ref in record.references or ())
