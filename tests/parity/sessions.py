"""init, shutdown, and what a driver asks about its cluster."""

from __future__ import annotations

from parity.row import Section

INIT = "e2e/compat/test_init.py"
CONTEXT = "e2e/compat/test_context.py"
ADDRESS = "unit/sdk/session/test_address.py::test_what_init_connects_to"
EVERY_OPTION = "unit/sdk/api/test_every_option.py"

SESSIONS = Section("Sessions")
row, differs, missing = SESSIONS.works, SESSIONS.differs, SESSIONS.missing

row(
    "`init()`",
    "takes the cluster that `SHOAL_ADDRESS` names, else the last one started on this machine, else starts its own",
    ADDRESS,
    f"{INIT}::test_second_driver_joins",
    "integration/test_cluster_utils.py::test_programs_of_this_machine_find_it",
)
row(
    '`init("auto")`', "the same, but no cluster is a `ConnectionError`", ADDRESS, f"{INIT}::test_no_cluster_to_be_found"
)
row('`init("local")`', "always a cluster of its own", ADDRESS)
row(
    '`init("host:port")`',
    "attaches as a driver; nobody there is a `ConnectionError`",
    f"{INIT}::test_second_driver_joins",
    f"{INIT}::test_wrong_address",
)
differs(
    '`init("ray://host:10001")`',
    "a driver outside of the cluster, whose connection may break for 30 s",
    "integration/test_gateway.py::test_tasks_and_nested_tasks",
    "integration/test_gateway_sessions.py::test_after_a_cut_longer_than_the_grace_everything_fails_with_a_clear_error",
    how="`shoal://`",
)
differs(
    "`allow_multiple=True`",
    "several client connections in one process; a `RuntimeError` where it is no client",
    f"{INIT}::test_wrong_arguments",
    how="always the `RuntimeError`: one session a process",
)
row(
    "`init()` twice",
    "a `RuntimeError`; with `ignore_reinit_error` the running session",
    f"{INIT}::test_second_init",
)
row(
    "resources while connecting",
    "`num_cpus`, `resources`, `object_store_memory` and the like are a `ValueError`",
    f"{INIT}::test_wrong_arguments",
)
row(
    "unknown arguments",
    "`RuntimeError: Unknown keyword argument(s)`",
    f"{EVERY_OPTION}::test_unknown_arguments_of_init",
)
row(
    "what `init` returns",
    "addresses and versions; a context manager, and a mapping",
    f"{INIT}::test_context_returned_by_init",
    f"{INIT}::test_context_manager",
    f"{INIT}::test_context_is_a_mapping",
)
row(
    "automatic `init`",
    "the first call of the API starts a session; `SHOAL_ENABLE_AUTO_CONNECT=0` forbids it",
    f"{INIT}::test_first_use_starts_a_cluster",
    f"{INIT}::test_automatic_init_switched_off",
)
row(
    "default resources",
    "all CPUs; of the available memory 70 % for tasks and 30 % for the store",
    f"{INIT}::test_default_resources",
    "unit/sdk/launch/test_node_resources.py::test_shares_of_the_memory",
)
row(
    "`shutdown()`",
    "may be repeated, runs at exit, ends the cluster that `init` started; refs and handles are void, functions work on",
    f"{INIT}::test_shutdown_is_idempotent",
    f"{INIT}::test_shutdown_ends_every_process",
    f"{INIT}::test_nothing_is_left_when_the_driver_ends",
    f"{INIT}::test_functions_and_classes_work_again_after_init",
    f"{INIT}::test_handles_of_an_earlier_session",
)
row(
    "SIGTERM",
    "ends a driver in order; the program's own handler is there again after `shutdown`",
    f"{INIT}::test_nothing_is_left_when_the_driver_is_killed",
    "integration/test_sdk_driver_use.py::test_signal_handlers_are_given_back",
)
row("`is_initialized()`", "whether there is a session", f"{INIT}::test_is_initialized")
row(
    "`namespace=`",
    "of named actors and placement groups; without it one of the job's own",
    f"{INIT}::test_namespace",
    f"{INIT}::test_anonymous_namespace",
)
differs(
    "`job_config=`",
    "namespace, default lifetime of actors, paths of code, metadata",
    f"{INIT}::test_job_config",
    f"{EVERY_OPTION}::test_job_config_refuses_what_is_not_implemented",
    how="`jvm_options` is refused",
)
differs(
    "`runtime_env=`",
    "the environment of all tasks and actors of the job, not of the driver",
    "e2e/compat/test_runtime_env.py::test_variables_of_the_job",
    f"{EVERY_OPTION}::test_init_refuses_what_is_not_implemented",
    how="only the fields under [Runtime environments](#runtime-environments)",
)
row(
    "`log_to_driver=`, `logging_level=`, `logging_config=`",
    "whether workers' output is shown, and how the processes of the job log",
    f"{INIT}::test_logging",
    "integration/test_sdk_output.py::test_output_is_not_shown_when_not_wanted",
    "integration/test_sdk_output.py::test_all_processes_of_a_job_log_as_it_says",
)
row(
    "`labels=`",
    "labels of the node that `init` starts",
    "integration/test_sdk_labels.py::test_labels_are_those_given_and_the_id",
    "integration/test_sdk_labels.py::test_bad_labels_of_a_node_are_refused",
)
row(
    "`nodes()`, `cluster_resources()`, `available_resources()`",
    "the nodes, and their resources in all and free",
    f"{CONTEXT}::test_nodes",
    f"{CONTEXT}::test_cluster_resources",
    "integration/test_nodes_actors.py::test_the_driver_is_told_which_nodes_there_are",
)
row(
    "`timeline()`",
    "what ran when, as a Chrome trace: of whatever the dashboard keeps singly",
    "integration/test_dashboard.py::test_a_timeline_has_what_ran_and_who_submitted_it",
)
