"""Concurrency groups: where the calls of an actor run that does not run them one by one on the worker's main thread.

Each group has threads of its own, or (async actors) an event loop in a thread of its own, and room for so many calls
at once; so what blocks in one group does not hold up another. ``""`` is the default group.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import logging
import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from shoal._executor.leaving import Leaving
from shoal._net.last_replies import LastReplies
from shoal._wire.peer_frames import TaskPush, TaskReply

logger = logging.getLogger("shoal")

#: Takes the replies of calls that have ended; none for a call that is not answered.
Answer = Callable[[bytes, list[TaskReply]], None]


class Group(ABC):
    """One group of an actor. Calls are handed to it in the order of each caller."""

    @abstractmethod
    def start(self, caller: bytes, pushes: list[TaskPush]) -> None: ...

    @abstractmethod
    def stop(self, task_id: bytes) -> bool | bytes:
        """End that call. True = it is being ended, and will be answered; bytes = it had not begun, and is not answered
        here: its caller; False = it runs and cannot be ended, or is not here."""

    @abstractmethod
    def drop_waiting(self) -> int:
        """Forget the calls that have not begun; tells how many."""

    @abstractmethod
    def flush(self) -> None:
        """Send the replies that are held back to be sent together."""


class ThreadGroup(Group):
    """``run`` and ``answer`` are called in one of up to ``limit`` threads: as many as there were calls at once."""

    def __init__(
        self, name: str, limit: int, run: Callable[[bytes, TaskPush], TaskReply | None], answer: Answer
    ) -> None:
        """Raises: RuntimeError when not even one thread can be started."""
        self._name = name
        self._limit = limit
        self._run = run
        self._answer = answer
        self._numbers = itertools.count()
        self._waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        #: By those numbers, with their callers. Whoever takes one out, a thread to begin it or ``stop``, deals with it.
        self._unbegun: dict[int, tuple[bytes, TaskPush]] = {}
        #: Numbers of calls that run; one that a thread is about to begin is here and there.
        self._running: set[int] = set()
        self._threads = 0
        self._start_thread()

    def start(self, caller: bytes, pushes: list[TaskPush]) -> None:
        for push in pushes:
            number = next(self._numbers)
            self._unbegun[number] = caller, push
            self._waiting.put(number)
            if self._threads < self._limit and len(self._unbegun) + len(self._running) > self._threads:
                self._start_another()

    def stop(self, task_id: bytes) -> bool | bytes:
        for number, (caller, push) in list(self._unbegun.items()):
            if push.task_id == task_id and self._unbegun.pop(number, None) is not None:
                return caller
        return False  # a thread cannot be ended

    def drop_waiting(self) -> int:
        dropped = 0
        while True:
            try:
                number = self._waiting.get_nowait()
            except queue.Empty:
                return dropped
            dropped += self._unbegun.pop(number, None) is not None

    def flush(self) -> None:
        return  # each call is answered at once

    def _start_another(self) -> None:
        try:
            self._start_thread()
        except RuntimeError as error:
            logger.warning("No more than %d calls of this actor run at once: %s", self._threads, error)
            self._limit = self._threads

    def _start_thread(self) -> None:
        threading.Thread(target=self._serve, name=f"shoal-actor-{self._name}{self._threads}", daemon=True).start()
        self._threads += 1

    def _serve(self) -> None:
        while True:
            number = self._waiting.get()
            self._running.add(number)
            call = self._unbegun.pop(number, None)
            reply = None if call is None else self._run(*call)
            self._running.discard(number)
            if call is not None:
                self._answer(call[0], [] if reply is None else [reply])
            del call, reply


class LoopGroup(Group):
    """``run`` is a coroutine on this group's event loop. It waits for room: ``limit`` of them may have it."""

    def __init__(
        self,
        name: str,
        limit: int,
        run: Callable[[bytes, TaskPush, asyncio.Semaphore], Coroutine[Any, Any, TaskReply | None]],
        answer: Answer,
        leaving: Leaving,
        last_replies: LastReplies | None = None,
    ) -> None:
        """``last_replies``: where replies are left that are held back, of all groups of the actor."""
        self._run = run
        self._answer = answer
        self._leaving = leaving
        self._room = asyncio.Semaphore(limit)
        self._loop = asyncio.new_event_loop()
        #: With the ids of their calls. Strong references: the event loop keeps only weak ones.
        self._tasks: dict[asyncio.Task[None], bytes] = {}
        self._outgoing: dict[bytes, list[TaskReply]] = {}
        self._outgoing_lock = threading.Lock()
        self._last_replies = last_replies
        #: So many of ``_outgoing`` lie there.
        self._saved = 0
        threading.Thread(target=self._run_loop, name=f"shoal-actor-{name}", daemon=True).start()

    def call(self, function: Callable[[], Any]) -> Any:
        """On this group's thread, in the caller's context, between coroutines. Raises what it raises."""
        done: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

        def call() -> None:
            try:
                done.put((function(), None))
            except BaseException as error:  # raised by the caller below
                done.put((None, error))

        self._loop.call_soon_threadsafe(call, context=contextvars.copy_context())
        result, error = done.get()
        if error is not None:
            raise error
        return result

    def complete(self, awaitable: Awaitable[Any]) -> None:
        """On this group's event loop, beside its calls. Raises what it raises."""

        async def run() -> None:
            await awaitable

        asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    def start(self, caller: bytes, pushes: list[TaskPush]) -> None:
        self._loop.call_soon_threadsafe(self._start_tasks, caller, pushes)

    def stop(self, task_id: bytes) -> bool | bytes:
        # Behind those that were started before, which have entered their coroutines by then: one cancelled before that
        # would never be answered.
        self._loop.call_soon_threadsafe(self._loop.call_soon, self._cancel, task_id)
        return True

    def _cancel(self, task_id: bytes) -> None:
        for task, its_id in list(self._tasks.items()):
            if its_id == task_id:
                task.cancel()

    def drop_waiting(self) -> int:
        return 0  # they need not be told apart from those that run: an async actor ends at once

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        while True:
            try:
                self._loop.run_forever()
            except SystemExit as error:
                self._leaving.exit_as_told(error, "a coroutine in the background")
            except KeyboardInterrupt:
                # Raised by a background coroutine. It has ended; the others shall go on.
                logger.exception("A coroutine in the background of an async actor raised KeyboardInterrupt")

    def _start_tasks(self, caller: bytes, pushes: list[TaskPush]) -> None:
        for push in pushes:
            task = self._loop.create_task(self._call(caller, push))
            self._tasks[task] = push.task_id
            task.add_done_callback(self._tasks.pop)

    async def _call(self, caller: bytes, push: TaskPush) -> None:
        reply = await self._run(caller, push, self._room)
        if reply is None:
            self._answer(caller, [])
            return
        with self._outgoing_lock:
            if not self._outgoing:
                self._loop.call_soon(self.flush)
            self._outgoing.setdefault(caller, []).append(reply)
            # Before it is sent others may run, and end the process.
            saved = self._last_replies is not None and self._last_replies.add(caller, reply)
            self._saved += saved
        if not saved and self._last_replies is not None:
            self.flush()

    def flush(self) -> None:
        with self._outgoing_lock:
            outgoing, self._outgoing = self._outgoing, {}
            # Under the lock, so that two threads that flush keep the order of the replies.
            for caller, replies in outgoing.items():
                self._answer(caller, replies)
            if self._saved and self._last_replies is not None:
                self._last_replies.sent(self._saved)
                self._saved = 0
