"""What an execution of a compiled graph gives: a result that can be asked for once."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from shoal._api.compiled.messages import Failed

if TYPE_CHECKING:
    from shoal._api.compiled.executions import Execution


class Source(Protocol):
    """What a result needs of its ``CompiledDAG``."""

    def get_id(self) -> str: ...

    def _read_until(self, execution: Execution, timeout: float | None) -> None: ...

    async def _arrived(self, execution: Execution) -> None: ...


class _Result:
    """One result of one execution. When it is dropped, the result is, too."""

    def __init__(self, graph: Source, execution: Execution, output: int) -> None:
        self._graph = graph
        self._execution = execution
        self._output = output
        self._taken = False

    def _take(self) -> Any:
        self._taken = True
        value = self._execution.take(self._output)
        if type(value) is Failed:
            raise value.error()
        return value

    def __copy__(self) -> NoReturn:
        raise ValueError(f"{type(self).__name__} cannot be copied.")

    def __deepcopy__(self, memo: dict[int, Any]) -> NoReturn:
        raise ValueError(f"{type(self).__name__} cannot be deep copied.")

    def __reduce__(self) -> NoReturn:
        raise ValueError(f"{type(self).__name__} cannot be pickled.")

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self._graph.get_id()}, execution_index={self._execution.index}, "
            f"channel_index={self._output})"
        )

    def __del__(self) -> None:
        self._execution.drop(self._output)


class CompiledDAGRef(_Result):
    """Of ``execute``: ``get`` it, or give it to ``shoal.get``, once. Nobody else can: it is neither copied nor sent."""

    def get(self, timeout: float | None = None) -> Any:
        """Wait for it, ``timeout`` seconds at most: None = ``DAGContext.get_timeout``, -1 = for ever. After a time-out
        it can be asked for again.

        Raises: what the method raised (as a TaskError too), ChannelTimeoutError, ActorDiedError, ActorUnavailableError;
        ChannelError when the graph was torn down, ValueError the second time.
        """
        if self._taken:
            raise ValueError("shoal.get() can only be called once on a CompiledDAGRef, and it was already called.")
        self._graph._read_until(self._execution, timeout)
        return self._take()


class CompiledDAGFuture(_Result):
    """Of ``execute_async``: ``await`` it, once."""

    def __await__(self) -> Generator[Any, None, Any]:
        """Raises: as ``CompiledDAGRef.get``, but for time-outs."""
        if self._taken:
            raise ValueError("CompiledDAGFuture can only be awaited upon once, and it has already been awaited upon.")
        yield from self._graph._arrived(self._execution).__await__()
        return self._take()
