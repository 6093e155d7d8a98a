"""Options of functions and classes are checked when they are given, without a cluster."""

from __future__ import annotations

import pytest
from e2e.compat.target import IS_RAY, exceptions, ray, submodule


def function():
    return 1


class Class:
    def method(self):
        return 1


TASK_REFUSALS = [
    ({"nonsense": 1}, ValueError, "Invalid option keyword nonsense for remote functions"),
    ({"max_restarts": 1}, ValueError, "Invalid option keyword max_restarts for remote functions"),
    ({"max_concurrency": 1}, ValueError, "Invalid option keyword max_concurrency for remote functions"),
    ({"num_returns": -1}, ValueError, "only accepts None"),
    ({"num_returns": 1.5}, TypeError, "The type of keyword 'num_returns' must be"),
    ({"num_returns": "nonsense"}, (TypeError, ValueError), None),
    ({"num_cpus": "1"}, TypeError, "The type of keyword 'num_cpus' must be"),
    ({"num_cpus": -1}, ValueError, "The quantity of resource num_cpus cannot be negative"),
    ({"num_cpus": 0.00001}, ValueError, "num_cpus cannot go beyond 0.0001"),
    ({"num_cpus": float("nan")}, ValueError, None),
    ({"num_cpus": float("inf")}, (ValueError, OverflowError), None),
    ({"num_gpus": -1}, ValueError, "The quantity of resource num_gpus cannot be negative"),
    ({"num_gpus": 1.5}, ValueError, "Resource quantities >1 must be whole numbers"),
    ({"num_gpus": "1"}, TypeError, "The type of keyword 'num_gpus' must be"),
    ({"memory": -1}, ValueError, "The quantity of resource memory cannot be negative"),
    ({"memory": "1"}, TypeError, "The type of keyword 'memory' must be"),
    ({"resources": [1]}, TypeError, "The type of keyword 'resources' must be"),
    ({"resources": {"CPU": 1}}, ValueError, "Use the 'num_cpus' and 'num_gpus' keyword instead of 'CPU' and 'GPU'"),
    ({"resources": {"GPU": 1}}, ValueError, "Use the 'num_cpus' and 'num_gpus' keyword instead of 'CPU' and 'GPU'"),
    ({"resources": {"x": -1}}, ValueError, "The quantity of resource x cannot be negative"),
    ({"resources": {"x": 0.00001}}, ValueError, "x cannot go beyond 0.0001"),
    ({"resources": {"x": "1"}}, TypeError, None),
    ({"max_calls": -1}, ValueError, "The keyword 'max_calls' only accepts None, 0 or a positive integer"),
    ({"max_calls": 1.5}, TypeError, "The type of keyword 'max_calls' must be"),
    ({"max_retries": -2}, ValueError, "The keyword 'max_retries' only accepts None, 0, -1 or a positive integer"),
    ({"max_retries": "3"}, TypeError, "The type of keyword 'max_retries' must be"),
    ({"retry_exceptions": 1}, TypeError, "The type of keyword 'retry_exceptions' must be"),
    ({"retry_exceptions": None}, TypeError, "The type of keyword 'retry_exceptions' must be"),
    ({"retry_exceptions": [1]}, ValueError, "retry_exceptions must be either a boolean or a list of exceptions"),
    ({"retry_exceptions": [BaseException]}, ValueError, "retry_exceptions must be"),
    ({"name": 1}, TypeError, "The type of keyword 'name' must be"),
    ({"scheduling_strategy": 1}, TypeError, "The type of keyword 'scheduling_strategy' must be"),
    ({"runtime_env": 1}, TypeError, "The type of keyword 'runtime_env' must be"),
    ({"object_store_memory": 1}, ValueError, "Setting 'object_store_memory' is not implemented for tasks"),
    ({"accelerator_type": 1}, TypeError, "The type of keyword 'accelerator_type' must be"),
    ({"label_selector": {"a": "in()"}}, ValueError, "Invalid label selector value"),
    ({"label_selector": {"-a": "b"}}, ValueError, "Invalid label key"),
    ({"fallback_strategy": [{}]}, ValueError, None),
    ({"enable_task_events": None}, TypeError, "The type of keyword 'enable_task_events' must be"),
    ({"_generator_backpressure_num_objects": 0}, ValueError, "is not allowed"),
]


@pytest.mark.parametrize(("options", "error", "message"), TASK_REFUSALS, ids=lambda v: str(v)[:60])
def test_task_option_refused(options, error, message):
    with pytest.raises(error, match=message):
        ray.remote(**options)(function)
    with pytest.raises(error, match=message):
        ray.remote(function).options(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"num_returns": 0},
        {"num_returns": None},
        {"num_cpus": 0},
        {"num_cpus": 0.0001},
        {"num_gpus": 0.5},
        {"memory": 1.5},
        {"resources": {"x": 0.5}},
        {"max_retries": -1},
        {"retry_exceptions": True},
        {"retry_exceptions": (ValueError,)},
        {"name": ""},
        {"scheduling_strategy": "SPREAD"},
        {"label_selector": {"a": "!in(b, c)", "d": "e"}},
    ],
    ids=str,
)
def test_task_option_accepted(options):
    ray.remote(**options)(function)
    ray.remote(function).options(**options)


ACTOR_REFUSALS = [
    ({"nonsense": 1}, ValueError, "Invalid option keyword nonsense for actors"),
    ({"max_calls": 1}, ValueError, "Invalid option keyword max_calls for actors"),
    ({"num_returns": 2}, ValueError, "Invalid option keyword num_returns for actors"),
    ({"max_retries": 1}, ValueError, "Invalid option keyword max_retries for actors"),
    ({"num_cpus": -1}, ValueError, "The quantity of resource num_cpus cannot be negative"),
    ({"max_restarts": -2}, ValueError, "The keyword 'max_restarts' only accepts None, 0, -1 or a positive integer"),
    ({"max_restarts": "1"}, TypeError, "The type of keyword 'max_restarts' must be"),
    ({"max_task_retries": -2}, ValueError, "The keyword 'max_task_retries' only accepts None, 0, -1"),
    ({"max_concurrency": -1}, ValueError, "The keyword 'max_concurrency' only accepts None, 0 or a positive integer"),
    ({"max_concurrency": "1"}, TypeError, "The type of keyword 'max_concurrency' must be"),
    ({"max_pending_calls": -2}, ValueError, "The keyword 'max_pending_calls' only accepts None, 0, -1"),
    ({"lifetime": "nonsense"}, ValueError, "actor `lifetime` argument must be one of"),
    ({"lifetime": 1}, TypeError, "The type of keyword 'lifetime' must be"),
    ({"name": 1}, TypeError, "The type of keyword 'name' must be"),
    ({"namespace": 1}, TypeError, "The type of keyword 'namespace' must be"),
    ({"get_if_exists": True}, ValueError, "The actor name must be specified to use `get_if_exists`"),
    ({"get_if_exists": 1, "name": "a"}, TypeError, "The type of keyword 'get_if_exists' must be"),
    ({"concurrency_groups": 1}, TypeError, "The type of keyword 'concurrency_groups' must be"),
    ({"allow_out_of_order_execution": 1}, TypeError, "The type of keyword 'allow_out_of_order_execution' must be"),
]


@pytest.mark.parametrize(("options", "error", "message"), ACTOR_REFUSALS, ids=lambda v: str(v)[:60])
def test_actor_option_refused(options, error, message):
    with pytest.raises(error, match=message):
        ray.remote(**options)(Class)
    with pytest.raises(error, match=message):
        ray.remote(Class).options(**options)


def test_options_of_the_decorator_only():
    with pytest.raises(ValueError, match=r"Setting 'max_calls' is not supported in '.options\(\)'"):
        ray.remote(function).options(max_calls=1)
    with pytest.raises(ValueError, match=r"Setting 'concurrency_groups' is not supported in '.options\(\)'"):
        ray.remote(Class).options(concurrency_groups={"io": 2})


def test_object_store_memory_of_actors_is_deprecated():
    with pytest.warns(DeprecationWarning, match="object_store_memory"):
        ray.remote(object_store_memory=100)(Class)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: ray.remote(),
        lambda: ray.remote(1),
        lambda: ray.remote(function, 1),
        lambda: ray.remote(function, num_cpus=1),
    ],
)
def test_decorator_applied_wrongly(wrong):
    with pytest.raises(AssertionError, match="decorator must be applied either with no arguments and no"):
        wrong()


@pytest.mark.parametrize(
    "thing", [len, ray.remote(function), ray.remote(Class)], ids=["builtin", "twice", "twice class"]
)
def test_decorator_applied_to_something_else(thing):
    with pytest.raises(TypeError, match="decorator must be applied to either a function or a class"):
        ray.remote(num_cpus=1)(thing)


def test_coroutine_functions_are_no_tasks():
    async def coroutine():
        pass

    with pytest.raises(ValueError, match="'async def' should not be used for remote tasks"):
        ray.remote(coroutine)


def test_streaming_needs_a_generator():
    with pytest.raises(ValueError, match="can only be used with generator functions"):
        ray.remote(num_returns="streaming")(function)


def test_direct_call_of_a_remote_function():
    with pytest.raises(TypeError, match="Remote functions cannot be called directly"):
        ray.remote(function)()


def test_direct_instantiation_of_an_actor():
    with pytest.raises(TypeError, match="Actors cannot be instantiated directly"):
        ray.remote(Class)()


def test_subclass_of_an_actor_class():
    actor_class = ray.remote(Class)
    with pytest.raises(
        submodule("actor").ActorClassInheritanceException, match="Attempted to define subclass 'Derived'"
    ):

        class Derived(actor_class):
            pass


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"nonsense": 1}, AssertionError),
        ({"num_returns": -1}, ValueError),
        ({"num_returns": "streaming"}, ValueError),
    ],
    ids=str,
)
def test_method_option_refused(options, error):
    with pytest.raises(error):
        ray.method(**options)(lambda self: 1)


def test_checks_start_no_cluster():
    assert not ray.is_initialized()


def test_names_of_the_api():
    for name in [
        "init",
        "shutdown",
        "is_initialized",
        "remote",
        "get",
        "put",
        "wait",
        "kill",
        "get_actor",
        "method",
        "nodes",
        "cluster_resources",
        "available_resources",
        "get_runtime_context",
        "get_gpu_ids",
        "ObjectRef",
        "exceptions",
        "util",
        "actor",
        "__version__",
        "cloudpickle",
    ]:
        assert hasattr(ray, name), name
    for name in [
        "ActorPool",
        "list_named_actors",
        "register_serializer",
        "deregister_serializer",
        "inspect_serializability",
    ]:
        assert hasattr(submodule("util"), name), name


def test_names_of_the_errors():
    for name in [
        "RayError",
        "RayTaskError",
        "TaskCancelledError",
        "WorkerCrashedError",
        "RayActorError",
        "ActorDiedError",
        "ActorUnavailableError",
        "GetTimeoutError",
        "ObjectLostError",
        "OwnerDiedError",
        "ObjectReconstructionFailedError",
        "ObjectStoreFullError",
        "OutOfDiskError",
        "OutOfMemoryError",
        "NodeDiedError",
        "TaskUnschedulableError",
        "ActorUnschedulableError",
        "PendingCallsLimitExceeded",
        "RuntimeEnvSetupError",
        "ActorAlreadyExistsError",
        "ActorHandleNotFoundError",
        "UnserializableException",
        "RaySystemError",
    ]:
        assert issubclass(getattr(exceptions, name), exceptions.RayError), name
    if not IS_RAY:
        assert exceptions.RayError is exceptions.ShoalError
        assert exceptions.RayTaskError is exceptions.TaskError
        assert exceptions.RayActorError is exceptions.ActorError
