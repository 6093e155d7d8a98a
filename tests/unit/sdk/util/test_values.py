"""The small public classes: strategies, job configuration, inspection, addresses."""

from __future__ import annotations

import io
import ipaddress
import pickle
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from shoal import util
from shoal._api.options import TaskOptions
from shoal._values import serialization
from shoal.job_config import JobConfig
from shoal.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from shoal.util.serialization import StandaloneSerializationContext
from shoal.util.state.common import ListApiOptions

NODE = "ab" * 16


# -- node affinity ---------------------------------------------------------------------------------------------------


def test_node_affinity_is_an_option_and_travels_as_text() -> None:
    strategy = NodeAffinitySchedulingStrategy(NODE, soft=True)
    assert TaskOptions.from_kwargs({"scheduling_strategy": strategy}).scheduling_strategy is strategy


def test_node_affinity_takes_an_id_as_bytes() -> None:
    assert NodeAffinitySchedulingStrategy(bytes.fromhex(NODE), False).node_id == NODE


@pytest.mark.parametrize("node_id", ["", "nonsense", "abc", "ab" * 15, "ab" * 17, "ff" * 16])
def test_node_affinity_refuses_what_is_no_node(node_id: str) -> None:
    with pytest.raises(ValueError, match=r"Invalid node_id .*shoal\.nodes"):
        NodeAffinitySchedulingStrategy(node_id, soft=False)


# -- job configuration -----------------------------------------------------------------------------------------------


def test_job_config_defaults() -> None:
    config = JobConfig()
    assert (config.metadata, config.ray_namespace, config.runtime_env) == ({}, None, {})
    assert config.default_actor_lifetime == "non_detached"


def test_job_config_setters() -> None:
    config = JobConfig(metadata={"a": "1"})
    config.set_metadata("a", "2")
    config.set_ray_namespace("space")
    config.set_runtime_env({})
    config.set_default_actor_lifetime("detached")
    assert (config.metadata, config.ray_namespace) == ({"a": "2"}, "space")
    assert config.default_actor_lifetime == "detached"


def test_job_config_refuses() -> None:
    with pytest.raises(ValueError, match="detached"):
        JobConfig(default_actor_lifetime="eternal")
    for weight in (0, -1, float("nan"), 1_001, "2"):
        with pytest.raises(ValueError, match="The weight of a job must be"):
            JobConfig(weight=weight)  # type: ignore[arg-type]
    for amounts in (0, "", [], False, [2], {"CPU": "2"}, {"CPU": True}, {1: 2}):
        with pytest.raises(TypeError, match="max_resources"):
            JobConfig(max_resources=amounts)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="max_resources"):
            JobConfig().max_resources = amounts  # type: ignore[assignment]
    refused = [("CPU", -1), ("CPU", float("nan")), ("CPU", float("inf")), ("CPU", 1e-5), ("", 1)]
    for name, amount in (*refused, ("object_store_memory", 1)):
        with pytest.raises(ValueError, match="max_resources"):
            JobConfig(max_resources={name: amount})
    with pytest.raises(TypeError, match="code search path"):
        JobConfig(code_search_path="/a:/b")  # type: ignore[arg-type]


def test_the_node_of_a_strategy_is_an_id_and_soft_a_flag() -> None:
    with pytest.raises(TypeError, match="node_id must be hexadecimal text, bytes or a NodeID, not int"):
        NodeAffinitySchedulingStrategy(3, soft=False)
    with pytest.raises(TypeError, match="soft must be True or False, not 'x'"):
        NodeAffinitySchedulingStrategy(NODE, soft="x")  # type: ignore[arg-type]


def test_filters_are_a_list() -> None:
    with pytest.raises(TypeError, match="filters must be a list of"):
        ListApiOptions(filters=3)  # type: ignore[arg-type]


def test_attributes_that_a_job_config_has_not_are_errors() -> None:
    config = pickle.loads(pickle.dumps(JobConfig(weight=2)))
    config.jvm_options, config.py_logging_config, config.enable_task_events = [], None, False
    assert config.weight == 2
    with pytest.raises(AttributeError, match="wieght"):
        config.wieght = 3


def test_job_config_from_json() -> None:
    config = JobConfig.from_json({"ray_namespace": "space", "metadata": {"a": "1"}, "client_job": True})
    assert (config.ray_namespace, config.metadata) == ("space", {"a": "1"})


# -- inspection ------------------------------------------------------------------------------------------------------


def inspect(value: Any, **kwargs: Any) -> tuple[bool, dict[tuple[str, ...], Any], str]:
    report = io.StringIO()
    good, failures = util.inspect_serializability(value, print_file=report, **kwargs)
    return good, {failure.path: failure for failure in failures}, report.getvalue()


def test_good_value() -> None:
    good, failures, report = inspect({"a": 1}, name="settings")
    assert good
    assert failures == {}
    assert "settings can be serialized" in report


def test_culprit_in_a_closure() -> None:
    lock = threading.Lock()

    def uses_lock() -> Any:
        return lock

    good, failures, report = inspect(uses_lock)
    assert not good
    failure = failures["uses_lock", "lock"]
    assert (failure.obj, failure.parent, failure.name) == (lock, uses_lock, "lock")
    assert "FailTuple(lock [path=uses_lock -> lock" in report


def test_all_culprits_are_reported_with_their_paths() -> None:
    holder = SimpleNamespace(a={"key": [threading.Lock()]}, b=threading.Lock(), c=1)
    _, failures, _ = inspect(holder, name="holder", depth=4)
    assert set(failures) == {("holder", "a", "key", "[0]"), ("holder", "b")}


def test_depth_limits_the_search() -> None:
    _, failures, _ = inspect([[[threading.Lock()]]], name="value", depth=1)
    assert set(failures) == {("value", "[0]")}


def test_value_that_is_itself_the_culprit() -> None:
    lock = threading.Lock()
    good, failures, _ = inspect(lock)
    assert not good
    assert failures["lock",].obj is lock
    assert failures["lock",].parent is None


def test_culprit_inside_a_value_that_contains_itself() -> None:
    value: list[Any] = [threading.Lock()]
    value.append(value)
    _, failures, _ = inspect(value, name="value")
    assert ("value", "[0]") in failures


# -- addresses -------------------------------------------------------------------------------------------------------


def test_address_of_this_machine() -> None:
    ipaddress.ip_address(util.get_node_ip_address())
    assert util.get_node_ip_address("127.0.0.1:80") == "127.0.0.1"


# -- imports ---------------------------------------------------------------------------------------------------------


def test_import_stays_light() -> None:
    code = "import shoal, sys; print([name for name in ('grpc', 'numpy', 'multiprocessing') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# -- how instances are sent ------------------------------------------------------------------------------------------


class Guarded:
    """Cannot be pickled by itself."""

    def __init__(self, value: int) -> None:
        self.value = value
        self.lock = threading.Lock()


def value_after_a_journey(guarded: Guarded) -> int:
    arrived: Guarded = serialization.loads(serialization.dumps(guarded))
    return arrived.value


def test_a_context_registers_what_register_serializer_does() -> None:
    context = StandaloneSerializationContext()
    context._register_cloudpickle_serializer(Guarded, lambda guarded: guarded.value, Guarded)
    try:
        assert value_after_a_journey(Guarded(7)) == 7
    finally:
        context._unregister_cloudpickle_reducer(Guarded)
    with pytest.raises(TypeError, match="lock"):
        value_after_a_journey(Guarded(7))


def test_a_context_registers_reducers_with_a_state() -> None:
    context = StandaloneSerializationContext()

    def reduce(guarded: Guarded) -> tuple[Any, ...]:
        return Guarded, (0,), {"value": guarded.value}

    context._register_cloudpickle_reducer(Guarded, reduce)
    try:
        assert value_after_a_journey(Guarded(7)) == 7
    finally:
        util.deregister_serializer(Guarded)


# -- names -----------------------------------------------------------------------------------------------------------


def test_instance_of_a_cloud(monkeypatch: pytest.MonkeyPatch) -> None:
    assert util.get_node_instance_id() == ""
    monkeypatch.setenv("SHOAL_CLOUD_INSTANCE_ID", "i-0abc")
    assert util.get_node_instance_id() == "i-0abc"


def test_accelerators_are_types_that_options_take() -> None:
    assert (util.accelerators.NVIDIA_TESLA_V100, util.accelerators.NVIDIA_H100) == ("V100", "H100")
    assert util.accelerators.NVIDIA_TESLA_A100 == util.accelerators.NVIDIA_A100 == "A100"
    names = [name for name in dir(util.accelerators) if name[0].isupper()]
    assert len(names) > 50
    for name in names:
        value = getattr(util.accelerators, name)
        assert TaskOptions.from_kwargs({"accelerator_type": value}).accelerator_type == value
