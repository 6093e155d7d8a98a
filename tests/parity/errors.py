"""The classes of errors, and when they are raised."""

from __future__ import annotations

from parity.row import Section

FILE = "e2e/compat/test_errors.py"
UNIT = "unit/sdk/test_exceptions.py"
GROUPS = "e2e/compat/test_placement_groups.py"
#: Of a class that exists for the programs that name it.
NAME = f"{UNIT}::test_has_the_class_under_rays_name"

ERRORS = Section("Errors")
row, differs, missing = ERRORS.works, ERRORS.differs, ERRORS.missing

row("`RayError`", "the root; `ShoalError`", f"{FILE}::test_caught_by_the_class_of_ray", f"{FILE}::test_class_hierarchy")
differs(
    "`RayTaskError`",
    "what a task raised: caught by its own class, with `cause`, the remote traceback and the process",
    f"{FILE}::test_caught_by_its_own_class",
    f"{FILE}::test_message_has_the_remote_traceback",
    f"{FILE}::test_class_that_cannot_be_subclassed",
    f"{FILE}::test_exception_that_cannot_be_pickled",
    how="an exception whose `args` cannot be set keeps them",
)
row("`TaskCancelledError`", "of a cancelled task", "e2e/compat/test_cancel.py::test_what_waits_for_a_worker")
row(
    "`WorkerCrashedError`",
    "the worker died, and the task may not run again",
    "e2e/compat/test_crash.py::test_worker_death",
    "chaos/test_worker_death.py::test_error_names_the_reason",
)
row(
    "`RayActorError`, `ActorDiedError`, `ActorUnavailableError`",
    "the actor is dead, or cannot be reached just now",
    "e2e/compat/test_crash.py::test_actor_death_names_its_reason",
    f"{UNIT}::test_actor_death_by_constructor",
    "chaos/test_actor_death.py::test_restarted_after_a_crash",
)
row("`GetTimeoutError`", "also a `TimeoutError`", "e2e/compat/test_objects.py::test_get_timeout")
row(
    "`ObjectLostError`",
    "no copy is left, and nothing makes it again",
    "integration/test_nodes_objects.py::test_what_was_only_on_a_dead_node_is_lost",
)
row(
    "`OwnerDiedError`",
    "with its owner",
    "chaos/test_owner_death.py::test_each_kind_of_object_says_that_its_owner_has_died",
)
row(
    "`ObjectReconstructionFailedError`",
    "why it could not be made again",
    "chaos/test_lineage.py::test_what_cannot_be_made_again_says_why",
    f"{UNIT}::test_reconstruction_failure_explains_its_reason",
)
row(
    "`ObjectFetchTimedOutError`",
    "it could not be fetched for long",
    "unit/raylet/objects/test_search.py::test_without_progress_it_ends_and_says_what_kept_it",
)
missing(
    "`ObjectFreedError`, `ReferenceCountingAssertionError`",
    "freed by hand; defects",
    NAME,
    why="names only: nothing is freed by hand",
)
row(
    "`ObjectStoreFullError`, `OutOfDiskError`",
    "neither memory nor disk has room",
    "e2e/compat/test_objects.py::test_a_full_disk_is_an_error_that_ends_when_references_do",
    "unit/raylet/objects/test_index.py::test_a_full_disk_is_told_with_all_that_matters",
)
row(
    "`OutOfMemoryError`",
    "killed for its memory, and may not run again",
    "integration/test_sdk_memory_monitor.py::test_task_is_killed",
)
row(
    "`NodeDiedError`, `LocalRayletDiedError`",
    "the node of the task, or one's own",
    "chaos/test_node_death.py::test_a_task_that_may_not_run_again_fails_with_its_node",
    "chaos/test_head_death.py::test_work_under_way_fails",
)
row(
    "`TaskUnschedulableError`, `ActorUnschedulableError`",
    "no node can ever run it",
    "integration/test_nodes_tasks.py::test_affinity_to_a_node_that_is_not_there",
    "integration/test_embedded_placement.py::test_an_actor_that_no_node_can_ever_hold_fails",
)
row(
    "`TaskPlacementGroupRemoved`, `ActorPlacementGroupRemoved`",
    "its group is gone",
    f"{GROUPS}::test_what_waits_for_a_removed_group_fails",
    f"{GROUPS}::test_what_comes_after_the_removal_fails",
)
row("`PendingCallsLimitExceeded`", "too many open calls", "e2e/compat/test_actors.py::test_pending_calls_limit")
row(
    "`RuntimeEnvSetupError`",
    "an environment cannot be built",
    "integration/test_virtual_envs.py::test_the_tools_last_lines_are_told",
    "integration/test_sdk_environments.py::test_what_cannot_be_had_says_so",
)
row(
    "`AsyncioActorExit`",
    "ends a coroutine that calls `exit_actor()`",
    "e2e/compat/test_async_actors.py::test_exit_actor_of_an_async_actor",
    "e2e/compat/test_actor_exit.py::test_exit_ends_an_async_actor_whose_coroutines_never_end",
)
row(
    "`ActorAlreadyExistsError`, `ActorHandleNotFoundError`",
    "both a `ValueError`",
    "e2e/compat/test_named_actors.py::test_name_is_taken",
    "e2e/compat/test_init.py::test_handles_of_an_earlier_session",
)
row(
    "`UnserializableException`",
    "the text of what cannot be unpickled",
    f"{FILE}::test_exception_that_cannot_be_unpickled",
    f"{UNIT}::test_exception_that_cannot_be_unpickled_arrives_as_text",
)
row(
    "`RaySystemError`, `RpcError`, `AuthenticationError`",
    "of the system itself",
    "e2e/compat/test_init.py::test_automatic_init_switched_off",
    "integration/test_sdk_gcs_client.py::test_no_answer_is_an_error_of_ours_that_names_the_gcs_and_travels",
    "integration/test_sdk_security.py::test_driver_with_a_wrong_token",
)
missing(
    "`CrossLanguageError`, `UserCodeException`, `PlasmaObjectNotAvailable`",
    "of other languages and older versions",
    NAME,
    why="names only, so that programs can be imported",
)
row(
    "`RayChannelError`, `RayChannelTimeoutError`, `RayCgraphCapacityExceeded`",
    "of compiled graphs",
    "e2e/compat/test_compiled_graphs.py::test_after_teardown",
    "e2e/compat/test_compiled_graphs.py::test_a_result_that_does_not_come_in_time",
    "e2e/compat/test_compiled_graphs.py::test_executions_under_way_are_bounded",
)
missing(
    "`RayDirectTransportError`",
    "of transfers between GPUs",
    NAME,
    why="names only: nothing goes straight from GPU to GPU",
)
row(
    "`StreamingGeneratorReplayInconsistentError`",
    "a generator that ran again yielded another number of items",
    "integration/test_sdk_generators.py::test_a_repetition_that_yields_less_is_an_error",
)
row(
    "`ObjectRefStreamEndOfStreamError`",
    "what `wait` finds at the end of a generator; `next` raises `StopIteration`",
    "e2e/compat/test_generators.py::test_the_end_is_ready_for_wait",
)
row(
    "`OufOfBandObjectRefSerializationException`",
    "a ref was pickled by hand, and that is forbidden",
    NAME,
    "e2e/compat/test_objects.py::test_reference_pickled_by_hand_where_that_is_forbidden",
)
row(
    "what is no `Exception`",
    "`SystemExit`, `KeyboardInterrupt` and groups of exceptions in tasks",
    f"{FILE}::test_exceptions_beside_exception",
    f"{FILE}::test_keyboard_interrupt_counts_as_cancelled",
    f"{FILE}::test_exception_group",
    "e2e/compat/test_crash.py::test_sys_exit_zero_is_a_death_too",
)
