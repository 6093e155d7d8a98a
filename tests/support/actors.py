"""Actors of several tests: some on which tasks meet, so that no test has to guess durations."""

from __future__ import annotations

import asyncio
from typing import Any

import shoal


@shoal.remote(num_cpus=0)
class Gate:
    """Whoever passes waits until it is opened."""

    def __init__(self) -> None:
        self._opened = asyncio.Event()
        self._waiting = 0
        self._changed = asyncio.Condition()

    async def pass_through(self) -> None:
        async with self._changed:
            self._waiting += 1
            self._changed.notify_all()
        await self._opened.wait()

    async def open(self) -> None:
        self._opened.set()

    async def arrived(self, number: int) -> None:
        """Returns once so many have come."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._waiting >= number)


@shoal.remote(num_cpus=0)
class Record:
    """What has been noted, in the order in which it arrived."""

    def __init__(self) -> None:
        self._notes: list[Any] = []
        self._changed = asyncio.Condition()

    async def note(self, what: Any) -> None:
        async with self._changed:
            self._notes.append(what)
            self._changed.notify_all()

    async def notes(self, at_least: int = 0) -> list[Any]:
        """Waits until there are so many."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._notes) >= at_least)
            return list(self._notes)


@shoal.remote(num_cpus=0)
class Counter:
    """Tells how often it was called."""

    def __init__(self) -> None:
        self._value = 0

    def add(self) -> int:
        self._value += 1
        return self._value
