"""``make test-ray-clients``: Ray's own commands, out of a venv that has Ray and nothing of Shoal, on Shoal's dashboard.

Everything that ``ray list``, ``ray get`` and ``ray summary`` can ask for, with filters and details, and jobs from
``ray job submit`` to ``delete``. The venv is made in ``.cache/libraries`` and kept, or is the one that the argument
names. With pydantic, which is in it, Ray's clients check the type of each column.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from run import environment

import shoal
from shoal.util.placement_group import placement_group

RAY = ("ray==2.60.0", "pydantic", "aiohttp", "requests")
#: Of one command, in seconds.
PATIENCE_S = 300


@shoal.remote
class Counter:
    def add(self) -> int:
        return 1


@shoal.remote
def one() -> int:
    return 1


class Ray:
    """The command ``ray``, with the address and the token in its environment."""

    def __init__(self, command: Path, url: str, token: str, home: Path) -> None:
        self._command = command
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SHOAL_"))}
        ray = {"RAY_API_SERVER_ADDRESS": url, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
        self._environ = {**inherited, **ray, "HOME": str(home), "RAY_ADDRESS": url}

    def run(self, *arguments: str, code: int = 0) -> str:
        print("ray", *arguments, flush=True)
        done = subprocess.run(
            [self._command, *arguments],
            env=self._environ,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE_S,
        )
        assert done.returncode == code, done.stdout
        return done.stdout

    def list(self, resource: str, *filters: str, detail: bool = True) -> list[dict[str, Any]]:
        arguments = [part for each in filters for part in ("--filter", each)] + ["--detail"] * detail
        rows: list[dict[str, Any]] = json.loads(self.run("list", resource, "--format=json", *arguments))
        return rows


def ray_until(look: Callable[[], object], what: str) -> None:
    """What is told of tasks gathers for some seconds on its way."""
    deadline = time.monotonic() + PATIENCE_S
    while not look():
        assert time.monotonic() < deadline, what
        time.sleep(1)


def states(ray: Ray, node_id: str) -> None:
    counters = [Counter.options(num_cpus=0, name=f"c{number}").remote() for number in range(3)]  # type: ignore[attr-defined]
    shoal.get([counter.add.remote() for counter in counters])
    shoal.kill(counters[0])
    group = placement_group([{"CPU": 1}], name="pair")
    shoal.get(group.ready())
    ref = shoal.put(np.zeros(2**20, dtype=np.uint8))
    shoal.get(one.options(num_cpus=0, runtime_env={"env_vars": {"COLOUR": "red"}}).remote())

    assert {row["name"] for row in ray.list("actors", "class_name=Counter", "state!=DEAD")} == {"c1", "c2"}
    [dead] = ray.list("actors", "name=c0")
    assert dead["state"] == "DEAD" and dead["death_cause"]["exit_type"] == "INTENDED_SYSTEM_EXIT"
    assert len(ray.list("actors", detail=False)) >= 3
    [node] = ray.list("nodes", "state=ALIVE")
    assert node["node_id"] == node_id and node["is_head_node"]
    assert [row["type"] for row in ray.list("jobs", "status=RUNNING")] == ["DRIVER"]
    assert [row["pid"] for row in ray.list("workers", "worker_type=DRIVER", "is_alive=True")] == [os.getpid()]
    [row] = ray.list("objects", f"object_id={ref.hex()}")
    assert row["pid"] == os.getpid()
    assert [row["state"] for row in ray.list("placement-groups", "name=pair")] == ["CREATED"]
    assert [row["success"] for row in ray.list("runtime-envs")] == [True]
    ray_until(lambda: ray.list("tasks", "name=one", "state=FINISHED"), "the task's end is told")
    [task] = ray.list("tasks", "func_or_class_name=one")
    assert task["type"] == "NORMAL_TASK" and task["attempt_number"] == 0
    assert task["task_id"] in ray.run("get", "tasks", task["task_id"])
    assert "FINISHED: 1" in ray.run("summary", "tasks")
    assert "Counter" in ray.run("get", "actors", counters[1]._actor_id.hex())
    assert node_id in ray.run("get", "nodes", node_id)
    assert ref.hex() in ray.run("get", "objects", ref.hex())
    assert "ALIVE: 2" in ray.run("summary", "actors")
    assert "LOCAL_REFERENCE: 1" in ray.run("summary", "objects")
    assert "Invalid filter key" in ray.run("list", "actors", "--filter", "colour=red", code=2)
    shoal.util.remove_placement_group(group)


def jobs(ray: Ray, directory: Path) -> None:
    (directory / "program.py").write_text("import sys; print('hello', sys.argv[1]); sys.exit(int(sys.argv[2]))\n")
    submit = ("job", "submit", f"--working-dir={directory}")
    said = ray.run(*submit, "--submission-id=good", "--", "python", "program.py", "a", "0")
    assert "hello a" in said and "succeeded" in said
    ray.run(*submit, "--submission-id=bad", "--", "python", "program.py", "b", "3", code=1)
    assert "failed" in ray.run("job", "status", "bad")
    assert "hello a" in ray.run("job", "logs", "good")
    assert "good" in ray.run("job", "list")
    [row] = ray.list("jobs", "submission_id=good")
    assert row["status"] == "SUCCEEDED"
    ray.run("job", "delete", "good")


def main(given: list[str]) -> int:
    python = Path(given[0], "bin", "python") if given else environment("ray-clients", *RAY)
    with tempfile.TemporaryDirectory(prefix="sl-") as name:
        home, program = Path(name, "home"), Path(name, "program")
        home.mkdir()
        program.mkdir()
        with shoal.init(address="local", num_cpus=2, include_dashboard=True, logging_level="ERROR") as context:
            token = Path(context["session_dir"], "auth_token").read_text().strip()
            ray = Ray(python.parent / "ray", f"http://{context.dashboard_url}", token, home)
            states(ray, context["node_id"])
            jobs(ray, program)
    print("Ray's clients find what they expect")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
