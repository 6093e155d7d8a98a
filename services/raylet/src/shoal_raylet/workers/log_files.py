"""The files that keep what workers print: made with the first line, rotated, and of ended workers only the newest."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from pathlib import Path

import structlog

from shoal_common.logs.origins import Origin, mark

log = structlog.get_logger(__name__)

#: A log file that grows over this is renamed to ``….1``, replacing an older one, in bytes.
ROTATE_BYTES = 16 * 1024 * 1024
#: The part of a log file that was rotated away.
OLDER = ".1"
#: Files of ended workers beyond these are deleted, the one that ended first in front: in number, and in bytes.
MAX_ENDED_FILES = 2000
MAX_ENDED_BYTES = 1024 * 1024 * 1024


class LogFile:
    """Opened when the first line comes: a job of a thousand silent actors makes no files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1
        self._size = 0
        self._origin: Origin | None = None
        #: The file says whose lines follow.
        self._marked = True
        #: The last line has its end.
        self._line_ended = True

    def begin(self, origin: Origin) -> None:
        """Whose lines follow."""
        self._origin, self._marked = origin, False

    def write(self, lines: list[str], ended: bool) -> None:
        """``ended``: the last one, too, ends in a newline."""
        text = "\n".join([*lines, ""] if ended else lines)
        if not self._marked and self._origin is not None:
            text = ("" if self._line_ended else "\n") + f"{mark(self._origin)}\n{text}"
        data = text.encode(errors="replace")
        try:
            if self._fd < 0:
                self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            os.write(self._fd, data)
            self._marked, self._line_ended = True, ended
            self._size += len(data)
            if self._size > ROTATE_BYTES:
                self.close()
                self.path.replace(older(self.path))
                self._marked, self._line_ended = False, True
        except OSError as error:
            # A full disk must not stop the worker: its lines still reach the driver.
            log.warning("worker_log_not_written", path=str(self.path), reason=str(error))
            self.close()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._size = -1, 0


def older(path: Path) -> Path:
    return path.with_name(path.name + OLDER)


class LogFiles:
    """Of one node's workers."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        #: Of ended workers, with the bytes they have; those that ended first in front.
        self._ended: deque[tuple[Path, int]] = deque()
        self._ended_bytes = 0

    def new(self, name: str) -> LogFile:
        return LogFile(self.directory / name)

    def ended(self, file: LogFile) -> None:
        """Its worker prints no more."""
        file.close()
        size = 0
        for path in (file.path, older(file.path)):
            with contextlib.suppress(FileNotFoundError):
                size += path.stat().st_size
        if not size:
            return
        self._ended.append((file.path, size))
        self._ended_bytes += size
        while len(self._ended) > MAX_ENDED_FILES or self._ended_bytes > MAX_ENDED_BYTES:
            path, size = self._ended.popleft()
            self._ended_bytes -= size
            for part in (path, older(path)):
                part.unlink(missing_ok=True)
