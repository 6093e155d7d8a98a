"""What workers print: read from their pipes, kept in files, published to the drivers."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import os
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from shoal_common.logs.origins import MARK, origin_of
from shoal_raylet.leases.worker_pool import WorkerPool
from shoal_raylet.workers.line_splitter import LineSplitter
from shoal_raylet.workers.log_files import LogFile, LogFiles

log = structlog.get_logger(__name__)

#: Lines are collected this long before they are published together, in seconds.
BATCH_S = 0.05
#: Lines in one published batch at most.
MAX_BATCH_LINES = 1000
#: The start of a line is published as a line when its end has not come within so many seconds.
UNFINISHED_S = 0.5
#: While this many lines wait to be published, the pipes are not read: a worker that floods waits in ``print``.
MAX_PENDING_LINES = 20_000
#: Kept of a worker's standard error for the message about its failed start, in lines.
_TAIL_LINES = 20
_READ_BYTES = 64 * 1024
#: Reads of one pipe in a row: others have their turn.
_MAX_READS = 16


@dataclass(frozen=True, slots=True)
class Source:
    """Whose lines these are; unknown until a worker has its first job."""

    job_id: bytes
    worker_id: bytes
    pid: int
    name: str


@dataclass(slots=True)
class Batch:
    source: Source
    is_stderr: bool
    #: Of this worker's batches, from 1 on; 0 = it is none of a worker's.
    number: int
    lines: list[str] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Pipe:
    fd: int
    is_stderr: bool
    worker_id: bytes
    file: LogFile
    splitter: LineSplitter = field(default_factory=LineSplitter)
    paused: bool = False
    #: What the worker called itself last; empty = not yet.
    name: str = ""
    #: Until the start of a line is published.
    unfinished: asyncio.TimerHandle | None = None
    part_published: bool = False


class WorkerOutput:
    """The pool names the origin of a line when it is read; what comes before the worker has a job is not published."""

    def __init__(self, logs_dir: Path, pool: WorkerPool, publish: Callable[[Batch], Awaitable[None]]) -> None:
        self._files = LogFiles(logs_dir)
        self._pool = pool
        self._publish = publish
        self._loop = asyncio.get_running_loop()
        self._pipes: dict[bytes, list[_Pipe]] = {}
        self._tails: dict[bytes, deque[str]] = {}
        self._numbers: dict[bytes, Iterator[int]] = {}
        self._pending: deque[Batch] = deque()
        self._pending_lines = 0
        self._wake = asyncio.Event()
        self._lock = asyncio.Lock()
        self._publisher: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._files.directory.mkdir(parents=True, exist_ok=True)
        self._publisher = self._loop.create_task(self._publish_in_batches(), name="worker output")

    def open(self, worker_id: bytes, stdout: int, stderr: int) -> None:
        """Takes the read ends over."""
        self._tails[worker_id] = deque(maxlen=_TAIL_LINES)
        self._numbers[worker_id] = itertools.count(1)
        pipes = []
        for fd, is_stderr, ending in ((stdout, False, "out"), (stderr, True, "err")):
            os.set_blocking(fd, False)
            file = self._files.new(f"worker-{worker_id.hex()}.{ending}")
            pipe = _Pipe(fd, is_stderr, worker_id, file)
            self._loop.add_reader(fd, self._read, pipe)
            pipes.append(pipe)
        self._pipes[worker_id] = pipes

    def is_open(self, worker_id: bytes) -> bool:
        """It may print more."""
        return any(pipe.fd >= 0 for pipe in self._pipes.get(worker_id, ()))

    def drain(self, worker_id: bytes) -> None:
        """Read what has been printed so far, so that it is told under the name it was printed by."""
        for pipe in self._pipes.get(worker_id, ()):
            if pipe.fd >= 0 and not pipe.paused:
                self._read(pipe)

    def finish(self, worker_id: bytes) -> None:
        """The process has ended: read the rest. Its descendants may hold the pipes, but are not waited for."""
        for pipe in self._pipes.pop(worker_id, ()):
            if pipe.fd >= 0:
                self._read(pipe, limit=sys.maxsize)  # a pipe holds no more than is read at once
            self._close(pipe)
        self._numbers.pop(worker_id, None)

    def note(self, worker_id: bytes, line: str) -> None:
        """Add to what ``tail`` tells."""
        self._tails.setdefault(worker_id, deque(maxlen=_TAIL_LINES)).append(line)

    def tail(self, worker_id: bytes) -> str:
        """The last lines of its standard error; forgets them."""
        return "\n".join(self._tails.pop(worker_id, ()))

    def tell(self, job_id: bytes, node_id: bytes, line: str) -> None:
        """The driver of a job shows this as a line of the raylet's own."""
        self._add_batch(Source(job_id, node_id, os.getpid(), "raylet"), is_stderr=True, lines=[line])
        self._wake.set()

    async def flush(self) -> None:
        """Publish everything that has been printed so far."""
        # Twice: what a pipe holds that was not read for a while, because too much was pending, is read when that is
        # published. A pipe holds less than is read of it at once.
        for _ in range(2):
            for worker_id in list(self._pipes):
                self.drain(worker_id)
                for pipe in self._pipes[worker_id]:
                    self._add_unfinished(pipe)
            await self._publish_pending()

    async def stop(self) -> None:
        if self._publisher is not None:
            self._publisher.cancel()
            await asyncio.wait([self._publisher])
        for worker_id in list(self._pipes):
            self.finish(worker_id)
        await self._publish_pending()

    def _read(self, pipe: _Pipe, limit: int = MAX_PENDING_LINES) -> None:
        for _ in range(_MAX_READS):
            if self._pending_lines >= limit:
                pipe.paused = True
                self._loop.remove_reader(pipe.fd)
                return
            try:
                data = os.read(pipe.fd, _READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                self._close(pipe)
                return
            lines = pipe.splitter.feed(data)
            if pipe.part_published and lines:
                pipe.part_published = False
                if not lines[0]:  # all of that line has been published, the file still lacks its end
                    pipe.file.write(lines[:1], ended=True)
                    del lines[0]
            self._add(pipe, lines)
            if pipe.splitter.unfinished and pipe.unfinished is None:
                pipe.unfinished = self._loop.call_later(UNFINISHED_S, self._add_unfinished, pipe)

    def _add_unfinished(self, pipe: _Pipe) -> None:
        """A prompt, a progress bar: published as a line, and so is the rest when it comes; the file has it in one."""
        if pipe.unfinished is not None:
            pipe.unfinished.cancel()
            pipe.unfinished = None
        # Not our own mark, which is no text of the worker's.
        if pipe.fd >= 0 and MARK[:1].encode() not in pipe.splitter.unfinished:
            if text := pipe.splitter.part():
                pipe.part_published = True
                self._keep(pipe, [text], ended=False)

    def _close(self, pipe: _Pipe) -> None:
        if pipe.fd < 0:
            return
        self._add(pipe, pipe.splitter.end())
        if pipe.unfinished is not None:
            pipe.unfinished.cancel()
        self._loop.remove_reader(pipe.fd)
        os.close(pipe.fd)
        pipe.fd = -1
        self._files.ended(pipe.file)

    def _add(self, pipe: _Pipe, lines: list[str]) -> None:
        part: list[str] = []
        for line in lines:
            # What was printed last may have had no newline.
            text, mark, told = line.partition(MARK)
            if text or not mark:
                part.append(text)
            if mark:
                self._keep(pipe, part)
                part, origin = [], origin_of(told)
                pipe.name = origin.name
                pipe.file.begin(origin)
        self._keep(pipe, part)

    def _keep(self, pipe: _Pipe, lines: list[str], ended: bool = True) -> None:
        if not lines:
            return
        pipe.file.write(lines, ended)
        if pipe.is_stderr and pipe.worker_id in self._tails:
            self._tails[pipe.worker_id].extend(lines)
        source = self._source_of(pipe.worker_id)
        if source is None:
            return
        if pipe.name:
            source = dataclasses.replace(source, name=pipe.name)
        for start in range(0, len(lines), MAX_BATCH_LINES):
            self._add_batch(source, pipe.is_stderr, lines[start : start + MAX_BATCH_LINES])
        self._wake.set()

    def _add_batch(self, source: Source, is_stderr: bool, lines: list[str]) -> None:
        self._pending_lines += len(lines)
        last = self._pending[-1] if self._pending else None
        if (
            last is not None
            and last.source == source
            and last.is_stderr == is_stderr
            and len(last.lines) + len(lines) <= MAX_BATCH_LINES
        ):
            last.lines += lines
        else:
            number = next(self._numbers.get(source.worker_id, iter(())), 0)
            self._pending.append(Batch(source, is_stderr, number, lines))

    def _source_of(self, worker_id: bytes) -> Source | None:
        worker = self._pool.workers.get(worker_id)
        if worker is None or not worker.job_id:
            return None
        return Source(worker.job_id, worker_id, worker.pid, worker.name)

    async def _publish_in_batches(self) -> None:
        while True:
            await self._wake.wait()
            await asyncio.sleep(BATCH_S)
            self._wake.clear()
            await self._publish_pending()

    async def _publish_pending(self) -> None:
        """In order: a flush waits for the batch that is being published."""
        async with self._lock:
            while self._pending:
                batch = self._pending.popleft()
                try:
                    await self._publish(batch)
                finally:
                    self._pending_lines -= len(batch.lines)
        if self._pending_lines < MAX_PENDING_LINES:
            for pipes in self._pipes.values():
                for pipe in pipes:
                    if pipe.paused and pipe.fd >= 0:
                        pipe.paused = False
                        self._loop.add_reader(pipe.fd, self._read, pipe)
