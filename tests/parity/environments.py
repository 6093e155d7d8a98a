"""Runtime environments."""

from __future__ import annotations

from parity.row import Section

ENVIRONMENTS = Section("Runtime environments")
row, missing = ENVIRONMENTS.works, ENVIRONMENTS.missing

FILE = "e2e/compat/test_runtime_env.py"
REFUSED = "unit/common/placement/test_runtime_env.py::test_what_is_refused"
WHY = "not there yet, and refused"
missing("`working_dir`", "a directory or archive, sent once, where tasks run", REFUSED, why=WHY)
missing("`py_modules`", "modules that travel along", REFUSED, why=WHY)
missing("`excludes`", "what is not sent", why=WHY)
missing("`pip`, `uv`", "packages, built once on a node", REFUSED, why=WHY)
missing("`conda`", "an environment of conda", why=WHY)
missing("drivers under `uv run`", "workers run the same way", why=WHY)
missing("`py_executable`", "what starts workers", why=WHY)
row(
    "`env_vars`",
    "variables, merged from job to task to child; `${NAME}` is what the node has",
    f"{FILE}::test_children_inherit_and_add",
    f"{FILE}::test_variables_are_expanded_on_the_node",
)
missing("`image_uri`, `container`", "workers in a container", why=WHY)
missing("`worker_process_setup_hook`", "runs first in each worker", why=WHY)
missing("`config`", "time-out, eager installation", why=WHY)
missing("`nsight`, `rocprof_sys`, `java_jars`", "profilers, Java", why=WHY)
missing("plugins", "fields of one's own", why=WHY)
row(
    "inheritance",
    "a child's fields over its parent's; a worker serves one environment",
    f"{FILE}::test_children_inherit_and_add",
    f"{FILE}::test_a_worker_serves_one_environment",
)
