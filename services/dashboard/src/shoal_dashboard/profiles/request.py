"""What is asked about a process: its stacks, where its time goes, or its memory. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

#: A profile takes so long, in seconds, unless somebody says otherwise; and at most.
SECONDS = 10
MAX_SECONDS = 300
_TRUE, _FALSE = ("1", "true", "on"), ("0", "false", "")


class RequestError(Exception):
    """What is asked for makes no sense; the message says what, and what would."""


class Kind(StrEnum):
    STACKS = "stacks"
    CPU = "cpu"
    MEMORY = "memory"


class Form(StrEnum):
    """Of a profile."""

    FLAME_GRAPH = "flamegraph"
    SPEEDSCOPE = "speedscope"
    #: A line for each stack.
    RAW = "raw"


@dataclass(frozen=True, slots=True)
class Wanted:
    kind: Kind
    #: Whole ones.
    seconds: int = SECONDS
    #: Frames of C and C++, too.
    native: bool = False
    #: CPU: threads that wait count, too.
    idle: bool = False
    #: MEMORY: what was allocated meanwhile and is not freed at the end, and not what there was at the highest point.
    leaks: bool = False
    form: Form = Form.FLAME_GRAPH


def wanted(kind: Kind, given: Mapping[str, str], form: Form = Form.FLAME_GRAPH) -> Wanted:
    """In Ray's words: ``duration``, ``native``, ``idle``, ``leaks``, ``format``. Raises: RequestError."""
    text = given.get("duration", "") or str(SECONDS)
    if not re.fullmatch(r"[0-9]{1,6}", text) or not 1 <= int(text) <= MAX_SECONDS:
        raise RequestError(f"duration={text} is no number of whole seconds from 1 to {MAX_SECONDS}")
    flags = {name: _flag(name, given.get(name, "")) for name in ("native", "idle", "leaks")}
    name = given.get("format", "") or form
    if name not in tuple(Form):
        raise RequestError(f"format={name} is none of {', '.join(Form)}")
    return Wanted(kind, int(text), **flags, form=Form(name))


def pid_of(given: Mapping[str, str]) -> int:
    """Raises: RequestError."""
    text = given.get("pid", "")
    if not re.fullmatch(r"[1-9][0-9]{0,9}", text):
        raise RequestError(f"pid={text!r} is no id of a process" if text else "pid is required")
    return int(text)


def _flag(name: str, text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise RequestError(f"{name}={text} is neither 1 nor 0")
