"""Where this process's memory goes, by memray, for a raylet that asks."""

from __future__ import annotations

import logging
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal_common.channel import frames

if TYPE_CHECKING:
    from shoal._owner.process import Process

logger = logging.getLogger("shoal")

#: Of what is told, the heaviest stacks.
MAX_STACKS = 20_000
#: Frames of a stack.
MAX_FRAMES = 400
_MISSING = (
    "memray is not installed in the environment of that process: pip install memray, "
    'or name it in the runtime environment, {"pip": ["memray"]}'
)


class MemoryProfile:
    """Of one process, one at a time: memray allows no more. Allocations of all threads are counted."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._thread: threading.Thread | None = None

    def on_wanted(self, node_id: bytes, message: frames.ProfileMemory) -> None:
        """With the process's lock. Answers when it is over."""
        if self._thread is not None and self._thread.is_alive():
            error = "its memory is being profiled already: ask again when that is over"
            self._process.raylets.send(node_id, frames.MemoryProfiled(message.request, error=error))
            return

        def answer() -> None:
            told = frames.MemoryProfiled(message.request, *_measured(message))
            with self._process.lock:
                if not self._process.closed:
                    self._process.raylets.send(node_id, told)

        self._thread = threading.Thread(target=answer, name="shoal-memory-profile", daemon=True)
        self._thread.start()


def _measured(wanted: frames.ProfileMemory) -> tuple[bytes, str]:
    """Stacks and error."""
    try:
        import memray
    except ImportError as error:
        return b"", f"{_MISSING} ({error})"
    try:
        with tempfile.TemporaryDirectory(prefix="shoal-memory-") as directory:
            path = Path(directory, "allocations")
            aggregated = memray.FileFormat.AGGREGATED_ALLOCATIONS
            with memray.Tracker(path, native_traces=wanted.native, file_format=aggregated):
                time.sleep(wanted.seconds)
            with memray.FileReader(path) as reader:
                if wanted.leaks:
                    records = reader.get_leaked_allocation_records(merge_threads=True)
                else:
                    records = reader.get_high_watermark_allocation_records(merge_threads=True)
                return folded(records, native=wanted.native), ""
    except (OSError, RuntimeError) as error:
        return b"", f"memray cannot profile that process: {error}"


def folded(records: Iterable[Any], *, native: bool) -> bytes:
    """A line for each stack, the heaviest first: ``outermost;...;innermost bytes``. ``records`` are memray's."""
    sizes: Counter[str] = Counter()
    for record in records:
        stack = record.hybrid_stack_trace(MAX_FRAMES) if native else record.stack_trace(MAX_FRAMES)
        frame_names = [f"{function} ({file}:{line})".replace(";", ",") for function, file, line in reversed(stack)]
        sizes[";".join(frame_names) or "not by Python code"] += record.size
    return b"".join(f"{stack} {size}\n".encode() for stack, size in sizes.most_common(MAX_STACKS))
