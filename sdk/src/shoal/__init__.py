"""Shoal runs Python functions and classes on many machines, with Ray's public API: ``import shoal as ray``.

```python
import shoal

@shoal.remote
def square(x):
    return x * x

shoal.init()
print(shoal.get([square.remote(i) for i in range(4)]))
```
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, Never, ParamSpec, Protocol, TypeVar, overload

from shoal import _current
from shoal import actor as actor
from shoal import autoscaler as autoscaler
from shoal import client_builder as client_builder
from shoal import cloudpickle as cloudpickle
from shoal import exceptions as exceptions
from shoal import experimental as experimental
from shoal import job_config as job_config
from shoal import remote_function as remote_function
from shoal import types as types
from shoal import util as util
from shoal._api.actor_classes import ActorClass, actor_class_of, checkpoint, method
from shoal._api.actor_handles import ActorHandle, get_actor, kill
from shoal._api.cluster import available_resources, cluster_resources, nodes
from shoal._api.compiled.compiler import compile_graph
from shoal._api.compiled.refs import CompiledDAGRef
from shoal._api.functions import RemoteFunction
from shoal._api.generators import ObjectRefGenerator
from shoal._api.graph import register_compiler
from shoal._api.named_objects import find_named, put_named
from shoal._api.options import ActorOptions, TaskOptions
from shoal._api.placement_groups import PlacementGroup
from shoal._core.explanation import Explanation
from shoal._core.object_ref import ObjectRef
from shoal._core.public_ids import (
    ActorClassID,
    ActorID,
    FunctionID,
    JobID,
    NodeID,
    PlacementGroupID,
    TaskID,
    UniqueID,
    WorkerID,
)
from shoal._core.streams import DynamicObjectRefGenerator
from shoal._not_implemented import missing as _missing
from shoal._session.session import init, is_initialized, shutdown
from shoal._session.timeline import timeline
from shoal._values.content import CONTENT
from shoal._values.flags import flag
from shoal._values.numbers import plain, seconds
from shoal._version import __version__ as __version__
from shoal.client_builder import ClientBuilder, client
from shoal.job_config import LoggingConfig
from shoal.runtime_context import get_runtime_context
from shoal.util.progress import progress

if TYPE_CHECKING:
    from shoal._api.remote_call import SeveralReturns, StreamingFunction

__all__ = [
    # start and end
    "ClientBuilder",
    "LoggingConfig",
    "client",
    "init",
    "is_initialized",
    "shutdown",
    # tasks and actors
    "ActorClass",
    "ActorHandle",
    "RemoteFunction",
    "cancel",
    "checkpoint",
    "get_actor",
    "kill",
    "method",
    "remote",
    # objects
    "Explanation",
    "DynamicObjectRefGenerator",
    "ObjectRef",
    "ObjectRefGenerator",
    "CONTENT",
    "explain",
    "get",
    "get_object",
    "progress",
    "put",
    "wait",
    # ids
    "ActorClassID",
    "ActorID",
    "FunctionID",
    "JobID",
    "NodeID",
    "ObjectID",
    "PlacementGroupID",
    "TaskID",
    "UniqueID",
    "WorkerID",
    # the cluster
    "available_resources",
    "cluster_resources",
    "get_gpu_ids",
    "get_runtime_context",
    "nodes",
    "timeline",
    # modules
    "actor",
    "autoscaler",
    "client_builder",
    "cloudpickle",
    "exceptions",
    "experimental",
    "job_config",
    "remote_function",
    "types",
    "util",
]

register_compiler(compile_graph)

#: As in Ray, an object's id is its reference.
ObjectID = ObjectRef

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

if TYPE_CHECKING:

    class RemoteDecorator(Protocol):
        """``@shoal.remote(...)``."""

        @overload
        def __call__(self, target: type[T], /) -> ActorClass[T]: ...  # type: ignore[overload-overlap]
        @overload
        def __call__(self, target: Callable[P, Never], /) -> RemoteFunction[P, Any]: ...  # type: ignore[overload-overlap]
        @overload
        def __call__(self, target: Callable[P, Iterator[T]], /) -> StreamingFunction[P, T]: ...  # type: ignore[overload-overlap]
        @overload
        def __call__(self, target: Callable[P, R], /) -> RemoteFunction[P, R]: ...

    class StreamingDecorator(Protocol):
        """``@shoal.remote(num_returns="streaming", ...)``."""

        def __call__(self, target: Callable[P, Iterator[T]], /) -> StreamingFunction[P, T]: ...


W = TypeVar("W", bound=ObjectRef[Any] | ObjectRefGenerator[Any])


@overload
def remote(target: type[T], /) -> ActorClass[T]: ...  # type: ignore[overload-overlap]
@overload  # of what might return anything pyright would take the next one
def remote(target: Callable[P, Never], /) -> RemoteFunction[P, Any]: ...  # type: ignore[overload-overlap]
@overload
def remote(target: Callable[P, Iterator[T]], /) -> StreamingFunction[P, T]: ...  # type: ignore[overload-overlap]
@overload
def remote(target: Callable[P, R], /) -> RemoteFunction[P, R]: ...
@overload
def remote(*, num_returns: Literal["streaming"], **options: Any) -> StreamingDecorator: ...
@overload
def remote(*, num_returns: int | str, **options: Any) -> Callable[[Callable[..., Any]], SeveralReturns]: ...
@overload
def remote(**options: Any) -> RemoteDecorator: ...


def remote(*args: Any, **kwargs: Any) -> Any:
    """Make a function or class remote: ``@shoal.remote``, or ``@shoal.remote(num_cpus=2, ...)`` with options.

    Raises: AssertionError (neither bare nor with options only), TypeError (neither a function nor a class, wrong option
    type), ValueError (unknown option, bad value).
    """
    if len(args) == 1 and not kwargs and callable(args[0]):
        return _make_remote(args[0], {})
    if args or not kwargs:
        raise AssertionError(
            "The @shoal.remote decorator must be applied either with no arguments and no parentheses, for example "
            "'@shoal.remote', or it must be applied using some of the arguments in the list "
            "['num_cpus', 'num_gpus', 'num_returns', 'max_retries', 'max_restarts', 'resources', 'runtime_env', ...], "
            "for example '@shoal.remote(num_returns=2, resources={\"CustomResource\": 1})'."
        )
    return lambda target: _make_remote(target, kwargs)


def _make_remote(target: Any, options: dict[str, Any]) -> Any:
    if isinstance(target, type):
        return actor_class_of(target, ActorOptions.from_kwargs(options))
    if inspect.isfunction(target) or _is_cython(target):
        return RemoteFunction.of(target, TaskOptions.from_kwargs(options))
    raise TypeError("The @shoal.remote decorator must be applied to either a function or a class.")


def _is_cython(target: Any) -> bool:
    """Compiled functions are functions too; builtins are not (they have no module to be found in by name)."""
    return type(target).__name__ == "cython_function_or_method"


def put(value: T, *, name: str | None = None, ttl_s: float | None = None) -> ObjectRef[T]:
    """Store a value; returns a ref to an immutable copy of it.

    ``name``: kept under this name too, in place of what was, for ``get_object`` of whatever driver the job has next; as
    long as the job is kept, or for ``ttl_s`` seconds, whatever becomes of the job. It is kept when this returns.

    Raises: TypeError (an ObjectRef, or not picklable: says which part), ObjectStoreFullError; with a name ValueError
    (the job has none itself: `init(job=...)`), NamedObjectError (not stored, too much is kept, a reference inside).
    """
    if name is None:
        if ttl_s is not None:
            raise ValueError("put(ttl_s=...) says how long a name is kept, and there is none")
        return _current.connected().values.put(value)
    return put_named(value, name, ttl_s)


def get_object(name: str) -> ObjectRef[Any]:
    """The value that this job keeps under a name, put there or returned by a call with that key.

    Raises: ValueError (there is none; the job has no name itself), NamedObjectError (it cannot be read now).
    """
    return find_named(name)


@overload
def get(object_refs: ObjectRef[T], *, timeout: float | None = None) -> T: ...
@overload
def get(object_refs: Sequence[ObjectRef[T]], *, timeout: float | None = None) -> list[T]: ...
@overload
def get(object_refs: CompiledDAGRef | Sequence[CompiledDAGRef], *, timeout: float | None = None) -> Any: ...


def get(object_refs: Any, *, timeout: float | None = None) -> Any:
    """Wait for a value, or for a list of them in order, for at most ``timeout`` seconds (None = for ever).

    The first error is raised without waiting for the rest. Large arrays are read-only views of shared memory.

    Raises: the task's own exception (as a TaskError too), GetTimeoutError, ObjectLostError, WorkerCrashedError,
    ActorDiedError, …; ValueError or TypeError for what is not a ref.
    """
    core = _current._current or _start_for(object_refs)
    if timeout is not None:
        timeout = None if timeout == -1 else seconds(timeout)
    if type(object_refs) is ObjectRef:
        return core.values.get_one(object_refs, timeout)
    if isinstance(object_refs, ObjectRefGenerator):
        return object_refs  # as in Ray
    if isinstance(object_refs, CompiledDAGRef):
        return object_refs.get(timeout)
    if not isinstance(object_refs, list):
        raise ValueError(
            f"Invalid type of object refs, {type(object_refs)}, is given. 'object_refs' must either be an ObjectRef or "
            "a list of ObjectRefs."
        )
    kinds = set(map(type, object_refs))
    if kinds == {CompiledDAGRef}:
        return [ref.get(timeout) for ref in object_refs]
    if kinds - {ObjectRef}:
        wrong = next(ref for ref in object_refs if type(ref) is not ObjectRef)
        raise TypeError(
            f"Attempting to call `get` on the value {wrong}, which is not a shoal.ObjectRef. "
            "Please make sure all elements in the list are ObjectRefs."
        )
    return core.values.get_many(object_refs, timeout)


@overload
def wait(
    ray_waitables: list[ObjectRef[T]], *, num_returns: int = 1, timeout: float | None = None, fetch_local: bool = True
) -> tuple[list[ObjectRef[T]], list[ObjectRef[T]]]: ...
@overload
def wait(
    ray_waitables: list[W], *, num_returns: int = 1, timeout: float | None = None, fetch_local: bool = True
) -> tuple[list[W], list[W]]: ...


def wait(
    ray_waitables: list[Any], *, num_returns: int = 1, timeout: float | None = None, fetch_local: bool = True
) -> tuple[list[Any], list[Any]]:
    """Wait until ``num_returns`` refs are ready or ``timeout`` seconds have passed; returns (ready, rest), both in
    input order, at most ``num_returns`` ready. An ``ObjectRefGenerator`` is ready when its next item is, or its end.

    An object in the store of another node is brought to this one before it counts as ready; with ``fetch_local=False``
    it counts wherever it is.

    Raises: TypeError (not a list, or of other things; no flag), ValueError (duplicates, bad num_returns or timeout).
    """
    refs: Any = ray_waitables
    core = _current._current or _start_for(refs)
    if isinstance(refs, ObjectRef):
        raise TypeError("wait() expected a list of shoal.ObjectRef, got a single shoal.ObjectRef")
    if not isinstance(refs, list):
        raise TypeError(f"wait() expected a list of shoal.ObjectRef, got {type(refs)}")
    if timeout is not None:
        timeout = seconds(timeout)
        if timeout < 0:
            raise ValueError(f"The 'timeout' argument must be nonnegative. Received {timeout}")
    num_returns = plain(num_returns)
    fetch_local = flag(fetch_local, "fetch_local")
    if set(map(type, refs)) - {ObjectRef, ObjectRefGenerator}:
        wrong = next(ref for ref in refs if type(ref) not in (ObjectRef, ObjectRefGenerator))
        raise TypeError(f"wait() expected a list of shoal.ObjectRef, got list containing {type(wrong)}")
    if not refs:
        return [], []
    if len(set(refs)) != len(refs):
        raise ValueError("Wait requires a list of unique object refs.")
    if not isinstance(num_returns, int) or num_returns <= 0:
        raise ValueError(f"Invalid number of objects to return {num_returns}.")
    if num_returns > len(refs):
        raise ValueError("num_returns cannot be greater than the number of objects provided to shoal.wait")
    if ObjectRefGenerator not in map(type, refs):
        return core.waiting.wait(refs, num_returns, timeout, fetch_local)
    waitables = {ref._next_ref() if type(ref) is ObjectRefGenerator else ref: ref for ref in refs}
    ready, rest = core.waiting.wait(list(waitables), num_returns, timeout, fetch_local)
    return [waitables[ref] for ref in ready], [waitables[ref] for ref in rest]


def cancel(
    ray_waitable: ObjectRef[Any] | ObjectRefGenerator[Any], *, force: bool = False, recursive: bool = True
) -> None:
    """Cancel the task or actor call that makes this object, or these items; returns at once. ``get`` raises
    TaskCancelledError then, of a generator that of its next item, which is the last.

    What has not begun never begins. A task that runs gets a ``KeyboardInterrupt`` at its next byte code, also in
    ``time.sleep``, lock waits and ``get``; with ``force`` its worker is killed. A coroutine of an async actor is
    cancelled; another call of an actor goes on, and may ask ``get_runtime_context().is_canceled()``. What has ended
    keeps its value. Nothing cancelled is retried.

    ``recursive``: also what it has submitted, and what that has.

    Raises: TypeError (not an ObjectRef; no flags), ValueError (``force`` with a call of an actor, which ``shoal.kill``
    ends; a ref of an earlier session).
    """
    if isinstance(ray_waitable, ObjectRefGenerator):
        ray_waitable = ray_waitable.completed()
    if not isinstance(ray_waitable, ObjectRef):
        raise TypeError(
            f"shoal.cancel() only supported for object refs. For actors, try shoal.kill(). Got: {type(ray_waitable)}."
        )
    force, recursive = flag(force, "force"), flag(recursive, "recursive")
    ray_waitable._check_session()
    _current.connected().cancelling.cancel(ray_waitable, force, recursive)


def _start_for(refs: Any) -> Any:
    """A session, where none runs. Raises: ValueError, and starts none, for references of one that is over."""
    for ref in refs if isinstance(refs, list) else [refs]:
        if isinstance(ref, ObjectRef):
            ref._check_session()
    return _current.connected()


def explain(ref: ObjectRef[Any] | PlacementGroup) -> Explanation:
    """What a ref waits for, and what that waits for in its turn, down to a resource, node, process or dependency; made
    to be printed. Of a placement group: what its bundles lack.

    Owners, workers, raylets and the GCS are asked; who is silent is said to be, so this returns in 5 s at most. A
    ``get`` says the same by itself, once, after ``SHOAL_EXPLAIN_AFTER_S`` seconds (30; 0 = never).

    Raises: TypeError (neither of the two), ValueError (of an earlier session).
    """
    if isinstance(ref, PlacementGroup):
        return _current.connected().explaining.explain_group(ref.id.binary())
    if not isinstance(ref, ObjectRef):
        raise TypeError(f"explain() takes an ObjectRef or a PlacementGroup, not {type(ref).__name__}")
    ref._check_session()
    return _current.connected().explaining.explain(ref)


def get_gpu_ids() -> list[int] | list[str]:
    """Ids of the GPUs granted to this task or actor; empty without any."""
    granted = get_runtime_context().get_accelerator_ids()["GPU"]
    return [int(gpu) for gpu in granted] if all(gpu.isdigit() for gpu in granted) else granted


_PAGE = "docs/coming-from-ray.md has what of Ray is here, and what there is in place of the rest"
_NOT_THERE = {
    **dict.fromkeys(("_common", "_private", "_raylet", "internal"), f"nothing of Ray's internals; {_PAGE}"),
    **dict.fromkeys(("air", "data", "rllib", "serve", "train", "tune"), f"Shoal is Ray Core; {_PAGE}"),
}

if not TYPE_CHECKING:  # a type checker would take every name for one of the module's

    def __getattr__(name: str) -> Any:
        raise _missing(__name__, name, _NOT_THERE)
