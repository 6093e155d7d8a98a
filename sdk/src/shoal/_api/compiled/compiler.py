"""Has a graph compiled: what ``DAGNode.experimental_compile`` calls, without knowing it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal import _current
from shoal._api.compiled.boxes import draw
from shoal._api.compiled.executions import Executions
from shoal._api.compiled.planning import plan
from shoal._api.compiled.settings import DAGContext
from shoal._api.graph import DAGNode

if TYPE_CHECKING:
    from shoal._api.compiled.compiled_dag import CompiledDAG


def compile_graph(
    output: DAGNode,
    *,
    submit_timeout: float | None,
    buffer_size_bytes: int | None,
    enable_asyncio: bool,
    max_inflight_executions: int | None,
    max_buffered_results: int | None,
) -> CompiledDAG:
    """As ``DAGNode.experimental_compile``."""
    from shoal._api.compiled import compiled_dag  # deferred: it brings asyncio, which `import shoal` must not

    defaults = DAGContext.get_current()
    slot_bytes = _positive("buffer_size_bytes", buffer_size_bytes, defaults.buffer_size_bytes)
    inflight = _positive("max_inflight_executions", max_inflight_executions, defaults.max_inflight_executions)
    buffered = _positive("max_buffered_results", max_buffered_results, defaults.max_buffered_results)
    timeout = defaults.submit_timeout if submit_timeout is None else submit_timeout
    if not isinstance(timeout, int | float) or (timeout < 0 and timeout != -1):
        raise ValueError(f"`submit_timeout` must be a number of seconds or -1, found {timeout!r}")
    graph = plan(output)
    running = compiled_dag.start(_current.connected(), graph, inflight, slot_bytes)
    executions = Executions(len(graph.outputs), inflight, buffered)
    return compiled_dag.CompiledDAG(
        draw(output), graph, running, executions, timeout, enable_asyncio=bool(enable_asyncio)
    )


def _positive(name: str, given: int | None, default: int) -> int:
    """Raises: ValueError."""
    value = default if given is None else given
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise ValueError(f"`{name}` must be a positive integer, found {value!r}")
    return value
