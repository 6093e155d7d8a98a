"""Ways in which a process can end, and the words by which an error must name each."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading

#: Way -> what the error's text has to contain.
WAYS = {
    "SIGKILL": "SIGKILL",
    "SIGSEGV": "SIGSEGV",
    "SIGABRT": "SIGABRT",
    "os._exit(3)": "3",
    "sys.exit(0)": "exit",
    "sys.exit(3)": "3",
}

SIGNALS = [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM]


def die(way: str) -> None:
    """End this process; called in a worker."""
    if way == "SIGKILL":
        os.kill(os.getpid(), signal.SIGKILL)
    elif way == "SIGSEGV":
        ctypes.string_at(0)
    elif way == "SIGABRT":
        os.abort()
    elif way == "os._exit(3)":
        os._exit(3)
    elif way == "sys.exit(0)":
        sys.exit(0)
    elif way == "sys.exit(3)":
        sys.exit(3)
    raise ValueError(way)


def fail_in_a_thread() -> None:
    """An exception that nobody catches, in a thread beside: no reason for the process to end."""
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
