"""``@shoal.remote`` on a class: what makes actors."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from shoal import _context, _current, _html, _tracing, exceptions
from shoal._api.actor_handles import (
    ActorHandle,
    ActorProxy,
    HandleState,
    MethodInfo,
    encode_state,
    get_actor,
    unknown_group,
)
from shoal._api.environments import document_of, portable
from shoal._api.export import Exportable, pickled_exceptions
from shoal._api.generators import check_streaming, returns_of
from shoal._api.graph import ClassNode
from shoal._api.group_placement import strategy_of_actor
from shoal._api.options import ActorOptions, MethodOptions
from shoal._api.signature import Signature, signature_of
from shoal._net.gcs.records import ActorSpec
from shoal._owner.tasks.arguments import pack_arguments
from shoal._wire import actor_creation
from shoal._wire.actor_creation import ActorCreation
from shoal._wire.peer_frames import Argument
from shoal_common import ids
from shoal_common.placement.resources import ResourceSet

if TYPE_CHECKING:
    from shoal._api.decorated_methods import (
        Anything,
        GeneratorMethodOfActor,
        MethodDecorator,
        MethodOfActor,
        Yielding,
        YieldingAsync,
    )

C = TypeVar("C")
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


@overload
def method(method: Anything[P], /) -> MethodOfActor[P, Any]: ...  # type: ignore[overload-overlap]
@overload
def method(method: Yielding[P, T], /) -> GeneratorMethodOfActor[P, Iterator[T], T]: ...  # type: ignore[overload-overlap]
@overload
def method(method: YieldingAsync[P, T], /) -> GeneratorMethodOfActor[P, AsyncIterator[T], T]: ...  # type: ignore[overload-overlap]
@overload
def method(method: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]], /) -> MethodOfActor[P, R]: ...
@overload
def method(method: Callable[Concatenate[Any, P], R], /) -> MethodOfActor[P, R]: ...
@overload
def method(**options: Any) -> MethodDecorator: ...


def method(*args: Any, **kwargs: Any) -> Any:
    """Options of one method of an actor class: ``num_returns``, ``max_task_retries``, ``retry_exceptions``,
    ``concurrency_group``, ``timeout_s``, … Without any, it tells type checkers what the method of a handle takes and
    returns.

    Raises: AssertionError for an unknown option.
    """
    if len(args) == 1 and not kwargs and callable(args[0]):
        return args[0]
    if args or not kwargs:
        raise AssertionError(
            "The @shoal.method decorator must be applied using at least one keyword argument, "
            "for example '@shoal.method(num_returns=2)'."
        )
    options = MethodOptions.from_kwargs(kwargs)

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        check_streaming(options.num_returns, _is_generator(function))
        function.__shoal_method__ = options  # type: ignore[attr-defined]
        return function

    return decorate


@dataclasses.dataclass(frozen=True, slots=True)
class ActorClassMetadata:
    """What libraries ask an actor class, as ``__ray_metadata__``."""

    #: The class itself.
    modified_class: type
    class_name: str


class ActorClass(Generic[C]):
    """A class whose instances are actors: ``.remote(...)`` starts one; ``.options(...)`` changes options.

    Its other attributes are those of the class itself: constants, static and class methods. They are looked up in this
    process, also inside the actor.
    """

    def __init__(self, definition: _ClassDefinition, options: ActorOptions) -> None:
        self._definition = definition
        self._options = options
        self.__doc__ = definition.doc
        self.__name__ = self.__qualname__ = definition.name
        self.__module__ = definition.module
        if definition.target is not None:
            # ``help(A.remote)`` shows the constructor's own signature and the class's docstring.
            self.remote = functools.wraps(definition.target, updated=())(  # type: ignore[method-assign]
                lambda *args, **kwargs: _create(definition, options, args, kwargs)
            )

    @property
    def __signature__(self) -> inspect.Signature:
        definition = self._definition
        if definition.target is not None:
            with contextlib.suppress(ValueError):  # written in C
                return inspect.signature(definition.target)
        return definition.constructor.inspected()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_definition":  # asked of whatever is pickled, copied or inspected
            raise AttributeError(name)
        definition = self._definition
        try:
            return getattr(definition.itself(), name)
        except AttributeError:
            raise AttributeError(
                f"The class {definition.name} has no attribute {name!r}", name=name, obj=self
            ) from None

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._definition.methods, *dir(self._definition.target or object)})

    def __repr__(self) -> str:
        return f"ActorClass({self._definition.name})"

    def _repr_html_(self) -> str:
        methods = ", ".join(sorted(name for name in self._definition.methods if not name.startswith("_")))
        rows = [("parameters", self.__signature__), ("methods", methods), *self._options.given()]
        return _html.table(repr(self), rows)

    @property
    def __ray_metadata__(self) -> ActorClassMetadata:
        return ActorClassMetadata(self._definition.itself(), self._definition.name)

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        # The name of the new class comes with the call that follows; _NoSubclass has it in __init_subclass__.
        return (_NoSubclass,)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        name = self._definition.name
        raise TypeError(f"Actors cannot be instantiated directly. Instead of '{name}()', use '{name}.remote()'.")

    def options(self, **options: Any) -> ActorClass[C]:
        """The same class with other options; the original is unchanged.

        Raises: ValueError and TypeError for options that are wrong.
        """
        return ActorClass(self._definition, self._options.updated(**options))

    def remote(self, /, *args: Any, **kwargs: Any) -> ActorProxy[C]:
        """Start an actor; returns its handle at once.

        Raises: TypeError when the arguments do not fit the constructor, ActorAlreadyExistsError (name taken).
        """
        return _create(self._definition, self._options, args, kwargs)

    def _remote(
        self, args: Sequence[Any] | None = None, kwargs: dict[str, Any] | None = None, **options: Any
    ) -> ActorProxy[C]:
        """``options`` and ``remote`` at once."""
        return self.options(**options).remote(*(args or ()), **(kwargs or {}))

    def bind(self, /, *args: Any, **kwargs: Any) -> ClassNode:
        """An actor of a graph (``shoal.dag``), made when that is executed."""
        return ClassNode(self, self._definition.name, args, kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        d = self._definition
        options = portable(self._options)
        return _restore_class, (d.exported_id(), d.name, d.module, d.constructor, d.methods, d.is_async, options)


class _NoSubclass:
    """Stands in for an actor class among the bases of another class, to refuse it by name."""

    def __init_subclass__(cls) -> None:
        raise exceptions.ActorClassInheritanceException(
            f"Attempted to define subclass '{cls.__name__}' of an actor class. Inheriting from actor classes is not "
            "currently supported. You can inherit from a plain base class, and put @shoal.remote on the derived class."
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
    is_async = inspect.iscoroutinefunction(cls.__init__)
    for name, member in inspect.getmembers(cls, inspect.isroutine):
        if name.startswith("__") and name.endswith("__") and name not in ("__call__", "__len__"):
            if name in vars(object) or name in ("__init_subclass__", "__subclasshook__", "__class_getitem__"):
                continue
        as_written = inspect.getattr_static(cls, name)
        # Options stand on what @method decorated, which is not what is bound when a @staticmethod is inside of it.
        as_method = getattr(member, "__shoal_method__", None) or getattr(as_written, "__shoal_method__", None)
        bound = isinstance(as_written, (staticmethod, classmethod))
        methods[name] = _method_info(member, as_method, skip_first=not bound)
        is_async = is_async or inspect.iscoroutinefunction(member) or inspect.isasyncgenfunction(member)
    if cls.__init__ is not object.__init__:
        constructor = signature_of(cls.__init__, skip_first=True)
    elif cls.__new__ is not object.__new__:
        constructor = signature_of(cls.__new__, skip_first=True)
    else:
        constructor = _NO_ARGUMENTS
    definition = _ClassDefinition(cls, cls.__name__, cls.__module__, constructor, methods, is_async)
    return ActorClass(definition, options)


_NO_ARGUMENTS = Signature([], [], False, False, 0)


def _is_generator(function: Any) -> bool:
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


def _method_info(member: Any, options: MethodOptions | None, *, skip_first: bool) -> MethodInfo:
    signature = signature_of(member, skip_first=skip_first)
    is_generator = _is_generator(member)
    if options is None:
        return MethodInfo(signature, returns_of(None, is_generator), is_generator=is_generator)
    return MethodInfo(
        signature,
        num_returns=returns_of(options.num_returns, is_generator),
        max_task_retries=options.max_task_retries,
        retry_exceptions=pickled_exceptions(options.retry_exceptions),
        concurrency_group=options.concurrency_group or "",
        is_generator=is_generator,
        timeout_s=options.timeout_s,
        backpressure=options._generator_backpressure_num_objects,
        events=options.enable_task_events,
    )


# -- creation -----------------------------------------------------------------------------------------


def _create(
    definition: _ClassDefinition, options: ActorOptions, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> ActorHandle:
    definition.constructor.check(args, kwargs)
    core = _current.connected()
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
    core = _current.current()
    is_async = definition.is_async
    concurrency = options.concurrency(is_async=is_async)
    groups = options.concurrency_groups or {}
    _check_hooks(definition)
    for name, info in definition.methods.items():
        if info.concurrency_group and info.concurrency_group not in groups:
            raise unknown_group(definition.name, name, info.concurrency_group, list(groups))
    in_order = concurrency == 1 and not is_async and not groups
    if options.allow_out_of_order_execution:
        in_order = False
    detached = (options.lifetime or core.default_actor_lifetime) == "detached"
    # What can be found again by its name shall be there for the next driver of the job.
    of_named_job = bool(core.job_name and options.name and not detached and options.lifetime is None)
    detached = detached or of_named_job
    actor_id = ids.new_actor_id(ids.JobID(core.job_id))
    state = HandleState(
        actor_id=actor_id,
        class_name=definition.name,
        methods=definition.methods,
        in_order=in_order,
        max_task_retries=options.max_task_retries or 0,
        max_pending_calls=options.max_pending_calls or -1,
        concurrency=concurrency + sum(groups.values()),
        concurrency_groups=list(groups),
        durable=options.durable,
        backpressure=options._actor_generator_backpressure_num_objects,
        events=options.enable_task_events,
    )
    handle_payload = encode_state(state)
    creation = ActorCreation(
        class_id=definition.exported_id(),
        class_name=definition.name,
        creator=core.address,
        name=options.name or "",
        namespace=namespace,
        max_concurrency=concurrency,
        concurrency_groups=dict(groups) or None,
        is_async=is_async,
        checkpoint_every=options.calls_per_checkpoint,
        checkpoint_interval_s=options.checkpoint_interval_s or 0.0,
        durable=options.durable,
        restarts=options.restarts != 0,
        handle=handle_payload,
    )
    if _tracing.active is not None:
        creation.trace = _tracing.active.submitted(f"{definition.name}.__init__", ids.task_of_creation(actor_id))
    if options.enable_task_events and core.task_events_enabled:
        creation.submitted_at = time.time()
        task = _context.current_task.get()
        creation.parent = task.task_id if task is not None else b""
    # The constructor's arguments live as long as the actor may be restarted: the client keeps them.
    packed = pack_arguments(core.values, args, kwargs)
    if packed is not None:
        creation.args, creation.buffers, creation.args_object = packed.pickled, packed.buffers, packed.args_object
    client = core.actors.client(
        actor_id,
        definition.name,
        in_order=in_order,
        concurrency=state.concurrency,
        lifetime=None,
        durable=options.durable,
    )
    spec = ActorSpec(
        actor_id=actor_id,
        job_id=core.job_id,
        owner_id=core.worker_id,
        owner_node_id=core.node_id,
        name=options.name or "",
        namespace=namespace,
        detached=detached,
        of_named_job=of_named_job,
        max_restarts=options.restarts,
        class_name=definition.name,
        placement=ResourceSet.of(options.placement()),
        held=ResourceSet.of(options.held()),
        enforce_memory=options.enforce_memory,
        strategy=strategy_of_actor(options, definition.name),
        runtime_env=document_of(options.runtime_env),
        handle=handle_payload,
        checkpoints=options.keeps_checkpoints,
    )

    def complete(references: list[Argument] | None) -> ActorSpec:
        creation.refs = references
        spec.creation = actor_creation.encode(creation)
        return spec

    handle = ActorHandle(state, None if detached else core.actors.lifetime_ref(client))
    if options.name:
        core.actor_registration.create_named(client, packed, complete)
    else:
        core.actor_registration.create(client, packed, complete)
    return handle


def _check_hooks(definition: _ClassDefinition) -> None:
    """Raises: TypeError for a class that has one of the two."""
    hooks = [name for name in ("__shoal_checkpoint__", "__shoal_restore__") if name in definition.methods]
    if len(hooks) == 1:
        raise TypeError(
            f"{definition.name} defines {hooks[0]} only: what __shoal_checkpoint__ returns is for __shoal_restore__"
        )


def checkpoint() -> None:
    """From inside an actor: have its state saved, to be restored when its process has died.

    The state is what the method ``__shoal_checkpoint__()`` returns, by default the ``__dict__``; the next process calls
    the constructor and then ``__shoal_restore__(state)``. Saved is the state of this moment, and it is stored when this
    returns. In a durable actor it is that at the end of the call, which is not answered before it is stored.

    Raises: TypeError outside of an actor, and for a state that cannot be pickled: it names the attribute;
    CheckpointError when it cannot be stored, and in an actor that is not restarted.
    """
    _current.current()  # raises where Shoal does not run
    process = _context.process
    if not process.actor_id:
        raise TypeError("shoal.checkpoint() is called outside of an actor")
    if process.checkpoint is None:
        raise exceptions.CheckpointError(
            f"actor {process.actor_class_name}({process.actor_id.hex()}) does not come back after a crash, so nobody "
            "would ever restore a checkpoint of it: give it max_restarts, or checkpoint_every or checkpoint_interval_s"
        )
    process.checkpoint()


def exit_actor() -> None:
    """From inside an actor, in any thread or coroutine of it: end it. The call, and those that wait, fail with
    ActorDiedError; calls that run in other threads finish, coroutines of an async actor do not; exit hooks run.

    Raises: TypeError outside of an actor.
    """
    _current.current()  # raises where Shoal does not run
    if not _context.process.actor_id or _context.process.exit_actor is None:
        raise TypeError("exit_actor API is called on a non-actor worker")
    _context.process.exit_actor()
