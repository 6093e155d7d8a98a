"""What a worker shows of what it runs: its title in the list of processes, and whose lines it prints.

Standard output and error belong to the worker, not to its tasks: what one has closed or replaced is as before when the
next one begins. An actor's are its own.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import sys
import threading
from typing import Any, TextIO

import setproctitle

from shoal import _context
from shoal_common.logs.origins import Origin, mark

#: Whether descriptors 1 and 2 are what they were is looked at when so many seconds have passed; a task that breaks them
#: and ends sooner is found by who prints next.
LOOK_EVERY_S = 0.01
#: The name before a line has so many characters at most.
_LONGEST_NAME = 200
_STANDARD = (1, 2)
_CLOSERS = frozenset(("buffer", "close", "detach"))


class _NamedStream:
    """Standard output or error of a worker: says whose lines follow before the first line after a change.

    Whose they are, is the name that was announced and the task that the printing thread or coroutine works for. Tasks
    that print nothing cost no system call.
    """

    def __init__(self, stream: TextIO, descriptors: _Descriptors) -> None:
        self._stream = stream
        self._descriptors = descriptors
        self._name = ""
        #: Name, task and attempt of the last mark.
        self._announced: tuple[str, bytes, int] = ("", b"", 0)
        #: The start of a line waits in the buffer, which is written with the end of the line.
        self.unfinished = False
        #: Somebody got hold of what can close it.
        self.touched = False

    def announce(self, name: str) -> None:
        self._name = name

    def write(self, text: str) -> int:
        task = _context.current_task.get()
        origin = (self._name, task.task_id, task.attempt) if task is not None else (self._name, b"", 0)
        told = ""
        if origin != self._announced:
            name, task_id, attempt = origin
            told = mark(Origin(task_id.hex(), attempt, _context.process.actor_id.hex(), name)) + "\n"
        self.unfinished = False  # nobody else flushes while this thread writes
        self._write(told + text)  # in one piece: another thread may print in between
        self._announced = origin
        self.unfinished = not text.endswith("\n")
        return len(text)

    def flush_unfinished(self, wait: bool) -> bool:
        """``wait``: until the pipe takes it. Tells whether there was anything."""
        if not self.unfinished:
            return False
        with contextlib.suppress(OSError, ValueError):  # closed by the task: what it printed last is its own
            if wait or select.select([], [self._stream], [], 0)[1]:
                self.unfinished = False
                self._stream.flush()
        return True

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            # An earlier task has closed the descriptor. The text waits in the stream's buffer.
            self._descriptors.restore()
            self._stream.flush()

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def is_open(self) -> bool:
        try:
            return not self._stream.closed
        except ValueError:
            return False  # detached from its buffer

    def __getattr__(self, name: str) -> Any:
        if name in _CLOSERS:
            self.touched = True
        return getattr(self._stream, name)


class _Descriptors:
    """1 and 2 as they are now, kept under other numbers."""

    def __init__(self) -> None:
        self._kept = {fd: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3) for fd in _STANDARD}
        self._files = {fd: self._file(fd) for fd in _STANDARD}

    @staticmethod
    def _file(fd: int) -> tuple[int, int] | None:
        """Which file it is; None = closed."""
        try:
            status = os.fstat(fd)
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def restore(self) -> None:
        for fd, file in self._files.items():
            if self._file(fd) != file:
                os.dup2(self._kept[fd], fd)


class Appearance:
    """One per worker, made before anything else opens descriptors."""

    def __init__(self) -> None:
        self._descriptors = _Descriptors()
        sys.stdout = self._out = self._open(1)
        sys.stderr = self._err = self._open(2)
        self._name = ""
        self._look_at = 0.0
        #: The title now, and while nothing runs.
        self.title = ""
        self._resting = "IDLE"
        self._title_lock = threading.Lock()

    def _open(self, fd: int) -> _NamedStream:
        stream = open(fd, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115 - open as long as the process
        return _NamedStream(stream, self._descriptors)

    # -- the title ----------------------------------------------------------------------------------

    def show(self, title: str) -> None:
        """What runs now; it costs some microseconds, so look at ``title`` first."""
        with self._title_lock:
            self.title = title
            setproctitle.setproctitle(f"shoal::{title}".replace("\0", " "))  # no title may hold it

    def rest(self) -> None:
        """Nothing runs. Told by the background thread, so that calls one after the other pay nothing for it."""
        if self.title != self._resting:
            self.show(self._resting)

    def become(self, class_name: str) -> None:
        """The worker is an actor from now on."""
        self._resting = class_name
        self.announce(class_name)

    # -- the streams --------------------------------------------------------------------------------

    def announce(self, name: str) -> None:
        """Whose lines follow."""
        self._name = "".join(c if c.isprintable() else " " for c in name[:_LONGEST_NAME])
        self._out.announce(self._name)
        self._err.announce(self._name)

    def flush_streams(self, wait: bool) -> bool:
        """What was printed without a newline, a prompt or a progress bar, is to be seen too. ``wait``: while the pipes
        take nothing more; the background thread must not. Tells whether there was anything."""
        return self._out.flush_unfinished(wait) | self._err.flush_unfinished(wait)

    def restore_streams(self, now: float) -> None:
        """After a task. ``now`` as of ``time.monotonic``."""
        out, err = self._out, self._err
        same = sys.stdout is out and sys.stderr is err
        if same and now < self._look_at and not out.touched and not err.touched:
            return  # after most tasks: a look at the streams themselves costs a microsecond
        if not same or not out.is_open() or not err.is_open():
            self._restore_objects()
        out.touched = err.touched = False
        self._look_at = now + LOOK_EVERY_S
        self._descriptors.restore()

    def _restore_objects(self) -> None:
        for now in (sys.stdout, sys.stderr):
            if now is not self._out and now is not self._err:
                with contextlib.suppress(Exception):  # it is the task's, and may be anything
                    now.flush()
        self._descriptors.restore()  # the task may have closed those too: nothing opens on a closed one
        if not self._out.is_open():
            self._out = self._open(1)
        if not self._err.is_open():
            self._err = self._open(2)
        sys.stdout, sys.stderr = self._out, self._err
        self.announce(self._name)
