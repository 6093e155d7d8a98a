"""``@shoal.remote`` on a function."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from shoal import _context, _current, _html
from shoal._api import export as _export
from shoal._api import keyed_calls
from shoal._api.environments import document_of, portable
from shoal._api.export import Exportable
from shoal._api.generators import check_streaming, generator_of, returns_of, stream_for
from shoal._api.graph import FunctionNode
from shoal._api.group_placement import strategy_of_task
from shoal._api.options import DEFAULT_MAX_RETRIES, TaskOptions
from shoal._api.remote_call import RemoteCall
from shoal._api.signature import ANY, Signature, signature_of
from shoal._core.object_ref import ObjectRef
from shoal._core.task_record import FunctionRecord, TimeLimit
from shoal._core.tasks import TaskQueue
from shoal._owner.tasks.arguments import pack_arguments
from shoal_common.events.task_events import TaskKind

if TYPE_CHECKING:
    from shoal._api.remote_call import SeveralReturns

P = ParamSpec("P")
R = TypeVar("R")


class _Prepared:
    """What one set of options means in the running session: looked up once, used by every call."""

    __slots__ = (
        "backpressure",
        "epoch",
        "function",
        "limit",
        "max_calls",
        "max_retries",
        "num_returns",
        "queue",
        "retry_exceptions",
    )

    epoch: int
    queue: TaskQueue
    function: FunctionRecord
    num_returns: int
    max_retries: int
    retry_exceptions: bool | bytes
    max_calls: int
    limit: TimeLimit | None
    backpressure: int | None


class _Definition(Exportable):
    """The function itself."""

    def __init__(
        self, function: Callable[..., Any] | None, name: str, signature: Signature, *, is_generator: bool
    ) -> None:
        super().__init__(function, name)
        self.signature = signature
        self.is_generator = is_generator
        #: The one that runs where calls have a key (see ``keyed_calls``).
        self.keyed: _Definition | None = None


class RemoteFunction(RemoteCall[P, ObjectRef[R]]):
    """A function that runs as a task: call ``.remote(...)``; ``.options(...)`` changes options for one call."""

    def __init__(self, definition: _Definition, options: TaskOptions, wrapped: Callable[..., Any] | None) -> None:
        """Raises: ValueError for a generator function with a key."""
        self._definition = definition
        self._options = options
        self._prepared: _Prepared | None = None
        #: What is called where calls have a key.
        self._keyed: RemoteFunction[..., Any] | None = None
        submit = self._submit
        if options.key is not None:
            if definition.is_generator:
                raise ValueError("The items of a generator are not kept: leave out the key, or return a list.")
            submit = self._submit_keyed
        self.remote = submit  # type: ignore[assignment, method-assign]
        if wrapped is not None:
            functools.update_wrapper(self, wrapped)
            # ``help(f.remote)`` shows the function's own signature and docstring.
            self.remote = functools.wraps(wrapped)(  # type: ignore[method-assign]
                lambda *args, **kwargs: submit(*args, **kwargs)
            )

    @classmethod
    def of(cls, function: Callable[P, R], options: TaskOptions) -> RemoteFunction[P, R]:
        """Raises: ValueError for a coroutine function."""
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise ValueError(
                "'async def' should not be used for remote tasks. You can wrap the async function with "
                "`asyncio.run(f())`, or use an async actor."
            )
        is_generator = inspect.isgeneratorfunction(function)
        check_streaming(options.num_returns, is_generator)
        name = getattr(function, "__qualname__", None) or repr(function)
        definition = _Definition(function, name, signature_of(function), is_generator=is_generator)
        return cls(definition, options, function)

    def __repr__(self) -> str:
        return f"RemoteFunction({self._definition.name})"

    def _repr_html_(self) -> str:
        signature = inspect.signature(self) if self._definition.target else self._definition.signature.inspected()
        return _html.table(repr(self), [("parameters", signature), *self._options.given()])

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
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

    def bind(self, /, *args: Any, **kwargs: Any) -> FunctionNode:
        """A step of a graph (``shoal.dag``), which ``execute`` runs."""
        return FunctionNode(self.remote, self._definition.name, args, kwargs)

    def _submit(self, /, *args: P.args, **kwargs: P.kwargs) -> ObjectRef[R]:
        """Start the task; returns its ref at once (a list for ``num_returns`` > 1, None for 0, of a generator an
        ``ObjectRefGenerator``).

        Raises: TypeError when the arguments do not fit the signature or cannot be pickled.
        """
        prepared = self._prepared
        if prepared is None or prepared.epoch != _current.prepared_epoch:
            prepared = self._prepare()
        self._definition.signature.check(args, kwargs)
        core = _current.current()
        stream = stream_for(prepared.num_returns, prepared.backpressure)
        refs = core.tasks.submit(
            prepared.queue,
            prepared.function,
            pack_arguments(core.values, args, kwargs),
            prepared.num_returns,
            prepared.max_retries,
            prepared.retry_exceptions,
            prepared.max_calls,
            prepared.limit,
            stream,
        )
        if prepared.num_returns == 1:
            return refs[0]
        if stream is not None:
            return generator_of(stream, refs)  # type: ignore[return-value]
        return refs or None  # type: ignore[return-value]

    def _submit_keyed(self, /, *args: P.args, **kwargs: P.kwargs) -> ObjectRef[R]:
        """As ``_submit``, of a call with a key.

        Raises: TypeError, as there; ValueError, as ``keyed_calls.submit``.
        """
        core = _current.connected()
        self._definition.signature.check(args, kwargs)
        key = self._options.key
        assert key is not None
        if self._keyed is None:
            definition = self._definition
            if definition.keyed is None:
                around = keyed_calls.KeyedFunction(definition.itself())
                definition.keyed = _Definition(around, definition.name, ANY, is_generator=False)
            options = self._options.updated(key=None, key_ttl_s=None)
            self._keyed = RemoteFunction(definition.keyed, options, None)
        submitted: ObjectRef[R] = keyed_calls.submit(
            core, self._keyed._submit, key, self._options.key_ttl_s, args, kwargs
        )
        return submitted

    def __shoal_content__(self) -> object:
        """What counts where it is called within a call that is known by its content."""
        return self._definition.itself(), self._options.given()

    def _prepare(self) -> _Prepared:
        core = _current.connected()
        options, definition = self._options, self._definition
        check_streaming(options.num_returns, definition.is_generator)
        function_id = definition.exported_id()
        prepared = _Prepared()
        prepared.epoch = _current.prepared_epoch
        name = definition.name.rpartition(".")[2]
        tally = None
        if options.enable_task_events and core.task_events_enabled:
            with core.lock:
                kind = TaskKind.NORMAL_TASK
                tally = core.task_reports.events.tally(core.job_id, name, kind)
        prepared.function = FunctionRecord(
            function_id, options.name or name, tally=tally, resources=options.resources()
        )
        strategy = strategy_of_task(options, name)
        prepared.num_returns = returns_of(options.num_returns, definition.is_generator)
        prepared.backpressure = options._generator_backpressure_num_objects
        prepared.max_retries = _max_retries(options)
        scheduling_class = _export.scheduling_class(
            options.resources(),
            strategy,
            runtime_env=document_of(options.runtime_env),
            enforce_memory=options.enforce_memory,
            retriable=prepared.max_retries != 0,
            priority=_context.process.priority if options.priority is None else options.priority,
            weight=core.job_weight,
            quota=core.job_quota,
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
        options = portable(self._options)
        return _restore, (function_id, definition.name, definition.signature, definition.is_generator, options)


def _max_retries(options: TaskOptions) -> int:
    if options.max_retries is not None:
        return options.max_retries
    return int(os.environ.get("SHOAL_TASK_MAX_RETRIES", DEFAULT_MAX_RETRIES))


#: One definition per function table key in a process, so that its run times are learned once.
_restored: dict[bytes, _Definition] = {}


def _restore(
    function_id: bytes, name: str, signature: Signature, is_generator: bool, options: TaskOptions
) -> RemoteFunction[Any, Any]:
    definition = _restored.get(function_id)
    if definition is None:
        definition = _Definition(None, name, signature, is_generator=is_generator)
        definition.function_id = function_id
        _restored[function_id] = definition
    return RemoteFunction(definition, options, None)
