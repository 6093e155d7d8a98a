"""Remote functions: their calls, options and where they run."""

from __future__ import annotations

from parity.row import Section

TASKS_FILE = "e2e/compat/test_tasks.py"
CHECKS = "e2e/compat/test_task_options.py"
NODES = "integration/test_nodes_tasks.py"
LABELS = "integration/test_sdk_labels.py"
POLICIES = "unit/scheduler/test_policies.py"
EVERY_OPTION = "unit/sdk/api/test_every_option.py"
OPTIONS = "unit/sdk/api/test_options.py"
GENERATORS = "e2e/compat/test_generators.py"
GPUS = "integration/test_sdk_gpus.py"

TASKS = Section("Tasks")
row, differs, missing = TASKS.works, TASKS.differs, TASKS.missing

row(
    "`f.remote(…)`",
    "returns refs at once; `f()` and a wrong signature are a `TypeError`, `async def` a `ValueError`",
    f"{TASKS_FILE}::test_squares",
    f"{CHECKS}::test_direct_call_of_a_remote_function",
    f"{TASKS_FILE}::test_wrong_arguments_are_refused_on_submission",
    f"{CHECKS}::test_coroutine_functions_are_no_tasks",
)
row(
    "arguments",
    "refs arrive as values, refs inside of values as refs, the rest as copies; large ones go to the store",
    f"{TASKS_FILE}::test_reference_arguments_arrive_as_values",
    f"{TASKS_FILE}::test_nested_references_stay_references",
    f"{TASKS_FILE}::test_arguments_are_copies",
    f"{TASKS_FILE}::test_large_arguments_and_results",
)
row(
    "checks of options",
    "an unknown one and a wrong value are a `ValueError`, a wrong type a `TypeError`",
    f"{CHECKS}::test_task_option_refused",
    f"{CHECKS}::test_task_option_accepted",
)
row(
    "`num_returns=n`",
    "n refs; 0 gives None; another number of values is a `ValueError` of `get`",
    f"{TASKS_FILE}::test_several_returns",
    f"{TASKS_FILE}::test_no_returns",
    f"{TASKS_FILE}::test_wrong_number_of_returns",
)
row(
    '`yield`, `num_returns="streaming"`',
    "each value is a ref that is there before the task ends",
    f"{GENERATORS}::test_an_item_is_there_before_the_next_one_is_made",
    f"{CHECKS}::test_streaming_needs_a_generator",
)
row(
    '`num_returns="dynamic"`',
    "deprecated: a ref to a generator of refs",
    f"{GENERATORS}::test_dynamic",
    f"{GENERATORS}::test_dynamic_that_fails",
)
row(
    "`ObjectRefGenerator`",
    "iterates over the refs, also with `async for`; in `wait`, `cancel`, `completed()`; not passed to other tasks",
    f"{GENERATORS}::test_a_generator_gives_its_refs_one_by_one",
    f"{GENERATORS}::test_async_for",
    f"{GENERATORS}::test_wait_for_generators_and_refs",
    f"{GENERATORS}::test_get_of_a_generator_is_the_generator",
    f"{GENERATORS}::test_it_is_not_passed_on",
    f"{GENERATORS}::test_what_generators_have_besides",
    "integration/test_sdk_generators.py::test_a_cancelled_generator_ends_with_that_error",
)
row(
    "generator methods of actors",
    "ordinary, threaded and async ones",
    f"{GENERATORS}::test_methods_of_an_actor",
    f"{GENERATORS}::test_threads_of_an_actor",
    f"{GENERATORS}::test_async_generators",
)
row(
    "errors of generators",
    "the next ref raises it, and it is the last",
    f"{GENERATORS}::test_an_exception_is_the_last_item",
    f"{GENERATORS}::test_the_worker_dies",
    f"{GENERATORS}::test_the_actor_dies",
)
row(
    "generators that run again",
    "give the same items, each once",
    f"{GENERATORS}::test_the_worker_dies_and_all_is_repeated",
    f"{GENERATORS}::test_retry_exceptions",
    f"{GENERATORS}::test_a_call_is_repeated_when_the_actor_restarts",
)
row(
    "`_generator_backpressure_num_objects`",
    "the task pauses while so many values are not taken",
    f"{GENERATORS}::test_backpressure",
    f"{GENERATORS}::test_backpressure_of_actors",
)
row(
    "`max_retries=3`",
    "runs again when its worker or node dies; -1 without limit; `SHOAL_TASK_MAX_RETRIES` is the default",
    f"{TASKS_FILE}::test_crashed_worker_is_retried",
    f"{TASKS_FILE}::test_default_is_three_retries",
    f"{TASKS_FILE}::test_no_retries",
    "chaos/test_worker_death.py::test_retried_as_often_as_allowed",
    "chaos/test_node_death.py::test_tasks_of_a_lost_node_run_elsewhere",
)
row(
    "`retry_exceptions=`",
    "runs again after exceptions, all or the listed ones",
    f"{TASKS_FILE}::test_exceptions_are_retried_when_asked_for",
    f"{TASKS_FILE}::test_exception_retried_until_it_works",
)
row(
    "`max_calls=n`",
    "a worker ends after n runs; 1 for tasks with GPUs; not an option of a call",
    f"{TASKS_FILE}::test_max_calls_of_two",
    f"{OPTIONS}::test_gpu_tasks_give_their_worker_up_after_each_run",
    f"{CHECKS}::test_options_of_the_decorator_only",
)
row(
    "`num_cpus`, `num_gpus`, `resources`, `memory`",
    "what a node must have free; one CPU if nothing is said; `memory` binds nobody",
    f"{TASKS_FILE}::test_as_many_at_once_as_there_are_cpus",
    f"{TASKS_FILE}::test_custom_resource_limits_concurrency",
    "integration/test_sdk_scheduling.py::test_gpus_are_told_apart",
    "integration/test_sdk_memory_limits.py::test_without_the_option_memory_is_a_matter_of_admission_only",
)
row(
    "fractions",
    "in steps of 0.0001; a part of a GPU shares one device, more than one must be whole",
    f"{TASKS_FILE}::test_fractional_cpus_run_together",
    f"{CHECKS}::test_task_option_refused",
    "unit/raylet/leases/test_resource_ledger.py::test_fractions_share_a_device_and_whole_amounts_get_whole_ones",
)
row(
    "`CUDA_VISIBLE_DEVICES`",
    "is what was granted, of what the node was let see; without GPUs left alone, or emptied on request; can be off",
    f"{GPUS}::test_tasks_and_actors_get_the_ids_that_the_node_sees",
    f"{GPUS}::test_a_process_runs_with_gpus_or_without",
    "unit/common/placement/test_gpus.py::test_a_worker_shows_what_it_was_granted",
)
missing(
    "other makers' accelerators",
    "the same with their variables",
    why="not aimed at; `resources` counts them by any name",
)
row(
    "`accelerator_type=`",
    "only nodes that have that type",
    f"{OPTIONS}::test_resources_of_a_task",
    "unit/sdk/util/test_values.py::test_accelerators_are_types_that_options_take",
)
row(
    "`OMP_NUM_THREADS`",
    "is `num_cpus`, or 1, unless the user has set it",
    f"{TASKS_FILE}::test_omp_num_threads",
    "integration/test_sdk_output.py::test_users_own_thread_limit_is_left_alone",
)
row(
    "`get` and `wait` inside a task",
    "lend its CPU while they really wait",
    f"{TASKS_FILE}::test_waiting_lends_the_cpu",
    f"{TASKS_FILE}::test_nesting_deeper_than_there_are_cpus",
    f"{TASKS_FILE}::test_getting_what_is_there_keeps_the_cpu",
)
differs(
    "`name=`",
    "stands in the process title, in logs and in the context",
    "e2e/compat/test_option_effects.py::test_name_of_a_task",
    "integration/test_sdk_output.py::TestProcesses::test_title_is_the_tasks_name_option",
    how="the title begins with `shoal::`",
)
row(
    "`runtime_env=`",
    "an environment of its own, merged with that of the job",
    "e2e/compat/test_runtime_env.py::test_children_inherit_and_add",
)
row(
    "`scheduling_strategy=`",
    "by default packs nodes to the half, near large arguments; `SPREAD` goes round",
    f"{NODES}::test_spread_uses_both_nodes",
    f"{NODES}::test_a_task_goes_to_its_large_arguments_also_while_there_is_room_at_home",
    f"{POLICIES}::test_nodes_are_packed_to_half_one_after_the_other_and_then_evenly",
    f"{POLICIES}::test_above_half_it_is_random_among_the_least_utilized_fifth",
)
row(
    "`NodeAffinitySchedulingStrategy`",
    "that node; if it is gone an error, or another one when `soft`",
    f"{NODES}::test_affinity",
    f"{NODES}::test_affinity_to_a_node_that_is_not_there",
    f"{POLICIES}::test_hard_affinity_waits_while_that_node_is_busy",
)
row(
    "`label_selector=`, `fallback_strategy=`",
    "only nodes whose labels meet it, alternatives in their order",
    f"{LABELS}::test_it_runs_where_the_labels_are",
    f"{LABELS}::test_without_such_a_node_it_fails_and_says_what_is_missing",
    f"{POLICIES}::test_alternatives_are_tried_in_order_while_they_fit",
)
row(
    "`NodeLabelSchedulingStrategy`",
    "the older form, with `In`, `NotIn`, `Exists`, `DoesNotExist`",
    f"{LABELS}::test_it_runs_where_the_labels_are",
    "unit/sdk/api/test_strategy_options.py::test_where_to_run",
)
differs(
    "what no node can hold",
    "waits for ever, with a warning",
    f"{NODES}::test_what_fits_no_node_names_the_closest",
    "integration/test_embedded_placement.py::test_a_task_that_no_node_can_ever_hold_fails",
    how="fails after 30 s (`infeasible_grace_s`), naming the closest node",
)
row(
    "large functions",
    "sent once a job; a warning from 10 MiB, a `ValueError` from 100 MiB",
    f"{TASKS_FILE}::test_big_closure",
    f"{TASKS_FILE}::test_big_closure_is_warned_about",
    f"{TASKS_FILE}::test_too_big_closure",
)
row(
    "`cancel(ref, force, recursive)`",
    "what waits never begins, what runs gets `KeyboardInterrupt`, or is killed; children too; never run again",
    "e2e/compat/test_cancel.py::test_what_waits_for_a_worker",
    "e2e/compat/test_cancel.py::test_what_has_ended",
    "integration/test_sdk_cancel.py::test_a_task_that_runs_is_interrupted_and_its_worker_lives_on",
    "integration/test_sdk_cancel.py::test_with_force_its_worker_is_killed",
    "integration/test_sdk_cancel.py::test_what_it_has_submitted_is_cancelled_too",
)
row(
    "`enable_task_events=`",
    "whether what happens to a function's tasks, or to an actor's calls, is recorded",
    "integration/test_task_events.py::test_what_is_told_of_is_an_option",
)
differs(
    "`_labels=`",
    "labels of tasks",
    f"{EVERY_OPTION}::test_every_option_is_implemented_or_refused",
    how="refused",
)
