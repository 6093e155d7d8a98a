"""Leader and followers: whoever waits reads the sockets, with real descriptors and threads."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from shoal import exceptions
from shoal._net import interrupts
from shoal._net import reactor as reactor_module
from shoal._net.interrupts import GuardedLock
from shoal._net.reactor import Reactor
from shoal._net.waiter import Waiter

#: For waits that end by an event; only a failure takes so long. Seconds.
LONG = 10.0


class Pipe:
    """A registered descriptor; ``on_event`` runs in the leading thread for each byte."""

    def __init__(self, reactor: Reactor, on_event: Callable[[], None]) -> None:
        self._reactor = reactor
        self._on_event = on_event
        self.handled_by: list[int] = []
        self.read_end, self._write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        reactor.register(self.read_end, self._handle)

    def _handle(self, mask: int) -> None:
        os.read(self.read_end, 1)
        self.handled_by.append(threading.get_ident())
        self._on_event()

    def ring(self) -> None:
        os.write(self._write_end, b"x")

    def close(self) -> None:
        self._reactor.unregister(self.read_end)
        os.close(self.read_end)
        os.close(self._write_end)


class Rig:
    """A reactor with pipes and waiting threads, all ended by ``close``. Its background thread is not started."""

    def __init__(self) -> None:
        self.reactor = Reactor()
        self._pipes: list[Pipe] = []
        self._threads: list[threading.Thread] = []
        self._waiters: list[Waiter] = []

    def pipe(self, on_event: Callable[[], None] = lambda: None) -> Pipe:
        pipe = Pipe(self.reactor, on_event)
        self._pipes.append(pipe)
        return pipe

    def ends(self, waiter: Waiter) -> Pipe:
        """A pipe whose next byte ends the wait."""
        return self.pipe(lambda: self.reactor.finish(waiter))

    def thread(self, waiter: Waiter) -> threading.Thread:
        """A thread that waits."""
        thread = threading.Thread(target=self.reactor.wait, args=(waiter, LONG), daemon=True)
        self._threads.append(thread)
        self._waiters.append(waiter)
        thread.start()
        return thread

    def leader(self, waiter: Waiter) -> threading.Thread:
        """A thread that waits, and surely leads."""
        leads = threading.Event()
        probe = self.pipe(leads.set)
        thread = self.thread(waiter)
        probe.ring()
        assert leads.wait(LONG)
        assert probe.handled_by == [thread.ident]
        return thread

    def follower(self, waiter: Waiter) -> threading.Thread:
        """A thread that waits while another leads."""
        before = len(self.reactor._followers)
        thread = self.thread(waiter)
        until(lambda: len(self.reactor._followers) > before)
        return thread

    def close(self) -> None:
        for waiter in self._waiters:
            self.reactor.finish(waiter)
        for thread in self._threads:
            thread.join(LONG)
        for pipe in self._pipes:
            pipe.close()
        self.reactor.stop()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline
        os.sched_yield()


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.close()


# -- one thread ------------------------------------------------------------------------------------------------------


def test_waiting_thread_handles_its_own_event(rig: Rig) -> None:
    waiter = Waiter()
    pipe = rig.ends(waiter)
    pipe.ring()
    assert rig.reactor.wait(waiter, LONG)
    assert pipe.handled_by == [threading.get_ident()]


def test_wait_that_is_done_needs_no_event(rig: Rig) -> None:
    waiter = Waiter()
    waiter.finish()
    assert rig.reactor.wait(waiter)


def test_wait_ends_with_its_timeout(rig: Rig) -> None:
    assert not rig.reactor.wait(Waiter(), 0.001)
    assert not rig.reactor.wait(Waiter(), 0)


@pytest.mark.parametrize("timeout", [float("inf"), 1e300, 1e10])
def test_wait_longer_than_the_system_can(rig: Rig, timeout: float) -> None:
    waiter, following = Waiter(), Waiter()
    rig.ends(waiter).ring()
    assert rig.reactor.wait(waiter, timeout)
    rig.leader(Waiter())
    rig.ends(following).ring()
    assert rig.reactor.wait(following, timeout)


def test_wait_for_several_events(rig: Rig) -> None:
    waiter = Waiter(3)
    pipes = [rig.pipe(lambda: rig.reactor.count_down(waiter)) for _ in range(3)]
    for pipe in pipes[:2]:
        pipe.ring()
    assert not rig.reactor.wait(waiter, 0.001)
    assert waiter.remaining == 1
    pipes[2].ring()
    assert rig.reactor.wait(waiter, LONG)


def test_events_beyond_one_poll_are_handled_too(rig: Rig) -> None:
    waiter = Waiter(3 * reactor_module.EVENTS_PER_POLL)
    for _ in range(3 * reactor_module.EVENTS_PER_POLL):
        rig.pipe(lambda: rig.reactor.count_down(waiter)).ring()
    assert rig.reactor.wait(waiter, LONG)


def test_descriptor_unregistered_by_another_handler_is_left_alone(rig: Rig) -> None:
    """Both are ready in the same poll; whichever comes first closes the other."""
    pipes: list[Pipe] = []
    waiter = Waiter()

    def close_both() -> None:
        for pipe in pipes:
            rig.reactor.unregister(pipe.read_end)
        rig.reactor.finish(waiter)

    pipes += [rig.pipe(close_both), rig.pipe(close_both)]
    for pipe in pipes:
        pipe.ring()
    assert rig.reactor.wait(waiter, LONG)
    assert len(pipes[0].handled_by) + len(pipes[1].handled_by) == 1


def test_brief_wait_does_not_sleep_until_one_was_in_vain(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float | None] = []
    epoll = rig.reactor._epoll

    def poll(timeout: float | None, most: int) -> list[tuple[int, int]]:
        asked.append(timeout)
        return epoll.poll(timeout, most)

    monkeypatch.setattr(rig.reactor, "_epoll", SimpleNamespace(poll=poll, register=epoll.register))
    sleeps = []
    for comes in (True, False, *[True] * (reactor_module.SLEEPS_AFTER_VAIN + 1)):
        waiter = Waiter()
        pipe = rig.ends(waiter)
        if comes:
            pipe.ring()
        asked.clear()
        assert rig.reactor.wait(waiter, LONG if comes else 2 * reactor_module.BRIEF_S, brief=True) is comes
        sleeps.append(asked[0] != 0)
    assert sleeps == [False, False, *[True] * reactor_module.SLEEPS_AFTER_VAIN, False]
    monkeypatch.setattr(rig.reactor, "_epoll", epoll)


def test_poll_now_handles_what_has_arrived_and_does_not_wait(rig: Rig) -> None:
    pipe = rig.pipe()
    rig.reactor.poll_now()
    assert pipe.handled_by == []
    pipe.ring()
    rig.reactor.poll_now()
    assert pipe.handled_by == [threading.get_ident()]


def test_every_dispatch_is_followed_by_the_hook(rig: Rig) -> None:
    """Messages that handlers have gathered go out there."""
    story: list[str] = []
    rig.reactor.after_dispatch = lambda: story.append("after")
    rig.pipe(lambda: story.append("event")).ring()
    rig.reactor.poll_now()
    assert story == ["event", "after"]


# -- timers ----------------------------------------------------------------------------------------------------------


def test_timers_run_in_the_order_of_their_times(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(reactor_module, "time", SimpleNamespace(monotonic=lambda: now))
    story: list[str] = []
    for name, delay in [("third", 2.0), ("first", 0.0), ("second", 1.0), ("not yet", 2.5), ("fourth", 2.0)]:
        rig.reactor.call_later(delay, lambda name=name: story.append(name))
    now += 2.0
    rig.reactor.poll_now()
    assert story == ["first", "second", "third", "fourth"]


def test_timer_may_set_a_timer(rig: Rig) -> None:
    waiter = Waiter()
    rig.reactor.call_later(0, lambda: rig.reactor.call_later(0, lambda: rig.reactor.finish(waiter)))
    assert rig.reactor.wait(waiter, LONG)


def test_timer_of_another_thread_reaches_a_leader_that_polls(rig: Rig) -> None:
    waiter = Waiter()
    thread = rig.leader(waiter)
    rig.reactor.call_later(0, lambda: rig.reactor.finish(waiter))
    thread.join(LONG)
    assert not thread.is_alive()


def test_timer_set_just_before_the_poll_is_not_overlooked(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    waiter = Waiter()
    set_once = threading.Lock()
    epoll = rig.reactor._epoll
    overslept = []

    def monotonic() -> float:
        if sys._getframe(1).f_code.co_name == "_poll" and set_once.acquire(False):
            rig.reactor.call_later(0, lambda: rig.reactor.finish(waiter))  # as another thread would here
        return time.monotonic()

    def poll(timeout: float, most: int) -> list[tuple[int, int]]:
        woken = bool(select.select([rig.reactor._wake_fd], [], [], 0)[0])
        overslept.append(timeout > 0 and not woken)
        return epoll.poll(0, most)

    monkeypatch.setattr(reactor_module, "time", SimpleNamespace(monotonic=monotonic))
    monkeypatch.setattr(rig.reactor, "_epoll", SimpleNamespace(poll=poll))
    rig.reactor.wait(waiter, LONG)
    monkeypatch.undo()
    assert not any(overslept)


# -- several threads -------------------------------------------------------------------------------------------------


def test_leader_handles_the_followers_events(rig: Rig) -> None:
    leading, following = Waiter(), Waiter()
    leader = rig.leader(leading)
    pipe = rig.ends(following)
    follower = rig.follower(following)
    pipe.ring()
    follower.join(LONG)
    assert not follower.is_alive()
    assert pipe.handled_by == [leader.ident]
    assert leader.is_alive()


def test_leader_that_is_done_makes_a_follower_lead(rig: Rig) -> None:
    leading, following = Waiter(), Waiter()
    leader = rig.leader(leading)
    follower = rig.follower(following)
    rig.ends(leading).ring()
    leader.join(LONG)
    pipe = rig.ends(following)
    pipe.ring()
    follower.join(LONG)
    assert not follower.is_alive()
    assert pipe.handled_by == [follower.ident]


def test_leadership_passes_through_all_followers(rig: Rig) -> None:
    waiters = [Waiter() for _ in range(4)]
    threads = [rig.leader(waiters[0])]
    threads += [rig.follower(waiter) for waiter in waiters[1:]]
    for waiter, thread in zip(waiters, threads, strict=True):
        rig.ends(waiter).ring()
        thread.join(LONG)
        assert not thread.is_alive()


def test_wait_ended_by_another_thread(rig: Rig) -> None:
    leading, following = Waiter(), Waiter()
    leader, follower = rig.leader(leading), rig.follower(following)
    rig.reactor.finish(following)
    follower.join(LONG)
    rig.reactor.finish(leading)
    leader.join(LONG)
    assert not follower.is_alive()
    assert not leader.is_alive()


def test_follower_keeps_its_timeout(rig: Rig) -> None:
    rig.leader(Waiter())
    assert not rig.reactor.wait(Waiter(), 0.001)


def test_follower_that_timed_out_is_forgotten(rig: Rig) -> None:
    """Else it would be promoted in place of one that waits, and a thread that polls would fill the list."""
    rig.leader(Waiter())
    for _ in range(3):
        rig.reactor.wait(Waiter(), 0.001)
    assert not rig.reactor._followers


def test_poll_now_leaves_the_sockets_to_the_leader(rig: Rig) -> None:
    waiter = Waiter()
    leader = rig.leader(waiter)
    handled = threading.Event()
    pipe = rig.pipe(handled.set)
    pipe.ring()
    rig.reactor.poll_now()
    assert handled.wait(LONG)
    assert pipe.handled_by == [leader.ident]


def test_many_threads_that_wait_at_once(rig: Rig) -> None:
    """Every thread waits for one answer after another; none is left behind, whoever leads."""
    rig.reactor.start()
    rounds = 100
    finished: list[int] = []

    def run() -> None:
        waiters: list[Waiter] = []
        pipe = rig.pipe(lambda: rig.reactor.finish(waiters[-1]))
        for _ in range(rounds):
            waiters.append(Waiter())
            pipe.ring()
            assert rig.reactor.wait(waiters[-1], LONG)
        finished.append(len(pipe.handled_by))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(4 * LONG)
    assert finished == [rounds] * 4


# -- the background thread -------------------------------------------------------------------------------------------


def test_background_thread_leads_while_nobody_waits(rig: Rig) -> None:
    handled = threading.Event()
    pipe = rig.pipe(handled.set)
    rig.reactor.start()
    pipe.ring()
    assert handled.wait(LONG)
    assert pipe.handled_by != [threading.get_ident()]


def test_background_thread_runs_timers(rig: Rig) -> None:
    fired = threading.Event()
    rig.reactor.start()
    rig.reactor.call_later(0.001, fired.set)
    assert fired.wait(LONG)


def test_ticks_go_on_while_another_thread_leads(rig: Rig) -> None:
    ticks: list[int] = []
    enough = threading.Event()

    def tick() -> bool:
        ticks.append(threading.get_ident())
        if len(ticks) >= 3:
            enough.set()
        return True

    leader = rig.leader(Waiter())
    rig.reactor.on_tick = tick
    rig.reactor.start()
    assert enough.wait(LONG)
    assert leader.ident not in ticks


class Naps:
    """In place of the lock on which the background thread sleeps: no time passes, and each sleep's length is noted."""

    def __init__(self, until: int) -> None:
        self.taken: list[float] = []
        self._until = until
        self.enough = threading.Event()

    def acquire(self, timeout: float) -> bool:
        self.taken.append(timeout)
        if len(self.taken) < self._until:
            return False
        self.enough.set()
        time.sleep(0.001)
        return False

    def release(self) -> None:
        raise RuntimeError("nobody sleeps")


def test_ticks_grow_rare_while_nothing_is_due(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    naps = Naps(until=12)
    due = iter([True, False, False, True])
    rig.reactor.on_tick = lambda: next(due, False)
    monkeypatch.setattr(rig.reactor, "_background_lock", naps)
    rig.leader(Waiter())
    rig.reactor.start()
    assert naps.enough.wait(LONG)
    assert naps.taken[1:12] == [0.1, 0.2, 0.4, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0]


def test_waiting_thread_gets_the_lead_back_from_the_background(rig: Rig) -> None:
    """After it has woken a thread, the background thread lets that thread lead its next wait."""
    rig.reactor.start()
    for _ in range(20):
        waiter = Waiter()
        pipe = rig.ends(waiter)
        pipe.ring()
        assert rig.reactor.wait(waiter, LONG)


def test_stop_ends_the_thread_and_closes_the_descriptors(rig: Rig) -> None:
    rig.reactor.start()
    thread = rig.reactor._thread
    assert thread is not None
    rig.reactor.stop()
    assert not thread.is_alive()
    rig.reactor.wake()  # whoever comes late does no harm
    rig.reactor.stop()


def test_wait_after_the_stop_ends_with_its_timeout_or_its_event(rig: Rig) -> None:
    rig.reactor.stop()
    assert not rig.reactor.wait(Waiter(), 0.001)
    waiter = Waiter()
    waiter.finish()
    assert rig.reactor.wait(waiter)


def test_a_handler_cannot_wait_for_what_only_it_could_bring(rig: Rig) -> None:
    raised: list[Exception] = []

    def handler() -> None:
        try:
            rig.reactor.wait(Waiter(), LONG)
        except exceptions.ShoalSystemError as error:
            raised.append(error)

    rig.pipe(handler).ring()
    rig.reactor.poll_now()
    assert len(raised) == 1


def test_a_handler_that_fails_ends_nothing(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    def fails() -> None:
        raise KeyError("a defect")

    waiter = Waiter()
    rig.pipe(fails).ring()
    rig.reactor.call_later(0.0, fails)
    rig.ends(waiter).ring()
    rig.reactor.after_dispatch = fails
    assert rig.reactor.wait(waiter, LONG)
    rig.reactor.poll_now()
    assert len(caplog.records) >= 3
    assert all(record.exc_info and record.exc_info[0] is KeyError for record in caplog.records)


def test_whoever_waits_is_told_that_its_descriptors_were_closed(rig: Rig) -> None:
    rig.reactor.start()
    with open(os.devnull) as other:  # the number is another's by now
        os.dup2(other.fileno(), rig.reactor._epoll.fileno())
    for _ in range(2):
        with pytest.raises(exceptions.ShoalSystemError, match="has closed descriptors that are Shoal's"):
            rig.reactor.wait(Waiter(), LONG)


# -- handlers of signals -----------------------------------------------------------------------------------------------


class Struck(Exception):
    pass


@pytest.fixture
def handler() -> Iterator[None]:
    """Of SIGUSR1; it raises."""

    def strike(signum: int, frame: object) -> None:
        raise Struck

    before = signal.signal(signal.SIGUSR1, strike)
    interrupts.take_over()
    yield
    interrupts.give_back()
    assert signal.getsignal(signal.SIGUSR1) is strike
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.usefixtures("handler")
def test_what_is_read_is_handled_to_the_end(rig: Rig) -> None:
    story: list[str] = []

    def on_event() -> None:
        signal.raise_signal(signal.SIGUSR1)
        story.append("handled to the end")

    rig.pipe(on_event).ring()
    rig.reactor.after_dispatch = lambda: story.append("sent")
    with pytest.raises(Struck):
        rig.reactor.wait(Waiter(), LONG)
    assert story == ["handled to the end", "sent"]
    # The lead is free, and the interrupt is over.
    waiter = Waiter()
    rig.ends(waiter).ring()
    assert rig.reactor.wait(waiter, LONG)


@pytest.mark.usefixtures("handler")
@pytest.mark.parametrize("leads", [True, False], ids=["leader", "follower"])
def test_a_wait_is_cut_short(rig: Rig, leads: bool) -> None:
    if not leads:
        rig.leader(Waiter())
    timer = threading.Timer(0.01, signal.pthread_kill, (threading.get_ident(), signal.SIGUSR1))
    with pytest.raises(Struck):  # on a busy machine perhaps before it waits
        timer.start()
        rig.reactor.wait(Waiter(), LONG)
    timer.join()


@pytest.mark.usefixtures("handler")
def test_under_a_lock_it_waits_for_the_end_of_the_outermost() -> None:
    lock, other = GuardedLock(), GuardedLock()
    story = []
    with pytest.raises(Struck):
        with other:
            with lock, lock:
                signal.raise_signal(signal.SIGUSR1)
                story.append("inner")
            story.append("outer")
    assert story == ["inner", "outer"]
    assert not lock.held() and not other.held()


@pytest.mark.usefixtures("handler")
def test_another_threads_lock_holds_up_nothing() -> None:
    lock = GuardedLock()
    held, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            leave.wait(LONG)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert held.wait(LONG)
        with pytest.raises(Struck):
            signal.raise_signal(signal.SIGUSR1)
    finally:
        leave.set()
        thread.join()


@pytest.mark.usefixtures("handler")
def test_a_handler_that_is_set_later_is_found_in_time(rig: Rig) -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda signum, frame: seen.append(signum))
    try:
        for _ in range(20):
            rig.reactor.wait(Waiter(), 0.0)
        with GuardedLock():
            signal.raise_signal(signal.SIGUSR2)
            assert seen == []
        assert seen == [signal.SIGUSR2]
        interrupts.give_back()
    finally:
        signal.signal(signal.SIGUSR2, before)


@pytest.mark.usefixtures("handler")
def test_a_handler_may_wait(rig: Rig) -> None:
    """While its thread leads, nobody else reads."""
    waiter, outer = Waiter(), Waiter()
    pipes = [rig.ends(waiter), rig.ends(outer)]
    waited = []

    def wait(signum: int, frame: object) -> None:
        pipes[0].ring()
        waited.append(rig.reactor.wait(waiter, LONG))
        pipes[1].ring()

    signal.signal(signal.SIGUSR2, wait)
    try:
        timer = threading.Timer(0.01, signal.pthread_kill, (threading.get_ident(), signal.SIGUSR2))
        timer.start()
        assert rig.reactor.wait(outer, LONG)
        timer.join()
        assert waited == [True]
    finally:
        signal.signal(signal.SIGUSR2, signal.SIG_DFL)
