"""The workers' output in the driver: prefixed, and without floods of repeats."""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TextIO

from shoal import exceptions
from shoal._net.gcs.errors import ClientClosed
from shoal._session.progress import apart, bars
from shoal_common.bus import subjects

if TYPE_CHECKING:
    from shoal._net.gcs.events import Subscription
    from shoal._owner.core_worker import CoreWorker
    from shoal_proto.v1 import events_pb2

logger = logging.getLogger("shoal")

#: Lines with the same pattern from other processes are held back for so long, then told as a count.
AGGREGATION_S = 5.0
#: "0" in one of them: every line is shown. The second is Ray's.
DEDUP_VARIABLES = ("SHOAL_DEDUP_LOGS", "RAY_DEDUP_LOGS")
#: Patterns that are remembered; beyond, the oldest is told before its time.
MAX_PATTERNS = 10_000
#: Workers whose batches are counted.
MAX_WORKERS = 10_000
#: ``finish`` waits for what the workers printed last until nothing has come for so long, and for so long at most.
STALL_S = 1.0
DRAIN_S = 60.0
#: The threads end within so many seconds.
END_S = 1.0
#: Pause before a stream that broke is opened again, in seconds.
RESUBSCRIBE_S = 0.2
#: How often counts that are due are looked for.
COUNT_TICK_S = 1.0

#: Possessive, from the start of a word only: ``\S*\d\S*`` takes minutes for a word of 64 KiB without a digit.
_DIGIT_WORDS = re.compile(r"(?<!\S)[^\s\d]*+\d\S*")


class Deduplicator:
    """The first line of a pattern is shown at once; the same from other processes is counted (as Ray does).

    Pure: time comes in as an argument.
    """

    def __init__(self, window_s: float = AGGREGATION_S) -> None:
        self._window_s = window_s
        #: Pattern -> [source of the first line, time it began, repeats, last line, its prefix, is_stderr], the one that
        #: began first in front.
        self._seen: OrderedDict[str, list[Any]] = OrderedDict()
        #: Some lines have been shown as a count.
        self.counted = False

    def add(self, source: bytes, prefix: str, line: str, is_stderr: bool, now: float) -> list[tuple[str, bool]]:
        """The lines to show for one that came; (text, is_stderr)."""
        shown = self.due(now)
        pattern = _DIGIT_WORDS.sub("", line)
        known = self._seen.get(pattern)
        if known is None or (known[0] == source and not known[2]):
            if known is None and line.strip():
                self._seen[pattern] = [source, now, 0, line, prefix, is_stderr]
                if len(self._seen) > MAX_PATTERNS:
                    shown.extend(self._summary(*self._seen.popitem(last=False)[1][2:]))
            shown.append((f"{prefix} {line}", is_stderr))
        else:
            known[2] += 1
            known[3:] = [line, prefix, is_stderr]
        return shown

    def due(self, now: float) -> list[tuple[str, bool]]:
        """Counts whose time has come."""
        shown: list[tuple[str, bool]] = []
        while self._seen and now - self._seen[next(iter(self._seen))][1] >= self._window_s:
            shown.extend(self._summary(*self._seen.popitem(last=False)[1][2:]))
        return shown

    def flush(self) -> list[tuple[str, bool]]:
        """All counts, at the end."""
        return self.due(float("inf"))

    def _summary(self, repeats: int, line: str, prefix: str, is_stderr: bool) -> list[tuple[str, bool]]:
        if not repeats:
            return []
        self.counted |= repeats > 1
        suffix = "" if repeats == 1 else f" [repeated {repeats}x across cluster]"
        return [(f"{prefix} {line}{suffix}", is_stderr)]


class BatchNumbers:
    """Notices batches that were lost: the event bus drops what comes faster than it is taken, and a GCS that dies takes
    events along. Pure."""

    def __init__(self) -> None:
        #: Of each worker's last batch, the worker that printed last at the end.
        self._last: OrderedDict[bytes, int] = OrderedDict()
        #: Some worker that has printed is remembered no more: one that is not known need not be new.
        self._forgot = False

    def gap_before(self, worker_id: bytes, number: int) -> bool:
        """Whether batches are missing before this one, which has come."""
        last = self._last.get(worker_id)
        self._last[worker_id] = number
        self._last.move_to_end(worker_id)
        if len(self._last) > MAX_WORKERS:
            self._last.popitem(last=False)
            self._forgot = True
        if last is None:
            return number > 1 and not self._forgot  # a worker prints for one job, from its first batch on
        return number > last + 1


def counts(environ: Mapping[str, str]) -> bool:
    """Lines that many processes print are shown once, with a count."""
    return next((environ[name] for name in DEDUP_VARIABLES if name in environ), "1") != "0"


class LogStream:
    """Follows this job's output events and writes them to the driver's stdout and stderr."""

    def __init__(self, core: CoreWorker, cluster_id: str, logs_dir: str, kept: bool) -> None:
        """``cluster_id``: clusters that share a bus number their jobs alike. ``logs_dir``: has all that the workers of
        a node print; ``kept``: also after this session."""
        self._core = core
        self._logs_dir = logs_dir
        self._kept = kept
        self._cluster_id = cluster_id
        self._stream: Subscription
        self._thread: threading.Thread | None = None
        self._clock: threading.Thread | None = None
        self._finished = threading.Event()
        self._deduplicator = Deduplicator()
        self._counts = counts(os.environ)
        #: It was said where the lines are that were only counted.
        self._said_where = False
        self._drained = threading.Event()
        #: Batches that have come.
        self._taken = 0
        self._numbers = BatchNumbers()
        self._lock = threading.Lock()
        self._marker = f"drained {core.worker_id.hex()}"

    def start(self) -> None:
        self._stream = self._subscribe()
        self._thread = threading.Thread(target=self._follow, name="shoal-logs", daemon=True)
        self._thread.start()
        self._clock = threading.Thread(target=self._tell_counts, name="shoal-log-counts", daemon=True)
        self._clock.start()

    def _tell_counts(self) -> None:
        while not self._finished.wait(COUNT_TICK_S):
            with self._lock:
                self._show(self._deduplicator.due(time.monotonic()))
                self._say_where()

    def _say_where(self) -> None:
        """Once, after the first lines that were only counted."""
        if self._deduplicator.counted and not self._said_where:
            self._said_where = True
            all_of_them = f"all are in {self._logs_dir} of the nodes"
            self._show(
                [(f"(shoal) Repeated lines are counted: {all_of_them}; {DEDUP_VARIABLES[0]}=0 shows them.", True)]
            )

    def _follow(self) -> None:
        from shoal_proto.v1 import events_pb2

        while True:
            try:
                for _, data in self._stream:
                    self._take(events_pb2.LogBatch.FromString(data))
            except (exceptions.RpcError, exceptions.AuthenticationError) as error:
                logger.debug("the stream of the job's output broke: %s", error)
            # Another GCS takes over, unless finish() has cancelled it; its lines of the meantime are in the log files.
            if self._finished.wait(RESUBSCRIBE_S):
                return
            try:
                self._stream = self._subscribe()
            except (exceptions.LocalRayletDiedError, ClientClosed):
                return  # the cluster is gone: the rest of the driver notices that itself
            if self._finished.is_set():
                self._stream.cancel()

    def _drain(self) -> bool:
        """Show what the workers have printed so far; False = not all of it has come."""
        from shoal_proto.v1 import events_pb2

        deadline = time.monotonic() + DRAIN_S

        def comes_in(what: Callable[[float], bool]) -> bool:
            """As long as lines come, ``what`` is worth waiting for."""
            taken = -1
            while taken != self._taken and time.monotonic() < deadline:
                taken = self._taken
                if what(STALL_S):
                    return True
            return False

        flushed = comes_in(self._core.flush_logs)
        # The stream is in order: behind this marker there is nothing of before.
        batch = events_pb2.LogBatch(name=self._marker)
        subject = subjects.log(self._cluster_id, self._core.job_id, self._core.node_id, self._core.worker_id)
        try:
            self._core.gcs.events.publish(subject, batch.SerializeToString(), STALL_S)
        except exceptions.ShoalError:  # nobody answers, or the driver's node is gone
            return False
        return comes_in(self._drained.wait) and flushed

    def _subscribe(self) -> Subscription:
        return self._core.gcs.events.subscribe(subjects.logs_of_job(self._cluster_id, self._core.job_id))

    def _take(self, batch: events_pb2.LogBatch) -> None:
        if batch.name == self._marker:
            self._drained.set()
            return
        self._taken += 1
        missing = self._numbers.gap_before(batch.worker_id, batch.number)
        prefix = f"({batch.name or 'worker'} pid={batch.pid})"
        now = time.monotonic()
        with self._lock:
            if missing:
                files = f"{self._logs_dir}/worker-{batch.worker_id.hex()}.*"
                self._show(
                    [(f"(shoal) Lines of pid={batch.pid} are missing here: they are in {files} on its node.", True)]
                )
            for line in batch.lines:
                text, bar = apart(line)
                if not self._counts:
                    self._show([(f"{prefix} {text}", batch.is_stderr)] if bar is None or text else [])
                elif bar is None or text:
                    self._show(self._deduplicator.add(batch.worker_id, prefix, text, batch.is_stderr, now))
                if bar is not None:
                    bars.update(bar)

    @staticmethod
    def _show(lines: list[tuple[str, bool]]) -> None:
        if not lines:
            return
        with bars.aside():
            for text, is_stderr in lines:
                stream: TextIO | None = sys.stderr if is_stderr else sys.stdout
                if stream is None:
                    return  # it was closed when the driver started
                try:
                    stream.write(text + "\n")
                    stream.flush()
                except (ValueError, OSError):
                    return  # the driver has closed its output

    def finish(self) -> None:
        """Show what has been printed so far, then stop. Says when that is not all."""
        if not self._core.raylet.closed and not self._drain():
            where = f"all of it is in {self._logs_dir} of the nodes" if self._kept else "the rest ends with the cluster"
            with self._lock:
                self._show([(f"(shoal) Not all that the workers printed has arrived: {where}.", True)])
        self._finished.set()
        self._stream.cancel()
        for thread in (self._thread, self._clock):
            if thread is not None:
                thread.join(timeout=END_S)
        with self._lock:
            self._show(self._deduplicator.flush())
            self._say_where()
        bars.close_others()
