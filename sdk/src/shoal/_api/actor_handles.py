"""Handles of actors, and the calls made by them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Union, overload

import msgspec

from shoal import _current, _html, exceptions
from shoal._api.export import pickled_exceptions, time_limit
from shoal._api.generators import check_streaming, generator_of, returns_of, stream_for
from shoal._api.graph import ClassMethodNode, MethodOutputNode
from shoal._api.options import MethodOptions
from shoal._api.remote_call import RemoteCall
from shoal._api.signature import ANY, Signature
from shoal._core.object_ref import ObjectRef
from shoal._core.public_ids import ActorID, JobID
from shoal._net.gcs.errors import NotFound
from shoal._owner.tasks.arguments import pack_arguments
from shoal._text import check_text
from shoal._values.flags import flag
from shoal._wire.peer_frames import SYSTEM_GROUP
from shoal_common.states import ActorState

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from shoal._api.remote_call import SeveralReturns, UnknownMethod

    C = TypeVar("C", default=Any)
else:
    from typing import TypeVar

    C = TypeVar("C")

P = ParamSpec("P")
R = TypeVar("R")

#: Methods every actor has besides its own (Ray's names).
_BUILT_IN = ("__ray_ready__", "__ray_call__", "__ray_terminate__")


class MethodInfo(msgspec.Struct, array_like=True, frozen=True):
    """What a handle knows of one method."""

    signature: Signature
    #: Or STREAMING or DYNAMIC, of a generator.
    num_returns: int = 1
    max_task_retries: int | None = None
    #: As TaskPush.retry_exceptions.
    retry_exceptions: bool | bytes = False
    concurrency_group: str = ""
    is_generator: bool = False
    timeout_s: float | None = None
    #: The option for back-pressure.
    backpressure: int | None = None
    #: None = as the actor's options say.
    events: bool | None = None


class HandleState(msgspec.Struct, array_like=True, frozen=True):
    """What travels with a handle."""

    actor_id: bytes
    class_name: str
    methods: dict[str, MethodInfo]
    in_order: bool
    max_task_retries: int
    max_pending_calls: int
    #: Calls that may run at the same time, in all groups together.
    concurrency: int
    #: Besides the default one.
    concurrency_groups: list[str]
    durable: bool = False
    #: Of generator methods that do not say.
    backpressure: int | None = None
    #: As the option ``enable_task_events``.
    events: bool = True


encode_state = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(HandleState).decode


class ActorMethod(RemoteCall[P, ObjectRef[R]]):
    """One method of one actor: ``.remote(...)`` calls it; ``.options(...)`` changes options for one call."""

    __slots__ = ("_handle", "_info", "_name", "_options")

    @property
    def __name__(self) -> str:
        return self._name

    @property
    def __signature__(self) -> inspect.Signature:
        return self._info.signature.inspected()

    def __init__(self, handle: ActorHandle, name: str, info: MethodInfo, options: MethodOptions | None = None) -> None:
        self._handle = handle
        self._name = name
        self._info = info
        self._options = options

    def __repr__(self) -> str:
        return f"ActorMethod({self._name} of {self._handle!r})"

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            f"Actor methods cannot be called directly. Instead of running 'object.{self._name}()', "
            f"try 'object.{self._name}.remote()'."
        )

    @overload
    def options(self, *, num_returns: int | str, **options: Any) -> SeveralReturns: ...
    @overload
    def options(self, **options: Any) -> ActorMethod[P, R]: ...

    def options(self, **options: Any) -> Any:
        """Raises: TypeError, ValueError for options that are wrong."""
        base = self._options
        updated = MethodOptions.from_kwargs(options, in_options=True) if base is None else base.updated(**options)
        return ActorMethod(self._handle, self._name, self._info, updated)

    def _submit(self, /, *args: Any, **kwargs: Any) -> ObjectRef[R]:
        """Call the method; returns the result's ref at once (a list for ``num_returns`` > 1, None for 0, an
        ``ObjectRefGenerator`` for a generator).

        Raises: TypeError (arguments), ValueError (a concurrency group that the class has not),
        PendingCallsLimitExceeded, ActorHandleNotFoundError (handle of an earlier session).
        """
        handle, info = self._handle, self._info
        info.signature.check(args, kwargs)
        core = _current.current_or_none()
        if core is None and _current.was_forked():
            _current.current()  # raises: says what a forked process can do
        if core is None or handle._shoal_epoch != _current.epoch:
            raise _stale_handle(handle)
        state, client = handle._shoal_state, handle._shoal_client
        num_returns, group = info.num_returns, info.concurrency_group
        retries = state.max_task_retries if info.max_task_retries is None else info.max_task_retries
        retry_exceptions = info.retry_exceptions
        backpressure = state.backpressure if info.backpressure is None else info.backpressure
        timeout_s = info.timeout_s
        events = state.events if info.events is None else info.events
        task_name = ""
        options = self._options
        if options is not None:
            task_name = options.name or ""
            events = events if options.enable_task_events is None else options.enable_task_events
            if options.num_returns is not None:
                check_streaming(options.num_returns, info.is_generator)
                num_returns = returns_of(options.num_returns, info.is_generator)
            if options._generator_backpressure_num_objects is not None:
                backpressure = options._generator_backpressure_num_objects
            if options.concurrency_group:
                group = options.concurrency_group
                if group not in state.concurrency_groups and not (
                    group == SYSTEM_GROUP and self._name == "__ray_call__"
                ):
                    raise unknown_group(state.class_name, self._name, group, state.concurrency_groups)
            retries = retries if options.max_task_retries is None else options.max_task_retries
            if options.retry_exceptions is not None:
                retry_exceptions = pickled_exceptions(options.retry_exceptions)
            timeout_s = timeout_s if options.timeout_s is None else options.timeout_s
        if timeout_s is not None and state.durable:
            raise ValueError(
                f"{state.class_name}.{self._name}: timeout_s stops a call half-way, and then no replay could bring a "
                "durable actor to the same state. Give get() a timeout, or have the method watch the time."
            )
        if num_returns < 0 and state.durable:
            raise ValueError(
                f"{state.class_name}.{self._name}: the answers of a durable actor are in its log, and what a generator "
                "yields is not. Return a list, or give num_returns=<number of values>."
            )
        if 0 < state.max_pending_calls <= client.pending_calls:
            raise exceptions.PendingCallsLimitExceeded(
                f"The task {self._name} could not be submitted to {state.class_name}({state.actor_id.hex()}) because "
                f"more than {state.max_pending_calls} tasks are queued on the actor. This limit can be adjusted with "
                "the `max_pending_calls` actor option."
            )
        stream = stream_for(num_returns, backpressure)
        refs = core.actors.submit(
            client,
            self._name,
            pack_arguments(core.values, args, kwargs),
            num_returns,
            retries,
            retry_exceptions,
            group,
            handle._shoal_lifetime,
            task_name,
            time_limit(timeout_s, retry_exceptions),
            stream,
            events,
        )
        if num_returns == 1:
            return refs[0]
        if stream is not None:
            return generator_of(stream, refs)  # type: ignore[return-value]
        return refs or None  # type: ignore[return-value]

    if not TYPE_CHECKING:  # checkers see that of RemoteCall
        remote = _submit

    def _remote(
        self, args: Sequence[Any] | None = None, kwargs: dict[str, Any] | None = None, **options: Any
    ) -> ObjectRef[R]:
        """``options`` and ``remote`` at once."""
        submitted: ObjectRef[R] = self.options(**options)._submit(*(args or ()), **(kwargs or {}))
        return submitted

    def bind(self, /, *args: Any, **kwargs: Any) -> ClassMethodNode | tuple[ClassMethodNode, ...]:
        """A step of a graph (``shoal.dag``), which ``execute`` runs; one for each value where there are several."""
        call = ClassMethodNode(self, self._name, args, kwargs)
        given = self._options.num_returns if self._options is not None else None
        num_returns = self._info.num_returns if given is None else given
        if isinstance(num_returns, int) and num_returns > 1:
            return tuple(MethodOutputNode(call, index) for index in range(num_returns))
        return call

    def _obstacle(self) -> str:
        """Why a call of it cannot be part of a compiled graph; empty where it can."""
        given = self._options
        if given is not None and given != MethodOptions(num_returns=given.num_returns):
            return "it is no call, so options of calls mean nothing there, but for num_returns"
        if self._info.is_generator:
            return "the items of a generator cannot go on as one value"
        if self._handle._shoal_state.durable:
            return "the log of a durable actor knows nothing of what comes through shared memory"
        return ""

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore_method, (self._handle, self._name, self._options)


def _restore_method(handle: ActorHandle, name: str, options: MethodOptions | None) -> ActorMethod[..., Any]:
    return ActorMethod(handle, name, handle._shoal_state.methods[name], options)


class ActorHandle(Generic[C]):
    """A reference to an actor: its methods are attributes. Hashable, picklable; equal by actor id.

    The actor ends when its last handle is gone, except for handles from ``get_actor`` and of the actor to itself,
    which do not count.
    """

    def __init__(self, state: HandleState, lifetime: ObjectRef[Any] | None) -> None:
        self._shoal_state = state
        self._shoal_lifetime = lifetime
        self._shoal_epoch = _current.epoch
        self._shoal_client = _current.current().actors.client(
            state.actor_id,
            state.class_name,
            in_order=state.in_order,
            concurrency=state.concurrency,
            lifetime=lifetime,
            durable=state.durable,
        )

    @property
    def _actor_id(self) -> ActorID:
        return ActorID(self._shoal_state.actor_id)

    _ray_actor_id = _actor_id

    @property
    def _actor_job_id(self) -> JobID:
        return self._actor_id.job_id()

    def __getattr__(self, name: str) -> UnknownMethod:
        if name.startswith("_shoal"):
            raise AttributeError(name)
        info = self._shoal_state.methods.get(name)
        if info is None:
            if name in _BUILT_IN:
                info = MethodInfo(ANY)
            else:
                raise AttributeError(f"'{self._shoal_state.class_name}' object has no attribute '{name}'")
        return ActorMethod(self, name, info)

    def __dir__(self) -> list[str]:
        return [*self._shoal_state.methods, *_BUILT_IN]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActorHandle) and self._shoal_state.actor_id == other._shoal_state.actor_id

    def __hash__(self) -> int:
        return hash(self._shoal_state.actor_id)

    def __repr__(self) -> str:
        return f"Actor({self._shoal_state.class_name}, {self._shoal_state.actor_id.hex()})"

    def _repr_html_(self) -> str:
        """With its state now."""
        methods = ", ".join(sorted(name for name in self._shoal_state.methods if not name.startswith("_")))
        rows = [*self._describe(), ("job", self._actor_job_id.hex()), ("methods", methods)]
        return _html.table(repr(self), rows)

    def _describe(self) -> list[tuple[str, object]]:
        if _current.current_or_none() is None or self._shoal_epoch != _current.epoch:
            return [("state", "its session is over")]
        actor = _current.current().gcs.actors.find(self._shoal_state.actor_id)
        if actor is None:
            return [("state", "the GCS does not know it: it is not registered yet, or ended long ago")]
        rows: list[tuple[str, object]] = [("state", actor.state.name)]
        if actor.name:
            rows.append(("name", f"{actor.name} in namespace {actor.namespace}"))
        if actor.state == ActorState.DEAD:
            rows.append(("reason", actor.death_reason.partition("\n")[0]))
        elif actor.address.worker_id:
            rows += [("node", actor.address.node_id.hex()), ("process", actor.pid)]
        return rows

    def __shoal_content__(self) -> object:
        raise TypeError(f"{self!r} has no content, as its state changes: give the call a key")

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore_handle, (encode_state(self._shoal_state), self._shoal_lifetime)


#: What type checkers know of a handle: its methods that are decorated with ``@shoal.method`` have their own types.
ActorProxy = Union[ActorHandle[C], type[C]]  # noqa: UP007 - as a generic alias, which `|` of a forward type is not


def _restore_handle(state: bytes, lifetime: ObjectRef[Any] | None) -> ActorHandle:
    return ActorHandle(_decode(state), lifetime)


def handle_from_payload(payload: bytes) -> ActorHandle:
    """A handle that does not keep the actor alive."""
    return ActorHandle(_decode(payload), None)


def unknown_group(class_name: str, method: str, group: str, groups: list[str]) -> ValueError:
    return ValueError(
        f"Method {method} of {class_name} names concurrency group {group!r}, but the class has only {sorted(groups)}: "
        "declare it in @shoal.remote(concurrency_groups=...)"
    )


def _stale_handle(handle: ActorHandle) -> Exception:
    return exceptions.ActorHandleNotFoundError(
        f"ActorHandle objects are not valid across Shoal sessions: {handle!r} was made before shoal.shutdown()."
    )


def get_actor(name: str, namespace: str | None = None) -> ActorHandle:
    """The handle of a named actor in ``namespace`` (default: this job's).

    Raises: ValueError when there is none, and for no name; TypeError for what is not a name.
    """
    if not name:
        raise ValueError("Please supply a non-empty value to get_actor")
    if not isinstance(name, str):
        raise TypeError(f"name must be a str, not {type(name).__name__}")
    if namespace is not None and not isinstance(namespace, str):
        raise TypeError(f"namespace must be None or a str, not {type(namespace).__name__}")
    if namespace == "":
        raise ValueError('"" is not a valid namespace. Pass None to not specify a namespace.')
    check_text("the name of an actor", name)
    check_text("a namespace", namespace)
    core = _current.connected()
    try:
        return handle_from_payload(core.gcs.actors.named(name, namespace or core.namespace))
    except NotFound:
        raise ValueError(
            f"Failed to look up actor with name '{name}'. This could because 1. You are trying to look up a named "
            "actor you didn't create. 2. The named actor died. 3. You did not use a namespace matching the "
            "namespace of the actor."
        ) from None


def kill(actor: ActorHandle, *, no_restart: bool = True) -> None:
    """End an actor at once: no exit hooks; its running and queued calls fail. With ``no_restart=False`` it is
    restarted if ``max_restarts`` allows.

    Raises: ValueError for what is not a handle, TypeError for what is not a flag, ActorHandleNotFoundError for a
    handle of an earlier session.
    """
    if not isinstance(actor, ActorHandle):
        raise ValueError(f"shoal.kill() only supported for actors. For tasks, try shoal.cancel(). Got: {type(actor)}.")
    no_restart = flag(no_restart, "no_restart")
    if actor._shoal_epoch != _current.epoch:
        raise _stale_handle(actor)
    _current.connected().actors.kill(actor._shoal_client, no_restart)
