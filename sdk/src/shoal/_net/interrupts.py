"""Handlers of signals run where an exception out of them harms nothing.

Python runs them in the main thread, between any two byte codes, and whatever they raise (Ctrl-C, time limits by
SIGALRM, SIGTERM) ends the function that it hits. In the middle of a change to Shoal's state that would lose a message
or a lease, and whoever waits for it waits for ever. So while the main thread holds one of Shoal's locks, or reads the
sockets for all, a handler is only noted, and runs as soon as that is over; in a wait it runs at once.

That costs the way of a call next to nothing: who holds what is asked when a signal comes. Not covered: exceptions
that a debugger or a library puts into a thread (``PyThreadState_SetAsyncExc``).

For this a handler is replaced by one that calls it. The rejected ways: patching ``signal.signal``, which misses whoever
imported it before; blocking signals by ``pthread_sigmask``, two system calls each time, and another thread of the
user's lets them through; leaving the main thread out of it, two thread switches for each call made alone.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _thread
import contextlib
import os
import signal
import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import FrameType, TracebackType
from typing import Any

Handler = Callable[[int, FrameType | None], Any]

#: Tells the main thread of a worker to look whether what it runs is to stop. None that programs use, as SIGUSR1.
STOP = signal.SIGRTMIN + 3
#: Those whose handlers may raise. SIGALRM is looked at in each wait, the others in turn.
_OTHERS = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGVTALRM,
    signal.SIGPROF,
    signal.SIGXCPU,
    STOP,
)
_ALARM = signal.SIGALRM
#: Without the conversion to an enumeration, which costs more than the look, and a worker some pages of memory.
_handler_of = _signal.getsignal
set_handler = _signal.signal


class _Deferred:
    """In place of a handler: calls it, at once or when it may."""

    __slots__ = ("handler",)

    def __init__(self, handler: Handler) -> None:
        self.handler = handler

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        if busy():
            noted.append((self.handler, signum, frame))
        else:
            self.handler(signum, frame)


#: What has come while the main thread was busy.
noted: list[tuple[Handler, int, FrameType | None]] = []
#: No ``WeakSet``: other threads make locks while it is gone through.
_locks: set[weakref.ref[GuardedLock]] = set()
_on = False
_turn = 0
main_thread = threading.main_thread().ident
#: The main thread is in the reactor, and does not sleep there.
in_reactor = False


class GuardedLock(_thread.RLock):  # type: ignore[misc]
    """A reentrant lock; no handler runs while the main thread holds it."""

    def __init__(self) -> None:
        _locks.add(weakref.ref(self, _locks.discard))

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()
        if noted:
            deliver()

    def held(self) -> bool:
        """By this thread."""
        return bool(self._is_owned())  # type: ignore[attr-defined]


_uncut = GuardedLock()
_nothing = contextlib.nullcontext()


def uncut() -> AbstractContextManager[Any]:
    """Within it no handler runs, as under a lock; but it keeps no other thread out, and so waits for none."""
    return _uncut if threading.get_ident() == main_thread else _nothing


def busy() -> bool:
    """Asked in the main thread: whether an exception would cut something in two."""
    return in_reactor or any((lock := each()) is not None and lock.held() for each in tuple(_locks))


def deliver() -> None:
    """Run what was noted, unless this thread is another one, or still busy. Raises: whatever the handlers raise."""
    while noted and threading.get_ident() == main_thread and not busy():
        handler, signum, frame = noted.pop(0)
        handler(signum, frame)


# -- which handlers ---------------------------------------------------------------------------------------------


def take_over() -> None:
    """From now on, until ``give_back``: the handlers that there are, and those that come."""
    global _on
    _on = True
    if threading.get_ident() == main_thread:
        for signum in (_ALARM, *_OTHERS):
            _take(signum, _handler_of(signum))


def give_back() -> None:
    global _on
    _on = False
    if threading.get_ident() != main_thread:
        return
    for signum in (_ALARM, *_OTHERS):
        handler = _handler_of(signum)
        if type(handler) is _Deferred:
            signal.signal(signum, plain(handler))


def plain(handler: Any) -> Any:
    """The user's, where ``handler`` stands for it."""
    return handler.handler if type(handler) is _Deferred else handler


def look() -> None:
    """At some handlers, in the main thread: the user may have set new ones."""
    global _turn
    if _on:
        _turn = (_turn + 1) % len(_OTHERS)
        # Most signals have no handler, which is a number then.
        if type(handler := _handler_of(_ALARM)) is not int:
            _take(_ALARM, handler)
        if type(handler := _handler_of(_OTHERS[_turn])) is not int:
            _take(_OTHERS[_turn], handler)


def _take(signum: int, handler: Any) -> None:
    if callable(handler) and type(handler) is not _Deferred:
        set_handler(signum, _Deferred(handler))


def _after_fork_in_child() -> None:
    """The locks may be held by threads that the child does not have; its own handlers run at once."""
    global main_thread, in_reactor, _uncut
    main_thread = threading.get_ident()
    in_reactor = False
    _locks.clear()
    _uncut = GuardedLock()
    noted.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
