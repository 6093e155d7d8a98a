"""``make test-openapi``: schemathesis makes up questions out of the dashboard's ``/openapi.json``, sensible and not,
and looks whether each answer is one that the document tells of.

Its venv is made in ``.cache/libraries`` and kept, or is the one that the first argument names; further ones are for
schemathesis.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from run import environment

import shoal
from shoal.job_submission import JobSubmissionClient
from shoal.util.placement_group import placement_group

SCHEMATHESIS = ("schemathesis==4.32.5",)
#: Questions about each endpoint, and how long it all may take, in seconds.
EXAMPLES, PATIENCE_S = 15, 600
#: Of an id that is taken Ray's clients expect 500.
CONFIGURATION = """
[[operations]]
include-name = "POST /api/jobs/"
checks.not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 500]
"""
#: Commands are run: of those that are made up and can be run, none is.
HARMLESS = """
import schemathesis

@schemathesis.hook
def before_call(context, case, kwargs):
    wanted = case.body if isinstance(case.body, dict) and case.operation.path == "/api/jobs/" else {}
    command = wanted.get("entrypoint")
    if isinstance(command, str) and command.strip() and len(command) <= 100_000:
        wanted["entrypoint"] = "true"
"""


@shoal.remote
class Counter:
    def add(self) -> int:
        return 1


@shoal.remote(max_retries=0)
def fails() -> None:
    raise ValueError("on purpose")


def main(given: list[str]) -> int:
    python = Path(given[0], "bin", "python") if given else environment("openapi", *SCHEMATHESIS)
    init = shoal.init(address="local", num_cpus=2, include_dashboard=True, logging_level="ERROR", log_to_driver=False)
    with tempfile.TemporaryDirectory(prefix="sl-") as directory, init as context:
        token = Path(context["session_dir"], "auth_token").read_text().strip()
        # Something of everything.
        counter, group = Counter.remote(), placement_group([{"CPU": 1}])
        shoal.wait([counter.add.remote(), fails.remote(), group.ready()], num_returns=3)
        kept = shoal.put(bytes(2_000_000))
        Path(directory, "schemathesis.toml").write_text(CONFIGURATION)
        Path(directory, "harmless.py").write_text(HARMLESS)
        hooks = {**os.environ, "SCHEMATHESIS_HOOKS": "harmless", "PYTHONPATH": directory}
        command = [
            *(python.parent / "schemathesis", "run", f"http://{context.dashboard_url}/openapi.json"),
            *("--header", f"Authorization: Bearer {token}"),
            *("--phases", "examples,coverage,fuzzing", "--max-examples", str(EXAMPLES), "--seed", "1"),
            # That a filter's three lists are alike long, and a pid is one of a process, no schema can say.
            *("--exclude-checks", "positive_data_acceptance"),
            *("--continue-on-failure", "--no-color", *given[1:]),
        ]
        done = subprocess.run(command, cwd=directory, env=hooks, timeout=PATIENCE_S)
        headers = {"Authorization": f"Bearer {token}"}
        jobs = JobSubmissionClient(f"http://{context.dashboard_url}", headers=headers).list_jobs()
        assert {job.entrypoint for job in jobs if job.type == "SUBMISSION"} == {"true"}
        del kept
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
