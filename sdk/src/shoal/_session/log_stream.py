"""The workers' output in the driver: prefixed, and without floods of repeats."""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, TextIO

from shoal import exceptions
from shoal._net.gcs.errors import ClientClosed
from shoal_common.bus import subjects

if TYPE_CHECKING:
    from shoal._net.gcs.events import Subscription
    from shoal._owner.core_worker import CoreWorker
    from shoal_proto.v1 import events_pb2

logger = logging.getLogger("shoal")

#: Lines with the same pattern from other processes are held back for so long, then told as a count.
AGGREGATION_S = 5.0
#: How long ``finish`` waits for what the workers printed last.
DRAIN_S = 1.0
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
        #: Pattern -> [source of the first line, time it began, repeats, last line, its prefix, is_stderr].
        self._seen: dict[str, list[Any]] = {}

    def add(self, source: bytes, prefix: str, line: str, is_stderr: bool, now: float) -> list[tuple[str, bool]]:
        """The lines to show for one that came; (text, is_stderr)."""
        shown = self.due(now)
        pattern = _DIGIT_WORDS.sub("", line)
        known = self._seen.get(pattern)
        if known is None or (known[0] == source and not known[2]):
            if known is None and line.strip():
                self._seen[pattern] = [source, now, 0, line, prefix, is_stderr]
            shown.append((f"{prefix} {line}", is_stderr))
        else:
            known[2] += 1
            known[3:] = [line, prefix, is_stderr]
        return shown

    def due(self, now: float) -> list[tuple[str, bool]]:
        """Counts whose time has come."""
        shown = []
        for pattern, (_, began, repeats, line, prefix, is_stderr) in list(self._seen.items()):
            if now - began >= self._window_s:
                del self._seen[pattern]
                shown.extend(_summary(repeats, line, prefix, is_stderr))
        return shown

    def flush(self) -> list[tuple[str, bool]]:
        """All counts, at the end."""
        return self.due(float("inf"))


def _summary(repeats: int, line: str, prefix: str, is_stderr: bool) -> list[tuple[str, bool]]:
    if not repeats:
        return []
    suffix = "" if repeats == 1 else f" [repeated {repeats}x across cluster]"
    return [(f"{prefix} {line}{suffix}", is_stderr)]


class LogStream:
    """Follows this job's output events and writes them to the driver's stdout and stderr."""

    def __init__(self, core: CoreWorker, cluster_id: str) -> None:
        """``cluster_id``: clusters that share a bus number their jobs alike."""
        self._core = core
        self._cluster_id = cluster_id
        self._stream: Subscription
        self._thread: threading.Thread | None = None
        self._clock: threading.Thread | None = None
        self._finished = threading.Event()
        self._deduplicator = Deduplicator()
        self._drained = threading.Event()
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

    def _subscribe(self) -> Subscription:
        return self._core.gcs.events.subscribe(subjects.logs_of_job(self._cluster_id, self._core.job_id))

    def _take(self, batch: events_pb2.LogBatch) -> None:
        if batch.name == self._marker:
            self._drained.set()
            return
        prefix = f"({batch.name or 'worker'} pid={batch.pid})"
        now = time.monotonic()
        with self._lock:
            for line in batch.lines:
                self._show(self._deduplicator.add(batch.worker_id, prefix, line, batch.is_stderr, now))

    @staticmethod
    def _show(lines: list[tuple[str, bool]]) -> None:
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
        """Show what has been printed so far, then stop."""
        from shoal_proto.v1 import events_pb2

        if not self._core.raylet.closed:
            self._core.flush_logs(DRAIN_S)
            # The stream is in order: behind this marker there is nothing of before.
            batch = events_pb2.LogBatch(name=self._marker)
            subject = subjects.log(self._cluster_id, self._core.job_id, self._core.node_id, self._core.worker_id)
            with contextlib.suppress(exceptions.RpcError):  # the cluster is going: there is nothing more to show
                self._core.gcs.events.publish(subject, batch.SerializeToString(), DRAIN_S)
            self._drained.wait(DRAIN_S)
        self._finished.set()
        self._stream.cancel()
        for thread in (self._thread, self._clock):
            if thread is not None:
                thread.join(timeout=DRAIN_S)
        with self._lock:
            self._show(self._deduplicator.flush())
