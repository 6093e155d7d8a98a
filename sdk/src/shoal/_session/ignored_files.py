"""Which files of a directory stay at home when it is uploaded: patterns as in ``.gitignore``. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class _Pattern:
    matches: re.Pattern[str]
    #: It brings back what an earlier one leaves out.
    brings_back: bool
    only_directories: bool


class IgnoredFiles:
    """Patterns of one directory, for paths below it with slashes; the last that matches a path decides.

    What is below a directory that is left out is not looked at, so that nothing can bring it back.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self._patterns = [pattern for line in lines if (pattern := _parsed(line)) is not None]

    def decides(self, path: str, *, is_directory: bool) -> bool | None:
        """Whether it is left out; None = no pattern says so."""
        for pattern in reversed(self._patterns):
            if (is_directory or not pattern.only_directories) and pattern.matches.fullmatch(path):
                return not pattern.brings_back
        return None


def _parsed(line: str) -> _Pattern | None:
    text = line.rstrip("\r\n")
    if not text.endswith("\\ "):
        text = text.rstrip(" ")
    if not text or text.startswith("#"):
        return None
    brings_back = text.startswith("!")
    text = text[1:] if brings_back else text
    text = text[1:] if text.startswith(("\\#", "\\!")) else text
    only_directories = text.endswith("/")
    text = text.rstrip("/")
    if not text:
        return None
    # One with a slash within is meant from this directory on, others wherever the name is found.
    anchored = "/" in text
    expression = ("" if anchored else "(?:.*/)?") + _expression(text.removeprefix("/"))
    return _Pattern(re.compile(expression, re.DOTALL), brings_back, only_directories)


def _expression(text: str) -> str:
    made, at = "", 0
    while at < len(text):
        rest = text[at:]
        if rest.startswith("**/"):
            made, at = made + "(?:.*/)?", at + 3
        elif rest == "**":
            made, at = made + ".+", at + 2
        elif rest[0] == "*":
            made, at = made + "[^/]*", at + 1
        elif rest[0] == "?":
            made, at = made + "[^/]", at + 1
        elif rest[0] == "[" and (end := rest.find("]", 2)) > 0:
            inside = rest[1:end].replace("\\", "\\\\")
            inside = "^" + inside[1:] if inside[0] in "!^" else inside
            made, at = made + f"(?!/)[{inside}]", at + end + 1
        elif rest[0] == "\\" and len(rest) > 1:
            made, at = made + re.escape(rest[1]), at + 2
        else:
            made, at = made + re.escape(rest[0]), at + 1
    return made
