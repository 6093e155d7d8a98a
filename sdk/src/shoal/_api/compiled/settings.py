"""What compiled graphs do where ``experimental_compile`` does not say."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class DAGContext:
    """Of this process; change the attributes of ``DAGContext.get_current()``. Times in seconds; -1 = for ever."""

    #: ``execute`` waits so long for room.
    submit_timeout: float = 10
    #: ``get`` of a result waits so long.
    get_timeout: float = 10
    #: ``teardown`` waits so long for what the actors do.
    teardown_timeout: float = 30
    #: Of each message of a channel. Slots grow for larger ones, up to 1 MB, beyond which the object store has them.
    buffer_size_bytes: int = 1_000_000
    #: Executions whose results the driver has not read.
    max_inflight_executions: int = 10
    #: Executions whose results it has read while it looked for others.
    max_buffered_results: int = 1000

    @staticmethod
    def get_current() -> DAGContext:
        return _current


_current = DAGContext()
