"""``@shoal.remote`` on a class: actors and their handles."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

from shoal import _context, _worker, exceptions
from shoal._core.tasks import FunctionRecord, TaskRecord
from shoal._export import Exportable
from shoal._group_placement import strategy_of_actor
from shoal._object_ref import ObjectRef
from shoal._options import ActorOptions, MethodOptions
from shoal._remote_function import check_streaming
from shoal._runtime import actor_creation
from shoal._runtime.actor_creation import ActorCreation
from shoal._runtime.actor_host import ActorExit
from shoal._runtime.gcs_client import NOT_FOUND
from shoal._runtime.peer_frames import TaskPush
from shoal._runtime.task_submitter import pack_arguments
from shoal._serialization import serialize
from shoal._signature import ANY, Signature, signature_of
from shoal_common import ids
from shoal_common.resources import ResourceSet

C = TypeVar("C")

#: Methods every actor has besides its own (Ray's names).
_BUILT_IN = ("__ray_ready__", "__ray_call__", "__ray_terminate__")


class MethodInfo(msgspec.Struct, array_like=True, frozen=True):
    """What a handle knows of one method."""

    signature: Signature
    num_returns: int = 1
    max_task_retries: int | None = None
    #: As TaskPush.retry_exceptions.
    retry_exceptions: bool | bytes = False
    concurrency_group: str = ""
    is_generator: bool = False


class HandleState(msgspec.Struct, array_like=True, frozen=True):
    """What travels with a handle."""

    actor_id: bytes
    class_name: str
    methods: dict[str, MethodInfo]
    in_order: bool
    max_task_retries: int
    max_pending_calls: int
    concurrency: int


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(HandleState).decode


def method(*args: Any, **kwargs: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Options of one method of an actor class: ``num_returns``, ``max_task_retries``, ``retry_exceptions``,
    ``concurrency_group``, …

    Raises: AssertionError for an unknown option or without any.
    """
    if args or not kwargs:
        raise AssertionError(
            "The @shoal.method decorator must be applied using at least one keyword argument, "
            "for example '@shoal.method(num_returns=2)'."
        )
    options = MethodOptions.from_kwargs(kwargs)

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        check_streaming(options.num_returns, function)
        function.__shoal_method__ = options  # type: ignore[attr-defined]
        return function

    return decorate


class ActorClass(Generic[C]):
    """A class whose instances are actors: ``.remote(...)`` starts one; ``.options(...)`` changes options."""

    def __init__(self, definition: _ClassDefinition, options: ActorOptions) -> None:
        self._definition = definition
        self._options = options
        self.__doc__ = definition.doc
        self.__name__ = self.__qualname__ = definition.name
        self.__module__ = definition.module

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        # The name of the new class comes with the call that follows; _NoSubclass has it in __init_subclass__.
        return (_NoSubclass,)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        name = self._definition.name
        raise TypeError(f"Actors cannot be instantiated directly. Instead of '{name}()', use '{name}.remote()'.")

    def options(self, **options: Any) -> ActorClass[C]:
        """The same class with other options; the original is unchanged.

        Raises: ValueError and TypeError for options that are wrong.
        """
        return ActorClass(self._definition, self._options.updated(**options))

    def remote(self, *args: Any, **kwargs: Any) -> ActorHandle:
        """Start an actor; returns its handle at once.

        Raises: TypeError when the arguments do not fit the constructor, ActorAlreadyExistsError (name taken).
        """
        return _create(self._definition, self._options, args, kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        d = self._definition
        return _restore_class, (d.exported_id(), d.name, d.module, d.constructor, d.methods, d.is_async, self._options)


class _NoSubclass:
    """Stands in for an actor class among the bases of another class, to refuse it by name."""

    def __init_subclass__(cls) -> None:
        raise exceptions.ActorClassInheritanceException(
            f"Attempted to define subclass '{cls.__name__}' of an actor class. Inheriting from actor classes is not "
            "supported: inherit from the plain class, and put @shoal.remote on the subclasses only."
        )


class _ClassDefinition(Exportable):
    """The class itself."""

    def __init__(
        self,
        cls: type | None,
        name: str,
        module: str,
        constructor: Signature,
        methods: dict[str, MethodInfo],
        is_async: bool,
    ) -> None:
        super().__init__(cls, name)
        self.module = module
        self.doc = None if cls is None else cls.__doc__
        self.constructor = constructor
        self.methods = methods
        self.is_async = is_async


def _restore_class(
    class_id: bytes,
    name: str,
    module: str,
    constructor: Signature,
    methods: dict[str, MethodInfo],
    is_async: bool,
    options: ActorOptions,
) -> ActorClass[Any]:
    definition = _ClassDefinition(None, name, module, constructor, methods, is_async)
    definition.function_id = class_id
    return ActorClass(definition, options)


def actor_class_of(cls: type[C], options: ActorOptions) -> ActorClass[C]:
    """The decorated class. Raises: TypeError for what is not a class."""
    methods = {}
    is_async = False
    for name, member in inspect.getmembers(cls, inspect.isroutine):
        if name.startswith("__") and name.endswith("__") and name not in ("__call__", "__len__"):
            if name in vars(object) or name in ("__init_subclass__", "__subclasshook__", "__class_getitem__"):
                continue
        bound = isinstance(inspect.getattr_static(cls, name), (staticmethod, classmethod))
        methods[name] = _method_info(member, skip_first=not bound)
        is_async = is_async or inspect.iscoroutinefunction(member) or inspect.isasyncgenfunction(member)
    constructor = signature_of(cls.__init__, skip_first=True) if cls.__init__ is not object.__init__ else _NO_ARGUMENTS
    definition = _ClassDefinition(cls, cls.__name__, cls.__module__, constructor, methods, is_async)
    return ActorClass(definition, options)


_NO_ARGUMENTS = Signature([], [], False, False, 0)


def _method_info(member: Any, *, skip_first: bool) -> MethodInfo:
    options: MethodOptions | None = getattr(member, "__shoal_method__", None)
    signature = signature_of(member, skip_first=skip_first)
    is_generator = inspect.isgeneratorfunction(member) or inspect.isasyncgenfunction(member)
    if options is None:
        return MethodInfo(signature, is_generator=is_generator)
    return MethodInfo(
        signature,
        num_returns=options.num_returns if isinstance(options.num_returns, int) else 1,
        max_task_retries=options.max_task_retries,
        retry_exceptions=_pickled_exceptions(options.retry_exceptions),
        concurrency_group=options.concurrency_group or "",
        is_generator=(is_generator and not isinstance(options.num_returns, int))
        or isinstance(options.num_returns, str),
    )


def _pickled_exceptions(retry: bool | tuple[type[Exception], ...] | None) -> bool | bytes:
    if retry is None or isinstance(retry, bool):
        return bool(retry)
    return serialize(retry, "retry_exceptions", out_of_band=False).pickled


# -- creation -----------------------------------------------------------------------------------------


def _create(
    definition: _ClassDefinition, options: ActorOptions, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> ActorHandle:
    definition.constructor.check(args, kwargs)
    core = _worker.connected()
    namespace = options.namespace or core.namespace
    if options.get_if_exists:
        assert options.name is not None
        try:
            return get_actor(options.name, namespace)
        except ValueError:
            try:
                return _start(definition, options, namespace, args, kwargs)
            except exceptions.ActorAlreadyExistsError:
                return get_actor(options.name, namespace)
    return _start(definition, options, namespace, args, kwargs)


def _start(
    definition: _ClassDefinition, options: ActorOptions, namespace: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> ActorHandle:
    from shoal_proto.v1 import common_pb2, gcs_pb2

    core = _worker.current()
    is_async = definition.is_async
    concurrency = options.concurrency(is_async=is_async)
    groups = options.concurrency_groups or {}
    for name, info in definition.methods.items():
        if info.concurrency_group and info.concurrency_group not in groups:
            raise ValueError(
                f"Method {name} of {definition.name} names concurrency group {info.concurrency_group!r}, but the class "
                f"has only {sorted(groups)}: declare it in @shoal.remote(concurrency_groups=...)"
            )
    in_order = concurrency == 1 and not is_async and not options.concurrency_groups
    if options.allow_out_of_order_execution:
        in_order = False
    detached = (options.lifetime or core.default_actor_lifetime) == "detached"
    actor_id = ids.new_actor_id(ids.JobID(core.job_id))
    state = HandleState(
        actor_id=actor_id,
        class_name=definition.name,
        methods=definition.methods,
        in_order=in_order,
        max_task_retries=options.max_task_retries or 0,
        max_pending_calls=options.max_pending_calls or -1,
        concurrency=max(concurrency, *(options.concurrency_groups or {"": 1}).values()),
    )
    handle_payload = _encode(state)
    creation = ActorCreation(
        class_id=definition.exported_id(),
        class_name=definition.name,
        creator=core.address,
        name=options.name or "",
        namespace=namespace,
        max_concurrency=concurrency,
        concurrency_groups=dict(options.concurrency_groups) if options.concurrency_groups else None,
        is_async=is_async,
        handle=handle_payload,
    )
    packed = pack_arguments(core, args, kwargs)
    # The constructor's arguments live as long as the actor may be restarted: as long as its record here.
    record = TaskRecord(TaskPush(b"", b"", "__init__", b""), FunctionRecord(b"", "__init__"), [])
    if packed is not None:
        creation.args, creation.packed, creation.args_object = packed.data, packed.packed, packed.args_object
        record.holds, record.arguments = packed.holds, packed.arguments

    client = core.actors.client(
        actor_id, in_order=in_order, retries=state.max_task_retries, concurrency=state.concurrency
    )
    client.version = -1  # resolved once the GCS knows the actor
    client.creation = record
    spec = gcs_pb2.ActorSpec(
        actor_id=actor_id,
        job_id=core.job_id,
        owner_id=core.worker_id,
        owner_node_id=core.node_id,
        name=options.name or "",
        namespace=namespace,
        detached=detached,
        max_restarts=options.max_restarts or 0,
        class_name=definition.name,
        placement=common_pb2.ResourceAmounts(grains=ResourceSet.of(options.placement()).grains),
        held=common_pb2.ResourceAmounts(grains=ResourceSet.of(options.held()).grains),
        strategy=strategy_of_actor(options, definition.name),
        handle=handle_payload,
    )

    def request() -> gcs_pb2.CreateActorRequest:
        """Made when the arguments are ready."""
        creation.refs = record.push.refs
        spec.creation = actor_creation.encode(creation)
        return gcs_pb2.CreateActorRequest(spec=spec)

    lifetime = None
    if not detached:
        lifetime = core.actors.lifetime_ref(actor_id, lambda: core.actors.release(client))
    handle = ActorHandle(state, lifetime)
    if options.name:
        # Whether the name is free must be known now; so the arguments must be, too.
        if record.arguments is not None:
            core.wait([ref for _, _, ref in record.arguments], len(record.arguments), None)
            core.actors.fail_on_bad_argument(client, record)
        core.actors.create_named(client, request(), options.name, namespace)
    else:
        core.actors.create(client, record, request)
    return handle


# -- handles ------------------------------------------------------------------------------------------


class ActorMethod:
    """One method of one actor: ``.remote(...)`` calls it; ``.options(...)`` changes options for one call."""

    __slots__ = ("_handle", "_info", "_name", "_options")

    def __init__(self, handle: ActorHandle, name: str, info: MethodInfo, options: MethodOptions | None = None) -> None:
        self._handle = handle
        self._name = name
        self._info = info
        self._options = options

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            f"Actor methods cannot be called directly. Instead of running 'object.{self._name}()', "
            f"try 'object.{self._name}.remote()'."
        )

    def options(self, **options: Any) -> ActorMethod:
        """Raises: TypeError, ValueError for options that are wrong."""
        base = self._options
        updated = MethodOptions.from_kwargs(options, in_options=True) if base is None else base.updated(**options)
        return ActorMethod(self._handle, self._name, self._info, updated)

    def remote(self, *args: Any, **kwargs: Any) -> ObjectRef[Any]:
        """Call the method; returns the result's ref at once (a list for ``num_returns`` > 1, None for 0).

        Raises: TypeError (arguments), PendingCallsLimitExceeded, ActorHandleNotFoundError (handle of an
        earlier session).
        """
        handle, info = self._handle, self._info
        info.signature.check(args, kwargs)
        core = _worker.current_or_none()
        if core is None and _worker.was_forked():
            _worker.current()  # raises: says what a forked process can do
        if core is None or handle._shoal_epoch != _worker.epoch:
            raise _stale_handle(handle)
        state, client = handle._shoal_state, handle._shoal_client
        num_returns, group = info.num_returns, info.concurrency_group
        retries = state.max_task_retries if info.max_task_retries is None else info.max_task_retries
        retry_exceptions = info.retry_exceptions
        streaming = info.is_generator
        options = self._options
        if options is not None:
            if options.num_returns is not None:
                streaming = isinstance(options.num_returns, str)
                num_returns = options.num_returns if isinstance(options.num_returns, int) else 1
            group = options.concurrency_group or group
            retries = retries if options.max_task_retries is None else options.max_task_retries
            if options.retry_exceptions is not None:
                retry_exceptions = _pickled_exceptions(options.retry_exceptions)
        if streaming:
            raise ValueError(
                f"{state.class_name}.{self._name} is a generator: streaming its results is not supported yet. "
                "Return a list, or give num_returns=<number of values>."
            )
        if 0 < state.max_pending_calls <= client.pending_calls:
            raise exceptions.PendingCallsLimitExceeded(
                f"The task {self._name} could not be submitted to {state.class_name}({state.actor_id.hex()}) because "
                f"more than {state.max_pending_calls} tasks are queued on the actor. This limit can be adjusted with "
                "the `max_pending_calls` actor option."
            )
        refs = core.actors.submit(
            client,
            self._name,
            pack_arguments(core, args, kwargs),
            num_returns,
            retries,
            retry_exceptions,
            group,
            handle._shoal_lifetime,
        )
        if num_returns == 1:
            return refs[0]
        return refs or None  # type: ignore[return-value]

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore_method, (self._handle, self._name, self._options)


def _restore_method(handle: ActorHandle, name: str, options: MethodOptions | None) -> ActorMethod:
    return ActorMethod(handle, name, handle._shoal_state.methods[name], options)


class ActorHandle:
    """A reference to an actor: its methods are attributes. Hashable, picklable; equal by actor id.

    The actor ends when its last handle is gone, except for handles from ``get_actor`` and of the actor to itself,
    which do not count.
    """

    def __init__(self, state: HandleState, lifetime: ObjectRef[Any] | None) -> None:
        self._shoal_state = state
        self._shoal_lifetime = lifetime
        self._shoal_epoch = _worker.epoch
        self._shoal_client = _worker.current().actors.client(
            state.actor_id, in_order=state.in_order, retries=state.max_task_retries, concurrency=state.concurrency
        )

    @property
    def _actor_id(self) -> ids.ActorID:
        return ids.ActorID(self._shoal_state.actor_id)

    _ray_actor_id = _actor_id

    def __getattr__(self, name: str) -> ActorMethod:
        if name.startswith("_shoal"):
            raise AttributeError(name)
        info = self._shoal_state.methods.get(name)
        if info is None:
            if name in _BUILT_IN:
                info = MethodInfo(ANY)
            else:
                raise AttributeError(f"'{self._shoal_state.class_name}' object has no attribute '{name}'")
        return ActorMethod(self, name, info)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"An actor handle cannot be called: call a method of {self._shoal_state.class_name} instead.")

    def __dir__(self) -> list[str]:
        return [*self._shoal_state.methods, *_BUILT_IN]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActorHandle) and self._shoal_state.actor_id == other._shoal_state.actor_id

    def __hash__(self) -> int:
        return hash(self._shoal_state.actor_id)

    def __repr__(self) -> str:
        return f"Actor({self._shoal_state.class_name}, {self._shoal_state.actor_id.hex()})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore_handle, (_encode(self._shoal_state), self._shoal_lifetime)


def _restore_handle(state: bytes, lifetime: ObjectRef[Any] | None) -> ActorHandle:
    return ActorHandle(_decode(state), lifetime)


def handle_from_payload(payload: bytes) -> ActorHandle:
    """A handle that does not keep the actor alive."""
    return ActorHandle(_decode(payload), None)


def _stale_handle(handle: ActorHandle) -> Exception:
    return exceptions.ActorHandleNotFoundError(
        f"Actor handle {handle!r} belongs to an earlier session: create the actor again after shoal.init()."
    )


def get_actor(name: str, namespace: str | None = None) -> ActorHandle:
    """The handle of a named actor in ``namespace`` (default: this job's).

    Raises: ValueError when there is none, TypeError for what is not a name.
    """
    from shoal_proto.v1 import gcs_pb2

    if not isinstance(name, str):
        raise TypeError(f"name must be a str, not {type(name).__name__}")
    if not name:
        raise ValueError("Please supply a non-empty value to get_actor")
    if namespace is not None and not isinstance(namespace, str):
        raise TypeError(f"namespace must be None or a str, not {type(namespace).__name__}")
    if namespace == "":
        raise ValueError('"" is not a valid namespace. Pass None to not specify a namespace.')
    core = _worker.connected()
    request = gcs_pb2.GetNamedActorRequest(name=name, namespace=namespace or core.namespace)
    try:
        response = core.gcs.call("Actor", "GetNamedActor", request)
    except exceptions.RpcError as error:
        if error.rpc_code == NOT_FOUND:
            raise ValueError(
                f"Failed to look up actor with name '{name}'. This could because 1. You are trying to look up a named "
                "actor you didn't create. 2. The named actor died. 3. You did not use a namespace matching the "
                "namespace of the actor."
            ) from None
        raise
    return handle_from_payload(response.handle)


def kill(actor: ActorHandle, *, no_restart: bool = True) -> None:
    """End an actor at once: no exit hooks; its running and queued calls fail. With ``no_restart=False`` it is
    restarted if ``max_restarts`` allows.

    Raises: ValueError for what is not a handle, ActorHandleNotFoundError for one of an earlier session.
    """
    if not isinstance(actor, ActorHandle):
        raise ValueError(f"shoal.kill() only supported for actors. For tasks, try shoal.cancel(). Got: {type(actor)}.")
    core = _worker.connected()
    if actor._shoal_epoch != _worker.epoch:
        raise _stale_handle(actor)
    core.actors.kill(actor._shoal_client, no_restart)


def exit_actor() -> None:
    """From inside a method: end this actor. The call, and those that wait, fail with ActorDiedError; exit hooks run.

    Raises: TypeError outside of an actor.
    """
    executor = _worker.current().executor
    if executor is None or executor.actor is None or not _context.process.actor_id:
        raise TypeError("exit_actor API is called on a non-actor worker")
    task = _context.current_task.get()
    if task is not None:
        task.exiting = True
    raise ActorExit("exit_actor() is called")
