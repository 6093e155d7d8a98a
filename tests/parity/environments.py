"""Runtime environments."""

from __future__ import annotations

from parity.row import Section

ENVIRONMENTS = Section("Runtime environments")
row, missing = ENVIRONMENTS.works, ENVIRONMENTS.missing

FILES = "integration/test_sdk_environments.py"
MADE = "unit/raylet/workers/environments/test_made_by_plugins.py"
KEYS = "unit/common/placement/test_runtime_env.py::test_keys_tell_environments_apart_but_not_their_config"
FILE = "e2e/compat/test_runtime_env.py"
REFUSED = "unit/common/placement/test_runtime_env.py::test_what_is_refused"
row(
    "`working_dir`",
    "a directory or archive, sent once, where tasks run",
    f"{FILES}::test_the_working_directory_of_the_job",
    f"{FILES}::test_a_task_with_its_own",
    f"{FILES}::test_an_archive_from_elsewhere",
)
row("`py_modules`", "modules, archives and wheels that travel along", f"{FILES}::test_modules_of_an_actor")
row("`excludes`", "what is not sent", "unit/sdk/session/test_packages.py::test_what_of_a_directory_is_uploaded")
row(
    "`pip`, `uv`",
    "packages, built once on a node",
    f"{FILES}::test_installed_packages",
    "integration/test_virtual_envs.py::test_another_node_has_it_without_an_index",
    "integration/test_virtual_envs.py::test_the_tools_last_lines_are_told",
)
row(
    "`conda`",
    "an environment of conda: by name, a file, or what it is made of",
    f"{FILES}::test_an_environment_of_conda",
    "unit/sdk/test_runtime_env.py::test_a_file_of_conda",
)
missing(
    "drivers under `uv run`",
    "workers run the same way",
    why='not detected: `py_executable="uv run"` and `working_dir` say it',
)
row(
    "`py_executable`",
    "what starts workers",
    f"{FILES}::test_an_interpreter_of_its_own_with_modules_imported",
    f"{FILES}::test_processes_that_do_not_start_say_why",
)
row(
    "`env_vars`",
    "variables, merged from job to task to child; `${NAME}` is what the node has",
    f"{FILE}::test_children_inherit_and_add",
    f"{FILE}::test_variables_are_expanded_on_the_node",
)
row(
    "`image_uri`, `container`",
    "workers in a container",
    "e2e/compose/test_workers_in_images.py::test_an_actor_in_an_image",
    "unit/raylet/workers/environments/test_containers.py::test_why_an_image_cannot_be_used",
)
row(
    "`worker_process_setup_hook`",
    "runs first in each worker",
    f"{FILE}::test_a_hook_runs_in_each_worker_before_its_first_task",
)
row("`config`", "time-out, eager installation", "unit/sdk/test_runtime_env.py::test_config", KEYS)
row("`nsight`", "workers under NVIDIA's profiler", f"{FILES}::test_each_worker_is_profiled_by_itself")
missing("`rocprof_sys`, `java_jars`", "AMD's profiler, Java", REFUSED, why="`py_executable` starts a profiler; no Java")
row(
    "plugins",
    "fields of one's own, made, counted and deleted by URI",
    f"{FILES}::test_a_field_that_a_plugin_brings",
    f"{MADE}::test_a_node_that_lacks_the_plugin_says_so",
    f"{MADE}::test_each_thing_is_made_once_and_deleted_with_its_last_user",
)
row(
    "inheritance, removal",
    "a child's fields over its parent's; a worker serves one environment; a bounded cache",
    f"{FILE}::test_children_inherit_and_add",
    f"{FILE}::test_a_worker_serves_one_environment",
    "unit/raylet/workers/environments/test_cache.py::test_room_is_made_of_what_nobody_uses",
)
