"""The runtime context, placement groups, nodes and their memory."""

from __future__ import annotations

from parity.row import Section

CONTEXT_FILE = "e2e/compat/test_context.py"
UNIT = "unit/sdk/test_runtime_context.py"
GROUPS_FILE = "e2e/compat/test_placement_groups.py"
GROUP_DEATHS = "chaos/test_placement_group_deaths.py"
MONITOR = "integration/test_sdk_memory_monitor.py"
POLICY = "unit/raylet/leases/test_memory_policy.py"

CONTEXT = Section("Runtime context")
CONTEXT.works(
    "`get_runtime_context()`",
    "ids, names, resources, devices, labels, group, namespace and directories of what runs",
    f"{CONTEXT_FILE}::test_driver",
    f"{CONTEXT_FILE}::test_task",
    f"{CONTEXT_FILE}::test_actor",
    f"{CONTEXT_FILE}::test_assigned_resources",
    f"{UNIT}::test_in_a_placement_group",
    f"{UNIT}::test_what_only_workers_have",
    "e2e/compat/test_runtime_env.py::test_variables_of_the_job",
)
CONTEXT.works(
    "`get_gpu_ids()`",
    "those that this process was granted",
    f"{CONTEXT_FILE}::test_no_gpus",
    "integration/test_sdk_scheduling.py::test_gpus_are_told_apart",
    "integration/test_sdk_scheduling.py::test_gpus_of_actors",
)

GROUPS = Section("Placement groups")
row, differs, missing = GROUPS.works, GROUPS.differs, GROUPS.missing

differs(
    "`placement_group(bundles, strategy, name, lifetime, bundle_label_selector)`",
    "returns at once; all bundles or none; empty ones are a `ValueError`",
    f"{GROUPS_FILE}::test_all_bundles_are_reserved_or_none",
    f"{GROUPS_FILE}::test_bundles_that_are_none",
    f"{GROUPS_FILE}::test_bad_arguments",
    "unit/gcs/groups/test_bundle_planner.py::test_labels_bind_bundles_to_nodes",
    how="`topology_strategy` (2.60) is missing",
)
row(
    "strategies",
    "PACK, SPREAD, STRICT_PACK, STRICT_SPREAD",
    f"{GROUPS_FILE}::test_strategies_that_one_node_can_serve",
    f"{GROUPS_FILE}::test_strict_spread_waits_for_more_nodes",
    "unit/gcs/groups/test_bundle_planner.py::test_pack_takes_few_nodes_when_one_is_too_small_and_strict_pack_none",
    "unit/gcs/groups/test_bundle_planner.py::test_spread_takes_all_nodes_and_then_shares_them",
)
row(
    "`ready()`",
    "a ref that gives the group",
    f"{GROUPS_FILE}::test_ready_resolves_to_the_group",
    f"{GROUPS_FILE}::test_what_waits_for_a_removed_group_fails",
)
row("`wait(timeout_seconds)`", "whether it is there", f"{GROUPS_FILE}::test_a_group_waits_until_there_is_room")
row(
    "`PlacementGroupSchedulingStrategy`",
    "any bundle with room, or one; what fits none is a `ValueError`",
    f"{GROUPS_FILE}::test_a_task_runs_in_the_group",
    f"{GROUPS_FILE}::test_an_actor_runs_in_the_group",
    f"{GROUPS_FILE}::test_a_bundle_that_does_not_exist",
    f"{GROUPS_FILE}::test_a_request_that_no_bundle_can_hold",
)
row(
    "captured children",
    "run in the group of their parent, unless they say otherwise",
    f"{GROUPS_FILE}::test_captured_children_run_in_the_group_and_so_do_theirs",
    f"{GROUPS_FILE}::test_a_child_can_leave_the_group",
)
row(
    "`remove_placement_group(pg)`",
    "ends what runs in it, and what waits for it fails",
    f"{GROUPS_FILE}::test_removal_kills_what_runs_in_the_group",
    f"{GROUPS_FILE}::test_what_waits_for_a_removed_group_fails",
)
row(
    "a node dies",
    "its bundles move, the others go on",
    f"{GROUP_DEATHS}::test_bundles_of_a_dead_node_move_and_the_others_keep_running",
    "unit/gcs/groups/test_table.py::test_a_group_that_lost_bundles_goes_first",
)
row(
    "lifetime",
    "ends with who made it, unless it is detached",
    f"{GROUPS_FILE}::test_a_group_ends_with_its_driver_unless_it_is_detached",
    f"{GROUPS_FILE}::test_a_group_ends_with_the_detached_actor_that_made_it",
)
row(
    "`get_placement_group`, `placement_group_table`, `get_current_placement_group`",
    "by name; as data; of this task",
    f"{GROUPS_FILE}::test_a_named_group_is_found_until_it_is_removed",
    f"{GROUPS_FILE}::test_the_table",
    f"{GROUPS_FILE}::test_the_current_group",
)
row(
    "GPUs of a bundle",
    "always the same devices",
    "integration/test_sdk_gpus.py::test_each_bundle_of_a_placement_group_has_its_device",
)

NODES = Section("Nodes and memory")
row, differs, missing = NODES.works, NODES.differs, NODES.missing

differs(
    "draining",
    "a node that is told to leave takes nothing new, and costs no retries or restarts",
    "chaos/test_node_death.py::test_a_node_that_leaves_in_order_fails_nothing",
    "unit/raylet/leases/test_worker_leases.py::test_a_node_that_leaves_asks_for_its_leases_and_sends_on_who_waits",
    "chaos/test_durable_actor_deaths.py::test_nodes_that_leave_take_nothing_along_and_cost_no_restart",
    "integration/test_cluster_utils.py::test_a_node_that_leaves_is_seen_to",
    how="by SIGTERM, `shoal stop` or `shoal drain`; `nodes()` and `on_drain()` tell the deadline; no kinds of reasons",
)
differs(
    "memory monitor",
    "over 95 % of a node's memory a worker is killed; its task runs again after a pause",
    f"{MONITOR}::test_task_is_killed",
    f"{MONITOR}::test_task_is_retried",
    f"{MONITOR}::test_actor_is_restarted",
    f"{POLICY}::test_the_newest_goes_so_that_the_oldest_gets_through",
    "unit/sdk/core/test_retries.py::test_what_filled_the_memory_waits_longer_each_time",
    how="who has grown goes, and only of the job that uses most",
)
missing(
    "`enable_resource_isolation`",
    "memory and CPU of the services apart from those of workers",
    "unit/sdk/api/test_every_option.py::test_init_refuses_what_is_not_implemented",
    why="not there; `enforce_memory=True` limits a task",
)
row(
    "children of workers",
    "end with them, whatever group they are in",
    "e2e/compat/test_crash.py::test_children_of_a_dead_worker_are_gone",
    "e2e/compat/test_init.py::test_shutdown_ends_every_process",
)
