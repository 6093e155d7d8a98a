"""Objects become ready, and whoever waits for them is told."""

from __future__ import annotations

import math
import pickle
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from shoal import exceptions
from shoal._core.object_ref import ObjectEntry, ObjectRef, Watcher
from shoal._net.reactor import Reactor
from shoal._net.waiter import Waiter
from shoal._wire.peer_frames import GetValue, Value
from shoal._wire.value_kinds import ERROR, PENDING, STORED

if TYPE_CHECKING:
    from shoal._owner.objects.advice import Advice
    from shoal._owner.process import Process
    from shoal_common.channel.frames import WorkerAddress


#: Of a long list whose values lie in the store so many bytes are read while the rest is made.
STEP_BYTES = 4 * 1024 * 1024
#: An owner that can answer has answered by then, in seconds.
OWNER_ANSWERS_S = 0.1
#: Why there is no connection to an owner when one cannot even be begun.
UNREACHED = "nobody listens at its address"


class _GetWatcher:
    """``get`` waits for all, or the first error; and until so many bytes have come into the store, if it says so."""

    __slots__ = ("_pause_bytes", "_reactor", "_stored_bytes", "failed", "waiter")

    def __init__(self, reactor: Reactor, pause_bytes: float) -> None:
        self._reactor = reactor
        self._pause_bytes = pause_bytes
        self._stored_bytes = 0
        self.failed = False
        self.waiter = Waiter()

    def ready(self, entry: ObjectEntry) -> None:
        if entry.state == ERROR:
            self.failed = True
            self._reactor.finish(self.waiter)
            return
        self._reactor.count_down(self.waiter)
        if entry.state == STORED:
            self._stored_bytes += entry.size
            if self._stored_bytes >= self._pause_bytes:
                self._reactor.finish(self.waiter)

    def wait_on(self) -> None:
        """After a pause. With the process's lock."""
        if not self.failed and self.waiter.remaining > 0:
            self._stored_bytes = 0
            self.waiter = Waiter(self.waiter.remaining)


#: ``wait`` has so many objects more than it needs brought to this node, so that a slow source holds nobody up.
SPARE_FETCHES = 8


class _WaitWatcher:
    """``wait`` waits for so many, errors too; with ``fetch_local`` an object counts once it has come to this node."""

    __slots__ = ("_fetch_local", "_process", "_waiter", "_waiting")

    def __init__(self, process: Process, waiting: Waiting, waiter: Waiter, fetch_local: bool) -> None:
        self._process = process
        self._waiting = waiting
        self._waiter = waiter
        self._fetch_local = fetch_local

    def ready(self, entry: ObjectEntry) -> None:
        if _counts(self._process, entry, self._fetch_local):
            self._process.reactor.count_down(self._waiter)
        else:
            self._waiting.bring(entry, self._came)

    def _came(self, entry: ObjectEntry) -> None:
        if entry.state == PENDING and self._waiter.remaining > 0:
            self._waiting.watch(entry, self)  # it was lost
        else:
            self._process.reactor.count_down(self._waiter)


class Recoverer(Protocol):
    """Has lost objects made again (see ``recovery``)."""

    def lost(self, entry: ObjectEntry, home: bytes, how: str) -> None:
        """It is not to be had from ``home``."""

    def wanted(self, entry: ObjectEntry) -> None:
        """Somebody waits for an object of this process that is lost."""


class CallbackWatcher:
    __slots__ = ("_callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback = callback

    def ready(self, entry: ObjectEntry) -> None:
        self._callback()


class Waiting:
    """Of one process. Methods that wait are called without its lock, the others with it unless they say otherwise."""

    recovery: Recoverer
    advice: Advice

    def __init__(self, process: Process) -> None:
        self._process = process

    # -- objects become ready -------------------------------------------------------------------------

    def settle(self, entry: ObjectEntry, value: Value, contained: list[ObjectRef[Any]] | None = None) -> None:
        """A pending object has its value; ``contained``: the references inside."""
        entry.state, entry.payload, entry.size, entry.node_id = value.kind, value.payload, value.size, value.node_id
        entry.contained = contained
        entry.lost = ""  # while its task ran already, for the sake of another one of its objects
        if value.kind == STORED and entry.owner is None:
            self._process.raylets.open(value.node_id)  # its death ends the object, and this process's end is seen there
        self.tell_ready(entry)

    def fail(self, entry: ObjectEntry, error: Exception) -> None:
        """A pending object will not have a value."""
        entry.state, entry.payload, entry.lost = ERROR, pickle.dumps(error, 5), ""
        self.tell_ready(entry)

    def tell_ready(self, entry: ObjectEntry) -> None:
        watchers = entry.watchers
        if watchers is not None:
            entry.watchers = None
            for watcher in watchers:
                watcher.ready(entry)
        self._process.table.settled(entry)

    # -- who waits --------------------------------------------------------------------------------------

    def watch(self, entry: ObjectEntry, watcher: Watcher) -> None:
        """``entry`` is pending; the owner of a borrowed one is asked, and a lost one is made again."""
        if entry.watchers is None:
            entry.watchers = [watcher]
        else:
            entry.watchers.append(watcher)
        if entry.owner is not None or entry.lost:
            self.want(entry)

    def want(self, entry: ObjectEntry) -> None:
        """Ask the owner of a borrowed object for its value; have a lost one made again."""
        if entry.owner is not None:
            self.ask(entry)
        elif entry.lost:
            self.recovery.wanted(entry)

    def ask(self, entry: ObjectEntry) -> None:
        """Ask the owner of a borrowed object for its value, once."""
        if entry.asked or entry.owner is None or entry.state != PENDING:
            return
        entry.asked = True
        connection = self._process.peers.connect(entry.owner)
        if connection is None:
            self.fail(entry, owner_died(entry.object_id, entry.owner, UNREACHED))
        else:
            connection.send(GetValue(entry.object_id))

    def bring(self, entry: ObjectEntry, done: Callable[[ObjectEntry], None]) -> None:
        """Have a stored object come to this node; ``done(entry)`` when it has, or cannot. One that turns out to be lost
        is pending then, and is being made again."""
        home = entry.node_id

        def came(lost: str) -> None:
            if lost:
                self.recovery.lost(entry, home, lost)
                self.want(entry)
            done(entry)

        self._process.store.bring(entry.object_id, home, came)

    def when_ready(self, ref: ObjectRef[Any], callback: Callable[[], None]) -> None:
        """Call back once the object is ready, perhaps at once; under the lock, which the caller does not hold.

        What the leading thread calls must not wait for anything, and runs no user code.
        """
        entry = ref._entry
        with self._process.lock:
            if entry.state == PENDING:
                self.watch(entry, CallbackWatcher(callback))
            else:
                callback()
        self._process.flush()

    def until_ready(
        self, entries: list[ObjectEntry], timeout: float | None, meanwhile: Callable[[], None] | None = None
    ) -> None:
        """Block until all are ready or one has failed. ``meanwhile`` is called, without the lock, whenever another
        ``STEP_BYTES`` of them have come into the store. Raises: GetTimeoutError; what ``meanwhile`` raises."""
        process = self._process
        if timeout is not None and timeout <= 0:
            process.flush()
            process.reactor.poll_now()  # what has arrived counts
        deadline = None if timeout is None else time.monotonic() + timeout
        watcher = _GetWatcher(process.reactor, math.inf if meanwhile is None else STEP_BYTES)
        try:
            with process.lock:
                waiting = self._watch_all(entries, watcher)
                if not waiting or any(entry.state == ERROR for entry in entries):
                    return
                watcher.waiter.remaining = len(waiting)
            while True:
                if not self.block(watcher.waiter, timeout, waiting, all_needed=True):
                    missing = next((entry for entry in entries if entry.state == PENDING), None)
                    if missing is not None:
                        raise exceptions.GetTimeoutError(
                            f"Get timed out: some object(s) not ready ({missing.object_id.hex()} among them)."
                        )
                if meanwhile is None:
                    return
                with process.lock:
                    watcher.wait_on()
                    waiting = [entry for entry in waiting if entry.state == PENDING]
                    if watcher.waiter.done or not waiting:
                        return
                meanwhile()
                timeout = None if deadline is None else deadline - time.monotonic()
        finally:
            if watcher.waiter.remaining > 0:  # an error, the time or an interrupt ended it early
                with process.lock:
                    self._unwatch(entries, watcher)

    def wait(
        self, refs: list[ObjectRef[Any]], num_returns: int, timeout: float | None, fetch_local: bool = True
    ) -> tuple[list[ObjectRef[Any]], list[ObjectRef[Any]]]:
        """As ``shoal.wait``. Raises: ValueError for a reference of an earlier session."""
        process = self._process
        found = _indices(process, refs, num_returns, fetch_local)
        if len(found) < num_returns and (timeout is None or timeout > 0):
            waiter = Waiter(num_returns - len(found))
            watcher = _WaitWatcher(process, self, waiter, fetch_local)
            entries: list[ObjectEntry] = []
            coming: list[ObjectEntry] = []
            try:
                with process.lock:
                    entries = [ref._entry for ref in refs if ref._entry.state == PENDING]
                    elsewhere = _elsewhere(process, refs, fetch_local)
                    waiter.remaining = num_returns - (len(refs) - len(entries) - len(elsewhere))
                    waiting = self._watch_all(entries, watcher) if waiter.remaining > 0 else []
                    coming = elsewhere[: waiter.remaining + SPARE_FETCHES] if waiter.remaining > 0 else []
                    for entry in coming:
                        watcher.ready(entry)
                if waiter.remaining > 0 and (waiting or coming):
                    self.block(waiter, timeout, waiting + coming, all_needed=False)
            finally:
                with process.lock:
                    self._unwatch(entries + coming, watcher)
            found = _indices(process, refs, num_returns, fetch_local)
        elif len(found) < num_returns:
            process.flush()
            process.reactor.poll_now()
            with process.lock:
                for ref in refs:
                    self.want(ref._entry)
                for entry in _elsewhere(process, refs, fetch_local)[: num_returns - len(found) + SPARE_FETCHES]:
                    self.bring(entry, _nobody_waits)
            found = _indices(process, refs, num_returns, fetch_local)
        if len(found) == 1:
            at = found[0]
            return [refs[at]], refs[:at] + refs[at + 1 :]
        chosen = set(found)
        return [refs[i] for i in found], [ref for i, ref in enumerate(refs) if i not in chosen]

    def block(self, waiter: Waiter, timeout: float | None, entries: list[ObjectEntry], *, all_needed: bool) -> bool:
        """Wait for ``entries`` without the lock. A task that does so lends its CPU, unless all that it waits for is the
        word of other owners, which may have had the values for long.

        Raises: ShoalSystemError with the lock, DeadlockError.
        """
        process = self._process
        if process.lock.held():
            raise exceptions.ShoalSystemError(
                "get() and wait() cannot be called here: this code runs in the middle of a change to Shoal's tables, "
                "perhaps as the finalizer (__del__) of an object that was collected just now"
            )
        process.flush()
        wait = process.waits.begin(waiter, entries, timeout is not None, all_needed)
        self.advice.begins(wait)
        try:
            if process.blocking is not None:
                with process.blocking(OWNER_ANSWERS_S if all(map(_may_be_made, entries)) else 0.0):
                    ended = process.reactor.wait(waiter, timeout)
            else:
                ended = process.reactor.wait(waiter, timeout, brief=len(entries) == 1)
        finally:
            process.waits.end(wait)
        self.advice.ended(wait)
        if wait.error is not None:
            raise wait.error
        return ended

    def _ask_together(self, borrowed: list[ObjectEntry]) -> None:
        """As ``ask``: each owner is asked for all of its objects in one go."""
        by_owner: dict[bytes, list[ObjectEntry]] = {}
        for entry in borrowed:
            assert entry.owner is not None
            by_owner.setdefault(entry.owner.worker_id, []).append(entry)
        for entries in by_owner.values():
            owner = entries[0].owner
            assert owner is not None
            connection = self._process.peers.connect(owner) if len(entries) > 1 else None
            if connection is not None:  # else each is asked for, or fails, when it is watched
                for entry in entries:
                    entry.asked = True
                connection.send_together(GetValue(entry.object_id) for entry in entries)

    def _watch_all(self, entries: list[ObjectEntry], watcher: Watcher) -> list[ObjectEntry]:
        """Those that are still pending when all have been asked for."""
        waiting = [entry for entry in entries if entry.state == PENDING]
        self._ask_together([entry for entry in waiting if entry.owner is not None and not entry.asked])
        for entry in waiting:
            self.watch(entry, watcher)
        return [entry for entry in waiting if entry.state == PENDING]

    @staticmethod
    def _unwatch(entries: list[ObjectEntry], watcher: Watcher) -> None:
        for entry in entries:
            if entry.watchers is not None and watcher in entry.watchers:
                entry.watchers.remove(watcher)


def owner_died(object_id: bytes, owner: WorkerAddress, reason: str) -> exceptions.OwnerDiedError:
    """``reason``: how the connection to the owner has ended, or why there is none."""
    place = f"worker {owner.worker_id.hex()} on node {owner.node_id.hex()}"
    return exceptions.OwnerDiedError(object_id.hex(), f"{place}: {reason.rstrip('.')}")


def _may_be_made(entry: ObjectEntry) -> bool:
    return entry.owner is not None and not entry.unmade


def _counts(process: Process, entry: ObjectEntry, fetch_local: bool) -> bool:
    """Whether an object that is no longer pending is as near as it has to be."""
    return (
        entry.state != STORED
        or not fetch_local
        or entry.node_id == process.node_id
        or process.store.was_brought(entry.object_id)
    )


def _indices(process: Process, refs: list[ObjectRef[Any]], most: int, fetch_local: bool) -> list[int]:
    """Of the first that count."""
    found = []
    for index, ref in enumerate(refs):
        state = ref._entry.state
        if state and (state != STORED or _counts(process, ref._entry, fetch_local)):
            ref._check_session()
            found.append(index)
            if len(found) == most:
                break
    return found


def _elsewhere(process: Process, refs: list[ObjectRef[Any]], fetch_local: bool) -> list[ObjectEntry]:
    """Objects that are there, but not where they count."""
    entries = (ref._entry for ref in refs)
    return [entry for entry in entries if entry.state == STORED and not _counts(process, entry, fetch_local)]


def _nobody_waits(entry: ObjectEntry) -> None:
    """Who asks without waiting looks again later."""
