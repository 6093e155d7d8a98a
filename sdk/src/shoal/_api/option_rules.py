"""What each option of ``@shoal.remote``, ``.options()`` and ``@shoal.method`` accepts.

A rule checks one option by itself; what several options mean together, and what they ask for, is in ``options``. Every
option is either read by something or refused here with the way out: none is taken and dropped.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from shoal._api.placement_groups import PlacementGroup, PlacementGroupSchedulingStrategy
from shoal._api.scheduling_strategies import NodeAffinitySchedulingStrategy, NodeLabelSchedulingStrategy
from shoal._not_implemented import refusal
from shoal._text import check_text
from shoal._values.content import Content
from shoal._values.numbers import MAX_KEPT_S, plain, plain_amounts
from shoal.runtime_env import RuntimeEnv
from shoal_common.placement.labels import parse_selector
from shoal_common.placement.resources import GRAINS

#: The value of ``placement_group`` when it was not given; None means "in none, whatever the parent is in".
PLACEMENT_GROUP_OF_PARENT = "default"

MAX_PRIORITY = 1_000_000
#: Of a key, and of the name of an object.
MAX_KEY_BYTES = 512

#: Takes the option's name and value; says what is wrong.
Check = Callable[[str, Any], str | None]


def _count(name: str, value: int | None) -> str | None:
    if value is None or value >= 0:
        return None
    return f"The keyword '{name}' only accepts None, 0 or a positive integer."


def _count_or_infinite(name: str, value: int | None) -> str | None:
    if value is None or value >= -1:
        return None
    return f"The keyword '{name}' only accepts None, 0, -1 or a positive integer, where -1 represents infinity."


def _amount(name: str, value: float | None) -> str | None:
    if value is None:
        return None
    if value < 0:
        return f"The quantity of resource {name} cannot be negative"
    if not value < float("inf"):  # NaN too
        return f"The quantity of resource {name} must be finite"
    if value and int(value * GRAINS) == 0:
        return f"The precision of the fractional quantity of resource {name} cannot go beyond 0.0001"
    return None


def _timeout(name: str, value: float | None) -> str | None:
    if value is None or 0 < value < float("inf"):
        return None
    return f"The keyword '{name}' only accepts None or a positive number of seconds, but received {value!r}."


def _gpus(name: str, value: float | None) -> str | None:
    """A task that runs on a part of a GPU shares it; one and a half cannot be told to it by an id."""
    if value is not None and 1 < value < float("inf") and value % 1:
        return f"Resource quantities >1 must be whole numbers: {name}={value}"
    return _amount(name, value)


def _amounts(_: str, resources: Mapping[str, float] | None) -> str | None:
    resources = resources or {}
    if "CPU" in resources or "GPU" in resources:
        return "Use the 'num_cpus' and 'num_gpus' keyword instead of 'CPU' and 'GPU' in 'resources' keyword"
    if "memory" in resources or "object_store_memory" in resources:
        return "The resources dictionary must not contain the key 'memory' or 'object_store_memory'; use the keyword"
    if "bundle" in resources:
        return "The resources dictionary must not contain the key 'bundle', which placement groups use"
    for name, value in resources.items():
        if not isinstance(name, str) or isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"'resources' must map names to numbers, but has {name!r}: {value!r}")
        if not name:
            return "The name of a resource in 'resources' must not be empty"
        if problem := _amount(name, value):
            return problem
    return None


def _not_implemented(instead: str, *harmless: Any) -> Rule:
    """Refuses all values but None and ``harmless``, which ask for nothing."""
    return Rule((), lambda name, value: refusal(name, value, (None, *harmless), instead), kept=False)


def _seconds(name: str, value: float | None) -> str | None:
    if value is None or 0 < value < float("inf"):
        return None
    return f"The keyword '{name}' only accepts None or a positive number of seconds."


def _ttl(name: str, value: float | None) -> str | None:
    if value is None or 0 < value <= MAX_KEPT_S:
        return None
    return f"The keyword '{name}' only accepts None or a positive number of seconds, at most {MAX_KEPT_S:,}."


def _key(name: str, value: str | Content | None) -> str | None:
    if isinstance(value, str):
        return key_problem(f"The keyword '{name}'", value)
    return None


def key_problem(what: str, value: str) -> str | None:
    """Of the name of an object."""
    if 1 <= len(value.encode("utf-8", "surrogatepass")) <= MAX_KEY_BYTES:
        return None
    return f"{what} must have 1 to {MAX_KEY_BYTES} bytes as UTF-8."


def _num_returns(_: str, value: int | str | None) -> str | None:
    if value in (None, "dynamic", "streaming"):
        if value == "dynamic":
            told = "num_returns='dynamic' is deprecated: leave it out, and iterate over the refs as they come."
            warnings.warn(told, DeprecationWarning, stacklevel=8)
        return None
    if isinstance(value, int) and value >= 0:
        return None
    return (
        "The keyword 'num_returns' only accepts None, a non-negative integer, "
        f"'streaming' (for generators), or 'dynamic', but received {value!r}."
    )


def _priority(name: str, value: int | None) -> str | None:
    if value is None or abs(value) <= MAX_PRIORITY:
        return None
    return f"The keyword '{name}' only accepts None or an integer from -{MAX_PRIORITY} to {MAX_PRIORITY}."


def _retry_exceptions(_: str, value: bool | Iterable[Any]) -> str | None:
    if isinstance(value, bool) or all(isinstance(cls, type) and issubclass(cls, Exception) for cls in value):
        return None
    return "retry_exceptions must be either a boolean or a list of exceptions"


def _lifetime(_: str, value: str | None) -> str | None:
    if value in (None, "detached", "non_detached"):
        return None
    return f"actor `lifetime` argument must be one of 'detached', 'non_detached' and 'None', but received {value!r}."


def _backpressure(name: str, value: int | None) -> str | None:
    if value is None or value == -1 or value > 0:
        return None
    return f"{name}={value} is not allowed. Use a value > 0, or -1 to disable it."


def _environment(value: Any) -> Any:
    """A copy that is checked; whatever is no dictionary comes back as it is."""
    return RuntimeEnv(**value) if isinstance(value, dict) else value


def _no_object_store_memory(_: str, value: int | None) -> str | None:
    return None if value is None else "Setting 'object_store_memory' is not implemented for tasks"


def _actor_name(_: str, value: str | None) -> str | None:
    return "Actor name cannot be an empty string." if value == "" else None


def _namespace(_: str, value: str | None) -> str | None:
    return '"" is not a valid namespace. Pass None to use the one of the job.' if value == "" else None


def _concurrency_groups(_: str, groups: Mapping[str, int] | list[Any] | None) -> str | None:
    if groups and isinstance(groups, list):
        raise TypeError("'concurrency_groups' must map the groups' names to their numbers of threads")
    for name, threads in dict(groups or {}).items():
        if not isinstance(name, str) or not name:
            return f"'concurrency_groups' must map names to positive integers, but has the name {name!r}."
        if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
            return f"'concurrency_groups' must map names to positive integers, but has {name!r}: {threads!r}."
    return None


_STRATEGIES = (PlacementGroupSchedulingStrategy, NodeAffinitySchedulingStrategy, NodeLabelSchedulingStrategy)


def _scheduling_strategy(name: str, value: Any) -> str | None:
    if value is None or isinstance(value, _STRATEGIES):
        return None
    if not isinstance(value, str):
        raise TypeError(
            f"The type of keyword '{name}' must be None, str or a strategy, but received type {type(value)}"
        )
    if value in ("DEFAULT", "SPREAD"):
        return None
    classes = ", ".join(strategy.__name__ for strategy in _STRATEGIES)
    return f"Invalid {name} value {value!r}. It must be 'DEFAULT', 'SPREAD', or an instance of {classes}."


def _placement_group(name: str, value: Any) -> str | None:
    if value is None or isinstance(value, PlacementGroup) or value == PLACEMENT_GROUP_OF_PARENT:
        return None
    if isinstance(value, str):
        return f"Invalid {name} value {value!r}. It must be None, {PLACEMENT_GROUP_OF_PARENT!r} or a PlacementGroup."
    raise TypeError(
        f"The type of keyword '{name}' must be None, str or PlacementGroup, but received type {type(value)}"
    )


def _label_selector(_: str, selector: Mapping[str, str] | None) -> str | None:
    parse_selector(selector)
    return None


def _fallback_strategy(name: str, strategies: list[Any] | None) -> str | None:
    for strategy in strategies or []:
        if not isinstance(strategy, dict):
            return f"Each element in {name} must be a dictionary."
        if strategy.keys() != {"label_selector"}:
            return (
                f"Each dictionary in {name} must have the key 'label_selector' and no other, but has {list(strategy)}."
            )
        if not isinstance(strategy["label_selector"], dict):
            return 'The value of "label_selector" must be a dictionary.'
        if problem := _label_selector(name, strategy["label_selector"]):
            return problem
    return None


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """What one option accepts."""

    #: Empty: anything.
    types: tuple[type, ...]
    check: Check | None = None
    #: Numbers of other libraries become Python's.
    convert: Callable[[Any], Any] = plain
    #: False: the values that are accepted ask for nothing, so nothing is kept of them.
    kept: bool = True
    #: False: its texts may be long.
    short: bool = True

    def apply(self, name: str, value: Any) -> Any:
        """The value to keep. Raises: TypeError, ValueError."""
        value = self.convert(value)
        if self.types and not isinstance(value, self.types):
            expected = self.types[0] if len(self.types) == 1 else self.types
            raise TypeError(f"The type of keyword '{name}' must be {expected}, but received type {type(value)}")
        if self.check and (problem := self.check(name, value)):
            raise ValueError(problem)
        if self.short:
            check_text(f"the keyword '{name}'", value)
        return value


_NONE = type(None)
_INT = (int, _NONE)
_NUMBER = (float, int, _NONE)
_STR = (str, _NONE)
_DICT = (dict, _NONE)
_BOOL = (bool, _NONE)

_LABELS = _not_implemented("nothing shows labels of tasks and actors yet. Give it a name", {})
_PER_YIELD = _not_implemented("each yield of a generator is one object", 1)
_TENSOR_TRANSPORT = "tensors travel through the object store. Leave it out"

COMMON: dict[str, Rule] = {
    "label_selector": Rule(_DICT, _label_selector),
    "fallback_strategy": Rule((list, _NONE), _fallback_strategy),
    "accelerator_type": Rule(_STR),
    "memory": Rule(_NUMBER, _amount),
    "enforce_memory": Rule((bool,)),
    "name": Rule(_STR),
    "num_cpus": Rule(_NUMBER, _amount),
    "num_gpus": Rule(_NUMBER, _gpus),
    "object_store_memory": Rule(_INT, _count),
    "placement_group": Rule((), _placement_group),
    "placement_group_bundle_index": Rule((int,)),
    "placement_group_capture_child_tasks": Rule(_BOOL),
    "resources": Rule(_DICT, _amounts, plain_amounts),
    "runtime_env": Rule(_DICT, convert=_environment, short=False),
    "scheduling_strategy": Rule((), _scheduling_strategy),
    "enable_task_events": Rule((bool,)),
    "_labels": _LABELS,
}

TASK: dict[str, Rule] = {
    **COMMON,
    "key": Rule((str, Content, _NONE), _key),
    "key_ttl_s": Rule(_NUMBER, _ttl),
    "max_calls": Rule(_INT, _count),
    "max_retries": Rule(_INT, _count_or_infinite),
    "num_returns": Rule((int, str, _NONE), _num_returns),
    "priority": Rule(_INT, _priority),
    "object_store_memory": Rule(_INT, _no_object_store_memory),
    "retry_exceptions": Rule((bool, list, tuple), _retry_exceptions),
    "timeout_s": Rule(_NUMBER, _timeout),
    "_generator_backpressure_num_objects": Rule(_INT, _backpressure),
    "_num_objects_per_yield": _PER_YIELD,
}

ACTOR: dict[str, Rule] = {
    **COMMON,
    "checkpoint_every": Rule(_INT, _count),
    "checkpoint_interval_s": Rule(_NUMBER, _seconds),
    "concurrency_groups": Rule((list, dict, _NONE), _concurrency_groups),
    "durable": Rule((bool,)),
    "enable_tensor_transport": _not_implemented(_TENSOR_TRANSPORT, False),
    "lifetime": Rule(_STR, _lifetime),
    "max_concurrency": Rule(_INT, _count),
    "max_restarts": Rule(_INT, _count_or_infinite),
    "max_task_retries": Rule(_INT, _count_or_infinite),
    "max_pending_calls": Rule(_INT, _count_or_infinite),
    "name": Rule(_STR, _actor_name),
    "namespace": Rule(_STR, _namespace),
    "get_if_exists": Rule((bool,)),
    "allow_out_of_order_execution": Rule(_BOOL),
    "_actor_generator_backpressure_num_objects": Rule(_INT, _backpressure),
}

METHOD: dict[str, Rule] = {
    "num_returns": TASK["num_returns"],
    "concurrency_group": Rule(_STR),
    "max_task_retries": Rule(_INT, _count_or_infinite),
    "retry_exceptions": Rule((bool, list, tuple, _NONE), lambda name, value: _retry_exceptions(name, value or False)),
    "timeout_s": Rule(_NUMBER, _timeout),
    "_generator_backpressure_num_objects": TASK["_generator_backpressure_num_objects"],
    "_num_objects_per_yield": TASK["_num_objects_per_yield"],
    "enable_task_events": Rule(_BOOL),
    "tensor_transport": _not_implemented(_TENSOR_TRANSPORT, "object_store"),
    "name": Rule(_STR),
    "_labels": _LABELS,
}
