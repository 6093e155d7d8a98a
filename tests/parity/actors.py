"""Actors: creation, order, concurrency, restarts, names, ends."""

from __future__ import annotations

from parity.row import Section

ACTORS_FILE = "e2e/compat/test_actors.py"
ASYNC = "e2e/compat/test_async_actors.py"
CHECKS = "e2e/compat/test_task_options.py"
EXIT = "e2e/compat/test_actor_exit.py"
NAMED = "e2e/compat/test_named_actors.py"
OPTIONS = "unit/sdk/api/test_options.py"
RESTART = "e2e/compat/test_actor_restart.py"
THREADED = "e2e/compat/test_threaded_actors.py"
DEATHS = "chaos/test_actor_death.py"

ACTORS = Section("Actors")
row, differs, missing = ACTORS.works, ACTORS.differs, ACTORS.missing

row(
    "`A.remote(…)`, `A.options(…)`",
    "returns at once; an error of the constructor is `ActorDiedError` of every call; `A()` and `a.m()` a `TypeError`",
    f"{ACTORS_FILE}::test_constructor_arguments",
    f"{ACTORS_FILE}::test_constructor_error",
    f"{CHECKS}::test_direct_instantiation_of_an_actor",
    f"{ACTORS_FILE}::test_direct_call_of_a_method",
)
differs(
    "default resources",
    "one CPU to be placed, none for life; what is asked for is held for life",
    f"{ACTORS_FILE}::test_actors_hold_no_cpu_by_default",
    f"{ACTORS_FILE}::test_held_resources_come_back",
    "integration/test_sdk_scheduling.py::test_actor_that_holds_the_cpu_waits_for_a_task",
    how="a CPU is lent while a method waits in `get`",
)
row(
    "order",
    "calls of one caller run in order, also when arguments of earlier ones are late",
    f"{ACTORS_FILE}::test_thousand_calls_in_order",
    f"{ACTORS_FILE}::test_call_waits_for_the_arguments_of_earlier_calls",
    f"{ACTORS_FILE}::test_order_of_each_caller_is_kept",
)
row(
    "`max_concurrency=`",
    "1, or 1000 with an `async def`; more than one are threads, without an order",
    f"{THREADED}::test_calls_run_in_threads",
    f"{THREADED}::test_default_is_one_call_at_a_time",
    f"{ASYNC}::test_max_concurrency_limits_them",
    f"{ASYNC}::test_default_is_a_thousand",
)
row(
    "async actors",
    "all methods on one event loop; `await ref`",
    f"{ASYNC}::test_calls_interleave",
    f"{ASYNC}::test_await_inside",
    f"{ASYNC}::test_plain_methods_of_async_actors",
)
differs(
    "`concurrency_groups=`",
    "pools of their own, by method or by call",
    f"{THREADED}::test_groups_do_not_block_one_another",
    f"{THREADED}::test_undeclared_group_of_a_call",
    f"{THREADED}::test_group_by_the_option_of_a_call",
    f"{CHECKS}::test_options_of_the_decorator_only",
    how="a group without threads is refused when the class is decorated",
)
row(
    "`allow_out_of_order_execution`",
    "calls whose arguments are there go first; cannot be False where calls run side by side",
    "e2e/compat/test_option_effects.py::test_calls_out_of_order",
    f"{ASYNC}::test_in_order_execution_is_refused",
    f"{THREADED}::test_in_order_execution_is_refused",
)
differs(
    "`max_restarts=`",
    "a new process after a death, with a new state; -1 without limit; a node that is preempted costs none",
    f"{RESTART}::test_restart_runs_the_constructor_again",
    f"{RESTART}::test_dies_for_good_after_max_restarts",
    f"{RESTART}::test_restarts_without_limit",
    "chaos/test_node_death.py::test_an_actor_of_a_lost_node_comes_back_elsewhere",
    "chaos/test_durable_actor_deaths.py::test_nodes_that_leave_take_nothing_along_and_cost_no_restart",
    how="nodes are not told of preemption, those that leave in order cost none",
)
row(
    "`max_task_retries=`",
    "at most once by default; else calls are repeated after deaths, and with `retry_exceptions` after exceptions",
    f"{RESTART}::test_call_that_crashed_fails_without_task_retries",
    f"{RESTART}::test_task_retries_repeat_the_call",
    f"{RESTART}::test_exceptions_are_retried_when_asked_for",
    f"{RESTART}::test_retries_declared_by_the_method",
)
row(
    "`max_pending_calls=`",
    "`PendingCallsLimitExceeded` when a handle has more calls open",
    f"{ACTORS_FILE}::test_pending_calls_limit",
)
row(
    "unavailable or dead",
    "`ActorUnavailableError` while it may come back, `ActorDiedError` for good",
    f"{DEATHS}::test_restarted_after_a_crash",
    f"{DEATHS}::test_error_names_the_reason",
    f"{RESTART}::test_dies_for_good_after_max_restarts",
)
row(
    "the last handle goes",
    "calls under way end, then the actor; handles of `get_actor` do not count",
    f"{ACTORS_FILE}::test_last_handle_gone_ends_the_actor",
    f"{ACTORS_FILE}::test_pending_calls_finish_after_the_last_handle_is_gone",
    f"{NAMED}::test_named_actor_ends_with_its_last_handle",
)
row(
    "the creator dies",
    "an actor that is not detached goes with it",
    f"{DEATHS}::test_actor_ends_with_its_creator",
    f"{DEATHS}::test_detached_actor_outlives_its_creator",
)
row(
    "`name=`",
    "one in a namespace; taken is `ActorAlreadyExistsError`, empty a `ValueError`",
    f"{NAMED}::test_name_is_taken",
    f"{NAMED}::test_empty_names_are_refused",
)
row(
    "`get_actor(name, namespace)`", "a handle, or `ValueError`", f"{NAMED}::test_look_up", f"{NAMED}::test_unknown_name"
)
row(
    "`get_if_exists=True`",
    "one actor, however many ask at once",
    f"{NAMED}::test_get_if_exists",
    f"{NAMED}::test_get_if_exists_from_many_threads",
)
row(
    '`lifetime="detached"`',
    "outlives its job; `kill` frees its name",
    f"{NAMED}::test_detached_actor_outlives_its_handles",
    f"{NAMED}::test_name_is_free_after_kill",
)
row("`namespace=`", "of this actor", f"{NAMED}::test_namespaces")
row("`util.list_named_actors()`", "names, with all namespaces too", f"{NAMED}::test_list_named_actors")
row(
    "`kill(a, no_restart=True)`",
    "at once, without hooks; calls fail; with False it restarts if it may; not an actor is a `ValueError`",
    f"{ACTORS_FILE}::test_kill",
    f"{ACTORS_FILE}::test_kill_fails_running_and_queued_calls",
    f"{RESTART}::test_kill_with_restart",
    f"{ACTORS_FILE}::test_kill_something_else",
)
row(
    "`actor.exit_actor()`",
    "the actor ends after this call, `except` or not; exit handlers run; outside a `TypeError`",
    f"{ACTORS_FILE}::test_exit_actor",
    f"{ACTORS_FILE}::test_exit_actor_cannot_be_caught",
    f"{ACTORS_FILE}::test_exit_actor_runs_atexit",
    f"{ACTORS_FILE}::test_exit_actor_outside_of_actors",
    f"{EXIT}::test_running_calls_of_a_threaded_actor_finish_and_waiting_ones_do_not",
)
row("`__ray_terminate__`", "ends it after the calls before", f"{ACTORS_FILE}::test_terminate_after_pending_calls")
row(
    "`__ray_shutdown__`",
    "runs at an end in order",
    f"{ACTORS_FILE}::test_shutdown_hook_runs_on_graceful_end",
    f"{ACTORS_FILE}::test_shutdown_hook_may_be_a_coroutine_and_runs_on_the_actors_event_loop",
)
row(
    "`__ray_call__`, `__ray_ready__`",
    "a function on the instance; readiness",
    f"{ACTORS_FILE}::test_ray_call_and_ray_ready",
)
differs(
    "`@method(…)`",
    "defaults of one method; an unknown one is an `AssertionError`",
    f"{OPTIONS}::test_method_options",
    f"{OPTIONS}::test_method_options_are_checked",
    f"{CHECKS}::test_method_option_refused",
    how="`tensor_transport` is refused",
)
differs(
    "handles",
    "equal and hashed by actor, travel; a method of an actor nobody holds is `RuntimeError: Lost reference`",
    f"{ACTORS_FILE}::test_handles_are_equal_by_actor",
    f"{ACTORS_FILE}::test_handle_nested_captured_and_stored",
    f"{ACTORS_FILE}::test_method_without_a_variable_for_the_actor",
    how="such a call just works",
)
row(
    "cancel of calls",
    "waiting ones never begin, running ones see `is_canceled()`, coroutines are cancelled; `force` is a `ValueError`",
    "e2e/compat/test_cancel.py::test_a_call_that_runs",
    "e2e/compat/test_cancel.py::test_a_coroutine",
    "integration/test_sdk_cancel.py::test_a_call_that_runs_is_told_and_one_that_waits_never_begins",
    "integration/test_sdk_cancel.py::test_what_cannot_be_cancelled",
)
row(
    "inheritance",
    "from plain classes; a subclass of an actor class is `ActorClassInheritanceException`",
    f"{ACTORS_FILE}::test_inheritance_from_plain_classes",
    "e2e/compat/test_class_attributes.py::test_methods_of_the_whole_mro",
    f"{CHECKS}::test_subclass_of_an_actor_class",
)
row(
    "signatures, `dir()`, class attributes",
    "of actor classes, handles and methods, for prompts and libraries",
    "e2e/compat/test_class_attributes.py::test_names",
    "e2e/compat/test_class_attributes.py::test_signatures",
    "e2e/compat/test_class_attributes.py::test_attributes_of_the_class",
    "e2e/compat/test_class_attributes.py::test_methods_that_python_has_names_for",
)
row(
    "`repr` and `_repr_html_`",
    "of sessions, functions, actor classes, handles, methods, refs (state, function, node), placement groups",
    "integration/test_sdk_prompt.py::test_functions_and_classes",
    "integration/test_sdk_prompt.py::test_handles_and_references",
    "integration/test_sdk_prompt.py::test_placement_groups",
    "integration/test_sdk_prompt.py::test_sessions",
)
