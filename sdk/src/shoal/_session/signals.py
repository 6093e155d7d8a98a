"""SIGTERM in a driver or worker: it ends through an exception, so that exit hooks run, as in Ray.

A forked child ends by SIGTERM as if there were no session: an exception in its place is lost where Python ignores
those, and whoever terminates the child waits for ever.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from shoal._net import interrupts

#: What SIGTERM did before ``install``; None = it is not installed.
_before: Any = None
#: Of a thread that forks, ``unheld``: SIGTERM was not blocked before.
_forking = threading.local()


_terminated = False


def terminated() -> bool:
    """It has come while there was a session."""
    return _terminated


def _exit(signum: int, frame: Any) -> None:
    global _terminated
    _terminated = True
    sys.exit(signum)


_handler: Callable[[int, Any], None] = _exit


def install(handler: Callable[[int, Any], None] | None = None) -> None:
    """On the main thread; on others nothing happens, as Python allows handlers there alone. ``handler``: None = it
    raises SystemExit."""
    global _before, _handler
    _handler = handler or _exit
    if threading.current_thread() is threading.main_thread():
        before = interrupts.plain(interrupts.set_handler(signal.SIGTERM, _handler))
        if before is not _handler:  # of a session that ended on another thread
            _before = before
    interrupts.take_over()


def restore() -> None:
    """Unless the program has installed its own meanwhile. On the main thread, as ``install``."""
    global _before
    interrupts.give_back()
    if threading.current_thread() is threading.main_thread():
        before, _before = _before, None
        if before is not None and signal.getsignal(signal.SIGTERM) is _handler:
            signal.signal(signal.SIGTERM, before)


def _hold() -> None:
    """SIGTERM waits while the thread forks: the child still has its parent's handler then, and Python ignores an
    exception of a handler that runs among the hooks of a fork.
    """
    _forking.unheld = _before is not None and not (
        {signal.SIGTERM} & signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    )


def _release() -> None:
    if _forking.unheld:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _restore_in_child() -> None:
    restore()
    _release()


os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_restore_in_child)
