"""Questions to raylets that a thread waits for. What is asked of the object store is in ``store_client``."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection
from typing import Any

from shoal._net.interrupts import GuardedLock
from shoal._net.raylets import Raylets
from shoal._net.reactor import Reactor
from shoal._net.waiter import Waiter
from shoal_common.channel.frames import (
    CheckpointDone,
    EventsFlushed,
    FunctionData,
    LogsFlushed,
    Message,
    NamedObjectDone,
    PackageDone,
)


class Questions:
    """Thread-safe; callers of ``on_answer`` and ``give_up`` hold the core's lock."""

    def __init__(self, reactor: Reactor, raylets: Raylets, lock: GuardedLock) -> None:
        self._reactor = reactor
        self._raylets = raylets
        self._lock = lock
        self._numbers = itertools.count(1)
        #: By number: who waits, and the answers that have come.
        self._open: dict[int, tuple[Waiter, list[Any]]] = {}

    def ask(
        self, node_ids: Collection[bytes], make: Callable[[int], Message], timeout: float | None = None
    ) -> list[Any]:
        """One question to the raylet of each node, made from its number. Returns the answers when all are there, when
        ``timeout`` seconds have passed (None: however many), or when this node's raylet is gone."""
        waiter = Waiter(len(node_ids))
        answers: list[Any] = []
        with self._lock:
            numbers = [next(self._numbers) for _ in node_ids]
            for number, node_id in zip(numbers, node_ids, strict=True):
                self._open[number] = waiter, answers
                self._raylets.send(node_id, make(number))
            if self._raylets.home.closed:
                self.give_up()  # it was gone before the question was noted
        self._reactor.wait(waiter, timeout)
        with self._lock:
            for number in numbers:
                self._open.pop(number, None)
        return answers

    def on_answer(
        self, message: CheckpointDone | EventsFlushed | FunctionData | LogsFlushed | NamedObjectDone | PackageDone
    ) -> None:
        """One that comes too late is dropped."""
        question = self._open.pop(message.request, None)
        if question is not None:
            waiter, answers = question
            answers.append(message)
            self._reactor.count_down(waiter)

    def give_up(self) -> None:
        """No answer will come any more."""
        while self._open:
            _, (waiter, _) = self._open.popitem()
            self._reactor.finish(waiter)
