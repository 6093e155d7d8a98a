"""Log files of this node's session as others read them: listed, read, followed. Blocking: call from a thread."""

from __future__ import annotations

import errno
import fnmatch
import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from shoal_common.errors import InvalidRequest, NotFound
from shoal_common.logs.lines import LineSelection, Wanted, is_log_name, told_of_file
from shoal_raylet.workers.log_files import OLDER, older

#: Read at a time, in bytes.
_PIECE = 256 * 1024


@dataclass(frozen=True, slots=True)
class LogInfo:
    name: str
    #: In bytes, with what was rotated away.
    size: int
    modified_unix_ms: int


class LogReader:
    """One reader's way through a file: what was rotated away, then the file, and whatever takes its place."""

    def __init__(self, path: Path, selection: LineSelection) -> None:
        """Raises: NotFound."""
        self._path = path
        self._selection = selection
        self._fds = self._open_parts()
        if not self._fds:
            raise NotFound(f"there is no log file {path.name} on this node (any more)")

    def read(self) -> bytes | None:
        """Lines of the next piece, perhaps none; None = this is the end, for now."""
        if not self._fds:
            return None
        if data := os.read(self._fds[0], _PIECE):
            return b"".join(self._selection.feed(data))
        if len(self._fds) == 1:
            self._fds += self._later_parts()
            if len(self._fds) == 1:
                return None
            if data := os.read(self._fds[0], _PIECE):  # written between our end and its rotation
                return b"".join(self._selection.feed(data))
        os.close(self._fds.pop(0))
        return b""

    def _later_parts(self) -> list[int]:
        """What has been written after the part that is read: it may have been rotated away, or have made way, since."""
        parts = self._open_parts()
        at = next((at for at, fd in enumerate(parts) if os.path.sameopenfile(fd, self._fds[0])), -1)
        for fd in parts[: at + 1]:
            os.close(fd)
        return parts[at + 1 :]

    def _open_parts(self) -> list[int]:
        """Those that are there, in their order."""
        # The file first: it may be rotated away meanwhile, and then it is the older part, too.
        current = _open(self._path)
        before = _open(older(self._path))
        parts = [fd for fd in (before, current) if fd is not None]
        if len(parts) == 2 and os.path.sameopenfile(*parts):
            os.close(parts.pop(0))
        return parts

    def rest(self) -> bytes:
        """The last line, which has no end yet."""
        return b"".join(self._selection.end())

    def last(self, count: int) -> bytes:
        """The last lines so far; what comes later can be read after them."""
        kept: deque[bytes] = deque(maxlen=count)
        while (data := self.read()) is not None:
            kept.extend(line + b"\n" for line in data.split(b"\n")[:-1])
        return b"".join(kept)

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()


class LogDirectory:
    def __init__(self, directory: Path, node_id: bytes) -> None:
        self._directory = directory
        self._node_id = node_id

    def list(self, pattern: str = "") -> list[LogInfo]:
        """Those whose names match, as in a shell."""
        found: dict[str, LogInfo] = {}
        for name, status in sorted(self._entries()):
            name = name.removesuffix(OLDER)
            if fnmatch.fnmatchcase(name, pattern or "*"):
                before = found.get(name)
                found[name] = LogInfo(
                    name,
                    status.st_size + (before.size if before else 0),
                    max(status.st_mtime_ns // 1_000_000, before.modified_unix_ms if before else 0),
                )
        return list(found.values())

    def _entries(self) -> Iterator[tuple[str, os.stat_result]]:
        with os.scandir(self._directory) as entries:
            for entry in entries:
                try:
                    if entry.is_file(follow_symlinks=False) and is_log_name(entry.name):
                        yield entry.name, entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # deleted meanwhile

    def open(self, name: str, wanted: Wanted, *, fields: bool) -> LogReader:
        """``fields``: lines as JSON objects. Raises: InvalidRequest for what is no name, NotFound."""
        if not is_log_name(name):
            raise InvalidRequest(f"{name!r} is no name of a log file: they have no folders")
        told = told_of_file(self._node_id, name) if fields else None
        return LogReader(self._directory / name, LineSelection(wanted, told))

    def having(self, wanted: Wanted, *, stderr: bool) -> Sequence[str]:
        """Files of workers with lines of a task or an actor, those that were written last at the end."""
        needle = f":{wanted.actor_id}:" if not wanted.task_id else f":{wanted.task_id}:"
        files = self.list("worker-*.err" if stderr else "worker-*.out")
        files.sort(key=lambda file: file.modified_unix_ms)
        return [file.name for file in files if self._has(file.name, needle.encode())]

    def _has(self, name: str, needle: bytes) -> bool:
        for path in (older(self._directory / name), self._directory / name):
            fd = _open(path)
            if fd is None:
                continue
            with open(fd, "rb", buffering=0) as file:
                before = b""
                while data := file.read(_PIECE):
                    if needle in before + data:
                        return True
                    before = (before + data)[-len(needle) :]
        return False


def _open(path: Path) -> int | None:
    """None = it is not there, or a link, which is not followed."""
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            return None
        raise
