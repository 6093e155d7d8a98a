"""What runtime environments are made of, kept on this machine: each made once, dropped when the room is needed.

An entry is a directory and a file beside it, ``<name>.lock``. Whoever uses it holds that lock shared, whoever makes or
drops it alone; so raylets of one machine can share the directory, and the kernel counts the users, of dead ones too.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

#: Entries that nobody uses may take so many bytes, together with the used ones.
MAX_BYTES = 10 * 1024**3
#: How often it is looked whether another has finished what is wanted here, in seconds.
_LOOK_EVERY_S = 0.05


def environment_directory(session_dir: Path) -> Path:
    """Beside those of the sessions, so that later ones find what earlier ones have made; in the session's own where
    somebody else owns that place."""
    shared = session_dir.parent / "environments"
    with contextlib.suppress(OSError):
        owner = (shared if shared.exists() else session_dir.parent).stat().st_uid
        if owner == os.getuid() and os.access(session_dir.parent, os.W_OK):
            return shared
    return session_dir / "environments"


class SetupFailed(Exception):
    """A runtime environment cannot be made; the text says why, for its user."""


class Entry:
    """A directory that stays until ``close``."""

    #: Where the cluster's blobs have it; empty = nowhere.
    stored_at: str = ""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    def close(self) -> None:
        """Idempotent."""
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)


class Attempt:
    """How long making something may take. Thread-safe."""

    def __init__(self, timeout_s: float, given_up: threading.Event) -> None:
        """``timeout_s``: negative = for ever, as long as the raylet runs. ``given_up``: it stops."""
        self._timeout_s = timeout_s
        self._until = time.monotonic() + timeout_s
        self._given_up = given_up

    def left(self) -> float:
        """Seconds. Raises: SetupFailed when there are none."""
        if self._given_up.is_set():
            raise SetupFailed("the node stops")
        if self._timeout_s < 0:
            return 3600.0
        if (left := self._until - time.monotonic()) <= 0:
            raise SetupFailed(
                f"it was not done in {self._timeout_s:g} s: config={{'setup_timeout_seconds': …}} gives it longer"
            )
        return left


class EnvironmentCache:
    """Thread-safe; every method waits."""

    def __init__(self, directory: Path, max_bytes: int = MAX_BYTES) -> None:
        self._directory = directory
        self._max_bytes = max_bytes

    def entry(self, name: str, make: Callable[[Path], None], attempt: Attempt, *, in_place: bool = False) -> Entry:
        """Makes it unless it is there: ``make`` fills an empty directory. ``in_place``: that has its final path, for
        what remembers where it was made.

        Raises: SetupFailed, what ``make`` raises.
        """
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path, made = self._directory / name, False
        while True:
            lock = _lock(self._directory / f"{name}.lock", fcntl.LOCK_SH, attempt)
            if _is_made(path):
                os.utime(lock)
                break
            os.close(lock)
            lock = _lock(self._directory / f"{name}.lock", fcntl.LOCK_EX, attempt)
            try:
                if not _is_made(path):
                    self._make(path, make, in_place)
                    made = True
            except BaseException:
                path.with_name(f"{name}.lock").unlink(missing_ok=True)
                raise
            finally:
                os.close(lock)
        if made:
            self._make_room()
        return Entry(path, lock)

    def _make(self, path: Path, make: Callable[[Path], None], in_place: bool) -> None:
        unfinished = path if in_place else path.with_name(f"{path.name}.new")
        shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed at it
        if in_place:
            _mark(path).touch()
        unfinished.mkdir(mode=0o700)
        try:
            make(unfinished)
            if in_place:
                _mark(path).unlink()
            else:
                unfinished.rename(path)
        except OSError as error:
            raise SetupFailed(f"{path} cannot be written: {error}") from error
        finally:
            if not _is_made(path):
                shutil.rmtree(unfinished, ignore_errors=True)

    def _make_room(self) -> None:
        """Drops those that nobody uses, the one first that was asked for longest ago."""
        sizes = {lock: _size(lock.with_suffix("")) for lock in self._directory.glob("*.lock")}
        total = sum(sizes.values())
        for lock in sorted(sizes, key=_used_at):
            if total <= self._max_bytes:
                return
            if self._drop(lock):
                total -= sizes[lock]
                log.info("environment_dropped", name=lock.stem, bytes=sizes[lock], left_bytes=total)

    def _drop(self, lock: Path) -> bool:
        """False = somebody uses it."""
        with contextlib.suppress(FileNotFoundError, BlockingIOError):
            fd = os.open(lock, os.O_RDWR)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                lock.unlink()
            finally:
                os.close(fd)
            return True
        return False


def _lock(path: Path, kind: int, attempt: Attempt) -> int:
    """Raises: SetupFailed."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(fd, kind | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    time.sleep(min(_LOOK_EVERY_S, attempt.left()))
            # It may have been dropped meanwhile, and another file have its name.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), path.stat()):
                    return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _mark(path: Path) -> Path:
    """Is there while an entry is made in its place."""
    return path.with_name(f"{path.name}.unfinished")


def _is_made(path: Path) -> bool:
    return path.is_dir() and not _mark(path).exists()


def _used_at(lock: Path) -> float:
    try:
        return lock.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _size(directory: Path) -> int:
    """In bytes."""
    total = 0
    for parent, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(parent, name)).st_size
    return total
