"""``@shoal.remote`` on a function."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from shoal import _context, _current
from shoal._api import export as _export
from shoal._api.environments import document_of
from shoal._api.export import Exportable
from shoal._api.graph import FunctionNode
from shoal._api.group_placement import strategy_of_task
from shoal._api.options import DEFAULT_MAX_RETRIES, TaskOptions
from shoal._api.remote_call import RemoteCall
from shoal._api.signature import Signature, signature_of
from shoal._core.object_ref import ObjectRef
from shoal._core.task_record import FunctionRecord, TimeLimit
from shoal._core.tasks import TaskQueue
from shoal._owner.arguments import pack_arguments

if TYPE_CHECKING:
    from shoal._api.remote_call import SeveralReturns

P = ParamSpec("P")
R = TypeVar("R")


class _Prepared:
    """What one set of options means in the running session: looked up once, used by every call."""

    __slots__ = ("epoch", "function", "limit", "max_calls", "max_retries", "num_returns", "queue", "retry_exceptions")

    epoch: int
    queue: TaskQueue
    function: FunctionRecord
    num_returns: int
    max_retries: int
    retry_exceptions: bool | bytes
    max_calls: int
    limit: TimeLimit | None


class _Definition(Exportable):
    """The function itself."""

    def __init__(self, function: Callable[..., Any] | None, name: str, signature: Signature) -> None:
        super().__init__(function, name)
        self.signature = signature


class RemoteFunction(RemoteCall[P, R]):
    """A function that runs as a task: call ``.remote(...)``; ``.options(...)`` changes options for one call."""

    def __init__(self, definition: _Definition, options: TaskOptions, wrapped: Callable[..., Any] | None) -> None:
        self._definition = definition
        self._options = options
        self._prepared: _Prepared | None = None
        self.remote = self._submit  # type: ignore[assignment, method-assign]
        if wrapped is not None:
            functools.update_wrapper(self, wrapped)
            # ``help(f.remote)`` shows the function's own signature and docstring.
            self.remote = functools.wraps(wrapped)(  # type: ignore[method-assign]
                lambda *args, **kwargs: self._submit(*args, **kwargs)
            )

    @classmethod
    def of(cls, function: Callable[P, R], options: TaskOptions) -> RemoteFunction[P, R]:
        """Raises: ValueError for a coroutine function."""
        if inspect.iscoroutinefunction(function):
            raise ValueError(
                "'async def' should not be used for remote tasks. You can wrap the async function with "
                "`asyncio.run(f())`, or use an async actor."
            )
        check_streaming(options.num_returns, function)
        name = getattr(function, "__qualname__", None) or repr(function)
        return cls(_Definition(function, name, signature_of(function)), options, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        name = self._definition.name
        raise TypeError(
            f"Remote functions cannot be called directly. Instead of running '{name}()', try '{name}.remote()'."
        )

    @overload
    def options(self, *, num_returns: int | str, **options: Any) -> SeveralReturns: ...
    @overload
    def options(self, **options: Any) -> RemoteFunction[P, R]: ...

    def options(self, **options: Any) -> Any:
        """The same function with other options; the original is unchanged.

        Raises: ValueError and TypeError for options that are wrong.
        """
        return RemoteFunction(self._definition, self._options.updated(**options), self._definition.target)

    def _remote(
        self, args: Sequence[Any] | None = None, kwargs: dict[str, Any] | None = None, **options: Any
    ) -> ObjectRef[R]:
        """``options`` and ``remote`` at once."""
        submitted: ObjectRef[R] = self.options(**options)._submit(*(args or ()), **(kwargs or {}))
        return submitted

    def bind(self, *args: Any, **kwargs: Any) -> FunctionNode:
        """A step of a graph (``shoal.dag``), which ``execute`` runs."""
        return FunctionNode(self.remote, self._definition.name, args, kwargs)

    def _submit(self, *args: P.args, **kwargs: P.kwargs) -> ObjectRef[R]:
        """Start the task; returns its ref at once (a list for ``num_returns`` > 1, None for 0).

        Raises: TypeError when the arguments do not fit the signature or cannot be pickled.
        """
        prepared = self._prepared
        if prepared is None or prepared.epoch != _current.prepared_epoch:
            prepared = self._prepare()
        self._definition.signature.check(args, kwargs)
        core = _current.current()
        refs = core.tasks.submit(
            prepared.queue,
            prepared.function,
            pack_arguments(core.values, args, kwargs),
            prepared.num_returns,
            prepared.max_retries,
            prepared.retry_exceptions,
            prepared.max_calls,
            prepared.limit,
        )
        if prepared.num_returns == 1:
            return refs[0]
        return refs or None  # type: ignore[return-value]

    def _prepare(self) -> _Prepared:
        core = _current.connected()
        options, definition = self._options, self._definition
        num_returns = 1 if options.num_returns is None else options.num_returns
        if isinstance(num_returns, str) or (
            options.num_returns is None and inspect.isgeneratorfunction(definition.target)
        ):
            raise ValueError(
                f"{definition.name}: streaming the results of a generator is not supported yet. "
                "Return a list, or give num_returns=<number of values>."
            )
        function_id = definition.exported_id()
        prepared = _Prepared()
        prepared.epoch = _current.prepared_epoch
        name = definition.name.rpartition(".")[2]
        prepared.function = FunctionRecord(function_id, options.name or name)
        strategy = strategy_of_task(options, name)
        prepared.num_returns = num_returns
        prepared.max_retries = _max_retries(options)
        scheduling_class = _export.scheduling_class(
            options.resources(),
            strategy,
            runtime_env=document_of(options.runtime_env),
            enforce_memory=options.enforce_memory,
            retriable=prepared.max_retries != 0,
            priority=_context.process.priority if options.priority is None else options.priority,
            weight=core.job_weight,
        )
        prepared.queue = core.tasks.queue_of(scheduling_class)
        prepared.retry_exceptions = _export.pickled_exceptions(options.retry_exceptions)
        prepared.max_calls = options.max_calls or 0
        prepared.limit = _export.time_limit(options.timeout_s, prepared.retry_exceptions)
        self._prepared = prepared
        return prepared

    def __reduce__(self) -> tuple[Any, ...]:
        definition = self._definition
        function_id = definition.exported_id()
        return _restore, (function_id, definition.name, definition.signature, self._options)


def check_streaming(num_returns: int | str | None, function: Callable[..., Any]) -> None:
    """Raises: ValueError when results are to be streamed from what is not a generator."""
    if isinstance(num_returns, str) and not (
        inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
    ):
        raise ValueError(f"num_returns='{num_returns}' can only be used with generator functions")


def _max_retries(options: TaskOptions) -> int:
    if options.max_retries is not None:
        return options.max_retries
    return int(os.environ.get("SHOAL_TASK_MAX_RETRIES", DEFAULT_MAX_RETRIES))


#: One definition per function table key in a process, so that its run times are learned once.
_restored: dict[bytes, _Definition] = {}


def _restore(function_id: bytes, name: str, signature: Signature, options: TaskOptions) -> RemoteFunction[Any, Any]:
    definition = _restored.get(function_id)
    if definition is None:
        definition = _Definition(None, name, signature)
        definition.function_id = function_id
        _restored[function_id] = definition
    return RemoteFunction(definition, options, None)
