"""``shoal debug``: the breakpoints of a cluster, and a terminal at one of them."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shoal._owner.debugging import Breakpoint, Debugging

#: After the end of the input, what is still said is awaited for so many seconds.
_END_S = 30.0


def chosen(found: list[Breakpoint], prefix: str) -> Breakpoint | None:
    """The one that is meant, by the start of its id; the only one without. None = there are several, or none.

    Raises: ValueError for an id that is none, or of several.
    """
    meant = [at for at in found if at.id.startswith(prefix)]
    if prefix and len(meant) != 1:
        what = (
            f"{len(meant)} breakpoints begin" if meant else "no code of the cluster waits at a breakpoint that begins"
        )
        raise ValueError(f"{what} with {prefix}")
    return meant[0] if len(meant) == 1 else None


def listed(found: list[Breakpoint]) -> str:
    """For humans; the oldest first."""
    lines = [f"{len(found)} breakpoints" if len(found) != 1 else "1 breakpoint"]
    for at in sorted(found, key=lambda at: at.since):
        waits = f"{max(0.0, time.time() - at.since):.0f} s"
        why = f", {at.error}" if at.error else ""
        lines.append(f"  {at.id}  {at.task} (pid={at.pid}, {at.hostname}) at {at.where}, for {waits}{why}")
    return "\n".join(lines)


def talk(debugging: Debugging, at: Breakpoint) -> None:
    """Between standard input and output and the breakpoint, until its code goes on, its worker ends, or the input does,
    upon which the code goes on. Raises: RpcError."""
    woken, wake = os.pipe()
    dead = False

    def say(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    def end(gone: bool) -> None:
        nonlocal dead
        dead = gone
        os.write(wake, b"x")

    try:
        if not debugging.attach(at, say, end):
            say("Its worker has ended.\n")
            dead = True
            return
        for line in _lines(woken):
            debugging.type(at, line)
        debugging.type(at, "")
        select.select([woken], [], [], _END_S)
    finally:
        os.close(woken)
        os.close(wake)
        if dead:
            debugging.remove({at.id})


def _lines(woken: int) -> Iterator[str]:
    """What is typed, with its newlines; ends with the input, or when there is something to read at ``woken``."""
    rest = b""
    while True:
        ready, _, _ = select.select([0, woken], [], [])
        if woken in ready:
            return
        data = os.read(0, 4096)
        if not data:
            return
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace") + "\n"
