"""Options are checked where they are written, and say what to place and what to hold."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest

from shoal._api.options import ActorOptions, MethodOptions, TaskOptions
from shoal._api.placement_groups import PlacementGroup
from shoal._values.content import CONTENT

NAN, INF = float("nan"), float("inf")

ACCEPTED_BY_TASKS: list[dict[str, Any]] = [
    {},
    {"num_cpus": 0},
    {"num_cpus": 0.0001},
    {"num_cpus": None},
    {"memory": 1.5e9},
    {"resources": {"x": 0.5, "y": 2}},
    {"resources": None},
    {"num_returns": 0},
    {"num_returns": None},
    {"num_returns": "streaming"},
    {"max_retries": -1},
    {"retry_exceptions": True},
    {"retry_exceptions": [ValueError, KeyError]},
    {"retry_exceptions": (ValueError,)},
    {"name": ""},
    {"scheduling_strategy": "SPREAD"},
    {"scheduling_strategy": None},
    {"runtime_env": {}},
    {"runtime_env": None},
    {"label_selector": {"region": "in(a, b)", "zone": "!c", "example.com/type": "d", "any": ""}},
    {"fallback_strategy": [{"label_selector": {"region": "a"}}]},
    {"enable_task_events": False},
    {"_labels": {}},
    {"placement_group": None},
    {"placement_group": "default"},
    {"_generator_backpressure_num_objects": -1},
    {"_num_objects_per_yield": 1},
    {"key": None},
    {"key": CONTENT, "key_ttl_s": 60},
]

REFUSED_BY_TASKS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"nonsense": 1}, ValueError, "Invalid option keyword nonsense for remote functions"),
    ({"max_restarts": 1}, ValueError, "Invalid option keyword max_restarts for remote functions"),
    ({"num_cpus": "1"}, TypeError, "The type of keyword 'num_cpus' must be"),
    ({"num_cpus": -1}, ValueError, "The quantity of resource num_cpus cannot be negative"),
    ({"num_cpus": 0.00001}, ValueError, "num_cpus cannot go beyond 0.0001"),
    ({"num_cpus": NAN}, ValueError, "num_cpus must be finite"),
    ({"num_cpus": INF}, ValueError, "num_cpus must be finite"),
    ({"num_gpus": -0.5}, ValueError, "The quantity of resource num_gpus cannot be negative"),
    ({"memory": "1GB"}, TypeError, "The type of keyword 'memory' must be"),
    ({"resources": [1]}, TypeError, "The type of keyword 'resources' must be"),
    ({"resources": {"CPU": 1}}, ValueError, "Use the 'num_cpus' and 'num_gpus' keyword"),
    ({"resources": {"GPU": 1}}, ValueError, "Use the 'num_cpus' and 'num_gpus' keyword"),
    ({"resources": {"memory": 1}}, ValueError, "must not contain the key 'memory'"),
    ({"resources": {"bundle": 1}}, ValueError, "must not contain the key 'bundle'"),
    ({"resources": {"": 1}}, ValueError, "The name of a resource in 'resources' must not be empty"),
    ({"key": "a", "key_ttl_s": 1e300}, ValueError, "a positive number of seconds, at most 3,153,600,000"),
    ({"key": ""}, ValueError, "The keyword 'key' must have 1 to 512 bytes"),
    ({"key": "\xe4" * 257}, ValueError, "The keyword 'key' must have 1 to 512 bytes"),
    ({"key": 1}, TypeError, "The type of keyword 'key' must be"),
    ({"key": CONTENT}, ValueError, "needs key_ttl_s"),
    ({"key_ttl_s": 1.0}, ValueError, "there is no key"),
    ({"key": CONTENT, "key_ttl_s": 0}, ValueError, "The keyword 'key_ttl_s' only accepts None or a positive number"),
    ({"name": "x" * 5000}, ValueError, "the keyword 'name' must have at most 4096 bytes"),
    ({"resources": {"x": -1}}, ValueError, "The quantity of resource x cannot be negative"),
    ({"resources": {"x": 0.00001}}, ValueError, "x cannot go beyond 0.0001"),
    ({"resources": {"x": "1"}}, TypeError, "must map names to numbers"),
    ({"num_returns": -1}, ValueError, "The keyword 'num_returns' only accepts"),
    ({"num_returns": 1.5}, TypeError, "The type of keyword 'num_returns' must be"),
    ({"num_returns": "many"}, ValueError, "The keyword 'num_returns' only accepts"),
    ({"max_retries": -2}, ValueError, "The keyword 'max_retries' only accepts None, 0, -1"),
    ({"max_retries": 1.0}, TypeError, "The type of keyword 'max_retries' must be"),
    ({"max_calls": -1}, ValueError, "The keyword 'max_calls' only accepts None, 0 or a positive integer"),
    ({"retry_exceptions": 1}, TypeError, "The type of keyword 'retry_exceptions' must be"),
    ({"retry_exceptions": [1]}, ValueError, "either a boolean or a list of exceptions"),
    ({"retry_exceptions": [KeyboardInterrupt]}, ValueError, "either a boolean or a list of exceptions"),
    ({"name": 1}, TypeError, "The type of keyword 'name' must be"),
    ({"scheduling_strategy": 1}, TypeError, "The type of keyword 'scheduling_strategy' must be"),
    ({"scheduling_strategy": "RANDOM"}, ValueError, "Invalid scheduling_strategy value 'RANDOM'"),
    ({"placement_group": "pg"}, ValueError, "Invalid placement_group value 'pg'"),
    ({"placement_group": 1}, TypeError, "The type of keyword 'placement_group' must be"),
    (
        {"placement_group": PlacementGroup.empty(), "scheduling_strategy": "SPREAD"},
        ValueError,
        "The placement_group option is deprecated",
    ),
    ({"object_store_memory": 1}, ValueError, "not implemented for tasks"),
    ({"runtime_env": "env"}, TypeError, "The type of keyword 'runtime_env' must be"),
    ({"label_selector": {"-a": "b"}}, ValueError, "Invalid label key"),
    ({"label_selector": {"a": "in()"}}, ValueError, "Invalid label selector value"),
    ({"fallback_strategy": [{}]}, ValueError, "fallback_strategy"),
    ({"fallback_strategy": ["a"]}, ValueError, "must be a dictionary"),
    ({"fallback_strategy": [{"label_selector": {"a": "-"}}]}, ValueError, "Invalid label selector value"),
    ({"enable_task_events": None}, TypeError, "The type of keyword 'enable_task_events' must be"),
    ({"_generator_backpressure_num_objects": 0}, ValueError, "is not allowed"),
]


@pytest.mark.parametrize("kwargs", ACCEPTED_BY_TASKS, ids=repr)
def test_task_option_is_accepted(kwargs: dict[str, Any]) -> None:
    assert TaskOptions.from_kwargs(kwargs) == TaskOptions.from_kwargs({}).updated(**kwargs)


def named(value: Any) -> str:
    """The same in every process: side by side, each collects the tests by itself."""
    return re.sub(" object at 0x[0-9a-f]+", "", repr(value))


@pytest.mark.parametrize(("kwargs", "error", "message"), REFUSED_BY_TASKS, ids=named)
def test_task_option_is_refused(kwargs: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        TaskOptions.from_kwargs(kwargs)
    with pytest.raises(error, match=message):
        TaskOptions.from_kwargs({}).updated(**kwargs)


def test_a_key_names_one_call() -> None:
    with pytest.raises(ValueError, match="A key names one call"):
        TaskOptions.from_kwargs({"key": "a"})
    assert TaskOptions.from_kwargs({}).updated(key="a").key == "a"


ACCEPTED_BY_ACTORS: list[dict[str, Any]] = [
    {"max_restarts": -1, "max_task_retries": -1, "max_pending_calls": -1},
    {"max_concurrency": 4},
    {"lifetime": "detached", "name": "a", "namespace": "n", "get_if_exists": True},
    {"lifetime": None, "name": None, "namespace": None},
    {"allow_out_of_order_execution": True},
    {"durable": True, "checkpoint_every": 10, "checkpoint_interval_s": 0.5},
    {"checkpoint_every": 0, "max_restarts": 0},
]

REFUSED_BY_ACTORS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"nonsense": 1}, ValueError, "Invalid option keyword nonsense for actors"),
    ({"max_calls": 1}, ValueError, "Invalid option keyword max_calls for actors"),
    ({"num_returns": 2}, ValueError, "Invalid option keyword num_returns for actors"),
    ({"key": "a"}, ValueError, "Invalid option keyword key for actors"),
    ({"max_restarts": -2}, ValueError, "The keyword 'max_restarts' only accepts None, 0, -1"),
    ({"max_task_retries": 1.0}, TypeError, "The type of keyword 'max_task_retries' must be"),
    ({"max_pending_calls": -2}, ValueError, "The keyword 'max_pending_calls' only accepts"),
    ({"max_concurrency": -1}, ValueError, "The keyword 'max_concurrency' only accepts None, 0 or a positive"),
    ({"max_concurrency": "1"}, TypeError, "The type of keyword 'max_concurrency' must be"),
    ({"lifetime": "eternal"}, ValueError, "actor `lifetime` argument must be one of"),
    ({"name": ""}, ValueError, "Actor name cannot be an empty string"),
    ({"name": 1}, TypeError, "The type of keyword 'name' must be"),
    ({"namespace": ""}, ValueError, "not a valid namespace"),
    ({"get_if_exists": True}, ValueError, "The actor name must be specified to use `get_if_exists`"),
    ({"get_if_exists": 1, "name": "a"}, TypeError, "The type of keyword 'get_if_exists' must be"),
    ({"checkpoint_every": -1}, ValueError, "The keyword 'checkpoint_every' only accepts None, 0 or a positive"),
    ({"checkpoint_every": 1.5}, TypeError, "The type of keyword 'checkpoint_every' must be"),
    ({"checkpoint_interval_s": 0}, ValueError, "'checkpoint_interval_s' only accepts None or a positive number"),
    ({"checkpoint_interval_s": float("nan")}, ValueError, "'checkpoint_interval_s' only accepts"),
    ({"durable": 1}, TypeError, "The type of keyword 'durable' must be"),
    ({"durable": True, "max_restarts": 0}, ValueError, "max_restarts=0 forbids that"),
    ({"checkpoint_every": 1, "max_restarts": 0}, ValueError, "max_restarts=0 forbids that"),
    ({"durable": True, "allow_out_of_order_execution": True}, ValueError, "runs its calls in order"),
    ({"allow_out_of_order_execution": 1}, TypeError, "The type of keyword 'allow_out_of_order_execution' must be"),
]


@pytest.mark.parametrize("kwargs", ACCEPTED_BY_ACTORS, ids=repr)
def test_actor_option_is_accepted(kwargs: dict[str, Any]) -> None:
    assert ActorOptions.from_kwargs(kwargs) == ActorOptions.from_kwargs({}).updated(**kwargs)


@pytest.mark.parametrize(("kwargs", "error", "message"), REFUSED_BY_ACTORS, ids=repr)
def test_actor_option_is_refused(kwargs: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ActorOptions.from_kwargs(kwargs)
    with pytest.raises(error, match=message):
        ActorOptions.from_kwargs({}).updated(**kwargs)


@pytest.mark.parametrize(
    ("kwargs", "restarts", "every"),
    [
        ({}, 0, 0),
        ({"max_restarts": None}, 0, 0),
        ({"durable": True}, -1, 1000),
        ({"durable": True, "max_restarts": 3}, 3, 1000),
        ({"durable": True, "checkpoint_every": 0}, -1, 0),
        ({"durable": True, "checkpoint_interval_s": 5}, -1, 0),
        ({"checkpoint_interval_s": 5}, -1, 0),
        ({"checkpoint_every": 7}, -1, 7),
    ],
    ids=repr,
)
def test_what_keeps_checkpoints_is_restarted(kwargs: dict[str, Any], restarts: int, every: int) -> None:
    options = ActorOptions.from_kwargs(kwargs)
    assert (options.restarts, options.calls_per_checkpoint) == (restarts, every)
    assert options.keeps_checkpoints is bool(options.restarts)


@pytest.mark.parametrize("kwargs", [{"max_concurrency": 2}, {"concurrency_groups": {"io": 1}}, {}], ids=repr)
@pytest.mark.parametrize(
    ("keeps", "words"),
    [
        ({"durable": True}, "cannot be durable"),
        ({"checkpoint_every": 1}, r"has no moment .* call shoal.checkpoint\(\)"),
        ({"checkpoint_interval_s": 1}, r"has no moment .* call shoal.checkpoint\(\)"),
    ],
    ids=repr,
)
def test_calls_at_once_have_no_one_order(kwargs: dict[str, Any], keeps: dict[str, Any], words: str) -> None:
    options = ActorOptions.from_kwargs({**kwargs, **keeps})
    with pytest.raises(ValueError, match=words):
        options.concurrency(is_async=not kwargs)


@pytest.mark.parametrize(
    ("groups", "error"),
    [
        ([1], TypeError),
        (3, TypeError),
        ({"io": 0}, ValueError),
        ({"io": "2"}, ValueError),
        ({1: 1}, ValueError),
        ({"": 1}, ValueError),
    ],
)
def test_concurrency_groups_are_checked(groups: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="concurrency_groups"):
        ActorOptions.from_kwargs({"concurrency_groups": groups})


def test_what_the_decorator_fixes_cannot_be_overridden() -> None:
    with pytest.raises(ValueError, match=r"Setting 'max_calls' is not supported in '.options\(\)'"):
        TaskOptions.from_kwargs({"max_calls": 2}).updated(max_calls=3)
    with pytest.raises(ValueError, match="Setting 'concurrency_groups' is not supported"):
        ActorOptions.from_kwargs({}).updated(concurrency_groups={"io": 2})
    with pytest.raises(ValueError, match="Setting '_num_objects_per_yield' is not supported"):
        MethodOptions.from_kwargs({}).updated(_num_objects_per_yield=1)


def test_options_override_the_decorator_one_by_one() -> None:
    options = TaskOptions.from_kwargs({"num_cpus": 2, "max_retries": 5, "max_calls": 3})
    changed = options.updated(num_cpus=1)
    assert (changed.num_cpus, changed.max_retries, changed.max_calls) == (1, 5, 3)
    assert options.num_cpus == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.num_cpus = 7  # type: ignore[misc]


def test_name_from_the_decorator_satisfies_get_if_exists() -> None:
    assert ActorOptions.from_kwargs({"name": "a"}).updated(get_if_exists=True).name == "a"


def test_numbers_of_other_libraries_are_numbers() -> None:
    options = TaskOptions.from_kwargs(
        {"num_cpus": np.float32(0.5), "max_retries": np.int64(2), "resources": {"x": np.int64(3)}}
    )
    assert [type(options.num_cpus), type(options.max_retries)] == [float, int]
    assert options.resources() == {"CPU": 0.5, "x": 3}
    with pytest.raises(TypeError, match="must map names to numbers"):
        TaskOptions.from_kwargs({"resources": {"x": np.array([1])}})


# --- resources ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kwargs", "resources"),
    [
        ({}, {"CPU": 1}),
        ({"num_cpus": 0}, {}),
        ({"num_cpus": 0.5, "num_gpus": 1}, {"CPU": 0.5, "GPU": 1}),
        ({"num_cpus": None}, {}),
        ({"resources": {"x": 0.5, "y": 0}}, {"CPU": 1, "x": 0.5}),
        ({"memory": 2.7}, {"CPU": 1, "memory": 2}),
        ({"accelerator_type": "L4"}, {"CPU": 1, "accelerator_type:L4": 0.001}),
    ],
    ids=repr,
)
def test_resources_of_a_task(kwargs: dict[str, Any], resources: dict[str, float]) -> None:
    assert TaskOptions.from_kwargs(kwargs).resources() == resources


@pytest.mark.parametrize(
    ("kwargs", "placement", "held"),
    [
        ({}, {"CPU": 1}, {}),
        ({"num_cpus": 0}, {}, {}),
        ({"num_cpus": 2}, {"CPU": 2}, {"CPU": 2}),
        ({"num_gpus": 1}, {"CPU": 1, "GPU": 1}, {"CPU": 1, "GPU": 1}),
        ({"num_gpus": 1, "num_cpus": 0}, {"GPU": 1}, {"GPU": 1}),
        ({"resources": {"x": 1}}, {"CPU": 1, "x": 1}, {"CPU": 1, "x": 1}),
        ({"memory": 100}, {"CPU": 1, "memory": 100}, {"memory": 100}),
    ],
    ids=repr,
)
def test_resources_of_an_actor(kwargs: dict[str, Any], placement: dict[str, float], held: dict[str, float]) -> None:
    options = ActorOptions.from_kwargs(kwargs)
    assert options.placement() == placement
    assert options.held() == held


def test_gpu_tasks_give_their_worker_up_after_each_run() -> None:
    assert TaskOptions.from_kwargs({"num_gpus": 1}).max_calls == 1
    assert TaskOptions.from_kwargs({"num_gpus": 1, "max_calls": 5}).max_calls == 5
    assert TaskOptions.from_kwargs({"num_gpus": 0}).max_calls is None


def test_object_store_memory_of_an_actor_warns() -> None:
    with pytest.warns(DeprecationWarning, match="object_store_memory"):
        assert ActorOptions.from_kwargs({"object_store_memory": 100}).held() == {}


# --- concurrency ---------------------------------------------------------------------------------------------


def test_default_concurrency() -> None:
    assert ActorOptions.from_kwargs({}).concurrency(is_async=False) == 1
    assert ActorOptions.from_kwargs({}).concurrency(is_async=True) == 1000
    assert ActorOptions.from_kwargs({"max_concurrency": 4}).concurrency(is_async=True) == 4


def test_order_cannot_be_kept_by_concurrent_actors() -> None:
    in_order = ActorOptions.from_kwargs({"allow_out_of_order_execution": False})
    assert in_order.concurrency(is_async=False) == 1
    with pytest.raises(ValueError, match="using async actors"):
        in_order.concurrency(is_async=True)
    with pytest.raises(ValueError, match="using multi-threaded actors"):
        in_order.updated(max_concurrency=2).concurrency(is_async=False)
    with pytest.raises(ValueError, match="multi-threaded actors"):
        dataclasses.replace(in_order, concurrency_groups={"io": 1}).concurrency(is_async=False)


# --- methods -------------------------------------------------------------------------------------------------


def test_method_options() -> None:
    declared = MethodOptions.from_kwargs({"num_returns": 2, "retry_exceptions": [ValueError]})
    assert declared.retry_exceptions == (ValueError,)
    called = declared.updated(name="again", max_task_retries=3)
    assert (called.num_returns, called.name, called.max_task_retries) == (2, "again", 3)


def test_method_options_are_checked() -> None:
    with pytest.raises(AssertionError, match=r"Unexpected keyword argument to @shoal.method: 'nonsense'"):
        MethodOptions.from_kwargs({"nonsense": 1})
    with pytest.raises(AssertionError, match="Unexpected keyword argument"):
        MethodOptions.from_kwargs({"name": "belongs to a call"})
    with pytest.raises(TypeError, match="unexpected keyword argument 'nonsense'"):
        MethodOptions.from_kwargs({}).updated(nonsense=1)
    with pytest.raises(ValueError, match="num_returns"):
        MethodOptions.from_kwargs({"num_returns": -1})
    with pytest.raises(TypeError, match="max_task_retries"):
        MethodOptions.from_kwargs({"max_task_retries": "x"})
