"""A word in log files: which files are read for it, and where they have it. Pure."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from shoal_dashboard.logs.query import QueryError

#: Of a word, in characters.
MAX_WORD = 200
#: Files that are read for one search, in bytes together and in number.
MAX_BYTES = 64 * 1024 * 1024
MAX_FILES = 2_000
#: Lines that are shown of a file, the last ones; and of a line, characters on each side of the word.
LINES_OF_FILE = 20
AROUND = 200

_COLOURS = re.compile(rb"\x1b\[[0-9;]*[A-Za-z]")


@dataclass(frozen=True, slots=True)
class LogFile:
    node_id: bytes
    host: str
    name: str
    size: int
    #: Of a node that is gone, its end.
    modified_unix_ms: int
    #: Its node is gone.
    kept: bool = False


@dataclass(frozen=True, slots=True)
class Hit:
    """A line, as it is around the word."""

    #: From 1 on, of what there is of the file still.
    line: int
    before: str
    word: str
    after: str


def checked(word: str) -> str:
    """Without blanks around it. Raises: QueryError."""
    word = word.strip()
    if not word:
        raise QueryError("say what to look for")
    if len(word) > MAX_WORD:
        raise QueryError(f"what is looked for has {len(word)} characters; {MAX_WORD} at most")
    if "\n" in word or "\r" in word:
        raise QueryError("what is looked for is within one line")
    return word


def chosen(
    files: Iterable[LogFile], max_bytes: int = MAX_BYTES, max_files: int = MAX_FILES
) -> tuple[list[LogFile], list[LogFile]]:
    """Those that are read whole, and those that are too much: what was written last comes first."""
    read: list[LogFile] = []
    left: list[LogFile] = []
    for file in sorted(files, key=lambda file: (-file.modified_unix_ms, file.node_id, file.name)):
        if file.size <= max_bytes and len(read) < max_files:
            max_bytes -= file.size
            read.append(file)
        else:
            left.append(file)
    return read, left


class Matching:
    """The lines of one file that have a word; of ASCII, capitals and small letters are the same."""

    def __init__(self, word: str) -> None:
        self._word = word.encode().lower()
        #: Those with the word that came last.
        self.hits: deque[Hit] = deque(maxlen=LINES_OF_FILE)
        #: All lines with the word.
        self.count = 0
        self._lines = 0

    def feed(self, lines: bytes) -> None:
        """Whole ones."""
        lines = _COLOURS.sub(b"", lines) if b"\x1b" in lines else lines
        small = lines.lower()
        line, counted = self._lines + 1, 0
        at = small.find(self._word)
        while at >= 0:
            line += lines.count(b"\n", counted, at)
            begin = lines.rfind(b"\n", 0, at) + 1
            counted = end if (end := lines.find(b"\n", at)) >= 0 else len(lines)
            self.count += 1
            self.hits.append(_hit(line, lines[begin:counted], at - begin, len(self._word)))
            at = small.find(self._word, counted)
        self._lines = line - 1 + lines.count(b"\n", counted)


def _hit(number: int, line: bytes, at: int, length: int) -> Hit:
    before = line[:at].decode(errors="replace")
    after = line[at + length :].decode(errors="replace")
    return Hit(
        number,
        f"…{before[-AROUND:]}" if len(before) > AROUND else before,
        line[at : at + length].decode(errors="replace"),
        f"{after[:AROUND]}…" if len(after) > AROUND else after,
    )
