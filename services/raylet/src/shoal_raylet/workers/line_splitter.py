"""Bytes of a pipe into lines of text. Pure."""

from __future__ import annotations

import codecs

#: A longer line is cut: a worker that prints without newlines must not fill the raylet's memory.
MAX_LINE_BYTES = 64 * 1024


class LineSplitter:
    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """The lines that are complete now, without their newlines; bytes that are not UTF-8 are replaced."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        while len(self._rest) > MAX_LINE_BYTES:
            lines.append(self._rest[:MAX_LINE_BYTES])
            self._rest = self._rest[MAX_LINE_BYTES:]
        return [text for line in lines for text in _texts(line)]

    @property
    def unfinished(self) -> bytes:
        """The start of a line whose end has not come."""
        return self._rest

    def part(self) -> str:
        """Takes it, as far as it is text: the start of a cut character stays. The rest of the line is a line then."""
        text, taken = codecs.utf_8_decode(self._rest, "replace", False)
        self._rest = self._rest[taken:]
        return text

    def end(self) -> list[str]:
        """The last line, if it did not end in a newline."""
        rest, self._rest = self._rest, b""
        return _texts(rest) if rest else []


def _texts(line: bytes) -> list[str]:
    line = line.removesuffix(b"\r")
    pieces = [line[at : at + MAX_LINE_BYTES] for at in range(0, len(line), MAX_LINE_BYTES)] or [b""]
    return [piece.decode(errors="replace") for piece in pieces]
