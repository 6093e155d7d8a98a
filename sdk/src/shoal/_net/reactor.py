"""Who reads the sockets of a driver or worker: leader and followers.

A dedicated reader thread would cost two thread switches for every reply. So a thread that must wait (in ``get``,
or a worker's main thread without work) becomes the *leader*: it polls the sockets itself and handles what
arrives, its own reply included. Other waiting threads are *followers*; a leader that is done promotes one
of them. A background thread leads only while nobody else does: it looks every ``TICK_S``, takes over when no
thread has led since its last look, and steps down as soon as its work has woken a waiting thread, which
will lead its next wait itself.

Measured on 2 cores, calls made one at a time, three runs each in turn: tasks 6,300-9,100/s with a reader thread in
both processes, 9,000-11,300/s so; actor calls 5,500-8,800/s and 7,800-11,600/s. Many at once: no difference.

An event loop of asyncio that waits for values leads, too: it finds ``fileno`` readable, and reads. The background
thread only looks then whether the loop is too busy to do so. Through that thread each value took two changes of the
interpreter's lock and a wake-up of the loop: 2,350 calls/s awaited one by one instead of 4,150.

Waking a thread that sleeps takes longer than the whole work of a small call, 30 to 50 µs on a processor that has gone
idle. So whoever expects the end of its wait within moments (``brief``) polls without sleeping first, and sleeps for the
next waits at once when that was in vain.

Handlers of signals, and what they raise, do not cut a handler here in two (see ``interrupts``).
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable

from shoal import exceptions
from shoal._net import interrupts
from shoal._net.interrupts import GuardedLock
from shoal._net.waiter import Waiter

logger = logging.getLogger("shoal")

TICK_S = 0.002
#: How often ``on_tick`` runs while nothing happens; and how seldom it comes to be while, besides, it has said each time
#: that it has nothing to do: two hundred idle actors looked ten times a second, which took a fifth of a core.
IDLE_TICK_S = 0.1
LONGEST_TICK_S = 2.0
#: Who waits longer polls again: epoll takes at most 24 days, and no infinity.
LONGEST_POLL_S = 86_400.0
#: Events taken per poll; more wait for the next one.
EVENTS_PER_POLL = 64
#: How long a brief wait polls without sleeping, in seconds, and how many of them do not when it was in vain.
BRIEF_S = 0.0002
SLEEPS_AFTER_VAIN = 16
#: The background thread looks so seldom, in seconds, whether event loops leave unread what they wait for.
LOOP_TICK_S = 0.016
_DEFECT = "A defect in Shoal while it handled what has arrived; it goes on"


class DescriptorsClosedError(exceptions.ShoalSystemError):
    """Nothing can be read any more."""

    remedy = "Let that code close only what it has opened itself."

    def __init__(self) -> None:
        super().__init__("code in this process has closed descriptors that are Shoal's, as os.closerange(3, n) does.")


def _is_poller(fd: int) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}") == "anon_inode:[eventpoll]"
    except OSError:
        return False


class Reactor:
    """Polls descriptors for a whole process. Thread-safe unless a method says otherwise."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake_fd, select.EPOLLIN)
        self._handlers[self._wake_fd] = self._drain_wakes
        self._leading = threading.Lock()
        self._turns = 0
        self._followers: deque[Waiter] = deque()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timer_numbers = itertools.count()
        self._timer_lock = GuardedLock()
        self._poll_until = 0.0
        #: So many brief waits are still to sleep at once.
        self._sleeps_left = 0
        self._background_asleep = False
        #: The background thread sleeps until then while event loops read.
        self._background_until = 0.0
        #: It sleeps in the poll.
        self._background_polls = False
        #: Event loops that read.
        self._loops: set[object] = set()
        self._background_lock = threading.Lock()
        self._background_lock.acquire()
        self._stopped = False
        self._thread: threading.Thread | None = None
        #: Called after every dispatch by whoever leads; and by the background thread on each tick.
        self.after_dispatch: Callable[[], None] = lambda: None
        #: Tells whether something may be due soon.
        self.on_tick: Callable[[], bool] = lambda: False
        #: The thread that waits as the leader; 0 = none does.
        self._leader = 0
        #: The thread that handles events right now; 0 = none does.
        self._dispatching = 0
        #: A handler has ended a wait; makes the background thread step down.
        self._woke = False

    # -- life ---------------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread = threading.Thread(target=self._background, name="shoal-io", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the background thread and close the poller. Waiting threads must have been finished before."""
        self._stopped = True
        self.wake()
        self._wake_background()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=5)
        # A thread of the user's may be about to poll; it has been finished, and leaves.
        left = self._dispatching != threading.get_ident() and self._leading.acquire(timeout=5)
        try:
            self.abandon()
        finally:
            if left:
                self._leading.release()

    def abandon(self) -> None:
        """Close the descriptors only: for a forked child, which has no background thread."""
        self._stopped = True
        if not self._epoll.closed:
            self._epoll.close()
            os.close(self._wake_fd)

    # -- descriptors and timers -----------------------------------------------------------------------

    def register(self, fd: int, handler: Callable[[int], None], writable: bool = False) -> None:
        self._handlers[fd] = handler
        self._epoll.register(fd, select.EPOLLIN | (select.EPOLLOUT if writable else 0))

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        """As an asyncio loop has it."""
        self.register(fd, lambda _: callback())

    def remove_reader(self, fd: int) -> None:
        self.unregister(fd)

    def modify(self, fd: int, writable: bool) -> None:
        self._epoll.modify(fd, select.EPOLLIN | (select.EPOLLOUT if writable else 0))

    def unregister(self, fd: int) -> None:
        if self._handlers.pop(fd, None) is not None and not self._epoll.closed:
            self._epoll.unregister(fd)

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        """Run ``callback`` in the leading thread after ``delay`` seconds."""
        at = time.monotonic() + delay
        with self._timer_lock:
            heapq.heappush(self._timers, (at, next(self._timer_numbers), callback))
        if at < self._poll_until:
            self.wake()
        elif at < self._background_until:
            self._wake_background()

    def wake(self) -> None:
        try:
            os.eventfd_write(self._wake_fd, 1)
        except (BlockingIOError, OSError):
            pass  # full: a wake is pending anyway; closed: nobody polls any more

    def _drain_wakes(self, events: int) -> None:
        try:
            os.eventfd_read(self._wake_fd)
        except BlockingIOError:
            pass

    # -- waiting ------------------------------------------------------------------------------------

    def finish(self, waiter: Waiter) -> None:
        """End a wait, from any thread: the waiting one may be asleep, or polling as the leader."""
        waiter.finish()
        if self._dispatching == threading.get_ident():
            self._woke = True
        else:
            self.wake()

    def is_handling(self) -> bool:
        """The calling thread handles events right now: it cannot wait."""
        return self._dispatching == threading.get_ident()

    def count_down(self, waiter: Waiter) -> None:
        """One of the events that ``waiter`` waits for; as ``finish`` with the last."""
        waiter.remaining -= 1
        if waiter.remaining <= 0 and not waiter.done:
            self.finish(waiter)

    def wait(self, waiter: Waiter, timeout: float | None = None, *, brief: bool = False) -> bool:
        """Wait until ``waiter`` is done, leading meanwhile if nobody else does. False after ``timeout`` seconds.
        ``brief``: this may well be over within ``BRIEF_S``.

        Raises: ShoalSystemError in the thread that handles events, which would wait for itself;
        DescriptorsClosedError.
        """
        if self._dispatching == threading.get_ident():
            raise exceptions.ShoalSystemError(
                "get() and wait() cannot be called here: this code runs in the thread that brings the values, "
                "perhaps as the finalizer (__del__) of an object that it has just let go of"
            )
        if threading.get_ident() != interrupts.main_thread:
            return self._wait(waiter, timeout, brief)
        interrupts.look()
        interrupts.in_reactor = True
        try:
            return self._wait(waiter, timeout, brief)
        finally:
            interrupts.in_reactor = False
            if interrupts.noted:
                interrupts.deliver()

    def _wait(self, waiter: Waiter, timeout: float | None, brief: bool) -> bool:
        deadline = None if timeout is None else time.monotonic() + timeout
        leading, me = self._leading, threading.get_ident()
        # A handler of a signal that waits, while its thread sleeps in the poll.
        nested = self._leader == me
        while not waiter.done:
            remaining = None
            if deadline is not None:
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    break
            if nested or leading.acquire(False):
                self._leader = me
                try:
                    while not waiter.done and not self._stopped:
                        if deadline is not None:
                            remaining = deadline - time.monotonic()
                            if remaining <= 0:
                                break
                        self._poll(remaining, brief and not self._followers)
                finally:
                    self._turns += 1
                    if not nested:
                        self._leader = 0
                        leading.release()
                    if self._followers:
                        self._promote()
                    if self._background_asleep:
                        self._wake_background()
                if self._stopped and not waiter.done:
                    waiter.sleep(0.05 if remaining is None else min(0.05, remaining))
            else:
                self._followers.append(waiter)
                # A leader that left before the append could not see this thread.
                if leading.locked():
                    waiter.sleep(remaining)
                try:
                    self._followers.remove(waiter)
                except ValueError:
                    pass  # promoted
        # Promoted, but it has nothing more to wait for: the next one shall lead.
        if self._followers and not leading.locked():
            self._promote()
        return waiter.done

    def poll_now(self) -> bool | None:
        """Handle what has arrived, if nobody leads: for a thread that submits much without ever waiting. Tells whether
        there was something; None: another thread leads."""
        if self._leading.locked():
            return None
        if threading.get_ident() != interrupts.main_thread:
            return self._poll_once()
        interrupts.look()
        interrupts.in_reactor = True
        try:
            return self._poll_once()
        finally:
            interrupts.in_reactor = False
            if interrupts.noted:
                interrupts.deliver()

    def _poll_once(self) -> bool | None:
        if not self._leading.acquire(False):
            return None
        try:
            return not self._stopped and self._poll(0)
        finally:
            self._turns += 1
            self._leading.release()
            if self._followers:
                self._promote()

    # -- event loops ----------------------------------------------------------------------------------

    def fileno(self) -> int:
        """Readable when there is something for ``poll_now``."""
        return self._epoll.fileno()

    @property
    def led(self) -> bool:
        """A thread waits, and reads."""
        return self._leader != 0

    def begin_loop(self, loop: object) -> None:
        """An event loop calls ``poll_now`` from now on when there is something: until ``end_loop``, or until the
        background thread has found that it does not."""
        self._loops.add(loop)
        if self._background_polls:
            self.wake()

    def end_loop(self, loop: object) -> None:
        self._loops.discard(loop)
        self._wake_background()

    def has_loop(self, loop: object) -> bool:
        return loop in self._loops

    def _promote(self) -> None:
        while True:
            try:
                waiter = self._followers.popleft()
            except IndexError:
                return
            if not waiter.done:
                waiter.wake()
                return

    def _poll(self, timeout: float | None, brief: bool = False) -> bool:
        """One poll and its dispatch; the caller leads. Whether anything has come."""
        if timeout is not None:
            timeout = min(timeout, LONGEST_POLL_S)
        # Before the look at the timers: whoever sets one from now on wakes the poll.
        self._poll_until = float("inf")
        if self._timers:
            until_timer = max(0.0, self._timers[0][0] - time.monotonic())
            timeout = until_timer if timeout is None else min(timeout, until_timer)
        self._poll_until = float("inf") if timeout is None else time.monotonic() + timeout
        me = threading.get_ident()
        try:
            events = self._poll_awake() if brief and (timeout is None or timeout > BRIEF_S) else None
            if not events:
                in_main = me == interrupts.main_thread
                events = self._sleep(timeout) if in_main else self._epoll.poll(timeout, EVENTS_PER_POLL)
        except OSError:
            if _is_poller(self._epoll.fileno()):
                raise  # out of a signal's handler
            raise DescriptorsClosedError from None
        self._poll_until = 0.0
        self._dispatching = me
        try:
            for fd, mask in events:
                handler = self._handlers.get(fd)
                if handler is not None:
                    # As ``_run`` does it, without a call for each event.
                    try:
                        handler(mask)
                    except Exception:
                        logger.exception(_DEFECT)
            if self._timers:
                self._run_timers()
            try:
                self.after_dispatch()
            except Exception:
                logger.exception(_DEFECT)
        finally:
            self._dispatching = 0
        return bool(events)

    def _poll_awake(self) -> list[tuple[int, int]]:
        """Empty when nothing comes for a moment, or if nothing did the last time. Others who could use the processor
        have it between two looks."""
        if self._sleeps_left:
            self._sleeps_left -= 1
            return []
        poll, until = self._epoll.poll, time.perf_counter() + BRIEF_S
        while not (events := poll(0, EVENTS_PER_POLL)):
            if time.perf_counter() >= until:
                self._sleeps_left = SLEEPS_AFTER_VAIN
                return []
            os.sched_yield()
        return events

    def _sleep(self, timeout: float | None) -> list[tuple[int, int]]:
        """The poll of the main thread, in which handlers run at once. What they raise loses no event: each is still
        there at the next poll."""
        interrupts.in_reactor = False
        try:
            if interrupts.noted:
                interrupts.deliver()
            return self._epoll.poll(timeout, EVENTS_PER_POLL)
        finally:
            interrupts.in_reactor = True

    @staticmethod
    def _run(callback: Callable[[], object]) -> bool:
        """What it returns, as a truth. Nothing that goes wrong in one of them may end the reading for all."""
        try:
            return bool(callback())
        except Exception:
            logger.exception(_DEFECT)
            return True

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            with self._timer_lock:
                _, _, callback = heapq.heappop(self._timers)
            self._run(callback)

    # -- the background thread --------------------------------------------------------------------------

    def _wake_background(self) -> None:
        self._background_asleep = False
        try:
            self._background_lock.release()
        except RuntimeError:
            pass  # awake already

    def _background(self) -> None:
        seen = -1
        while not self._stopped:
            if self._turns == seen and self._leading.acquire(False):
                try:
                    self._woke = False
                    self._background_polls = True
                    while not self._stopped and not self._woke and not self._loops:
                        self._poll(IDLE_TICK_S)
                        self._run(self.on_tick)
                except DescriptorsClosedError:
                    return  # whoever waits next is told
                finally:
                    self._background_polls = False
                    self._leading.release()
                    if self._followers:
                        self._promote()
            if self._loops:
                try:
                    self._watch_loops()
                except DescriptorsClosedError:
                    return
            seen = self._turns
            self._background_lock.acquire(timeout=TICK_S)
            self._run(self.on_tick)
            if self._leading.locked():
                # Somebody leads a long wait: sleep until it has ended.
                pause = IDLE_TICK_S
                self._background_asleep = True
                while self._leading.locked() and not self._background_lock.acquire(timeout=pause):
                    pause = IDLE_TICK_S if self._run(self.on_tick) else min(2 * pause, LONGEST_TICK_S)
                self._background_asleep = False

    def _watch_loops(self) -> None:
        """As long as event loops read: look whether they have left something unread since the last look. One that does
        so twice is busy with something else, or does not run."""
        pause, seen, unread = TICK_S, -1, 0
        while self._loops and not self._stopped and not self._leading.locked():
            if self._turns != seen:
                pause, unread = TICK_S, 0
            elif self._poll_once():
                unread += 1
                if unread == 2:
                    self._loops.clear()
                    return
            else:
                pause = min(2 * pause, LOOP_TICK_S)
            seen = self._turns
            until = time.monotonic() + pause
            if self._timers:
                until = min(until, self._timers[0][0])
            self._background_until = until
            self._background_lock.acquire(timeout=max(0.0, until - time.monotonic()))
            self._background_until = 0.0
            self._run(self.on_tick)
