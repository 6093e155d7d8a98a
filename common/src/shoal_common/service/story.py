"""The last events of a machine that decides, and what caused each: they go along with a defect wherever that is logged.

    def handle(self, event: Event, now: float) -> list[Action]:
        self._story.note("granted", event.lease_id)
        try:
            ...
        except Exception as defect:
            self._story.explain(defect)
            raise

Where each event is a method of its own, `noted` does so around all of it. They become notes of the exception, which
every logger prints with its traceback: whoever logs a defect need not know which machine it comes from.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

#: Events kept per machine.
LENGTH = 32
#: Of one cause, in characters.
MAX_TEXT = 80


class Story:
    """Cheap enough for the way of a call: nothing is formatted before there is a defect."""

    __slots__ = ("_events", "_machine")

    def __init__(self, machine: str, length: int = LENGTH) -> None:
        """``machine``: its name in the log."""
        self._machine = machine
        self._events: deque[tuple[str, object]] = deque(maxlen=length)

    def note(self, event: str, cause: object = "") -> None:
        """``cause``: an id or a number of what brought the event; it is kept as it is, so nothing large."""
        self._events.append((event, cause))

    def explain(self, defect: BaseException) -> None:
        """Add the story to an exception on its way up, once."""
        text = str(self)
        if text not in getattr(defect, "__notes__", ()):
            defect.add_note(text)

    def __str__(self) -> str:
        events = "; ".join(f"{event} {_short(cause)}".rstrip() for event, cause in self._events)
        return f"Last events of {self._machine}: {events or 'none'}"


def noted(method: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], R]:
    """For a method by which something happens to a machine with a ``_story``; its first argument is the cause."""
    event = method.__name__

    @functools.wraps(method)
    def tells(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        # Not by ``note``: on the way of a put, each call counts.
        self._story._events.append((event, args[0] if args else ""))
        try:
            return method(self, *args, **kwargs)
        except Exception as defect:
            self._story.explain(defect)
            raise

    return tells


def explained(method: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], R]:
    """For a method of such a machine that is called so often that noting it would push what happens out."""

    @functools.wraps(method)
    def tells(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(self, *args, **kwargs)
        except Exception as defect:
            self._story.explain(defect)
            raise

    return tells


def _short(cause: object) -> str:
    return cause.hex() if isinstance(cause, bytes) else str(cause)[:MAX_TEXT]
