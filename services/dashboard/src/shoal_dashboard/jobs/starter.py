"""The child process that makes supervisors: ``python -m shoal.job_submission.starter``, a driver of the cluster.

It runs while there is something to make, so a dashboard that nobody hands jobs to has none, and a job's supervisor,
which is detached, needs it no more once it has been made.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

import structlog

#: It ends by itself after so long without anything to do, in seconds.
IDLE_S = 60.0
#: After its end is asked for it has so long, in seconds.
_END_S = 10.0
#: After it has failed it is started anew after so long, twice as long each time, at most: seconds.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0
#: Its last lines are told when it fails.
_TOLD_BYTES = 4_000

_log = structlog.get_logger()


class Starter:
    """Belongs to one event loop. ``answered`` is called with each of its answers."""

    def __init__(self, address: str, token: str, answered: Callable[[Mapping[str, Any]], None]) -> None:
        self._hello = {"address": address, "token": token}
        self._answered = answered
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._idle: asyncio.TimerHandle | None = None
        #: What it has been asked to make, and has not answered for.
        self.making: set[str] = set()
        #: Why it failed, the last time; empty = it runs, or ended as it should.
        self.problem = ""
        self._pause_s = 0.0
        self._not_before = 0.0

    @property
    def rests(self) -> bool:
        """It has failed just now, and is not started anew yet."""
        return self._process is None and asyncio.get_running_loop().time() < self._not_before

    async def send(self, message: Mapping[str, Any]) -> None:
        """Raises: OSError, when the process has just ended or does not start: send it again."""
        if self._process is None:
            self._process = process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "shoal.job_submission.starter",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=1 << 20,
            )
            self._reading = asyncio.create_task(self._read(process))
            await self._write(self._hello)
        if "start" in message:
            self.making.add(message["start"])
        await self._write(message)
        self._rest()

    async def stop(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        process, reading = self._process, self._reading
        if process is None or reading is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        _, waiting = await asyncio.wait([reading], timeout=_END_S)
        if waiting:
            process.kill()
            await asyncio.wait([reading])

    def _rest(self) -> None:
        """Begin to count anew, unless something is being made."""
        if self._idle is not None:
            self._idle.cancel()
        process = self._process
        if process is not None and process.stdin is not None and not self.making:
            self._idle = asyncio.get_running_loop().call_later(IDLE_S, process.stdin.close)

    async def _write(self, message: Mapping[str, Any]) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        await self._process.stdin.drain()

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None and process.stderr is not None
        told = asyncio.create_task(_tail(process.stderr))
        while line := await process.stdout.readline():
            with contextlib.suppress(ValueError):  # somebody's print
                answer = json.loads(line)
                self.problem, self._pause_s = "", 0.0
                self.making.discard(answer.get("started") or answer.get("failed"))
                self._answered(answer)
            self._rest()
        code = await process.wait()
        self._process = None
        self.making.clear()
        if code:
            last = (await told).decode("utf-8", "replace").strip()
            self.problem = last.rpartition("\n")[2]
            self._pause_s = min(max(2 * self._pause_s, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
            self._not_before = asyncio.get_running_loop().time() + self._pause_s
            _log.error("job_starter_failed", exit_code=code, stderr=last, again_in_s=self._pause_s)
        else:
            self.problem, self._pause_s = "", 0.0
        await asyncio.wait([told])


async def _tail(stream: asyncio.StreamReader) -> bytes:
    last = b""
    while data := await stream.read(65536):
        last = (last + data)[-_TOLD_BYTES:]
    return last
