"""What Ray has in `ray.util`, and graphs."""

from __future__ import annotations

from parity.row import Section

UTIL = "e2e/compat/test_util.py"
POOL = "e2e/compat/test_util_pool.py"
NAMES = "unit/sdk/test_names.py::test_missing_names_of_ray_say_what_to_do"

UTILITIES = Section("Utilities and graphs")
row, differs, missing = UTILITIES.works, UTILITIES.differs, UTILITIES.missing

row(
    "`util.ActorPool`",
    "`map`, `submit`, `get_next`, unordered, `push`, `pop_idle`",
    f"{UTIL}::test_pool_map",
    f"{UTIL}::test_pool_submit_and_get_next",
    f"{UTIL}::test_pool_get_next_timeout",
    f"{UTIL}::test_pool_push_and_pop",
)
row(
    "`util.queue.Queue`",
    "between tasks and actors, blocking, async, in batches",
    f"{UTIL}::test_queue_between_tasks",
    f"{UTIL}::test_queue_limits",
    f"{UTIL}::test_queue_async",
    f"{UTIL}::test_queue_batches",
    "unit/sdk/util/test_queue.py::test_errors_are_those_of_the_standard_library",
)
differs(
    "`util.multiprocessing.Pool`",
    "the standard library's, on actors",
    f"{POOL}::test_map",
    f"{POOL}::test_imap",
    f"{POOL}::test_apply",
    f"{POOL}::test_terminated_pool",
    how="an error ends `imap`, `context=` is refused",
)
differs(
    "`util.metrics`",
    "`Counter`, `Gauge`, `Histogram` with tags, for Prometheus",
    "e2e/compat/test_metrics.py::test_checks",
    "integration/test_metrics.py::test_tasks_actors_and_the_driver_count_together",
    how="named `shoal_…`, one series for each job and node",
)
row(
    "`client()`, `util.connect`, `util.disconnect`",
    "other ways to connect from outside of the cluster",
    "integration/test_gateway.py::test_other_ways_to_connect",
)
row(
    "`experimental.tqdm_ray`",
    "progress bars of workers, drawn by the driver",
    "integration/test_tqdm.py::test_bars_of_workers_and_what_they_print",
    "unit/sdk/session/test_progress.py::test_what_is_printed_stands_above_them",
)
differs(
    "`autoscaler.sdk.request_resources`",
    "room that a program is about to need",
    "integration/test_kv.py::test_room_that_a_program_asks_for_lies_where_an_autoscaler_finds_it",
    how="kept for an autoscaler to read; the cluster launcher's functions are not there",
)
row("`util.joblib.register_ray()`", "a backend of joblib", f"{POOL}::test_joblib")
missing("`util.iter`", "parallel iterators", NAMES, why="deprecated in Ray; `as_completed`, `map_unordered`")
differs(
    "`util.collective`",
    "`allreduce`, `broadcast`, `send` and their kind between actors",
    "integration/test_collective.py::test_reductions",
    "integration/test_collective.py::test_the_others",
    "integration/test_collective.py::test_from_one_to_another",
    how="on numpy arrays, over Shoal's own channels whatever the backend's name",
)
differs(
    "`util.dask`",
    "dask's graphs as tasks",
    "integration/test_dask.py::test_graphs_give_what_dask_gives",
    "integration/test_dask.py::test_arrays",
    "integration/test_dask.py::test_results_stay_in_the_cluster",
    "integration/test_dask.py::test_options_of_some_tasks",
    "integration/test_dask.py::test_callbacks_here_are_told",
    how="`persist` keeps results in the cluster where it is told to; `num_workers` is refused",
)
differs(
    "tracing",
    "OpenTelemetry spans across calls",
    "integration/test_tracing.py::test_one_trace_through_all_that_is_called",
    "integration/test_tracing.py::test_as_the_environment_says",
    how="spans are called `f shoal.remote` and `f shoal.remote_worker`, attributes `shoal.…`",
)
DEBUGGER = "integration/test_debugger.py"
differs(
    "`util.rpdb`, `util.pdb`",
    "breakpoints in workers, post-mortem",
    f"{DEBUGGER}::test_a_breakpoint_in_a_task",
    f"{DEBUGGER}::test_in_an_actor_one_terminal_at_a_time",
    f"{DEBUGGER}::test_after_an_error",
    f"{DEBUGGER}::test_the_command_attaches",
    how="`shoal debug`; `SHOAL_DEBUG_POST_MORTEM`",
)
differs(
    "`bind`, `InputNode`, `MultiOutputNode`, `execute`",
    "graphs of tasks and actors, run as ordinary calls",
    "e2e/compat/test_dag.py::test_tasks",
    "e2e/compat/test_dag.py::test_actors",
    "e2e/compat/test_dag.py::test_inputs",
    how="what would be dropped in silence is a `TypeError`",
)
differs(
    "`experimental_compile`",
    "graphs whose actors wait for values in shared memory",
    "e2e/compat/test_compiled_graphs.py::test_values_go_from_actor_to_actor",
    "e2e/compat/test_compiled_graphs.py::test_fan_out_and_in",
    "e2e/compat/test_compiled_graphs.py::test_several_outputs",
    "e2e/compat/test_compiled_graphs.py::test_inputs",
    "e2e/compat/test_compiled_graphs.py::test_what_cannot_be_compiled",
    "integration/test_nodes_actors.py::test_a_compiled_graph_of_actors_elsewhere_is_refused",
    how="on one node, without tensors on GPUs and collective nodes",
)
row(
    "`CompiledDAG.execute`, `CompiledDAGRef`",
    "asked for once, in any order; errors travel to it, and the graph lives on; bounded; ends with an actor",
    "e2e/compat/test_compiled_graphs.py::test_a_result_is_asked_for_once",
    "e2e/compat/test_compiled_graphs.py::test_an_error_travels_to_the_result_and_the_graph_lives_on",
    "e2e/compat/test_compiled_graphs.py::test_results_kept_for_later_are_bounded",
    "e2e/compat/test_compiled_graphs.py::test_an_actor_that_dies_is_named",
)
row("`execute_async`", "the same, awaited", "e2e/compat/test_compiled_graphs.py::test_asyncio")
missing("`java_function`, `cpp_function`, …", "other languages", why="not aimed at: Shoal is Python only")
