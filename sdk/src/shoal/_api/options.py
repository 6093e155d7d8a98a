"""The options of ``@shoal.remote``, ``.options()`` and ``@shoal.method``: defaults, what they ask for and where to.

What each accepts is in ``option_rules``.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from shoal._api.option_rules import ACTOR, METHOD, PLACEMENT_GROUP_OF_PARENT, TASK, Rule
from shoal._api.scheduling_strategies import NodeAffinitySchedulingStrategy, NodeLabelSchedulingStrategy
from shoal._values.content import CONTENT, Content
from shoal_common.ids import NodeID
from shoal_common.placement.labels import parse_selector
from shoal_common.placement.strategy import Strategy

DEFAULT_MAX_RETRIES = 3
DEFAULT_ASYNC_CONCURRENCY = 1000
DEFAULT_CHECKPOINT_EVERY = 1000
#: An accelerator type is a resource of which a node of that type has 1; a task takes this much of it.
ACCELERATOR_TYPE_PREFIX = "accelerator_type:"
ACCELERATOR_TYPE_SHARE = 0.001


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Options:
    """Options given by name; each class says which there are."""

    _rules: ClassVar[Mapping[str, Rule]]
    _what: ClassVar[str]
    #: Fixed by the decorator: ``.options()`` must not set them.
    _fixed: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def from_kwargs(cls, kwargs: Mapping[str, Any], *, in_options: bool = False) -> Self:
        """Checks and keeps what was passed to the decorator, or (``in_options``) to ``.options()``.

        Raises ``ValueError`` for an unknown option and for a value out of range, ``TypeError`` for one of a wrong type.
        """
        return cls(**cls._checked(kwargs, in_options))

    def updated(self, **kwargs: Any) -> Self:
        """A copy with what was passed to ``.options()``; raises like ``from_kwargs``."""
        return dataclasses.replace(self, **self._checked(kwargs, in_options=True))

    @classmethod
    def _checked(cls, kwargs: Mapping[str, Any], in_options: bool) -> dict[str, Any]:
        """The fields to set, validated."""
        fields = {}
        for name, value in kwargs.items():
            rule = cls._rules.get(name)
            if rule is None:
                raise cls._unknown(name, in_options)
            accepted = rule.apply(name, value)
            if rule.kept:
                fields[name] = accepted
            if in_options and name in cls._fixed:
                raise ValueError(f"Setting '{name}' is not supported in '.options()'.")
        if "resources" in fields:
            fields["custom_resources"] = fields.pop("resources")
        if isinstance(fields.get("retry_exceptions"), list):
            fields["retry_exceptions"] = tuple(fields["retry_exceptions"])
        return fields

    def given(self) -> list[tuple[str, Any]]:
        """Those that are not as they are by default, for humans."""
        values = [(field.name, getattr(self, field.name), field.default) for field in dataclasses.fields(self)]
        return [(name, value) for name, value, default in values if value != default]

    @classmethod
    def _unknown(cls, name: str, in_options: bool) -> Exception:
        return ValueError(f"Invalid option keyword {name} for {cls._what}. Valid ones are {list(cls._rules)}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _PlacedOptions(_Options):
    """What tasks and actors have in common: where they run and what they need there."""

    label_selector: Mapping[str, str] | None = None
    fallback_strategy: list[Mapping[str, Any]] | None = None
    accelerator_type: str | None = None
    #: Bytes; counted on admission, and afterwards only with ``enforce_memory``.
    memory: float | None = None
    #: A process that uses more than ``memory`` is killed, and what it ran fails.
    enforce_memory: bool = False
    name: str | None = None
    num_cpus: float | None = None
    num_gpus: float | None = None
    object_store_memory: int | None = None
    placement_group: Any = PLACEMENT_GROUP_OF_PARENT
    placement_group_bundle_index: int = -1
    placement_group_capture_child_tasks: bool | None = None
    #: The option ``resources``.
    custom_resources: Mapping[str, float] | None = None
    #: Whether what happens to its runs, or calls, is recorded.
    enable_task_events: bool = True
    #: As users write it: what it adds to that of its parent.
    runtime_env: Mapping[str, Any] | None = None
    #: None, "DEFAULT", "SPREAD" or an instance of a strategy class.
    scheduling_strategy: Any = None

    def __post_init__(self) -> None:
        if self.placement_group not in (PLACEMENT_GROUP_OF_PARENT, None) and self.scheduling_strategy is not None:
            raise ValueError(
                "Placement groups should be specified via the scheduling_strategy option. "
                "The placement_group option is deprecated."
            )
        if self.enforce_memory and not self.memory:
            raise ValueError("enforce_memory=True needs memory=<bytes>: the amount beyond which it is killed.")

    def _given(self) -> dict[str, float]:
        amounts = {
            "CPU": self.num_cpus,
            "GPU": self.num_gpus,
            "memory": None if self.memory is None else int(self.memory),
            **(self.custom_resources or {}),
        }
        if self.accelerator_type is not None:
            amounts[ACCELERATOR_TYPE_PREFIX + self.accelerator_type] = ACCELERATOR_TYPE_SHARE
        return {name: amount for name, amount in amounts.items() if amount is not None}

    def strategy(self) -> str:
        """Where it may run, as ``SchedulingClass.strategy`` says it; placement groups apart.

        A node must meet both ``label_selector`` (or a fallback) and the labels of the ``scheduling_strategy``.
        """
        given = self.scheduling_strategy
        selectors = tuple(
            parse_selector(selector)
            for selector in (self.label_selector, *(each["label_selector"] for each in self.fallback_strategy or ()))
        )
        if isinstance(given, NodeAffinitySchedulingStrategy):
            node_id = NodeID(bytes.fromhex(given.node_id))
            return Strategy(node_id=node_id, soft=bool(given.soft), selectors=selectors).encode()
        if isinstance(given, NodeLabelSchedulingStrategy):
            both = {tuple(sorted({*ours, *theirs})): None for ours in selectors for theirs in given.selectors()}
            return Strategy(selectors=tuple(both)).encode()
        return Strategy(spread=given == "SPREAD", selectors=selectors).encode()


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskOptions(_PlacedOptions):
    """Options of a remote function."""

    _rules = TASK
    _what = "remote functions"
    _fixed = ("max_calls",)

    num_cpus: float | None = 1
    #: Runs of this function after which a worker exits; None or 0 = no limit.
    max_calls: int | None = None
    #: -1 = no limit, None = DEFAULT_MAX_RETRIES or what the environment sets instead.
    max_retries: int | None = None
    #: What has ended under this name in the job, or with this content anywhere, is not run again.
    key: str | Content | None = None
    #: Seconds for which the result is kept; None = as long as the job is.
    key_ttl_s: float | None = None
    #: None = 1, or "streaming" for a generator function.
    num_returns: int | str | None = None
    #: Of its tasks that wait for the same resources, a job runs those with a higher one first; None = that of the task
    #: that submits it, 0 for a driver and for actors.
    priority: int | None = None
    #: Whether an exception of the user's code is retried; a tuple: which ones.
    retry_exceptions: bool | tuple[type[Exception], ...] = False
    #: Seconds from the submission after which it fails and is stopped; None = never.
    timeout_s: float | None = None
    #: A generator pauses while so many of its items are unread; None and -1 = it does not. Here and below.
    _generator_backpressure_num_objects: int | None = None

    @classmethod
    def from_kwargs(cls, kwargs: Mapping[str, Any], *, in_options: bool = False) -> Self:
        options = super().from_kwargs(kwargs, in_options=in_options)
        if options.num_gpus and options.max_calls is None and not in_options:
            # GPU memory is only given back for sure when the process ends.
            options = dataclasses.replace(options, max_calls=1)
        if isinstance(options.key, str) and not in_options:
            raise ValueError(
                "A key names one call, and @shoal.remote(key=...) all of them: give it to the call, "
                "f.options(key=...).remote(...), or key=shoal.CONTENT here"
            )
        return options

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.key is None and self.key_ttl_s is not None:
            raise ValueError("key_ttl_s says how long a result is kept under its key, and there is no key")
        if self.key is CONTENT and self.key_ttl_s is None:
            raise ValueError("key=shoal.CONTENT needs key_ttl_s=<seconds>: its results belong to no job")

    def resources(self) -> dict[str, float]:
        """What a run needs, in units (``memory``: bytes); 1 CPU unless told otherwise."""
        return {name: amount for name, amount in self._given().items() if amount}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ActorOptions(_PlacedOptions):
    """Options of an actor class."""

    _rules = ACTOR
    _what = "actors"
    _fixed = ("concurrency_groups",)

    #: Group name -> number of threads (or of calls at once, in an async actor).
    concurrency_groups: Mapping[str, int] | None = None
    #: "detached", or None and "non_detached": it ends with its creator.
    lifetime: str | None = None
    #: None = 1, or 1000 for an async actor.
    max_concurrency: int | None = None
    #: A checkpoint after so many calls; None and 0 = not for that, except that a durable actor without an interval has
    #: DEFAULT_CHECKPOINT_EVERY for None.
    checkpoint_every: int | None = None
    #: A checkpoint so many seconds after the last one, if calls have run since.
    checkpoint_interval_s: float | None = None
    #: Each call runs once, whatever happens to the actor's process and node.
    durable: bool = False
    #: -1 = no limit, here and in the next one. None = no limit for an actor that keeps checkpoints, else 0.
    max_restarts: int | None = None
    max_task_retries: int | None = 0
    #: Per handle; -1 and 0 = no limit.
    max_pending_calls: int | None = -1
    namespace: str | None = None
    get_if_exists: bool = False
    allow_out_of_order_execution: bool | None = None
    #: Of its generator methods that do not say.
    _actor_generator_backpressure_num_objects: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.get_if_exists and not self.name:
            raise ValueError("The actor name must be specified to use `get_if_exists`.")
        if self.keeps_checkpoints and self.max_restarts == 0:
            raise ValueError(
                "durable, checkpoint_every and checkpoint_interval_s are for an actor that comes back after a crash, "
                "and max_restarts=0 forbids that: leave it out (then it always comes back), or give a number"
            )
        if self.durable and self.allow_out_of_order_execution:
            raise ValueError("A durable actor runs its calls in order: leave out allow_out_of_order_execution.")
        if self.object_store_memory is not None:
            warnings.warn(
                "Setting 'object_store_memory' for actors is deprecated: it reserves nothing, objects are spilled.",
                DeprecationWarning,
                stacklevel=2,
            )

    @property
    def keeps_checkpoints(self) -> bool:
        """By itself; any actor that is restarted may have some taken by ``shoal.checkpoint()``."""
        return self.durable or bool(self.checkpoint_every) or self.checkpoint_interval_s is not None

    @property
    def calls_per_checkpoint(self) -> int:
        """0 = none is taken for that."""
        if self.checkpoint_every is None and self.durable and self.checkpoint_interval_s is None:
            return DEFAULT_CHECKPOINT_EVERY
        return self.checkpoint_every or 0

    @property
    def restarts(self) -> int:
        """-1 = no limit."""
        if self.max_restarts is None:
            return -1 if self.keeps_checkpoints else 0
        return self.max_restarts

    def _is_default(self) -> bool:
        return not self._given().keys() - {"memory"}

    def placement(self) -> dict[str, float]:
        """What a node must have free to take the actor in, in units; 1 CPU when nothing but memory was asked for."""
        return {"CPU": 1, **self.held()} if self._is_default() else self.held()

    def held(self) -> dict[str, float]:
        """What the actor keeps as long as it lives, in units; when anything but memory was asked for, 1 CPU too."""
        default = {} if self._is_default() else {"CPU": 1.0}
        return {name: amount for name, amount in {**default, **self._given()}.items() if amount}

    def concurrency(self, *, is_async: bool) -> int:
        """Calls that may run at the same time, outside of the concurrency groups.

        Raises ``ValueError`` when calls may run at the same time and ``allow_out_of_order_execution=False`` was given,
        or an option that needs them to run one after the other.
        """
        calls = self.max_concurrency or (DEFAULT_ASYNC_CONCURRENCY if is_async else 1)
        if self.keeps_checkpoints and (is_async or calls > 1 or self.concurrency_groups):
            kind = "An async actor" if is_async else "An actor with max_concurrency > 1 or concurrency groups"
            if self.durable:
                raise ValueError(
                    f"{kind} cannot be durable: its calls have no one order in which they could run again. Make its "
                    "methods plain ones that run one at a time, or leave out durable and call shoal.checkpoint()"
                )
            raise ValueError(
                f"{kind} has no moment between two calls in which its state is whole: leave out checkpoint_every and "
                "checkpoint_interval_s, and call shoal.checkpoint() where it is"
            )
        if self.allow_out_of_order_execution is False and (is_async or calls > 1 or self.concurrency_groups):
            kind = "async" if is_async else "multi-threaded"
            raise ValueError(
                f"If you're using {kind} actors, calls can't be executed in order. "
                "Set `allow_out_of_order_execution=True` to allow out-of-order execution."
            )
        return calls


@dataclasses.dataclass(frozen=True, kw_only=True)
class MethodOptions(_Options):
    """Options of an actor's method, by ``@shoal.method`` or of one call; None = what the next outer place says."""

    _rules = METHOD
    _what = "actor methods"
    _fixed = ("_num_objects_per_yield",)

    num_returns: int | str | None = None
    concurrency_group: str | None = None
    max_task_retries: int | None = None
    retry_exceptions: bool | tuple[type[Exception], ...] | None = None
    timeout_s: float | None = None
    name: str | None = None
    enable_task_events: bool | None = None
    _generator_backpressure_num_objects: int | None = None

    @classmethod
    def _checked(cls, kwargs: Mapping[str, Any], in_options: bool) -> dict[str, Any]:
        for name in () if in_options else ("name", "_labels"):
            if name in kwargs:  # they belong to one call
                raise cls._unknown(name, in_options)
        return super()._checked(kwargs, in_options)

    @classmethod
    def _unknown(cls, name: str, in_options: bool) -> Exception:
        if in_options:
            return TypeError(f"options() of an actor method got an unexpected keyword argument '{name}'")
        return AssertionError(
            f"Unexpected keyword argument to @shoal.method: '{name}'. "
            f"The supported keyword arguments are {list(cls._rules)}"
        )
