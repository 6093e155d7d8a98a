"""What others ask of the processes of this node: where they are in their code, where their time or memory goes, and
what they wait for.

py-spy looks into a process from outside, whatever it does; the rest processes tell themselves, when they are asked over
their channel.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from shoal_common.channel import frames
from shoal_common.errors import DeadlineExceeded, InvalidRequest, NotFound, PreconditionFailed, ResourceExhausted
from shoal_common.ids import job_of
from shoal_raylet.peers import Handlers, Peers
from shoal_raylet.workers import profiler

#: Of a profile, in seconds.
MAX_SECONDS = 300
#: Processes of this node that are looked into at a time.
AT_ONCE = 4
#: Processes say by then what they wait for, in seconds: they ask others in their turn.
WAITS_S = 7.0


class Inspection:
    """Belongs to one event loop."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._under_way: set[int] = set()
        self._numbers = itertools.count(1)
        #: Answers that are awaited.
        self._open: dict[int, asyncio.Future[Any]] = {}
        #: Of messages from processes.
        self.handlers: Handlers = {
            frames.MemoryProfiled: lambda _, message: self._answered(message),
            frames.WaitsTold: lambda _, message: self._answered(message),
        }

    # All of these raise NotFound: no driver or worker of this node has the pid; ResourceExhausted: it is looked into
    # already, or too many are; PreconditionFailed: what is needed for it is not there, and what to do about it;
    # DeadlineExceeded; InvalidRequest.

    async def stacks(self, pid: int, *, native: bool) -> bytes:
        """For humans."""
        with self._one_at_a_time(pid):
            return await profiler.stacks(pid, native=native)

    async def cpu(self, pid: int, seconds: int, *, native: bool, idle: bool) -> bytes:
        """How often each stack was seen, as `py_spy.record`; none = it did nothing."""
        _check(seconds)
        with self._one_at_a_time(pid):
            return await profiler.cpu(pid, seconds, native=native, idle=idle)

    async def memory(self, pid: int, seconds: int, *, native: bool, leaks: bool) -> bytes:
        """How many bytes each stack had allocated, in the same form; its process finds that out by memray."""
        _check(seconds)
        with self._one_at_a_time(pid) as worker_id:
            question = frames.ProfileMemory(next(self._numbers), seconds, native, leaks)
            answer = await self._ask({worker_id: question}, seconds + profiler.GRACE_S)
        if not answer:
            raise DeadlineExceeded(f"process {pid} has not answered: it hangs, or has ended meanwhile")
        if answer[0].error:
            raise PreconditionFailed(answer[0].error)
        stacks: bytes = answer[0].stacks
        return stacks

    async def waits(self, object_id: bytes = b"", worker_id: bytes = b"") -> str:
        """What an object waits for whose owner is here; or what the threads of a worker wait for, empty = nothing.

        Raises: NotFound: no process here owns it, or is that worker; DeadlineExceeded.
        """
        asked = [worker_id] if worker_id in self._peers else self._processes_of(job_of(object_id)) if object_id else []
        answers = await self._ask({each: frames.WaitsGet(next(self._numbers), object_id) for each in asked}, WAITS_S)
        for answer in answers:
            if answer.known:
                text: str = answer.text
                return text
        if len(answers) < len(asked):
            raise DeadlineExceeded(f"{len(asked) - len(answers)} processes have not answered within {WAITS_S:g} s")
        raise NotFound("no process of this node knows of it")

    # --- asking ---

    async def _ask(self, questions: dict[bytes, Any], within_s: float) -> list[Any]:
        """Those answers that came in time."""
        if not questions:
            return []
        loop = asyncio.get_running_loop()
        futures = {question.request: loop.create_future() for question in questions.values()}
        self._open |= futures
        try:
            for peer, question in questions.items():
                self._peers.send(peer, question)
            done, _ = await asyncio.wait(futures.values(), timeout=within_s)
            return [future.result() for future in futures.values() if future in done]
        finally:
            for number in futures:
                del self._open[number]

    def _answered(self, message: frames.MemoryProfiled | frames.WaitsTold) -> None:
        """One that comes too late is dropped."""
        future = self._open.get(message.request)
        if future is not None and not future.done():
            future.set_result(message)

    def _processes_of(self, job_id: bytes) -> list[bytes]:
        return [
            hello.worker_id
            for hello in self._peers.hellos()
            if hello.role in ("driver", "worker") and self._peers.job_of(hello) == job_id
        ]

    @contextmanager
    def _one_at_a_time(self, pid: int) -> Iterator[bytes]:
        """Its worker id."""
        worker_id = self._peers.process_here(pid)
        if not worker_id:
            raise NotFound(f"no driver or worker of this node has the process id {pid} (any more)")
        if pid in self._under_way:
            raise ResourceExhausted(f"somebody is looking into process {pid} right now: ask again when that is over")
        if len(self._under_way) >= AT_ONCE:
            raise ResourceExhausted(f"{AT_ONCE} processes of this node are being looked into: ask again later")
        self._under_way.add(pid)
        try:
            yield worker_id
        finally:
            self._under_way.discard(pid)


def _check(seconds: int) -> None:
    if not 1 <= seconds <= MAX_SECONDS:
        raise InvalidRequest(f"a profile takes 1 to {MAX_SECONDS} s, not {seconds}")
