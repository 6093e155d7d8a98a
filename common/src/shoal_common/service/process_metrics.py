"""What every service says of its own process, under the names that Prometheus' client libraries use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from shoal_common.service.metrics import Family, Sample, sample

_CPU = Family("process_cpu_seconds", "counter", "processor time, in seconds")
_MEMORY = Family("process_resident_memory_bytes", "gauge", "memory that is resident, in bytes")
_FILES = Family("process_open_fds", "gauge", "open file descriptors")
_STARTED = Family("process_start_time_seconds", "gauge", "when it started, in seconds since 1970")
FAMILIES = (_CPU, _MEMORY, _FILES, _STARTED)

_PAGE = os.sysconf("SC_PAGE_SIZE")


def process_samples(started_at: float) -> Iterator[Sample]:
    """``started_at``: in seconds since 1970."""
    times = os.times()
    yield sample(_CPU, times.user + times.system)
    yield sample(_MEMORY, int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE)
    yield sample(_FILES, len(os.listdir("/proc/self/fd")))
    yield sample(_STARTED, started_at)
