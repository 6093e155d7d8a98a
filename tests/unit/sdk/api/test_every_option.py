"""No option is taken and dropped: each is proven by a test that is named here, or refused with the way out."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import shoal
from shoal import job_config
from shoal._api.option_rules import ACTOR, METHOD, TASK, Rule
from shoal._api.options import ActorOptions, MethodOptions, TaskOptions
from shoal._session.arguments import NOT_IMPLEMENTED, PRIVATE, check_implemented

TESTS = Path(__file__).parents[3]

_OPTIONS = "unit/sdk/api/test_options.py"
_STRATEGIES = "unit/sdk/api/test_strategy_options.py"
_GROUPS = "e2e/compat/test_placement_groups.py"
_ENVIRONMENT = "e2e/compat/test_runtime_env.py"
_LABELS = "integration/test_sdk_labels.py"
_TASKS = "e2e/compat/test_tasks.py"
_EFFECT = "e2e/compat/test_option_effects.py"
_RESTART = "e2e/compat/test_actor_restart.py"
_NAMED = "e2e/compat/test_named_actors.py"
_DURABLE = "integration/test_durable_actors.py"
_THREADED = "e2e/compat/test_threaded_actors.py"
_GENERATORS = "e2e/compat/test_generators.py"

#: Option -> the test that fails when the option does nothing.
COMMON = {
    "label_selector": f"{_LABELS}::test_it_runs_where_the_labels_are",
    "fallback_strategy": f"{_LABELS}::test_it_runs_where_the_labels_are",
    "accelerator_type": f"{_OPTIONS}::test_resources_of_a_task",
    "memory": f"{_OPTIONS}::test_resources_of_a_task",
    "enforce_memory": "integration/test_sdk_memory_limits.py::test_that_task_alone_fails_and_says_why",
    "num_cpus": f"{_TASKS}::test_fractional_cpus_run_together",
    "num_gpus": "integration/test_sdk_scheduling.py::test_gpus_are_told_apart",
    "resources": f"{_TASKS}::test_custom_resource_limits_concurrency",
    "placement_group": f"{_GROUPS}::test_the_older_options_work_too",
    "placement_group_bundle_index": f"{_GROUPS}::test_the_older_options_work_too",
    "placement_group_capture_child_tasks": f"{_GROUPS}::test_captured_children_run_in_the_group_and_so_do_theirs",
    "runtime_env": f"{_ENVIRONMENT}::test_children_inherit_and_add",
    "scheduling_strategy": f"{_STRATEGIES}::test_where_to_run",
}
IMPLEMENTED_BY_TASKS = {
    **COMMON,
    "key": "integration/test_named_jobs.py::test_calls_with_keys",
    "key_ttl_s": "integration/test_named_jobs.py::test_results_are_known_by_their_content",
    "name": f"{_EFFECT}::test_name_of_a_task",
    "max_calls": f"{_TASKS}::test_max_calls_of_two",
    "max_retries": f"{_TASKS}::test_no_retries",
    "num_returns": f"{_TASKS}::test_several_returns",
    "retry_exceptions": f"{_TASKS}::test_exceptions_are_retried_when_asked_for",
    "timeout_s": "integration/test_sdk_timeouts.py::test_what_is_late_in_a_queue_never_starts",
    "enable_task_events": "integration/test_task_events.py::test_what_is_told_of_is_an_option",
    "priority": "integration/test_sdk_priorities.py::test_the_higher_one_first_whoever_came_first",
    "_generator_backpressure_num_objects": f"{_GENERATORS}::test_backpressure",
}
IMPLEMENTED_BY_ACTORS = {
    **COMMON,
    "enable_task_events": "integration/test_task_events.py::test_what_is_told_of_is_an_option",
    "name": f"{_NAMED}::test_look_up",
    "namespace": f"{_NAMED}::test_namespaces",
    "get_if_exists": f"{_NAMED}::test_get_if_exists",
    "lifetime": f"{_NAMED}::test_detached_actor_outlives_its_handles",
    "checkpoint_every": f"{_DURABLE}::test_state_is_restored_after_a_crash",
    "checkpoint_interval_s": f"{_DURABLE}::test_checkpoint_of_an_idle_actor",
    "durable": f"{_DURABLE}::test_every_call_counts_once",
    "concurrency_groups": f"{_THREADED}::test_groups_do_not_block_one_another",
    "max_concurrency": f"{_THREADED}::test_calls_run_in_threads",
    "max_restarts": f"{_RESTART}::test_dies_for_good_after_max_restarts",
    "max_task_retries": f"{_RESTART}::test_task_retries_repeat_the_call",
    "max_pending_calls": "e2e/compat/test_actors.py::test_pending_calls_limit",
    "allow_out_of_order_execution": f"{_EFFECT}::test_calls_out_of_order",
    "_actor_generator_backpressure_num_objects": f"{_GENERATORS}::test_backpressure_of_actors",
    # It reserves nothing in Ray either, which warns so too.
    "object_store_memory": f"{_OPTIONS}::test_object_store_memory_of_an_actor_warns",
}
IMPLEMENTED_BY_METHODS = {
    "name": f"{_EFFECT}::test_name_of_a_call",
    "num_returns": "e2e/compat/test_actors.py::test_several_returns",
    "concurrency_group": f"{_THREADED}::test_groups_do_not_block_one_another",
    "max_task_retries": f"{_RESTART}::test_retries_declared_by_the_method",
    "timeout_s": "integration/test_sdk_timeouts.py::test_a_late_call_of_an_actor_never_starts",
    "enable_task_events": "integration/test_task_events.py::test_what_is_told_of_is_an_option",
    "retry_exceptions": f"{_RESTART}::test_exceptions_are_retried_when_asked_for",
    "_generator_backpressure_num_objects": f"{_GENERATORS}::test_backpressure_of_actors",
}

#: Option -> a value that asks for what is not there.
REFUSED_BY_BOTH: dict[str, Any] = {"_labels": {"team": "a"}}
REFUSED_BY_TASKS = {
    **REFUSED_BY_BOTH,
    "object_store_memory": 10**9,
    "_num_objects_per_yield": 2,
}
REFUSED_BY_ACTORS = {
    **REFUSED_BY_BOTH,
    "enable_tensor_transport": True,
}
REFUSED_BY_METHODS = {
    "_labels": {"team": "a"},
    "tensor_transport": "nccl",
    "_num_objects_per_yield": 2,
}
Proofs = Mapping[str, str]
KINDS: list[tuple[Any, Mapping[str, Rule], Proofs, Mapping[str, Any]]] = [
    (TaskOptions, TASK, IMPLEMENTED_BY_TASKS, REFUSED_BY_TASKS),
    (ActorOptions, ACTOR, IMPLEMENTED_BY_ACTORS, REFUSED_BY_ACTORS),
    (MethodOptions, METHOD, IMPLEMENTED_BY_METHODS, REFUSED_BY_METHODS),
]
OF_KIND = pytest.mark.parametrize(("options", "rules", "proofs", "refused"), KINDS, ids=["task", "actor", "method"])


def proven(test: str) -> bool:
    path, _, name = test.partition("::")
    return re.search(rf"^(async )?def {name}\(", (TESTS / path).read_text(), re.MULTILINE) is not None


@OF_KIND
def test_every_option_is_implemented_or_refused(
    options: Any, rules: Mapping[str, Rule], proofs: Proofs, refused: Mapping[str, Any]
) -> None:
    assert not proofs.keys() & refused.keys()
    assert proofs.keys() | refused.keys() == rules.keys()
    assert [test for test in proofs.values() if not proven(test)] == []


@OF_KIND
def test_what_is_not_implemented_says_what_to_do(
    options: Any, rules: Mapping[str, Rule], proofs: Proofs, refused: Mapping[str, Any]
) -> None:
    for name, value in refused.items():
        in_options = options is MethodOptions and name == "_labels"  # it belongs to one call
        with pytest.raises(ValueError, match=r"not implemented.*[a-z]"):
            options.from_kwargs({name: value}, in_options=in_options)


@OF_KIND
def test_nothing_is_kept_of_what_is_not_implemented(
    options: Any, rules: Mapping[str, Rule], proofs: Proofs, refused: Mapping[str, Any]
) -> None:
    kept = {"custom_resources" if name == "resources" else name for name, rule in rules.items() if rule.kept}
    assert options.__dataclass_fields__.keys() >= kept
    assert not {name for name in refused if name in options.__dataclass_fields__} - {"object_store_memory"}


# -- init -------------------------------------------------------------------------------------------------------------

_INIT = "e2e/compat/test_init.py"
_DASHBOARD = "integration/test_dashboard.py"
_SPILLING = "integration/test_sdk_objects.py::test_spilling_to_a_directory_of_ones_own"
IMPLEMENTED_BY_INIT = {
    "address": f"{_INIT}::test_second_driver_joins",
    "num_cpus": f"{_INIT}::test_resources",
    "num_gpus": f"{_INIT}::test_resources",
    "resources": f"{_INIT}::test_resources",
    "labels": f"{_LABELS}::test_it_runs_where_the_labels_are",
    "object_store_memory": f"{_INIT}::test_store_size_as_a_float",
    "ignore_reinit_error": f"{_INIT}::test_second_init",
    "job_config": f"{_INIT}::test_job_config",
    "configure_logging": f"{_INIT}::test_logging",
    "logging_level": f"{_INIT}::test_logging",
    "logging_format": f"{_INIT}::test_logging",
    "log_to_driver": "integration/test_sdk_output.py::test_output_is_not_shown_when_not_wanted",
    "logging_config": "integration/test_sdk_output.py::test_all_processes_of_a_job_log_as_it_says",
    "namespace": f"{_INIT}::test_namespace",
    "runtime_env": f"{_ENVIRONMENT}::test_variables_of_the_job",
    "include_dashboard": f"{_DASHBOARD}::test_where_it_is",
    "dashboard_host": f"{_DASHBOARD}::test_where_it_is",
    "dashboard_port": f"{_DASHBOARD}::test_a_port_that_is_taken_is_said_to_be",
    "job": "integration/test_named_jobs.py::test_one_driver_at_a_time",
    "attach": "integration/test_named_jobs.py::test_a_driver_is_killed_half_way_and_another_finishes",
    "keep_s": "integration/test_named_jobs.py::test_its_time_is_up",
    "object_spilling_directory": _SPILLING,
    "_object_spilling_directory": _SPILLING,
    "_memory": f"{_INIT}::test_memory_of_the_node",
    "_metrics_export_port": f"{_INIT}::test_port_of_metrics",
    "_redis_password": "e2e/test_import_ray.py::test_a_program_as_it_is",
    "_tracing_startup_hook": "integration/test_tracing.py::test_one_trace_through_all_that_is_called",
    "_temp_dir": f"{_INIT}::test_temporary_directory",
    "_system_config": "integration/test_embedded_placement.py::test_a_task_that_no_node_can_ever_hold_fails",
}
REFUSED_BY_INIT = {
    "local_mode": True,
    "enable_resource_isolation": True,
    "system_reserved_cpu": 1.0,
    "system_reserved_memory": 10**9,
    "_node_ip_address": "10.0.0.1",
    "_node_name": "head",
    "_driver_object_store_memory": 10**8,
    "_redis_username": "me",
    "_plasma_directory": "/dev/shm",
    "_enable_object_reconstruction": False,
}


def test_every_argument_of_init_is_implemented_or_refused() -> None:
    named = inspect.signature(shoal.init).parameters.keys() - {"kwargs"}
    assert REFUSED_BY_INIT.keys() == NOT_IMPLEMENTED.keys()
    # A RuntimeError as in Ray: test_init.py says so.
    assert IMPLEMENTED_BY_INIT.keys() | REFUSED_BY_INIT.keys() | {"allow_multiple"} == (
        named | set(PRIVATE) | NOT_IMPLEMENTED.keys()
    )
    assert [test for test in IMPLEMENTED_BY_INIT.values() if not proven(test)] == []


@pytest.mark.parametrize("name", REFUSED_BY_INIT)
def test_init_refuses_what_is_not_implemented(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}=.* is not implemented by Shoal: [a-z]"):
        shoal.init(**{name: REFUSED_BY_INIT[name]})
    assert not shoal.is_initialized()


@pytest.mark.parametrize("name", NOT_IMPLEMENTED)
def test_init_takes_the_defaults_of_what_is_not_implemented(name: str) -> None:
    for value in NOT_IMPLEMENTED[name][0]:
        check_implemented({name: value})


def test_unknown_arguments_of_init() -> None:
    with pytest.raises(RuntimeError, match=r"Unknown keyword argument.*nonsense, worse"):
        shoal.init(worse=1, nonsense=2)


# -- job configuration -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [{"runtime_env": {"mpi": {}}}, {"jvm_options": ["-Xmx1g"]}], ids=str)
def test_job_config_refuses_what_is_not_implemented(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is not implemented by Shoal"):
        job_config.JobConfig(**given)
    with pytest.raises(ValueError, match="is not implemented by Shoal"):
        job_config.JobConfig.from_json(given)


def test_job_config_from_json_refuses_other_keys() -> None:
    with pytest.raises(ValueError, match="no nonsense"):
        job_config.JobConfig.from_json({"nonsense": 1})
